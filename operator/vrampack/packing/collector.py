"""Many objects without cycles are made at once: meanwhile Python's garbage collector has nothing to find."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """No collection of cycles within. With every few hundred new objects the collector would start, and every now and
    then walk over all the caller's hosts and items, which takes as long as the plan. Where the caller has turned it off
    it stays off. It is the process's: threads that pause it at once may have it back early, which costs time only."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
