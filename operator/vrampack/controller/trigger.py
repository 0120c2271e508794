"""When the next pass begins: soon after something changed, many changes at once, and from time to time in any case."""

import asyncio
import time
from collections.abc import Callable
from typing import Literal

Reason = Literal["change", "resync"]


class Trigger:
    """Collects changes until it is quiet. Only whether there was one counts, so none is lost and none is repeated."""

    def __init__(
        self,
        *,
        idle: float = 0.1,
        longest: float = 0.5,
        resync: float = 30,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Seconds: without a change before a pass; from the first change to a pass at most; without any change."""
        self._idle = idle
        self._longest = longest
        self._resync = resync
        self._clock = clock
        self._changed = asyncio.Event()
        self._first: float | None = None
        self._last = 0.0
        self._answering: float | None = None

    @property
    def oldest_poke(self) -> float | None:
        """When, by ``clock``, the oldest change came that no pass has answered to its end; None: there is none.

        A pass lasts from the return of ``wait`` to its next call.
        """
        return self._first if self._answering is None else self._answering

    def poke(self) -> None:
        """Something changed. To be called in the thread of the event loop; costs next to nothing."""
        self._last = self._clock()
        if self._first is None:
            self._first = self._last
        self._changed.set()

    async def wait(self) -> Reason:
        """Returns when a pass is due. Changes that came during the last pass count."""
        self._answering = None
        try:
            async with asyncio.timeout(self._resync):
                await self._changed.wait()
        except TimeoutError:
            return "resync"
        while (left := self._due() - self._clock()) > 0:  # noqa: ASYNC110 - what is awaited is quiet
            await asyncio.sleep(left)
        self._changed.clear()
        self._answering, self._first = self._first, None
        return "change"

    def _due(self) -> float:
        first = self._last if self._first is None else self._first
        return min(self._last + self._idle, first + self._longest)
