"""GGUF files for tests, written byte by byte."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vrampack.memory.ggml import GGML_TYPES
from vrampack.units import round_up


@dataclass(frozen=True, slots=True)
class Raw:
    """A value with the type code and bytes that are to be written, whatever they are."""

    code: int
    content: bytes


Value = bool | int | float | str | Sequence[bool] | Sequence[int] | Sequence[float] | Sequence[str] | Raw
Tensor = tuple[str, tuple[int, ...]]
"""Type and shape, the row's length first."""


def gguf(
    metadata: Mapping[str, Value], tensors: Mapping[str, Tensor] | None = None, *, version: int = 3, data: bool = True
) -> bytes:
    """A file; without ``data`` it ends where the tensors would begin."""
    table = tensors or {}
    out = b"GGUF" + struct.pack("<IQQ", version, len(table), len(metadata))
    out += b"".join(text(key) + value(each) for key, each in metadata.items())
    at = 0
    for name, (kind, shape) in table.items():
        size = GGML_TYPES[kind].row_bytes(shape[0])
        for dimension in shape[1:]:
            size *= dimension
        out += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        out += struct.pack("<IQ", GGML_TYPES[kind].number, at)
        at += round_up(size, 32)
    if not table:
        return out
    out += bytes(-len(out) % 32)
    return out + bytes(at) if data else out


def text(content: str) -> bytes:
    return struct.pack("<Q", len(content.encode())) + content.encode()


def value(content: Value) -> bytes:
    match content:
        case Raw():
            return struct.pack("<I", content.code) + content.content
        case str():
            return struct.pack("<I", 8) + text(content)
        case bool() | int() | float():
            code, form = _kind(content)
            return struct.pack(f"<I{form}", code, content)
        case _:
            if content and isinstance(content[0], str):
                return struct.pack("<IIQ", 9, 8, len(content)) + b"".join(text(str(each)) for each in content)
            code, form = _kind(content[0] if content else 0)  # type: ignore[arg-type]
            return struct.pack(f"<IIQ{len(content)}{form}", 9, code, len(content), *content)


def _kind(content: bool | int | float) -> tuple[int, str]:
    if isinstance(content, bool):
        return 7, "?"
    return (4, "I") if isinstance(content, int) else (6, "f")
