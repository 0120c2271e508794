"""The methods of quantization, each with its own words in ``quantization_config``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.weightformat import DEFAULT_FORMATS, WeightFormat
from vrampack.models.fields import Fields
from vrampack.models.modulenames import ModuleNames
from vrampack.models.quantformats import LAYOUTS, algorithm, group_form, group_size

_MAX_MODULES: Final = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How the matrices of a checkpoint are stored."""

    precision: str
    """Of most matrices, as ``spec.precision.weights`` names it."""
    method: str
    """As the file names it: fp8, awq, gptq, compressed-tensors, modelopt, mxfp4, bitsandbytes, …"""
    form: WeightFormat
    """Layout of most matrices."""
    kv_cache: str = ""
    """What the checkpoint makes of the KV cache: ``fp8``, ``int8``, ``nvfp4``; empty: nothing."""
    activation_order: bool = False
    """GPTQ quantized its columns by importance: an index of each input is loaded."""
    plain: ModuleNames = field(default_factory=ModuleNames)
    """Modules that are not quantized."""
    others: tuple[tuple[ModuleNames, WeightFormat], ...] = ()
    """Modules that are stored in another way than most."""
    named_only: bool = False
    """Nothing but those is quantized."""

    @property
    def bits(self) -> int:
        """Of one element of most matrices, without scales."""
        return self.form.bits

    @property
    def group(self) -> int:
        """Inputs that share a scale in most matrices; 0: a scale for each output; -1: one for the matrix."""
        return self.form.group

    @property
    def least_bits(self) -> int:
        """Of one element of the matrices with the fewest: what is packed into the files' integers."""
        return min(self.form.bits, *(form.bits for _, form in self.others)) if self.others else self.form.bits

    def form_of(self, layer: int, name: str) -> WeightFormat | None:
        """How the matrix ``name`` (``self_attn.q_proj``) of a layer is stored; None: in the computation type."""
        if self.plain.have(layer, name):
            return None
        for names, form in self.others:
            if names.have(layer, name):
                return form
        return None if self.named_only else self.form


def _fp8(settings: Fields) -> Quantization:
    """One scale for each block of the weights, or one for the whole matrix."""
    block = settings.numbers("weight_block_size")
    form = WeightFormat(precision="fp8", bits=8, group=-1)
    if block is not None:
        if len(block) != 2 or min(block) < 1:
            raise settings.refusal("weight_block_size", block, "a block's rows and columns")
        form = WeightFormat(precision="fp8", bits=8, group=block[1], group_rows=block[0], scale_bytes=4)
    return _made(settings, form, method="fp8", plain=("modules_to_not_convert", "ignored_layers"))


def _fbgemm(settings: Fields) -> Quantization:
    form = WeightFormat(precision="fp8", bits=8, scale_bytes=4)
    return _made(settings, form, method="fbgemm_fp8", plain=("modules_to_not_convert",))


def _awq(settings: Fields) -> Quantization:
    bits = settings.size(("bits", "w_bit"), least=2, most=8, default=4)
    zeros = bits if settings.flag("zero_point", default=True) else 0
    form = WeightFormat(
        precision="awq", bits=bits, group=group_size(settings, "group_size", "q_group_size"), zero_bits=zeros
    )
    return _made(settings, form, method="awq", plain=("modules_to_not_convert",))


def _gptq(settings: Fields) -> Quantization:
    """The files hold zero points and an index of each input always; engines drop what they do not need."""
    bits = settings.size(("bits",), least=2, most=8)
    ordered = settings.flag("desc_act", default=False)
    symmetric = settings.flag("sym", default=True)
    form = WeightFormat(
        precision="gptq",
        bits=bits,
        group=group_size(settings, "group_size"),
        zero_bits=0 if symmetric else bits,
        index_bytes=4 if ordered else 0,
    )
    return _made(settings, form, method="gptq", plain=("modules_to_not_convert",), activation_order=ordered)


def _bitsandbytes(settings: Fields) -> Quantization:
    """Four bits in blocks of 64 whose scales engines hold in fp32; eight bits with a scale for each output."""
    eight = settings.flag("load_in_8bit", default=False)
    form = WeightFormat(precision="bitsandbytes", bits=8, scale_bytes=4) if eight else DEFAULT_FORMATS["bitsandbytes"]
    return _made(settings, form, method="bitsandbytes", plain=("llm_int8_skip_modules",))


