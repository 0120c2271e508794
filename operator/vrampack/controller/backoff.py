"""How long to wait between tries."""

import random
from collections.abc import Iterator


class Backoff:
    """Seconds between tries, without an end: they grow to ``longest`` and differ from process to process."""

    def __init__(self, *, first: float = 1.0, longest: float = 15.0) -> None:
        self._first = first
        self._longest = longest

    def __iter__(self) -> Iterator[float]:
        wait = self._first
        while True:
            yield wait * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
            wait = min(2 * wait, self._longest)
