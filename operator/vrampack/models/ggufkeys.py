"""Typed look-ups in a GGUF file's metadata, under the names that its architecture gives them."""

from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.models.fields import shown
from vrampack.models.gguf import GgufHeader

MAX_LAYERS: Final = 512
"""As llama.cpp: ``LLAMA_MAX_LAYERS``."""

_MAX_SIZE: Final = 2**31 - 1


class GgufKeys:
    """Every value is checked for its type and bounded. Raises InvalidInputError with the file and the key."""

    def __init__(self, header: GgufHeader, *, file: str) -> None:
        self._header = header
        self._file = file
        name = header.metadata.get("general.architecture")
        if not isinstance(name, str) or not 0 < len(name) <= 64:
            raise self._refusal("general.architecture", name, "the name of an architecture is required")
        self.architecture = name

    def has(self, name: str) -> bool:
        key = self._key(name)
        return key in self._header.metadata or key in self._header.lengths

    def is_array(self, name: str) -> bool:
        return self._key(name) in self._header.lengths

    def length(self, key: str) -> int:
        """Elements of an array, by its whole name; 0: it is not there."""
        return self._header.lengths.get(key, 0)

    def size(self, name: str, *, default: int | None = None, least: int = 0, most: int = _MAX_SIZE) -> int:
        """A whole number. ``default`` None: it is required."""
        key = self._key(name)
        value = self._header.metadata.get(key)
        if value is None:
            if default is None:
                raise self._refusal(key, None, f"this key is required for {self.architecture}")
            return default
        if type(value) is not int or not least <= value <= most:
            raise self._refusal(key, value, f"a whole number from {least} to {most}")
        return value

    def each(self, name: str, count: int, *, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A whole number or flag per layer: an array of ``count``, or one number for all."""
        key = self._key(name)
        if not self.is_array(name):
            if default is not None and not self.has(name):
                return default
            return (self.size(name),) * count
        value = self._header.metadata.get(key)
        if not isinstance(value, tuple) or len(value) != count:
            raise self._refusal(key, value, f"an array of {count} whole numbers, one for each layer")
        for item in value:
            if not isinstance(item, int) or not 0 <= item <= _MAX_SIZE:
                raise self._refusal(key, item, f"whole numbers from 0 to {_MAX_SIZE}")
        return tuple(int(item) for item in value)

    def all_of(self, name: str) -> tuple[int, ...]:
        """The whole numbers or flags of an array, however many."""
        key = self._key(name)
        value = self._header.metadata.get(key)
        if (
            not isinstance(value, tuple)
            or len(value) > MAX_LAYERS
            or not all(isinstance(item, int) and 0 <= item <= _MAX_SIZE for item in value)
        ):
            raise self._refusal(key, value, f"an array of at most {MAX_LAYERS} whole numbers")
        return tuple(int(item) for item in value)

    def each_of(self, name: str, count: int) -> tuple[int, ...]:
        """The same for ``count`` layers, of an array that may be shorter or longer: what it lacks is 0."""
        listed = self.all_of(name)[:count]
        return listed + (0,) * (count - len(listed))

    def refusal(self, name: str, value: object, allowed: str) -> InvalidInputError:
        return self._refusal(self._key(name), value, allowed)

    def _key(self, name: str) -> str:
        return f"{self.architecture}.{name}"

    def _refusal(self, key: str, value: object, allowed: str) -> InvalidInputError:
        return InvalidInputError(field=f"{self._file}:{key}", value=shown(value), allowed=allowed)
