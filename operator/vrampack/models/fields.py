"""Typed look-ups in a stranger's JSON: every value is checked for its type and bounded before it is used or shown."""

from collections.abc import Mapping
from typing import Final

from vrampack.errors import InvalidInputError

MAX_SIZE: Final = 2**31 - 1
MAX_SHOWN: Final = 100


class Fields:
    """Typed look-ups. A field that is null counts as absent, as it does for the engine."""

    def __init__(self, config: Mapping[str, object], *, path: str = "config.json:") -> None:
        self._config = config
        self._path = path

    def has(self, name: str) -> bool:
        """Whether the field is written at all, be it null."""
        return name in self._config

    def get(self, name: str) -> object:
        return self._config.get(name)

    def refusal(self, name: str, value: object, allowed: str) -> InvalidInputError:
        return InvalidInputError(field=f"{self._path}{name}", value=shown(value), allowed=allowed)

    def size(self, names: tuple[str, ...], *, most: int = MAX_SIZE, default: int | None = None) -> int:
        """A whole number from 1 to ``most``: of the first name that is there. Raises InvalidInputError."""
        for name in names:
            value = self.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise self.refusal(name, value, f"a whole number from 1 to {most}")
            return value
        if default is None:
            raise self.refusal(names[0], None, "this field is required for this family")
        return default

    def number(self, name: str, *, least: float, most: float, default: float) -> float:
        """Raises InvalidInputError outside the bounds."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.refusal(name, value, f"a number from {least:g} to {most:g}")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refusal(name, value, "true or false")
        return value

    def text(self, name: str) -> str | None:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > MAX_SHOWN:
            raise self.refusal(name, value, f"a text of at most {MAX_SHOWN} characters")
        return value

    def below(self, name: str) -> "Fields | None":
        """An object inside the object."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.refusal(name, value, "an object")
        return Fields(value, path=f"{self._path}{name}.")


def shown(value: object) -> object:
    """A stranger's value, short enough for a message: never a long text, a long number or a tree."""
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if value.bit_length() <= 64 else "a number of more than 64 bits"
        case str():
            return value[:MAX_SHOWN]
        case Mapping():
            return "an object"
        case _:
            return f"a {type(value).__name__}"
