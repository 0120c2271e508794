"""What the API server knows of one node: read again whenever it changes, and not before."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any, Final, Protocol

import msgspec

from vrampack.agent.complaint import Complaint
from vrampack.agent.pods import LIVE, Pod, decode_nodes, decode_pods
from vrampack.api import names
from vrampack.errors import ClusterError
from vrampack.kube.wire import Node

_log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 0.5
"""Between two readings: a pod that starts changes many times."""
_RETRY_SECONDS: Final = 2.0
_MIG_STATE: Final = "nvidia.com/mig.config.state"
_MIG_AT_WORK: Final = frozenset({"pending", "rebooting"})
_DEPLOY: Final = "nvidia.com/gpu.deploy."
_PAUSED: Final = "paused-for-"
"""What NVIDIA's operators write into the labels above to have a GPU's clients gone."""


class Reader(Protocol):
    """The part of the API server's client that an agent reads with."""

    async def list_raw(self, path: str, **query: object) -> bytes:
        """A whole list as the API server sent it."""

    def watch_changes(self, path: str, **query: object) -> AsyncGenerator[None]:
        """Yields at its start and after every change."""


class _Owner(msgspec.Struct, frozen=True):
    uid: str = ""


class _Owned(msgspec.Struct, frozen=True, rename="camel"):
    uid: str
    owner_references: tuple[_Owner, ...] = ()


class _Wish(msgspec.Struct, frozen=True, rename="camel"):
    release_driver: bool = False


class _Told(msgspec.Struct, frozen=True, rename="camel"):
    observed_at: str | None = None


class _Wished(msgspec.Struct, frozen=True):
    metadata: _Owned
    spec: _Wish = _Wish()
    status: _Told = _Told()


class _Wishes(msgspec.Struct, frozen=True):
    items: list[_Wished]


class NodeWatch:
    """The Node, its pods and what the admin wishes of its agent, as they were last read.

    ``complete``: whether Node and pods were read at all.
    """

    def __init__(self, kube: Reader, *, node: str) -> None:
        self._kube = kube
        self._name = node
        self._wished = False
        self._owners: set[str] = set()
        self._read: set[str] = set()
        self.observed_at: str | None = None
        """When its status was written, as it says itself."""
        self.node: Node | None = None
        self.pods: list[Pod] = []
        self.changed = asyncio.Event()

    @property
    def complete(self) -> bool:
        return {"nodes", "pods"} <= self._read

    @property
    def reported(self) -> bool:
        """Whether there is a GPUNode, and it is this very Node's."""
        return self.node is not None and self.node.metadata.uid in self._owners

    @property
    def release(self) -> bool:
        """Whether the agent must let go of the driver: the admin says so, or MIG manager or the driver's operator."""
        labels = self.node.metadata.labels if self.node is not None else {}
        at_work = labels.get(_MIG_STATE) in _MIG_AT_WORK
        paused = any(key.startswith(_DEPLOY) and value.startswith(_PAUSED) for key, value in labels.items())
        return self._wished or at_work or paused

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow("nodes", "/api/v1/nodes", f"metadata.name={self._name}"))
            group.create_task(self._follow("pods", "/api/v1/pods", f"spec.nodeName={self._name},{LIVE}"))
            path = f"/apis/{names.GROUP}/{names.VERSION}/gpunodes"
            group.create_task(self._follow("gpunodes", path, f"metadata.name={self._name}"))

    async def _follow(self, kind: str, path: str, selector: str) -> None:
        """Reads afresh after every change, and after everything that may have hidden one."""
        complaint = Complaint(_log)
        while True:
            dirty = asyncio.Event()
            reading = asyncio.create_task(self._refresh(kind, path, selector, dirty))
            watching = asyncio.create_task(self._watch(path, selector, dirty))
            try:
                done, _ = await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                reading.cancel()
                watching.cancel()
                await asyncio.wait({reading, watching})
            failure = next((task.exception() for task in done), None)
            if failure is None:
                complaint.over()  # the watch is over, as watches are after some minutes
                continue
            if not isinstance(failure, ClusterError | msgspec.DecodeError):
                raise failure
            complaint.say(f"{kind} of {self._name} can't be read: {failure}")
            await asyncio.sleep(_RETRY_SECONDS)

    async def _watch(self, path: str, selector: str, dirty: asyncio.Event) -> None:
        async with contextlib.aclosing(self._kube.watch_changes(path, fieldSelector=selector)) as changes:
            async for _ in changes:
                dirty.set()

    async def _refresh(self, kind: str, path: str, selector: str, dirty: asyncio.Event) -> None:
        while True:
            await dirty.wait()
            dirty.clear()
            self._take(kind, await self._kube.list_raw(path, fieldSelector=selector))
            self._read.add(kind)
            self.changed.set()
            await asyncio.sleep(_PAUSE_SECONDS)

    def _take(self, kind: str, raw: Any) -> None:
        match kind:
            case "nodes":
                self.node = next(iter(decode_nodes(raw)), None)
            case "pods":
                self.pods = decode_pods(raw)
            case _:
                wishes = msgspec.json.decode(raw, type=_Wishes).items
                self._wished = any(each.spec.release_driver for each in wishes)
                self.observed_at = next((each.status.observed_at for each in wishes), None)
                self._owners = {owner.uid for each in wishes for owner in each.metadata.owner_references}
