"""Whole lists as they are now, one at a time read from page to page."""

import logging
from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeVar

import msgspec

from vrampack.errors import ClusterError
from vrampack.kube import wire
from vrampack.kube.client import Kube
from vrampack.kube.history import History
from vrampack.kube.views import UNREADABLE

_log = logging.getLogger(__name__)

PAGE: Final = 250
"""Objects asked for at once: a page is in memory as a whole."""
_RESTARTS: Final = 3
_GONE: Final = 410

View = TypeVar("View")
Reader = Callable[[msgspec.Raw], tuple[wire.Metadata, View]]
"""Raises one of UNREADABLE where the object can't be read."""


class Lists:
    """Reads lists, each at one resourceVersion. ``history``: how far each is known to have come."""

    def __init__(self, kube: Kube, *, history: History) -> None:
        self._kube = kube
        self._history = history

    async def whole(self, kind: str, read: Reader[View], *, path: str, selector: str | None) -> tuple[View, ...]:
        """All of a kind, sorted by namespace and name; starts again where the list expired between two pages.

        Raises as every request does, and RestoredError.
        """
        for _ in range(_RESTARTS):
            try:
                return await self._whole(kind, read, path, selector, limit=PAGE)
            except ClusterError as error:
                if error.status != _GONE:
                    raise
        return await self._whole(kind, read, path, selector, limit=None)

    async def pages(self, path: str, *, selector: str | None, limit: int | None = PAGE) -> AsyncGenerator[wire.Page]:
        """One list, in pages of ``limit``. Raises as every request does: 410 where it expired between two pages,
        ClusterError where the answer is no list at all, and RestoredError."""
        floor = self._history.reached(path)
        following: str | None = None
        while following != "":
            query = {"labelSelector": selector, "limit": limit, "continue": following}
            try:
                page = wire.decode_page(await self._kube.list_raw(path, **query))
            except msgspec.DecodeError as error:
                raise ClusterError(f"{path}: the answer is no list: {error}") from error
            if page.version:
                self._history.heard(path, page.version, floor=floor)
            yield page
            following = page.following

    async def _whole(
        self, kind: str, read: Reader[View], path: str, selector: str | None, *, limit: int | None
    ) -> tuple[View, ...]:
        found: list[tuple[str, str, View]] = []
        async for page in self.pages(path, selector=selector, limit=limit):
            for raw in page.items or ():
                try:
                    meta, view = read(raw)
                except UNREADABLE as error:
                    _log.warning("a %s can't be read, so it is left out: %s: %.200s", kind, error, bytes(raw))
                else:
                    found.append((meta.namespace, meta.name, view))
        found.sort(key=lambda entry: entry[:2])
        return tuple(view for _, _, view in found)
