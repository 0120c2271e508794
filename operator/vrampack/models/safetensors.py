"""Headers of safetensors files: which tensors a file holds, without reading one of them.

A file is eight bytes of length, a JSON header of that length, and the tensors without gaps. Pure; the bytes are a
stranger's. Format: https://huggingface.co/docs/safetensors/index#format
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeGuard

from vrampack.errors import ModelSourceError

PREFIX_BYTES: Final = 8
MAX_HEADER_BYTES: Final = 25_000_000
"""As huggingface_hub: the largest header that is read. The format's own limit is 100 MB; real ones are below 3 MB."""

DTYPE_BITS: Final[dict[str, int]] = {
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "F16": 16,
    "BF16": 16,
    "I16": 16,
    "U16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
"""Bits of one element."""

_MAX_TENSORS: Final = 200_000
_MAX_VALUES: Final = 4_000_000
"""Real files have some thousand tensors of at most five values each."""
_MAX_RANK: Final = 16
_MAX_NAME: Final = 1024
_MAX_ELEMENTS: Final = 2**48


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor of a file."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def header_length(prefix: bytes, *, file: str) -> int:
    """Bytes of the JSON header, from the first eight of the file. Raises ModelSourceError for an impossible length."""
    if len(prefix) < PREFIX_BYTES:
        raise _invalid(file, f"it has {len(prefix)} bytes")
    length: int = struct.unpack("<Q", prefix[:PREFIX_BYTES])[0]
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise _invalid(file, f"its header claims {length} bytes")
    return length


def parse_header(header: bytes, *, file: str, file_bytes: int) -> dict[str, Tensor]:
    """The tensors of a file of ``file_bytes``, by name.

    Raises ModelSourceError unless types, shapes and offsets agree with each other and with the file's size.
    """
    if header.count(b"{") > _MAX_TENSORS or header.count(b",") + header.count(b"[") > _MAX_VALUES:
        raise _invalid(file, f"its header has more than {_MAX_TENSORS} tensors")  # before any of them takes memory
    try:
        content = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise _invalid(file, "its header is no JSON") from error
    if not isinstance(content, dict):
        raise _invalid(file, "its header is no JSON object")
    content.pop("__metadata__", None)
    tensors: dict[str, Tensor] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in content.items():
        tensors[name], span = _tensor(name, entry, file=file)
        spans.append(span)
    end = 0
    for begin, after in sorted(spans):
        if begin != end:
            raise _invalid(file, "its tensors overlap or leave gaps")
        end = after
    if PREFIX_BYTES + len(header) + end != file_bytes:
        raise _invalid(
            file, f"its header describes {PREFIX_BYTES + len(header) + end} bytes, the file has {file_bytes}"
        )
    return tensors


def _tensor(name: str, entry: object, *, file: str) -> tuple[Tensor, tuple[int, int]]:
    shown = name[:100]
    if len(name) > _MAX_NAME or not isinstance(entry, Mapping):
        raise _invalid(file, f"tensor {shown!r} is no entry of a header")
    dtype, shape, offsets = (entry.get(field) for field in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _invalid(file, f"tensor {shown!r} has an unknown type")
    if not _are_counts(shape) or len(shape) > _MAX_RANK or math.prod(shape) > _MAX_ELEMENTS:
        raise _invalid(file, f"tensor {shown!r} has an impossible shape")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _invalid(file, f"tensor {shown!r} has impossible offsets")
    begin, end = offsets
    if (end - begin) * 8 != math.prod(shape) * DTYPE_BITS[dtype]:
        raise _invalid(file, f"tensor {shown!r} has other bytes than its shape and type say")
    return Tensor(dtype=dtype, shape=tuple(shape), bytes=end - begin), (begin, end)


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(each) is int and 0 <= each <= _MAX_ELEMENTS for each in value)


def _invalid(file: str, why: str) -> ModelSourceError:
    return ModelSourceError(
        f"{file} is no valid safetensors file: {why}. Upload it again, or use another revision.",
        reason="ModelFilesInvalid",
        retriable=False,
    )
