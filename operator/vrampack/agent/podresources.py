"""What the kubelet has handed out and still may hand out, by its pod resources API on a socket of the node."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

from vrampack.agent.kubeletapi import LISTER, MESSAGES

SOCKET: Final = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
_TIMEOUT_SECONDS: Final = 5.0
_NO_ANSWER: Final = (GRPCError, StreamTerminatedError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One device that a container has. ``driver`` and ``pool``: where it was allocated by a DRA driver."""

    namespace: str
    pod: str
    container: str
    resource: str
    device: str
    driver: str = ""
    pool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One device that a device plugin offers on this node, handed out or not."""

    resource: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """All that the kubelet knows of devices."""

    grants: tuple[Grant, ...]
    offers: tuple[Offer, ...]


class PodResources:
    """The kubelet of this node. Its folder is mounted, not its socket: a kubelet that restarts makes a new one."""

    def __init__(self, socket: Path = SOCKET) -> None:
        self._socket = socket
        self._channel: Channel | None = None

    async def read(self) -> Granted | str:
        """What there is now; or why the kubelet can't be asked."""
        try:
            listed = await self._call("List", "ListPodResourcesRequest", "ListPodResourcesResponse")
            offered = await self._call(
                "GetAllocatableResources", "AllocatableResourcesRequest", "AllocatableResourcesResponse"
            )
        except _NO_ANSWER as error:
            self.close()
            return f"{self._socket}: {str(error) or type(error).__name__}"
        return Granted(
            grants=tuple(
                grant
                for pod in listed.pod_resources
                for container in pod.containers
                for grant in _grants(pod, container)
            ),
            offers=tuple(
                Offer(resource=devices.resource_name, device=device)
                for devices in offered.devices
                for device in devices.device_ids
            ),
        )

    def close(self) -> None:
        """Ends the connection; the next reading begins another."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    async def _call(self, method: str, request: str, response: str) -> Any:
        if self._channel is None:
            self._channel = Channel(path=str(self._socket))
        call: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(
            self._channel, f"{LISTER}/{method}", MESSAGES[request], MESSAGES[response]
        )
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            return await call(MESSAGES[request]())


def _grants(pod: Any, container: Any) -> list[Grant]:
    where = {"namespace": pod.namespace, "pod": pod.name, "container": container.name}
    found = [
        Grant(resource=devices.resource_name, device=device, **where)
        for devices in container.devices
        for device in devices.device_ids
    ]
    found += [
        Grant(
            resource=f"{claim.claim_namespace}/{claim.claim_name}",
            device=each.device_name,
            driver=each.driver_name,
            pool=each.pool_name,
            **where,
        )
        for claim in container.dynamic_resources
        for each in claim.claim_resources
    ]
    return found