def _mxfp4(settings: Fields) -> Quantization:
    return _made(settings, DEFAULT_FORMATS["mxfp4"], method="mxfp4", plain=("modules_to_not_convert",))


def _compressed(settings: Fields) -> Quantization:
    """One layout for all linear layers, or one for each group of them."""
    groups = settings.below("config_groups")
    layout = settings.text("format") or ""
    if groups is None:
        if layout not in LAYOUTS:
            raise UnsupportedModelError(
                unknown=f"quantization_config.format {layout}", detail="the layout of its weights is not known yet"
            )
        return _made(settings, LAYOUTS[layout], method="compressed-tensors", plain=("ignore",))
    found: list[tuple[tuple[str, ...], WeightFormat]] = []
    for name in _keys(settings, "config_groups"):
        group = groups.below(name)
        weights = None if group is None else group.below("weights")
        if group is None or weights is None:
            continue
        targets = tuple(_names(group, "targets")) or ("Linear",)
        found.append((targets, group_form(weights, group.text("format") or layout)))
    return _grouped(settings, found, method="compressed-tensors", plain=("ignore",))


def _modelopt(settings: Fields) -> Quantization:
    """One algorithm for all linear layers, or one for each layer that is named."""
    plain = ("ignore", "exclude_modules")
    layers = settings.below("quantized_layers")
    if layers is not None:
        by_algorithm: dict[str, list[str]] = {}
        for name in _keys(settings, "quantized_layers"):
            layer = layers.below(name)
            named = "" if layer is None else layer.text("quant_algo") or ""
            by_algorithm.setdefault(named, []).append(name)
        found = [(tuple(names), algorithm(named)) for named, names in by_algorithm.items()]
        return _grouped(settings, found, method="modelopt", plain=plain)
    return _made(settings, algorithm(settings.text("quant_algo") or ""), method="modelopt", plain=plain)


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
        return _made(settings, smallest, method=method, plain=plain)
    others = tuple((ModuleNames.of(names), form) for names, form in found if "Linear" not in names)
    rest = next((form for names, form in found if "Linear" in names), None)
    made = _made(settings, rest or smallest, method=method, plain=plain, others=others, named_only=rest is None)
    return replace(made, precision=smallest.precision)


def _made(
    settings: Fields,
    form: WeightFormat,
    *,
    method: str,
    plain: tuple[str, ...],
    others: tuple[tuple[ModuleNames, WeightFormat], ...] = (),
    activation_order: bool = False,
    named_only: bool = False,
) -> Quantization:
    names = [name for field in plain for name in _names(settings, field)]
    return Quantization(
        precision=form.precision,
        method=method,
        form=form,
        activation_order=activation_order,
        plain=ModuleNames.of(names),
        others=others,
        named_only=named_only,
    )


def _keys(settings: Fields, name: str) -> list[str]:
    value = settings.get(name)
    if not isinstance(value, Mapping) or len(value) > _MAX_MODULES or not all(isinstance(key, str) for key in value):
        raise settings.refusal(name, value, "an object with a name for each group of modules")
    return list(value)


def _names(settings: Fields, name: str) -> list[str]:
    value = settings.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MAX_MODULES or not all(isinstance(item, str) for item in value):
        raise settings.refusal(name, value, "a list of module names")
    return value


READERS: Final[dict[str, Callable[[Fields], Quantization]]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "awq": _awq,
    "awq_marlin": _awq,
    "gptq": _gptq,
    "gptq_marlin": _gptq,
    "auto-round": _gptq,
    "intel/auto-round": _gptq,
    "bitsandbytes": _bitsandbytes,
    "mxfp4": _mxfp4,
    "gpt_oss_mxfp4": _mxfp4,
    "compressed-tensors": _compressed,
    "compressed_tensors": _compressed,
    "modelopt": _modelopt,
}
"""By ``quant_method``. Each raises UnsupportedModelError and InvalidInputError as `quantization_of` does."""
