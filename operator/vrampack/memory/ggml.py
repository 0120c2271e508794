"""The number formats of GGML: how many bytes a row of a tensor takes in each.

Numbers and block sizes: ``enum ggml_type`` and ``ggml-common.h`` of ggml. A format packs a fixed count of elements of a
row into a block of a fixed size; rows are whole blocks.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class GgmlType:
    """One format: ``block`` elements take ``bytes`` bytes."""

    number: int
    """As GGUF files write it."""
    name: str
    block: int
    bytes: int

    @property
    def quantized(self) -> bool:
        """Whether several elements share a scale."""
        return self.block > 1

    def row_bytes(self, elements: int) -> int:
        """Bytes of a row. Raises ValueError where it is not whole blocks: ggml has no such tensor."""
        if elements % self.block:
            raise ValueError(f"{elements} elements are no whole blocks of {self.block} of {self.name}")
        return elements // self.block * self.bytes


_TYPES: Final = (
    GgmlType(0, "f32", 1, 4),
    GgmlType(1, "f16", 1, 2),
    GgmlType(2, "q4_0", 32, 18),
    GgmlType(3, "q4_1", 32, 20),
    GgmlType(6, "q5_0", 32, 22),
    GgmlType(7, "q5_1", 32, 24),
    GgmlType(8, "q8_0", 32, 34),
    GgmlType(9, "q8_1", 32, 36),
    GgmlType(10, "q2_k", 256, 84),
    GgmlType(11, "q3_k", 256, 110),
    GgmlType(12, "q4_k", 256, 144),
    GgmlType(13, "q5_k", 256, 176),
    GgmlType(14, "q6_k", 256, 210),
    GgmlType(15, "q8_k", 256, 292),
    GgmlType(16, "iq2_xxs", 256, 66),
    GgmlType(17, "iq2_xs", 256, 74),
    GgmlType(18, "iq3_xxs", 256, 98),
    GgmlType(19, "iq1_s", 256, 50),
    GgmlType(20, "iq4_nl", 32, 18),
    GgmlType(21, "iq3_s", 256, 110),
    GgmlType(22, "iq2_s", 256, 82),
    GgmlType(23, "iq4_xs", 256, 136),
    GgmlType(24, "i8", 1, 1),
    GgmlType(25, "i16", 1, 2),
    GgmlType(26, "i32", 1, 4),
    GgmlType(27, "i64", 1, 8),
    GgmlType(28, "f64", 1, 8),
    GgmlType(29, "iq1_m", 256, 56),
    GgmlType(30, "bf16", 1, 2),
    GgmlType(34, "tq1_0", 256, 54),
    GgmlType(35, "tq2_0", 256, 66),
    GgmlType(39, "mxfp4", 32, 17),
    GgmlType(40, "nvfp4", 64, 36),
    GgmlType(41, "q1_0", 128, 18),
    GgmlType(42, "q2_0", 64, 18),
)

GGML_TYPES: Final = MappingProxyType({each.name: each for each in _TYPES})
"""By name."""

GGML_NUMBERS: Final = MappingProxyType({each.number: each for each in _TYPES})
"""By the number in a GGUF file. Numbers that are missing were withdrawn."""

CACHE_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""What ``--cache-type-k`` and ``--cache-type-v`` accept."""
