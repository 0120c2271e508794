"""The fleet as a picture needs it: nodes, their GPUs and who holds how many bytes of each, from raw API objects."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vrampack.api import names
from vrampack.units import parse_bytes

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The share of one replica: the bytes that it claimed, of the model ``namespace/name``."""

    model: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GPURow:
    """One GPU; all memory in bytes.

    ``capacity``: usable, 0 where the GPU is not in view. ``foreign``: used by something else, and by replicas beyond
    their claims. ``free``: for new claims; negative where more is taken than there is. ``flags``: what is wrong.
    """

    uuid: str
    index: int | None
    product: str
    capacity: int
    segments: tuple[Segment, ...] = ()
    foreign: int = 0
    reserve: int = 0
    free: int = 0
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node with its GPUs in the order of their index."""

    name: str
    gpus: tuple[GPURow, ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Replicas of a model without a GPU; each needs ``gpus`` with ``bytes`` free on each, where that is known."""

    model: str
    replicas: int
    reason: str
    gpus: int | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over GPUs, in bytes."""

    gpus: int
    capacity: int
    models: int
    foreign: int
    reserve: int
    free: int

    @classmethod
    def of(cls, gpus: Iterable[GPURow]) -> "Totals":
        """The sums of ``gpus``. What is overcommitted on one is not taken from what is free on others."""
        rows = list(gpus)
        return cls(
            gpus=len(rows),
            capacity=sum(gpu.capacity for gpu in rows),
            models=sum(segment.bytes for gpu in rows for segment in gpu.segments),
            foreign=sum(gpu.foreign for gpu in rows),
            reserve=sum(gpu.reserve for gpu in rows),
            free=sum(max(gpu.free, 0) for gpu in rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """All nodes by name, node-2 before node-10, and what waits."""

    nodes: tuple[NodeRow, ...]
    waiting: tuple[Waiting, ...] = ()

    @property
    def totals(self) -> Totals:
        """Sums over all GPUs."""
        return Totals.of(gpu for node in self.nodes for gpu in node.gpus)


def to_json(view: FleetView) -> str:
    """The view for scripts; memory in bytes."""
    return json.dumps({**asdict(view), "totals": asdict(view.totals)}, indent=2)


def fleet_view(
    *, gpunodes: Iterable[Object], pods: Iterable[Object], modeldeployments: Iterable[Object] = ()
) -> FleetView:
    """The fleet as these raw objects describe it.

    The operator's own figure for what is free stands wherever it has written one. A claim whose pod is not among
    ``pods`` goes by the name of the pod.
    """
    models = {
        metadata["uid"]: f"{metadata['namespace']}/{metadata['labels'][names.MODEL_DEPLOYMENT]}"
        for metadata in (pod["metadata"] for pod in pods)
        if names.MODEL_DEPLOYMENT in metadata.get("labels", {})
    }
    nodes = [_node(gpunode, models) for gpunode in gpunodes]
    waiting = [entry for deployment in modeldeployments for entry in _waiting(deployment)]
    return FleetView(
        nodes=in_order(nodes),
        waiting=tuple(sorted(waiting, key=lambda entry: (entry.model, entry.reason))),
    )


def in_order(nodes: Iterable[NodeRow]) -> tuple[NodeRow, ...]:
    """By name, node-2 before node-10."""
    return tuple(sorted(nodes, key=lambda node: _natural(node.name)))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _node(gpunode: Object, models: Mapping[str, str]) -> NodeRow:
    status = gpunode.get("status", {})
    wishes = {entry["uuid"]: entry for entry in gpunode.get("spec", {}).get("gpus", [])}
    gpus = [_gpu(entry, wishes.get(entry["uuid"], {}), models) for entry in status.get("gpus", [])]
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    return NodeRow(
        name=gpunode["metadata"]["name"],
        gpus=tuple(sorted(gpus, key=lambda gpu: (gpu.index is None, gpu.index, gpu.uuid))),
        flags=("agent silent",) if conditions.get("Reporting") in ("False", "Unknown") else (),
    )


def _gpu(entry: Object, wish: Object, models: Mapping[str, str]) -> GPURow:
    capacity = parse_bytes(entry.get("memory", 0))
    claims = {claim["uid"]: claim for claim in entry.get("claims", [])}
    segments = [
        Segment(
            model=models.get(uid) or claim.get("model") or f"{claim['namespace']}/{claim['pod']}",
            bytes=parse_bytes(claim["bytes"]),
        )
        for uid, claim in claims.items()
    ]
    claimed = sum(segment.bytes for segment in segments)
    beyond = sum(
        max(0, parse_bytes(process["bytes"]) - parse_bytes(claims.get(process["podUID"], {}).get("bytes", 0)))
        for process in entry.get("processes", [])
    )
    foreign = beyond + sum(parse_bytes(process["bytes"]) for process in entry.get("foreign", []))
    reserve = parse_bytes(wish.get("reserve", 0))
    free = capacity - claimed - foreign - reserve
    if capacity and "free" in entry:
        # What the operator keeps free besides is the pool's reserve.
        free = min(free, parse_bytes(entry["free"]))
        reserve = max(reserve, capacity - claimed - foreign - free)
    return GPURow(
        uuid=entry["uuid"],
        index=entry.get("index"),
        product=entry.get("product", ""),
        capacity=capacity,
        segments=tuple(sorted(segments, key=lambda segment: (segment.model, -segment.bytes))),
        foreign=foreign,
        reserve=reserve,
        free=free if capacity else 0,
        flags=tuple(_flags(entry, cordoned=wish.get("cordoned", False), overcommitted=capacity > 0 > free)),
    )


def _flags(entry: Object, *, cordoned: bool, overcommitted: bool) -> Iterator[str]:
    if "memory" not in entry:
        yield "not in view"
    if entry.get("health") == "Unhealthy":
        yield f"failed (XID {entry['xid']})" if entry.get("xid") else "failed"
    if cordoned:
        yield "cordoned"
    if overcommitted:
        yield "overcommitted"


def _waiting(deployment: Object) -> Iterator[Waiting]:
    metadata = deployment["metadata"]
    for entry in deployment.get("status", {}).get("waiting", []):
        yield Waiting(
            model=f"{metadata['namespace']}/{metadata['name']}",
            replicas=entry["count"],
            reason=entry["reason"],
            gpus=entry.get("gpus"),
            bytes=parse_bytes(entry["needed"]) if "needed" in entry else None,
        )
