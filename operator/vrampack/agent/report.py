"""How an agent says what it reads: the status of a GPUNode, and a Lease that shows that it is alive."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from pydantic import ValidationError

from vrampack.agent.reading import NodeReading
from vrampack.agent.status import conditions_of, status_of
from vrampack.api import names
from vrampack.api.common import Condition
from vrampack.api.gpunode import GPUNodeStatus
from vrampack.errors import NotFoundError

_GPU_NODES: Final = f"/apis/{names.GROUP}/{names.VERSION}/gpunodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """How often an agent shows that it is alive, and after how long a silence it counts as gone: seconds."""

    renew: float = 20.0
    duration: int = 60


class Applier(Protocol):
    """The part of the API server's client that an agent writes with."""

    async def apply(self, path: str, body: dict[str, Any], *, field_manager: str) -> dict[str, Any]:
        """Server-side apply, taking over fields of others; gives the object as it is afterwards."""


Worth = Callable[[NodeReading, NodeReading | None, float], bool]
"""Whether a reading is to be written, by the one that was written last and the seconds since then."""


def _any_change(reading: NodeReading, last: NodeReading | None, _: float) -> bool:
    return reading != last


class Reporter:
    """Keeps the GPUNode and the Lease of one Node in step with what is read there."""

    def __init__(
        self,
        *,
        kube: Applier,
        node: str,
        node_uid: str,
        namespace: str,
        terms: LeaseTerms,
        worth: Worth = _any_change,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``worth``: which readings are written at all. ``clock``: seconds of a clock that never jumps."""
        self.node = node
        self.node_uid = node_uid
        self._kube = kube
        self._owners = [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}]
        self._path = f"{_GPU_NODES}/{node}"
        self._lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{names.AGENT_LEASE_PREFIX}{node}"
        self._terms = terms
        self._uid = ""
        self._worth = worth
        self._clock = clock
        self._last: NodeReading | None = None
        self._written = 0.0
        self._stamp: str | None = None
        self._former = GPUNodeStatus()
        self._conditions: dict[str, Condition] = {}

    async def report(self, reading: NodeReading) -> None:
        """Writes the status where something in it has changed. Raises ClusterError."""
        if not self._uid:
            await self._adopt()
        if not self._worth(reading, self._last, self._clock() - self._written):
            return
        now = _now()
        conditions = conditions_of(reading, before=self._conditions, now=now)
        status = status_of(reading, conditions=conditions.values(), now=now)
        try:
            await self._apply(f"{self._path}/status", self._object({}, status=status.wire()))
        except NotFoundError:
            self._uid = ""  # deleted meanwhile: made again next time
            raise
        self._last, self._conditions, self._written, self._stamp = reading, conditions, self._clock(), now

    def wrote(self, observed_at: str | None) -> bool:
        """Whether the status of this time is the one that was written last. ``observed_at``: as it stands there."""
        return observed_at == self._stamp

    async def renew(self, *, there: bool = False) -> None:
        """Shows that the agent is alive. Raises ClusterError.

        Makes sure on the way that the GPUNode is still there, unless that is known (``there``): whoever deleted it gets
        a fresh one.
        """
        if not (there and self._uid):
            await self._adopt()
        spec = {
            "holderIdentity": self.node,
            "leaseDurationSeconds": self._terms.duration,
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": f"{names.AGENT_LEASE_PREFIX}{self.node}", "ownerReferences": self._owners},
            "spec": spec,
        }
        await self._apply(self._lease, lease)

    async def adopt(self) -> GPUNodeStatus:
        """Makes the GPUNode this agent's own, and gives the status that was found. Raises ClusterError."""
        await self._adopt()
        return self._former

    async def _adopt(self) -> None:
        """Makes the GPUNode where there is none, and this Node its owner in any case.

        An admin may have written it before the node came up, or it belonged to an earlier Node of this name.
        """
        found = await self._apply(self._path, self._object({"ownerReferences": self._owners}))
        if found["metadata"]["uid"] != self._uid:
            self._uid = found["metadata"]["uid"]
            self._last = None
            self._former = _readable(found.get("status", {}))
            self._conditions = {condition.type: condition for condition in self._former.conditions or ()}
        elif not self.wrote(found.get("status", {}).get("observedAt")):
            self._last = None  # what was written is gone: the store was restored from a backup

    def _object(self, metadata: dict[str, Any], **content: Any) -> dict[str, Any]:
        metadata = {"name": self.node, **metadata}
        return {"apiVersion": names.API_VERSION, "kind": "GPUNode", "metadata": metadata, **content}

    async def _apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._kube.apply(path, body, field_manager=names.AGENT_MANAGER)


def _readable(status: Any) -> GPUNodeStatus:
    """What another version may have written; one that can't be read says nothing."""
    try:
        return GPUNodeStatus.model_validate(status)
    except ValidationError:
        return GPUNodeStatus()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
