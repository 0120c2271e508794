"""The replicas' pods as a watch tells of them, for passes that must not wait for a list of a thousand.

Nothing durable rests on it: who reads says how new it must be, and whoever is in doubt asks the API server for a list.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Final

import msgspec

from vrampack.api import names
from vrampack.errors import ClusterError
from vrampack.kube import paths, wire
from vrampack.kube.client import Kube
from vrampack.kube.history import History
from vrampack.kube.lists import Lists
from vrampack.kube.views import UNREADABLE, read_pod
from vrampack.planning.snapshot import PodView

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 5.0


def newest(pods: Iterable[PodView]) -> int:
    """The highest resourceVersion among them. Kubernetes orders those of one kind by number."""
    return max((wire.number(pod.resource_version) for pod in pods), default=0)


class Mirror:
    """All pods that carry the label of a ModelDeployment.

    A watch that has ended begins anew with a list, though it could go on from where it was: while it was away the store
    may have been restored from a backup, and then have come further than what was known of the one before.
    """

    def __init__(self, kube: Kube, *, history: History | None = None, patience: float = _PATIENCE_SECONDS) -> None:
        """``history``: how far each list is known to have come; with that of the one who reads, what it hears counts
        here too. ``patience``: seconds that a reader waits for the watch to come as far as it has to."""
        self._kube = kube
        self._history = history or History()
        self._lists = Lists(kube, history=self._history)
        self._patience = patience
        self._path = paths.collection("Pod")
        self._event = msgspec.json.Decoder(wire.Event)
        self._pods: dict[tuple[str, str], PodView] = {}
        self._version = 0
        self._restores = 0
        self._watching = False
        self._news = asyncio.Event()

    async def read(self, *, since: int) -> tuple[PodView, ...] | None:
        """All of them by namespace and name, with all that was written up to the resourceVersion ``since``.

        None where the watch is away or of another past, or does not come that far in time.
        """
        try:
            async with asyncio.timeout(self._patience):
                while self._live and self._version < since:
                    await self._news.wait()
        except TimeoutError:
            return None
        return tuple(self._pods[key] for key in sorted(self._pods)) if self._live else None

    async def follow(self) -> AsyncGenerator[None]:
        """Yields once all are known, and after every change. Ends as watches do, to be called again; raises as every
        request does, and RestoredError."""
        self._restores = self._history.restores
        await self._list()
        query = {"labelSelector": names.MODEL_DEPLOYMENT, "resourceVersion": str(self._version)}
        try:
            async with aclosing(self._kube.watch(self._path, **query)) as batches:
                async for batch in batches:
                    changed = [self._note(self._event.decode(line)) for line in batch]
                    self._tell(watching=True)
                    if any(changed) or not batch:
                        yield
        except msgspec.DecodeError as error:
            raise ClusterError(f"WATCH {self._path}: the answer is no watch: {error}") from error
        finally:
            self._tell(watching=False)

    @property
    def _live(self) -> bool:
        return self._watching and self._restores == self._history.restores

    async def _list(self) -> None:
        self._pods = {}
        async for page in self._lists.pages(self._path, selector=names.MODEL_DEPLOYMENT):
            found = filter(None, map(_read, page.items or ()))
            self._pods |= {(pod.namespace, pod.name): pod for pod in found}
            self._version = page.version

    def _note(self, event: wire.Event) -> bool:
        """Whether it tells of a pod."""
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object)
            raise ClusterError(f"WATCH {self._path}: {status.get('message')}", status=status.get("code"))
        if event.type == "BOOKMARK":
            self._reach(msgspec.json.decode(event.object)["metadata"]["resourceVersion"])
            return False
        pod = _read(event.object)
        if pod is None and event.type == "DELETED":
            raise ClusterError(f"WATCH {self._path}: a pod is gone, and which one can't be read")
        if pod is None:
            return False
        if event.type == "DELETED":
            self._pods.pop((pod.namespace, pod.name), None)
        else:
            self._pods[pod.namespace, pod.name] = pod
        self._reach(pod.resource_version)
        return True

    def _reach(self, version: str) -> None:
        if (reached := wire.number(version)) > 0:
            self._history.heard(self._path, reached, floor=self._version)
            self._version = reached

    def _tell(self, *, watching: bool) -> None:
        self._watching = watching
        self._news.set()
        self._news = asyncio.Event()


def _read(raw: msgspec.Raw) -> PodView | None:
    try:
        return read_pod(raw)[1]
    except UNREADABLE as error:
        _log.warning("a pod can't be read, so it is left out: %s: %.200s", error, bytes(raw))
        return None
