"""Watches that only tell that something changed: a pass reads everything afresh anyway.

For kinds that change by the thousand. kopf decodes and queues every object of every event; while many pods arrive, that
was most of what this process did, in a thread that the one that places them had to wait for.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from vrampack.api import names
from vrampack.controller.backoff import Backoff
from vrampack.errors import ClusterError
from vrampack.kube import paths
from vrampack.kube.client import Kube

_log = logging.getLogger(__name__)

_LONGEST_WAIT: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A kind, and which of its objects the server selects."""

    kind: str
    labels: str


PODS: Final = Watched(kind="Pod", labels=names.MODEL_DEPLOYMENT)
DEPLOYMENTS: Final = Watched(kind="Deployment", labels=f"{names.MANAGED_BY}={names.MANAGER}")


class Pulse:
    """Pokes for every change of some kinds, in all namespaces. An API server that is away is waited out."""

    def __init__(self, kube: Kube, *, poke: Callable[[], None], kinds: Iterable[Watched] = (PODS, DEPLOYMENTS)) -> None:
        self._kube = kube
        self._poke = poke
        self._kinds = tuple(kinds)
        self._connected: set[Watched] = set()

    def connected(self) -> bool:
        """Whether all kinds are watched now."""
        return len(self._connected) == len(self._kinds)

    async def run(self) -> None:
        """Watches until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watched in self._kinds:
                group.create_task(self._follow(watched))

    async def _follow(self, watched: Watched) -> None:
        waits = iter(Backoff(longest=_LONGEST_WAIT))
        while True:
            try:
                async with aclosing(
                    self._kube.watch_changes(paths.collection(watched.kind), labelSelector=watched.labels)
                ) as changes:
                    async for _ in changes:
                        self._connected.add(watched)
                        self._poke()
                waits = iter(Backoff(longest=_LONGEST_WAIT))
            except ClusterError as error:
                self._connected.discard(watched)
                wait = next(waits)
                _log.debug("the watch of %ss ended, next in %.1f s: %s", watched.kind, wait, error)
                await asyncio.sleep(wait)
