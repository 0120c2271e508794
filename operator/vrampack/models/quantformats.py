"""How quantized matrices lie in memory, by the words that configurations have for it."""

from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.weightformat import DEFAULT_FORMATS, WeightFormat
from vrampack.models.fields import Fields

_MAX_BITS: Final = 16
_MAX_GROUP: Final = 65_536

MXFP4: Final = WeightFormat(precision="mxfp4", bits=4, group=32, scale_bytes=1)
LAYOUTS: Final[dict[str, WeightFormat]] = {
    "float-quantized": DEFAULT_FORMATS["fp8"],
    "int-quantized": DEFAULT_FORMATS["int8"],
    "nvfp4-pack-quantized": DEFAULT_FORMATS["nvfp4"],
    "mxfp4-pack-quantized": MXFP4,
}
"""``format`` of compressed-tensors, where it says nothing more."""
_ALGORITHMS: Final[dict[str, WeightFormat]] = {
    "FP8": WeightFormat(precision="fp8", bits=8, group=-1),
    "FP8_PER_CHANNEL_PER_TOKEN": WeightFormat(precision="fp8", bits=8, scale_bytes=4),
    "FP8_PB_WO": WeightFormat(precision="fp8", bits=8, group=128, group_rows=128, scale_bytes=4),
    "MXFP8": WeightFormat(precision="fp8", bits=8, group=32, scale_bytes=1),
    "NVFP4": DEFAULT_FORMATS["nvfp4"],
    "NVFP4_AWQ": DEFAULT_FORMATS["nvfp4"],
    "W4A16_NVFP4": DEFAULT_FORMATS["nvfp4"],
    "MXFP4": MXFP4,
    "W4A16_AWQ": WeightFormat(precision="awq", bits=4, group=128),
    "W4A8_AWQ": WeightFormat(precision="awq", bits=4, group=128),
    "INT8_SQ": WeightFormat(precision="int8", bits=8, scale_bytes=4),
    "INT8_WO": WeightFormat(precision="int8", bits=8, scale_bytes=4),
}
"""ModelOpt's ``quant_algo``."""


def algorithm(name: str) -> WeightFormat:
    """By ``quant_algo`` of ModelOpt. Raises UnsupportedModelError for one that is not known."""
    form = _ALGORITHMS.get(name.upper())
    if form is None:
        raise UnsupportedModelError(
            unknown=f"quantization_config.quant_algo {name or None}",
            detail="the layout of its weights is not known yet",
        )
    return form


def group_form(weights: Fields, layout: str) -> WeightFormat:
    """Of a group of compressed-tensors: ``weights`` of it, and its ``format``.

    Raises UnsupportedModelError for a type and a number of bits whose layout is not known.
    """
    bits = weights.size(("num_bits",), least=2, most=_MAX_BITS)
    kind, strategy = weights.text("type") or "int", weights.text("strategy")
    group = group_size(weights, "group_size")
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
            return MXFP4
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


def group_size(settings: Fields, *names: str) -> int:
    """Inputs that share a scale; 0 where all of an output do (-1 or null in the file)."""
    size = settings.size(names, least=-1, most=_MAX_GROUP, default=-1)
    return max(0, size)
