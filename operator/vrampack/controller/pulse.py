"""Watches that only tell that something changed: what it was, a pass reads by itself.

For kinds that change by the thousand. kopf decodes and queues every object of every event; while many pods arrive, that
was most of what this process did, in a thread that the one that places them had to wait for.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Final

from vrampack.api import names
from vrampack.controller.backoff import Backoff
from vrampack.errors import ClusterError, UnavailableError
from vrampack.kube import paths
from vrampack.kube.client import Kube
from vrampack.kube.mirror import Mirror

_log = logging.getLogger(__name__)

_LONGEST_WAIT: Final = 5.0
_LASTING_SECONDS: Final = 60.0

Follow = Callable[[], AsyncGenerator[None]]
"""A watch: it yields when it is there and after every change, ends after some minutes, and raises ClusterError."""


def watches(kube: Kube, mirror: Mirror, *, probing: bool) -> Mapping[str, Follow]:
    """Of the replicas, which the mirror keeps; of our Deployments and, with ``probing``, of the pods that find out how
    nodes hand out GPUs, of which it is enough that they changed."""

    def deployments() -> AsyncGenerator[None]:
        path = paths.collection("Deployment")
        return kube.watch_changes(path, labelSelector=f"{names.MANAGED_BY}={names.MANAGER}")

    def probes() -> AsyncGenerator[None]:
        return kube.watch_changes(paths.collection("Pod"), labelSelector=names.PROBE)

    return {"Pod": mirror.follow, "Deployment": deployments, **({"probe": probes} if probing else {})}


class Pulse:
    """Pokes for every change of some kinds, in all namespaces. An API server that is away is waited out.

    ``watches``: by the kind that they watch.
    """

    def __init__(self, watches: Mapping[str, Follow], *, poke: Callable[[], None]) -> None:
        self._watches = dict(watches)
        self._poke = poke
        self._connected: set[str] = set()

    def connected(self) -> bool:
        """Whether all kinds are watched now."""
        return len(self._connected) == len(self._watches)

    async def run(self) -> None:
        """Watches until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in self._watches:
                group.create_task(self._follow(kind))

    async def _follow(self, kind: str) -> None:
        """Watches are not for ever: one that lasted is asked for again at once, others a little later each time."""
        clock = asyncio.get_running_loop().time
        waits = iter(Backoff(longest=_LONGEST_WAIT))
        while True:
            began = clock()
            try:
                await self._watch(kind)
            except UnavailableError as error:
                _log.debug("the watch of %ss ended: %s", kind, error)
            except ClusterError as error:
                _log.warning("The API server refuses the watch of %ss: %s", kind, error)
            if clock() - began > _LASTING_SECONDS:
                waits = iter(Backoff(longest=_LONGEST_WAIT))
            else:
                await asyncio.sleep(next(waits))

    async def _watch(self, kind: str) -> None:
        """One watch, to its end."""
        async with aclosing(self._watches[kind]()) as changes:
            try:
                async for _ in changes:
                    self._connected.add(kind)
                    self._poke()
            finally:
                self._connected.discard(kind)
