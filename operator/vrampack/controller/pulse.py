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
from vrampack.errors import ClusterError, UnavailableError
from vrampack.kube import paths
from vrampack.kube.client import Kube

_log = logging.getLogger(__name__)

_LONGEST_WAIT: Final = 5.0
_LASTING_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A kind, and which of its objects the server selects."""

    kind: str
    labels: str


PODS: Final = Watched(kind="Pod", labels=names.MODEL_DEPLOYMENT)
PROBES: Final = Watched(kind="Pod", labels=names.PROBE)
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
        """Watches are not for ever: one that lasted is asked for again at once, others a little later each time."""
        clock = asyncio.get_running_loop().time
        waits = iter(Backoff(longest=_LONGEST_WAIT))
        while True:
            began = clock()
            try:
                await self._watch(watched)
            except UnavailableError as error:
                _log.debug("the watch of %ss ended: %s", watched.kind, error)
            except ClusterError as error:
                _log.warning("The API server refuses the watch of %ss: %s", watched.kind, error)
            if clock() - began > _LASTING_SECONDS:
                waits = iter(Backoff(longest=_LONGEST_WAIT))
            else:
                await asyncio.sleep(next(waits))

    async def _watch(self, watched: Watched) -> None:
        """One watch, to its end."""
        path = paths.collection(watched.kind)
        async with aclosing(self._kube.watch_changes(path, labelSelector=watched.labels)) as changes:
            try:
                async for _ in changes:
                    self._connected.add(watched)
                    self._poke()
            finally:
                self._connected.discard(watched)
