"""How a matrix is stored: bits of an element, and the scales and zero points that come with it."""

from dataclasses import dataclass
from typing import Final

from vrampack.memory.constants import DTYPE_BYTES

MXFP4_INNER_ALIGN: Final = 128
MXFP4_OUTER_ALIGN: Final = 256
"""Read: what vLLM pads MXFP4 experts to for its Marlin kernel, which all GPUs can have (``Mxfp4MoEMethod``). Its
Triton kernel on Hopper pads less, FlashInfer's on Blackwell pads the inner width to 256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormat:
    """Of the quantized matrices of a checkpoint. All others are stored in the computation type."""

    precision: str
    """As ``spec.precision.weights`` names it."""
    bits: int
    """Of one element."""
    group: int = 0
    """Inputs that share a scale; 0: one scale for each output; -1: one for the whole matrix."""
    group_rows: int = 1
    """Outputs that share a scale (128 in a block of 128 by 128)."""
    scale_bytes: int = 2
    zero_bits: int = 0
    """Bits of the zero point that each scale has; 0: symmetric."""
    index_bytes: int = 0
    """Of an entry that each input has: the order of activations of GPTQ."""
    experts_only: bool = False
    """Only routed experts are quantized (gpt-oss)."""

    inner_align: int = 0
    """Experts: the engine pads the inner width of a rank's share to a multiple of this …"""
    outer_align: int = 0
    """… and the hidden size to a multiple of this."""

    def matrix_bytes(self, rows: int, columns: int) -> int:
        """Bytes of the elements of a matrix of ``rows`` outputs and ``columns`` inputs."""
        return -(-rows * columns * self.bits // 8)

    def side_bytes(self, rows: int, columns: int) -> int:
        """Bytes of its scales, zero points and order."""
        scales = self._scales(rows, columns)
        return scales * self.scale_bytes + -(-scales * self.zero_bits // 8) + columns * self.index_bytes

    def _scales(self, rows: int, columns: int) -> int:
        if self.bits >= 16 or self.group < 0:
            return 0
        groups = -(-columns // self.group) if self.group else 1
        return groups * -(-rows // self.group_rows)


def plain(precision: str, dtype: str) -> WeightFormat:
    """Nothing is quantized: the computation type's own bytes."""
    return WeightFormat(precision=precision, bits=8 * DTYPE_BYTES[dtype])


DEFAULT_FORMATS: Final[dict[str, WeightFormat]] = {
    "fp8": WeightFormat(precision="fp8", bits=8, scale_bytes=4),
    "int8": WeightFormat(precision="int8", bits=8),
    "int4": WeightFormat(precision="int4", bits=4, group=128),
    "awq": WeightFormat(precision="awq", bits=4, group=128, zero_bits=4),
    "gptq": WeightFormat(precision="gptq", bits=4, group=128, zero_bits=4),
    "bitsandbytes": WeightFormat(precision="bitsandbytes", bits=4, group=64, scale_bytes=4),
    "mxfp4": WeightFormat(
        precision="mxfp4",
        bits=4,
        group=32,
        scale_bytes=1,
        experts_only=True,
        inner_align=MXFP4_INNER_ALIGN,
        outer_align=MXFP4_OUTER_ALIGN,
    ),
    "nvfp4": WeightFormat(precision="nvfp4", bits=4, group=16, scale_bytes=1),
}
"""What a precision means where the configuration says no more: the usual settings of the tool that writes it."""


def format_of(precision: str, *, dtype: str) -> WeightFormat:
    """The usual layout of ``precision``; of fp32, fp16 and bf16 the computation type's."""
    return DEFAULT_FORMATS.get(precision) or plain(precision, dtype)
