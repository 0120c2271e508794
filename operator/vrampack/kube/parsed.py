"""What was parsed before is not parsed again."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Parsed(Generic[Value]):
    """What was parsed, by object and version, for as long as the object is seen."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Value] = {}
        self._used: dict[Hashable, Value] = {}

    def get(self, key: Hashable, parse: Callable[[], Value]) -> Value:
        """``key``: names the object and its version."""
        if key not in self._used:
            self._used[key] = self._known[key] if key in self._known else parse()
        return self._used[key]

    def forget_unused(self) -> None:
        """Ends a pass: what nobody asked for in it is gone."""
        self._known, self._used = self._used, {}
