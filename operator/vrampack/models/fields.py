"""Typed look-ups in a stranger's JSON: every value is checked for its type and bounded before it is used or shown."""

from collections.abc import Mapping
from typing import Final

from vrampack.errors import InvalidInputError

MAX_SIZE: Final = 2**31 - 1
MAX_SHOWN: Final = 100
MAX_ITEMS: Final = 4096
MAX_WIDTH: Final = 65_536


class Fields:
    """Typed look-ups. A field that is null counts as absent, as it does for the engine.

    ``defaults`` are what the configuration class puts in where a field is not written at all; a written null stays
    null. ``under`` answers for what is not written here. Which fields were asked for is kept, so that a caller can
    tell what nobody understood.
    """

    def __init__(
        self,
        config: Mapping[str, object],
        *,
        path: str = "config.json:",
        defaults: Mapping[str, object] | None = None,
        under: "Fields | None" = None,
    ) -> None:
        self._config = config
        self._under = under
        self._path = path
        self._defaults = defaults or {}
        self._asked: set[str] = set()
        self._below: dict[str, Fields] = {}
        self._texts: dict[str, list[str]] = {}
        self._numbers: dict[str, list[int]] = {}

    def has(self, name: str) -> bool:
        """Whether the field is written at all, be it null."""
        self._asked.add(name)
        return name in self._config or name in self._defaults or (self._under is not None and self._under.has(name))

    def get(self, name: str) -> object:
        self._asked.add(name)
        if name in self._config:
            return self._config[name]
        return self._under.get(name) if self._under is not None else self._defaults.get(name)

    def unread(self) -> list[str]:
        """Names of written fields that were never asked for and hold something."""
        return [ascii(name)[1:-1] for name, value in self._config.items() if name not in self._asked and value]

    def names(self, *names: str) -> str | None:
        """The first of these names that holds something other than null."""
        return next((name for name in names if self.get(name) is not None), None)

    def refusal(self, name: str, value: object, allowed: str) -> InvalidInputError:
        return InvalidInputError(field=f"{self._path}{name}", value=shown(value), allowed=allowed)

    def size(self, names: tuple[str, ...], *, least: int = 1, most: int = MAX_SIZE, default: int | None = None) -> int:
        """A whole number from ``least`` to ``most``: of the first name that is there. Raises InvalidInputError."""
        for name in names:
            value = self.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise self.refusal(name, value, f"a whole number from {least} to {most}")
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

    def text(self, name: str, *, most: int = MAX_SHOWN) -> str | None:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > most or not value.isprintable():
            raise self.refusal(name, value, f"a text of at most {most} printable characters")
        return value

    def texts(self, name: str) -> list[str] | None:
        """A list of short texts. Checked once: layers ask for it one by one."""
        if self._under is not None and name not in self._config:
            return self._under.texts(name)
        if name in self._texts:
            return self._texts[name]
        value = self.get(name)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or len(value) > MAX_ITEMS
            or not all(isinstance(item, str) and len(item) <= MAX_SHOWN and item.isprintable() for item in value)
        ):
            raise self.refusal(name, value, f"a list of at most {MAX_ITEMS} words")
        self._texts[name] = value
        return value

    def numbers(self, name: str) -> list[int] | None:
        """A list of whole numbers of at most MAX_SIZE, -1 at least. Checked once."""
        if self._under is not None and name not in self._config:
            return self._under.numbers(name)
        if name in self._numbers:
            return self._numbers[name]
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise self.refusal(name, value, f"a list of at most {MAX_ITEMS} whole numbers")
        for item in value:
            if not isinstance(item, int) or not -1 <= item <= MAX_SIZE:
                raise self.refusal(name, item, f"whole numbers from -1 to {MAX_SIZE}")
        self._numbers[name] = [int(item) for item in value]
        return self._numbers[name]

    def below(self, name: str) -> "Fields | None":
        """An object inside the object."""
        if self._under is not None and name not in self._config:
            return self._under.below(name)
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.refusal(name, value, "an object")
        if name not in self._below:
            self._below[name] = self.inside(name, value)
        return self._below[name]

    def replaced(self, values: Mapping[str, object]) -> "Fields":
        """The same with other values, for one layer that differs. Nothing is copied: a file may name every layer."""
        return Fields(values, path=self._path, under=self)

    def with_defaults(self, defaults: Mapping[str, object]) -> "Fields":
        """The same, where a class puts in what is not written. ``model_type`` of the defaults counts before a written
        one."""
        named = {"model_type": defaults["model_type"]} if "model_type" in defaults else {}
        return Fields({**self._config, **named}, path=self._path, defaults=defaults)

    def inside(
        self, name: str, value: Mapping[str, object], *, defaults: Mapping[str, object] | None = None
    ) -> "Fields":
        """Look-ups in ``value``, which stands under ``name``."""
        return Fields(value, path=f"{self._path}{name}.", defaults=defaults)


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
