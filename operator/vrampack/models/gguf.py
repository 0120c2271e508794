"""Headers of GGUF files: metadata and the table of tensors, without reading one tensor.

A file is a prefix of 24 bytes, typed key-value pairs, the table, and the tensors, each padded to the alignment. How
long the header is shows only while it is read, so it is read in ranges that grow. Pure; the bytes are a stranger's:
nothing that the file claims is believed before its bytes are there. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vrampack.errors import ModelSourceError
from vrampack.memory.ggml import GGML_NUMBERS, GgmlType
from vrampack.units import round_up

MAX_HEADER_BYTES: Final = 128 * 1024**2
"""The largest header that is read. Real ones are at most some 20 MB: the tokenizer's words."""

Fetch = Callable[[int, int], bytes]
"""``fetch(start, length)``: at most ``length`` bytes of the file from ``start`` on; fewer only where the file ends."""

Value = bool | int | float | str | tuple[bool | int | float, ...]

_VERSIONS: Final = (2, 3)
_FIRST_RANGE: Final = 256 * 1024
_LARGEST_RANGE: Final = 8 * 1024**2
_MAX_PAIRS: Final = 16_384
_MAX_TENSORS: Final = 262_144
_MAX_KEY: Final = 256
_MAX_NAME: Final = 64
_MAX_TEXT: Final = 8 * 1024**2
_MAX_STRINGS: Final = 2_097_152
"""Of all arrays together: words and merges of the largest vocabularies are some 800,000."""
_KEPT_TEXT: Final = 1024
_KEPT_ARRAY: Final = 4096
_MAX_RANK: Final = 4
_MAX_ELEMENTS: Final = 2**48
_ALIGNMENT: Final = 32
_STRING: Final = 8
_ARRAY: Final = 9
_BOOL: Final = 7
_NUMBERS: Final[Mapping[int, str]] = MappingProxyType(
    {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """One tensor of a file. ``shape`` is as ggml counts: the row's length first."""

    type: GgmlType
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What a file says of itself."""

    metadata: Mapping[str, Value]
    """Numbers, flags, short texts, and arrays of numbers of at most 4096 elements."""
    lengths: Mapping[str, int]
    """Elements of every array, kept or not: the words of a vocabulary are counted, not kept."""
    tensors: Mapping[str, GgufTensor]
    header_bytes: int
    """Before the first tensor, padding included."""
    data_bytes: int
    """Of all tensors, padding included."""


def read_header(fetch: Fetch, *, file: str, file_bytes: int) -> GgufHeader:
    """The header of a file of ``file_bytes``.

    Raises ModelSourceError, naming the file and the field, unless lengths, types, shapes and offsets agree with each
    other and with the file's size.
    """
    cursor = _Cursor(fetch, file=file, file_bytes=file_bytes)
    if cursor.take(4, "magic") != b"GGUF":
        raise cursor.invalid("it does not begin with GGUF")
    version = cursor.number("I", "version")
    if version not in _VERSIONS:
        raise cursor.invalid(f"version {version} is not 2 or 3 (a file in big-endian order can't be read either)")
    tensor_count = cursor.count("tensor_count", most=_MAX_TENSORS, least_bytes=24)
    pair_count = cursor.count("metadata_kv_count", most=_MAX_PAIRS, least_bytes=13)
    metadata: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    seen: set[str] = set()
    for _ in range(pair_count):
        key = cursor.text("a metadata key", most=_MAX_KEY)
        if not key or key in seen:
            raise cursor.invalid(f"metadata key {key!r} is {'there twice' if key else 'empty'}")
        seen.add(key)
        _read_value(cursor, key, metadata, lengths)
    alignment = _alignment(cursor, metadata)
    tensors, data_bytes = _read_tensors(cursor, tensor_count, alignment)
    header_bytes = round_up(cursor.position, alignment) if tensors else cursor.position
    if header_bytes + data_bytes > round_up(file_bytes, alignment):
        raise cursor.invalid(f"its tensors end at byte {header_bytes + data_bytes}, the file has {file_bytes} bytes")
    return GgufHeader(
        metadata=MappingProxyType(metadata),
        lengths=MappingProxyType(lengths),
        tensors=MappingProxyType(tensors),
        header_bytes=header_bytes,
        data_bytes=data_bytes,
    )


def _read_value(cursor: "_Cursor", key: str, metadata: dict[str, Value], lengths: dict[str, int]) -> None:
    kind = cursor.number("I", key)
    if kind in _NUMBERS:
        metadata[key] = cursor.scalar(kind, key)
    elif kind == _STRING:
        text = cursor.text(key, most=_MAX_TEXT)
        if len(text) <= _KEPT_TEXT:
            metadata[key] = text
    elif kind == _ARRAY:
        _read_array(cursor, key, metadata, lengths)
    else:
        raise cursor.invalid(f"{key} has the unknown type {kind}")


def _read_array(cursor: "_Cursor", key: str, metadata: dict[str, Value], lengths: dict[str, int]) -> None:
    kind = cursor.number("I", key)
    if kind == _STRING:
        length = cursor.count(key, most=_MAX_STRINGS, least_bytes=8)
        cursor.skip_strings(length, key)
    elif kind in _NUMBERS:
        size = struct.calcsize(_NUMBERS[kind])
        length = cursor.count(key, most=MAX_HEADER_BYTES // size, least_bytes=size)
        if length <= _KEPT_ARRAY:
            raw = cursor.take(size * length, key)
            if kind == _BOOL and raw.strip(b"\0\1"):
                raise cursor.invalid(f"{key} holds flags that are neither 0 nor 1")
            metadata[key] = struct.unpack(f"<{length}{_NUMBERS[kind]}", raw)
        else:
            cursor.skip(size * length, key)
    else:
        raise cursor.invalid(f"{key} is an array of the type {kind}: arrays hold numbers, flags or texts")
    lengths[key] = length


def _alignment(cursor: "_Cursor", metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= 2**20 or alignment & (alignment - 1):
        raise cursor.invalid(f"general.alignment is {str(alignment)[:40]}, which is no power of two up to 1048576")
    return alignment


def _read_tensors(cursor: "_Cursor", count: int, alignment: int) -> tuple[dict[str, GgufTensor], int]:
    tensors: dict[str, GgufTensor] = {}
    end = 0
    for _ in range(count):
        name = cursor.text("a tensor's name", most=_MAX_NAME)
        if name in tensors:
            raise cursor.invalid(f"tensor {name!r} is there twice")
        rank = cursor.number("I", name)
        if rank > _MAX_RANK:
            raise cursor.invalid(f"tensor {name!r} has {rank} dimensions, more than {_MAX_RANK}")
        shape: tuple[int, ...] = struct.unpack(f"<{rank}Q", cursor.take(8 * rank, name))
        number = cursor.number("I", name)
        if number not in GGML_NUMBERS:
            raise cursor.invalid(f"tensor {name!r} has the unknown type {number}")
        kind = GGML_NUMBERS[number]
        if math.prod(shape) > _MAX_ELEMENTS or any(each > _MAX_ELEMENTS for each in shape):
            raise cursor.invalid(f"tensor {name!r} has an impossible shape")
        row = shape[0] if shape else 1
        if row % kind.block:
            raise cursor.invalid(f"tensor {name!r} has rows of {row}, which are no whole blocks of {kind.name}")
        size = math.prod(shape) // kind.block * kind.bytes
        if cursor.number("Q", name) != end:
            raise cursor.invalid(f"tensor {name!r} does not begin where the one before it ends")
        end += round_up(size, alignment)
        tensors[name] = GgufTensor(type=kind, shape=shape, bytes=size)
    return tensors, end


class _Cursor:
    """Reads on through a file, holding one range of it."""

    def __init__(self, fetch: Fetch, *, file: str, file_bytes: int) -> None:
        self._fetch = fetch
        self._file = file
        self._file_bytes = file_bytes
        self._limit = min(file_bytes, MAX_HEADER_BYTES)
        self._held = b""
        self._at = 0
        self._held_from = 0
        self._range = _FIRST_RANGE
        self._strings = 0

    @property
    def position(self) -> int:
        return self._held_from + self._at

    def invalid(self, why: str) -> ModelSourceError:
        return ModelSourceError(
            f"{self._file} is no valid GGUF file: {why}. Upload it again, or use another revision.",
            reason="ModelFilesInvalid",
            retriable=False,
        )

    def take(self, length: int, field: str) -> bytes:
        """The next bytes. Raises ModelSourceError where the file, or what is read of a header, ends before."""
        self._need(length, field)
        taken = self._held[self._at : self._at + length]
        self._at += length
        return taken

    def skip(self, length: int, field: str) -> None:
        self._check(length, field)
        if self._at + length <= len(self._held):
            self._at += length
            return
        self._held_from, self._at, self._held = self.position + length, 0, b""

    def number(self, code: str, field: str) -> int:
        value: int = struct.unpack(f"<{code}", self.take(struct.calcsize(code), field))[0]
        return value

    def scalar(self, kind: int, field: str) -> bool | int | float:
        raw = self.take(struct.calcsize(_NUMBERS[kind]), field)
        if kind == _BOOL and raw not in (b"\0", b"\1"):
            raise self.invalid(f"{field} is a flag that is neither 0 nor 1")
        value: bool | int | float = struct.unpack(f"<{_NUMBERS[kind]}", raw)[0]
        return value

    def count(self, field: str, *, most: int, least_bytes: int) -> int:
        """How many entries follow, each of at least ``least_bytes``: never more than the file has room for."""
        count = self.number("Q", field)
        if count > most or count * least_bytes > self._limit - self.position:
            raise self.invalid(f"{field} claims {count} entries")
        return count

    def text(self, field: str, *, most: int) -> str:
        length = self.number("Q", field)
        if length > most:
            raise self.invalid(f"{field} claims a text of {length} bytes")
        raw = self.take(length, field)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.invalid(f"{field} holds a text that is not UTF-8") from error

    def skip_strings(self, count: int, field: str) -> None:
        self._strings += count
        if self._strings > _MAX_STRINGS:
            raise self.invalid(f"{field} and the arrays before it claim {self._strings} texts")
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if self._at + 8 > len(self._held):
                self._need(8, field)
            length: int = unpack(self._held, self._at)[0]
            self._at += 8
            if self._at + length <= len(self._held):
                self._at += length
            else:
                self.skip(length, field)

    def _check(self, length: int, field: str) -> None:
        if length > self._limit - self.position:
            where = "the file ends" if self._limit == self._file_bytes else f"{self._limit} bytes of header end"
            raise self.invalid(f"{where} in {field}, which claims {length} bytes")

    def _need(self, length: int, field: str) -> None:
        self._check(length, field)
        missing = self._at + length - len(self._held)
        if missing <= 0:
            return
        start = self._held_from + len(self._held)
        wanted = min(max(missing, self._range), self._limit - start)
        self._range = min(self._range * 4, _LARGEST_RANGE)
        more = self._fetch(start, wanted)
        if len(more) < missing:
            raise self.invalid(f"the file ends in {field}")
        self._held_from += self._at
        self._held = self._held[self._at :] + more[:wanted]
        self._at = 0
