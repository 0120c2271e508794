"""An event loop whose time passes only while everything waits: hours in milliseconds, and the same in every run."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits, and nothing will ever come")
        self.now += timeout
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def in_virtual_time(scenario: Coroutine[Any, Any, None]) -> None:
    """Runs a scenario to its end. Its clock is ``asyncio.get_running_loop().time``, and it begins at 0."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        runner.run(scenario)
