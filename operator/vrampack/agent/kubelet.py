"""The kubelet as an agent asks it: seldom, and never in the way of a pass."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

import msgspec

from vrampack.agent.allocations import Held, Slices, blind, held
from vrampack.agent.complaint import Complaint
from vrampack.agent.devices import Device
from vrampack.agent.podresources import Granted, PodResources
from vrampack.agent.pods import Pod
from vrampack.agent.resourceslices import SLICES, decode_slices
from vrampack.api import names
from vrampack.errors import ClusterError
from vrampack.kube.wire import Node

_log = logging.getLogger(__name__)

_READ_SECONDS: Final = 2.0
_SLICES_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 0.5
"""A kubelet that hangs must not hold up what the driver says."""


class _Lists(Protocol):
    async def list_raw(self, path: str, **query: object) -> bytes:
        """A whole list as the API server sent it."""


class Kubelet:
    """What it has handed out. ``namespace``: where a pod may hold GPUs for vrampack. ``clock``: seconds, no jumps."""

    def __init__(
        self, *, resources: PodResources, kube: _Lists, node: str, namespace: str, clock: Callable[[], float]
    ) -> None:
        self._resources = resources
        self._kube = kube
        self._node = node
        self._namespace = namespace
        self._clock = clock
        self._granted: Granted | str = "not asked yet"
        self._read_at = 0.0
        self._reading: asyncio.Task[Granted | str] | None = None
        self._slices: Slices = {}
        self._slices_at = 0.0
        self._complaint = Complaint(_log)

    async def held(self, *, devices: Collection[Device], pods: Mapping[str, Pod], node: Node) -> Held:
        """Who has which GPU, and which may still be handed out. Asks the kubelet at most every two seconds."""
        now = self._clock()
        if self._reading is None and now >= self._read_at:
            self._reading = asyncio.create_task(self._resources.read())
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=_PATIENCE_SECONDS)
            if self._reading.done():  # else what was known before holds until it answers or its time is over
                reading, self._reading, self._read_at = self._reading, None, now + _READ_SECONDS
                self._granted = reading.result()
        if isinstance(self._granted, str):
            self._complaint.say(f"the kubelet can't be asked what it has handed out: {self._granted}")
            return blind(self._granted, devices=devices, allocatable=node.status.allocatable)
        self._complaint.over()
        if now >= self._slices_at and any(grant.driver for grant in self._granted.grants):
            self._slices_at = now + _SLICES_SECONDS
            await self._read_slices()
        return held(
            self._granted,
            devices=devices,
            ours={_key(pod) for pod in pods.values() if pod.managed},
            reserving={_key(pod) for pod in pods.values() if self._reserves(pod)},
            slices=self._slices,
        )

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._resources.close()

    async def _read_slices(self) -> None:
        try:
            raw = await self._kube.list_raw(SLICES, fieldSelector=f"spec.nodeName={self._node}")
            self._slices = decode_slices(raw)
        except (ClusterError, msgspec.DecodeError) as error:
            _log.warning("ResourceSlices can't be read, devices are taken by their names: %s", error)

    def _reserves(self, pod: Pod) -> bool:
        return pod.metadata.namespace == self._namespace and names.RESERVATION in pod.metadata.labels


def _key(pod: Pod) -> tuple[str, str]:
    return pod.metadata.namespace, pod.metadata.name
