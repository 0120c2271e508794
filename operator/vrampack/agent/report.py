"""What an agent says of its node, and how it says it: the status of a GPUNode and a Lease that shows it is alive."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from vrampack.api import names
from vrampack.api.common import Condition, ConditionStatus, Quantity
from vrampack.api.gpunode import (
    ForeignProcess,
    GPUHealth,
    GPUNodeStatus,
    GPUProcess,
    GPUStatus,
    NodeFree,
    NodeSummary,
)
from vrampack.api.gpupool import InjectionStyle
from vrampack.errors import NotFoundError
from vrampack.units import human_bytes

_GPU_NODES: Final = f"/apis/{names.GROUP}/{names.VERSION}/gpunodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUReading:
    """One GPU at one moment; all memory in bytes.

    ``memory``: usable. ``reserved``: kept by the driver. ``processes``: pod UID and use. ``foreign``: name and use.
    ``xid``: the error that it failed with.
    """

    uuid: str
    index: int
    product: str
    memory: int
    reserved: int
    processes: tuple[tuple[str, int], ...] = ()
    foreign: tuple[tuple[str, int], ...] = ()
    xid: int | None = None

    @property
    def used(self) -> int:
        """Bytes that any process holds."""
        return sum(held for _, held in (*self.processes, *self.foreign))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading:
    """One node at one moment: its GPUs in view, and CPU (thousandths of a core), RAM (bytes) and slots left."""

    driver: str
    cuda: str
    injection_style: InjectionStyle
    gpus: tuple[GPUReading, ...]
    cpu: int
    memory: int
    pods: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """How often an agent shows that it is alive, and after how long a silence it counts as gone: seconds."""

    renew: float = 20.0
    duration: int = 60


class Applier(Protocol):
    """The part of the API server's client that an agent writes with."""

    async def apply(self, path: str, body: dict[str, Any], *, field_manager: str) -> dict[str, Any]:
        """Server-side apply, taking over fields of others; gives the object as it is afterwards."""


class Reporter:
    """Keeps the GPUNode and the Lease of one Node in step with what is read there."""

    def __init__(self, *, kube: Applier, node: str, node_uid: str, namespace: str, terms: LeaseTerms) -> None:
        self.node = node
        self.node_uid = node_uid
        self._kube = kube
        self._owners = [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid}]
        self._path = f"{_GPU_NODES}/{node}"
        self._lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{names.AGENT_LEASE_PREFIX}{node}"
        self._terms = terms
        self._uid = ""
        self._last: NodeReading | None = None
        self._conditions: dict[str, Condition] = {}

    async def report(self, reading: NodeReading) -> None:
        """Writes the status where something in it has changed. Raises ClusterError."""
        if not self._uid:
            await self._adopt()
        if reading == self._last:
            return
        now = _now()
        conditions = conditions_of(reading, before=self._conditions, now=now)
        status = status_of(reading, conditions=conditions.values(), now=now)
        try:
            await self._apply(f"{self._path}/status", self._object(status=status.wire()))
        except NotFoundError:
            self._uid = ""  # deleted meanwhile: made again next time
            raise
        self._last, self._conditions = reading, conditions

    async def renew(self) -> None:
        """Shows that the agent is alive. Raises ClusterError.

        Makes sure on the way that the GPUNode is still there: whoever deleted it gets a fresh one.
        """
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

    async def _adopt(self) -> None:
        """Makes the GPUNode where there is none, and this Node its owner in any case.

        An admin may have written it before the node came up, or it belonged to an earlier Node of this name.
        """
        found = await self._apply(self._path, self._object(spec={}))
        if found["metadata"]["uid"] != self._uid:
            self._uid = found["metadata"]["uid"]
            self._last = None
            known = GPUNodeStatus.model_validate(found.get("status", {})).conditions or ()
            self._conditions = {condition.type: condition for condition in known}

    def _object(self, **content: Any) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": self.node}
        if "spec" in content:
            metadata["ownerReferences"] = self._owners
        return {"apiVersion": names.API_VERSION, "kind": "GPUNode", "metadata": metadata, **content}

    async def _apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._kube.apply(path, body, field_manager=names.AGENT_MANAGER)


def status_of(reading: NodeReading, *, conditions: Iterable[Condition], now: str) -> GPUNodeStatus:
    """The agent's part of a GPUNode's status. ``now``: RFC 3339."""
    failed = sum(gpu.xid is not None for gpu in reading.gpus)
    return GPUNodeStatus(
        driver=reading.driver,
        cuda=reading.cuda,
        injection_style=reading.injection_style,
        observed_at=now,
        summary=NodeSummary(
            gpus=len(reading.gpus),
            product=", ".join(dict.fromkeys(gpu.product for gpu in reading.gpus)),
            memory=human_bytes(sum(gpu.memory for gpu in reading.gpus)),
            used=human_bytes(sum(gpu.used for gpu in reading.gpus)),
            healthy=f"{len(reading.gpus) - failed}/{len(reading.gpus)}",
        ),
        gpus=tuple(_gpu_status(gpu) for gpu in reading.gpus),
        node=NodeFree(cpu=_cores(reading.cpu), memory=Quantity.of(reading.memory), pods=reading.pods),
        conditions=tuple(conditions),
    )


def conditions_of(reading: NodeReading, *, before: Mapping[str, Condition], now: str) -> dict[str, Condition]:
    """The agent's conditions by type; each keeps the time of its last change of status."""
    failed = [f"GPU {gpu.index} ({gpu.uuid}) failed with XID {gpu.xid}" for gpu in reading.gpus if gpu.xid is not None]
    said = (
        ("Reporting", True, "AgentReporting", "The node's agent reports; whether it is alive says its Lease"),
        ("Healthy", False, "GPUFailed", "; ".join(failed))
        if failed
        else ("Healthy", True, "GPUsHealthy", f"{len(reading.gpus)} of {len(reading.gpus)} GPUs work"),
    )
    conditions = {}
    for type_, holds, reason, message in said:
        status = ConditionStatus.TRUE if holds else ConditionStatus.FALSE
        same = type_ in before and before[type_].status is status
        conditions[type_] = Condition(
            type=type_,
            status=status,
            last_transition_time=before[type_].last_transition_time if same else now,
            reason=reason,
            message=message,
        )
    return conditions


def _gpu_status(gpu: GPUReading) -> GPUStatus:
    return GPUStatus(
        uuid=gpu.uuid,
        index=gpu.index,
        product=gpu.product,
        memory=Quantity.of(gpu.memory),
        reserved_by_driver=Quantity.of(gpu.reserved),
        used=Quantity.of(gpu.used),
        processes=tuple(GPUProcess(pod_uid=uid, bytes=Quantity.of(held)) for uid, held in gpu.processes),
        foreign=tuple(ForeignProcess(name=name, bytes=Quantity.of(held)) for name, held in gpu.foreign),
        health=GPUHealth.HEALTHY if gpu.xid is None else GPUHealth.UNHEALTHY,
        xid=gpu.xid,
    )


def _cores(millicores: int) -> Quantity:
    return Quantity(f"{millicores}m" if millicores % 1000 else millicores // 1000)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
