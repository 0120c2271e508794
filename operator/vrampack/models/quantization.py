"""Which precision a checkpoint is stored in, from its configuration: the word of ``spec.precision.weights``, and how
its matrices are laid out.

The settings stand in ``quantization_config`` (or ``compression_config``) of config.json, or of its text part, or in
the side file ``hf_quant_config.json`` that ModelOpt writes.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.weightformat import DEFAULT_FORMATS, WeightFormat
from vrampack.models.fields import Fields
from vrampack.models.kvdtype import kv_cache_dtype_of
from vrampack.models.modulenames import ModuleNames

_COMPUTATION: Final[dict[str, str]] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_PLAIN_TYPES: Final = frozenset({"F64", "F32", "F16", "BF16"})
_MAX_BITS: Final = 16
_MAX_GROUP: Final = 65_536
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


def quantization_of(
    config: Mapping[str, object], *, quant_config: Mapping[str, object] | None = None
) -> Quantization | None:
    """What a config.json, and the side file ``hf_quant_config.json`` where there is one, say of quantization.

    None: nothing is quantized. Raises UnsupportedModelError for formats whose layout is not known, and
    InvalidInputError for values of a wrong type.
    """
    settings = _settings(config, quant_config)
    if settings is None:
        return None
    method = (settings.text("quant_method") or ("modelopt" if settings.get("quant_algo") else "")).lower()
    if method.startswith("modelopt"):
        method = "modelopt"
    if settings.get("quantized_layers"):
        method = "modelopt"  # a file may name the method of the layers that are not listed
    reader = _READERS.get(method)
    if reader is None:
        raise UnsupportedModelError(
            unknown=f"quantization_config.quant_method {method or None}",
            detail="the layout of its weights is not known yet",
        )
    found = replace(reader(settings), kv_cache=_kv_cache(config, quant_config))
    if method == "fp8" and Fields(config).get("expert_dtype") == "fp4":  # DeepSeek V4: the experts alone
        experts = (ModuleNames.of(("experts",)), _MXFP4)
        return replace(found, precision="mxfp4", others=(experts, *found.others))
    return found


def _kv_cache(config: Mapping[str, object], quant_config: Mapping[str, object] | None) -> str:
    root = Fields(config)
    return kv_cache_dtype_of(root, root.below("text_config") or root, quant_config)


def precision_of(
    config: Mapping[str, object],
    *,
    dtype: str,
    matrix_types: Set[str],
    quant_config: Mapping[str, object] | None = None,
) -> str:
    """The precision of the weights as they are served.

    Without a quantization it is the computation type ``dtype``, whatever the files hold: the engine converts as it
    loads. ``matrix_types`` are the types of the tensors with two dimensions or more.
    Raises UnsupportedModelError for formats whose memory is not known.
    """
    quantization = quantization_of(config, quant_config=quant_config)
    if quantization is not None:
        return quantization.precision
    others = matrix_types - _PLAIN_TYPES
    if others:
        raise UnsupportedModelError(
            unknown="quantization_config",
            detail=f"config.json names no quantization, but the weights hold {', '.join(sorted(others))}",
        )
    return _COMPUTATION[dtype]


def _settings(config: Mapping[str, object], quant_config: Mapping[str, object] | None) -> Fields | None:
    root = Fields(config)
    for fields in (root, *(part for name in _TEXT_PARTS if (part := root.below(name)) is not None)):
        for name in ("quantization_config", "compression_config"):
            if (settings := fields.below(name)) is not None:
                return settings
    if quant_config is None:
        return None
    side = Fields(quant_config, path="hf_quant_config.json:")
    return side.below("quantization") or (side if side.get("quant_algo") else None)


_TEXT_PARTS: Final = ("text_config", "llm_config", "language_config", "thinker_config")


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
        precision="awq", bits=bits, group=_group(settings, "group_size", "q_group_size"), zero_bits=zeros
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
        group=_group(settings, "group_size"),
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
        if layout not in _LAYOUTS:
            raise UnsupportedModelError(
                unknown=f"quantization_config.format {layout}", detail="the layout of its weights is not known yet"
            )
        return _made(settings, _LAYOUTS[layout], method="compressed-tensors", plain=("ignore",))
    found: list[tuple[tuple[str, ...], WeightFormat]] = []
    for name in _keys(settings, "config_groups"):
        group = groups.below(name)
        weights = None if group is None else group.below("weights")
        if group is None or weights is None:
            continue
        targets = tuple(_names(group, "targets")) or ("Linear",)
        found.append((targets, _group_form(weights, group.text("format") or layout)))
    return _grouped(settings, found, method="compressed-tensors", plain=("ignore",))


def _modelopt(settings: Fields) -> Quantization:
    """One algorithm for all linear layers, or one for each layer that is named."""
    plain = ("ignore", "exclude_modules")
    layers = settings.below("quantized_layers")
    if layers is not None:
        by_algorithm: dict[str, list[str]] = {}
        for name in _keys(settings, "quantized_layers"):
            layer = layers.below(name)
            algorithm = "" if layer is None else layer.text("quant_algo") or ""
            by_algorithm.setdefault(algorithm, []).append(name)
        found = [(tuple(names), _algorithm(algorithm)) for algorithm, names in by_algorithm.items()]
        return _grouped(settings, found, method="modelopt", plain=plain)
    return _made(settings, _algorithm(settings.text("quant_algo") or ""), method="modelopt", plain=plain)


def _algorithm(name: str) -> WeightFormat:
    form = _ALGORITHMS.get(name.upper())
    if form is None:
        raise UnsupportedModelError(
            unknown=f"quantization_config.quant_algo {name or None}",
            detail="the layout of its weights is not known yet",
        )
    return form


def _group_form(weights: Fields, layout: str) -> WeightFormat:
    bits = weights.size(("num_bits",), least=2, most=_MAX_BITS)
    kind, strategy = weights.text("type") or "int", weights.text("strategy")
    group = _group(weights, "group_size")
    if strategy == "block":
        block = weights.numbers("block_structure") or [128, 128]
        return WeightFormat(precision="fp8", bits=bits, group=block[-1], group_rows=block[0], scale_bytes=4)
    if strategy in ("tensor", "channel") or (strategy is None and not group):
        group = -1 if strategy == "tensor" else 0
    zeros = 0 if weights.flag("symmetric", default=True) else bits
    match kind, bits:
        case "float", 8:
            return WeightFormat(precision="fp8", bits=8, group=group, scale_bytes=4)
        case "float", 4 if group == 16:
            return DEFAULT_FORMATS["nvfp4"]
        case "float", 4:
            return _MXFP4
        case "int", 8 if layout != "pack-quantized":
            return WeightFormat(precision="int8", bits=8, group=group, scale_bytes=4)
        case "int", 8:
            return WeightFormat(precision="int8", bits=8, group=group, zero_bits=zeros)
        case "int", 4:
            return WeightFormat(precision="int4", bits=4, group=group, zero_bits=zeros)
        case _:
            raise UnsupportedModelError(
                unknown=f"quantization_config.config_groups {kind} {bits}",
                detail="the layout of its weights is not known yet",
            )


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


def _group(settings: Fields, *names: str) -> int:
    """Inputs that share a scale; 0 where all of an output do (-1 or null in the file)."""
    size = settings.size(names, least=-1, most=_MAX_GROUP, default=-1)
    return max(0, size)


_MXFP4: Final = WeightFormat(precision="mxfp4", bits=4, group=32, scale_bytes=1)
_LAYOUTS: Final[dict[str, WeightFormat]] = {
    "float-quantized": DEFAULT_FORMATS["fp8"],
    "int-quantized": DEFAULT_FORMATS["int8"],
    "nvfp4-pack-quantized": DEFAULT_FORMATS["nvfp4"],
    "mxfp4-pack-quantized": _MXFP4,
}
_ALGORITHMS: Final[dict[str, WeightFormat]] = {
    "FP8": WeightFormat(precision="fp8", bits=8, group=-1),
    "FP8_PER_CHANNEL_PER_TOKEN": WeightFormat(precision="fp8", bits=8, scale_bytes=4),
    "FP8_PB_WO": WeightFormat(precision="fp8", bits=8, group=128, group_rows=128, scale_bytes=4),
    "MXFP8": WeightFormat(precision="fp8", bits=8, group=32, scale_bytes=1),
    "NVFP4": DEFAULT_FORMATS["nvfp4"],
    "NVFP4_AWQ": DEFAULT_FORMATS["nvfp4"],
    "W4A16_NVFP4": DEFAULT_FORMATS["nvfp4"],
    "MXFP4": _MXFP4,
    "W4A16_AWQ": WeightFormat(precision="awq", bits=4, group=128),
    "W4A8_AWQ": WeightFormat(precision="awq", bits=4, group=128),
    "INT8_SQ": WeightFormat(precision="int8", bits=8, scale_bytes=4),
    "INT8_WO": WeightFormat(precision="int8", bits=8, scale_bytes=4),
}
"""ModelOpt's ``quant_algo``."""

_READERS: Final[dict[str, Callable[[Fields], Quantization]]] = {
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
