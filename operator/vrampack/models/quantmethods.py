"""The methods of quantization, each with its own words in ``quantization_config``."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.weightformat import DEFAULT_FORMATS, WeightFormat
from vrampack.models.fields import Fields
from vrampack.models.modulenames import ModuleNames
from vrampack.models.packedintegers import autoround, gptq
from vrampack.models.quantformats import LAYOUTS, algorithm, group_form, group_size
from vrampack.models.quantscheme import Quantization, Rules, keys_of, made, names_of

_MIXED: Final = "MIXED_PRECISION"


def _fp8(settings: Fields) -> Quantization:
    """One scale for each block of the weights, or one for the whole matrix."""
    block = settings.numbers("weight_block_size")
    form = WeightFormat(precision="fp8", bits=8, group=-1)
    if block is not None:
        if len(block) != 2 or min(block) < 1:
            raise settings.refusal("weight_block_size", block, "a block's rows and columns")
        form = WeightFormat(precision="fp8", bits=8, group=block[1], group_rows=block[0], scale_bytes=4)
    return made(settings, form, method="fp8", plain=("modules_to_not_convert", "ignored_layers"))


def _fbgemm(settings: Fields) -> Quantization:
    form = WeightFormat(precision="fp8", bits=8, scale_bytes=4)
    return made(settings, form, method="fbgemm_fp8", plain=("modules_to_not_convert",))


def _awq(settings: Fields) -> Quantization:
    bits = settings.size(("bits", "w_bit"), least=2, most=8, default=4)
    zeros = bits if settings.flag("zero_point", default=True) else 0
    form = WeightFormat(
        precision="awq", bits=bits, group=group_size(settings, "group_size", "q_group_size"), zero_bits=zeros
    )
    return made(settings, form, method="awq", plain=("modules_to_not_convert",))


def _bitsandbytes(settings: Fields) -> Quantization:
    """Four bits in blocks of 64 whose scales engines hold in fp32; eight bits with a scale for each output."""
    eight = settings.flag("load_in_8bit", default=False)
    form = WeightFormat(precision="bitsandbytes", bits=8, scale_bytes=4) if eight else DEFAULT_FORMATS["bitsandbytes"]
    return made(settings, form, method="bitsandbytes", plain=("llm_int8_skip_modules",))


def _mxfp4(settings: Fields) -> Quantization:
    return made(settings, DEFAULT_FORMATS["mxfp4"], method="mxfp4", plain=("modules_to_not_convert",))


def _compressed(settings: Fields) -> Quantization:
    """One layout for all linear layers, or one for each group of them."""
    layout = settings.text("format") or ""
    if settings.below("config_groups") is None:
        if layout not in LAYOUTS:
            raise UnsupportedModelError(
                unknown=f"quantization_config.format {layout}", detail="the layout of its weights is not known yet"
            )
        return made(settings, LAYOUTS[layout], method="compressed-tensors", plain=("ignore",))
    return _grouped(settings, _groups(settings, layout), method="compressed-tensors", plain=("ignore",))


def _groups(settings: Fields, layout: str) -> list[tuple[tuple[str, ...], WeightFormat]]:
    """Each group's targets, and how they are stored."""
    groups = settings.below("config_groups")
    found: list[tuple[tuple[str, ...], WeightFormat]] = []
    for name in keys_of(settings, "config_groups") if groups else ():
        group = groups.below(name) if groups else None
        weights = None if group is None else group.below("weights")
        if group is None or weights is None:
            continue
        targets = tuple(names_of(group, "targets")) or ("Linear",)
        found.append((targets, group_form(weights, group.text("format") or layout)))
    return found


def _modelopt(settings: Fields) -> Quantization:
    """One algorithm for all linear layers, or one for each layer that is named."""
    plain = ("ignore", "exclude_modules")
    layers = settings.below("quantized_layers")
    if layers is not None:
        by_algorithm: dict[str, list[str]] = {}
        for name in keys_of(settings, "quantized_layers"):
            layer = layers.below(name)
            named = "" if layer is None else layer.text("quant_algo") or ""
            by_algorithm.setdefault(named, []).append(name)
        found = [(tuple(names), algorithm(named)) for named, names in by_algorithm.items()]
        return _grouped(settings, found, method="modelopt", plain=plain)
    if settings.get("quant_algo") == _MIXED and settings.below("config_groups") is not None:
        return _grouped(settings, _groups(settings, ""), method="modelopt", plain=plain)
    uniform = made(settings, algorithm(settings.text("quant_algo") or ""), method="modelopt", plain=plain)
    return replace(uniform, listed=any(settings.get(name) is not None for name in plain))


def _grouped(
    settings: Fields,
    found: list[tuple[tuple[str, ...], WeightFormat]],
    *,
    method: str,
    plain: tuple[str, ...],
) -> Quantization:
    """The word is that of the group with the fewest bits: it is why the checkpoint was made."""
    if not found:
        raise UnsupportedModelError(unknown="quantization_config.config_groups", detail="it names no group of weights")
    smallest = min((form for _, form in found), key=lambda form: form.bits)
    if len(found) == 1 and "Linear" in found[0][0]:
        return made(settings, smallest, method=method, plain=plain)
    others: Rules = tuple(
        (ModuleNames.of(names, setting="config_groups"), form) for names, form in found if "Linear" not in names
    )
    rest = next((form for names, form in found if "Linear" in names), None)
    mixed = made(settings, rest or smallest, method=method, plain=plain, others=others, named_only=rest is None)
    head = None if mixed.plain.have_head() else next((form for names, form in others if names.have_head()), None)
    return replace(mixed, precision=smallest.precision, head=head)


READERS: Final[dict[str, Callable[[Fields], Quantization]]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "awq": _awq,
    "awq_marlin": _awq,
    "gptq": gptq,
    "gptq_marlin": gptq,
    "auto-round": autoround,
    "intel/auto-round": autoround,
    "bitsandbytes": _bitsandbytes,
    "mxfp4": _mxfp4,
    "gpt_oss_mxfp4": _mxfp4,
    "compressed-tensors": _compressed,
    "compressed_tensors": _compressed,
    "modelopt": _modelopt,
}
"""By ``quant_method``. Each raises UnsupportedModelError and InvalidInputError as `quantization_of` does."""
