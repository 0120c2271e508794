"""How far the store behind the API server had come, kind by kind.

Kubernetes orders the resourceVersions of one kind by number, and a list that asks for none is never older than anything
that was heard before it was asked for. A lower answer means one thing: the store was restored from a backup. Whatever
is remembered by version is then of a past that never was.
"""

import logging
from collections.abc import Callable

from vrampack.errors import RestoredError

_log = logging.getLogger(__name__)


class History:
    """What was heard. ``on_restore`` is called when it turns out that the store went back."""

    def __init__(self, *, on_restore: Callable[[], None] = lambda: None) -> None:
        self._on_restore = on_restore
        self._reached: dict[str, int] = {}
        self.restores = 0
        """How often it went back: who remembers something by version remembers this too, and compares."""

    def reached(self, path: str) -> int:
        """The highest version that was heard of the kind at ``path``; 0: none since the store went back."""
        return self._reached.get(path, 0)

    def heard(self, path: str, version: int, *, floor: int) -> None:
        """An answer for ``path`` was of this version. ``floor``: what had been reached when it was asked for.

        Raises RestoredError where that is more than the answer, unless another one has told of it meanwhile.
        """
        if version < min(floor, self.reached(path)):
            self._reached = {}
            self.restores += 1
            said = f"{path}: version {version} after {floor}: the API server's store was restored from a backup"
            _log.warning("%s; all that was remembered of it is forgotten", said)
            self._on_restore()
            raise RestoredError(said)
        self._reached[path] = max(version, self.reached(path))
