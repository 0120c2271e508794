"""How a matrix is stored: bits of an element, and the scales and zero points that come with it."""

from dataclasses import dataclass
from typing import Final

from vrampack.memory.constants import DTYPE_BYTES


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

    def bytes_of(self, rows: int, columns: int) -> int:
        """Bytes of a matrix of ``rows`` outputs and ``columns`` inputs with all that belongs to it."""
        scales = self._scales(rows, columns)
        packed = -(-rows * columns * self.bits // 8)
        return packed + scales * self.scale_bytes + -(-scales * self.zero_bits // 8) + columns * self.index_bytes

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
    "mxfp4": WeightFormat(precision="mxfp4", bits=4, group=32, scale_bytes=1, experts_only=True),
    "nvfp4": WeightFormat(precision="nvfp4", bits=4, group=16, scale_bytes=1),
}
"""What a precision means where the configuration says no more: the usual settings of the tool that writes it."""


def format_of(precision: str, *, dtype: str) -> WeightFormat:
    """The usual layout of ``precision``; of fp32, fp16 and bf16 the computation type's."""
    return DEFAULT_FORMATS.get(precision) or plain(precision, dtype)
