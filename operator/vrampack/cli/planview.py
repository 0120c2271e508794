"""What a plan comes to, as people and pipelines read it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vrampack.api.common import Quantity
from vrampack.cli.fleetview import FleetView, GPURow, NodeRow, Segment, Waiting, in_order
from vrampack.planning.conditions import former_conditions
from vrampack.planning.inventory import Inventory, group_of, inventory
from vrampack.planning.rehearsal import Rehearsal
from vrampack.planning.snapshot import ModelView, PodView, Snapshot

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRow:
    """A replica and its GPUs. ``new``: it would be placed; else it runs there already."""

    model: str
    pod: str
    node: str
    gpus: tuple[int, ...]
    bytes: int
    new: bool
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRow:
    """Replicas without a GPU, and why. ``bytes``: needed on each of ``gpus``; 0 where that is not known."""

    model: str
    replicas: int
    reason: str
    message: str
    bytes: int
    gpus: int
    would_fit_if: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeavingRow:
    """A replica that runs and would lose its place. ``why``: Preempted, Moved or Replaced."""

    model: str
    pod: str
    node: str
    why: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A ModelDeployment. ``asked``: it is among the manifests; ``status``: the reason of its Ready condition."""

    model: str
    asked: bool
    replicas: int
    ready: int
    status: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """GPUs that hold a replica, and those that it would take to give each replica its own."""

    gpus: int
    gpus_before: int
    gpus_without_sharing: int
    fleet: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundRow:
    """How far a pool's packing is from the best one possible. ``least`` and ``used``: bytes of the GPUs in use,
    or millionths of their price where the pool has prices."""

    pool: str
    least: int
    used: int
    words: str
    relaxes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """All of it. ``fits``: every replica of the manifests gets its GPUs, and no other loses its own for it."""

    models: tuple[ModelRow, ...]
    placements: tuple[PlacedRow, ...]
    waiting: tuple[WaitingRow, ...]
    leaving: tuple[LeavingRow, ...]
    saving: Saving
    bounds: tuple[BoundRow, ...]
    ignored: Mapping[str, int]
    settled: bool
    fleet: FleetView

    @property
    def fits(self) -> bool:
        late = [each for each in self.models if each.asked and each.ready < each.replicas]
        lost = {each.model for each in self.leaving if each.why == "Preempted"} & {each.model for each in self.waiting}
        unready = [each for each in self.models if each.asked and each.status == "WaitingForRoom"]
        return self.settled and not late and not lost and not unready


def plan_view(
    before: Snapshot, found: Rehearsal, *, asked: Iterable[str], ignored: Mapping[str, int], bounds: Iterable[BoundRow]
) -> PlanView:
    """``before``: the cluster as it is; ``asked``: the models that are in the manifests."""
    after = found.snapshot
    stock = inventory(after)
    former = inventory(before)
    running = {pod.uid for pod in before.pods if pod.claim is not None}
    keys = frozenset(asked)
    waiting = tuple(row for model in after.models for row in _waiting(model))
    return PlanView(
        models=tuple(_model(model, after, keys) for model in after.models if not model.deleting),
        placements=tuple(_placed(pod, stock, running) for pod in after.pods if pod.claim is not None),
        waiting=waiting,
        leaving=tuple(_leaving(found, former)),
        saving=Saving(
            gpus=_in_use(after),
            gpus_before=_in_use(before),
            gpus_without_sharing=sum(len(pod.claim.gpus) for pod in after.pods if pod.claim is not None),
            fleet=len(stock.gpus),
        ),
        bounds=tuple(bounds),
        ignored=ignored,
        settled=found.settled,
        fleet=fleet_of(stock, waiting),
    )


def to_json(view: PlanView) -> Json:
    """For scripts; memory in bytes."""
    rest = {name: value for name, value in asdict(view).items() if name != "fleet"}
    return {"fits": view.fits, **camel(rest)}


def fleet_of(stock: Inventory, waiting: Iterable[WaitingRow]) -> FleetView:
    """The fleet as the picture needs it."""
    by_node: dict[str, list[GPURow]] = defaultdict(list)
    for gpu in stock.gpus.values():
        tenants = stock.tenants.get(gpu.uuid, ())
        held = sum(pod.claim.bytes for pod in tenants if pod.claim is not None)
        by_node[gpu.node].append(
            GPURow(
                uuid=gpu.uuid,
                index=gpu.index,
                product=gpu.product,
                capacity=gpu.usable,
                segments=tuple(
                    sorted(
                        (Segment(model=group_of(pod), bytes=pod.claim.bytes) for pod in tenants if pod.claim),
                        key=lambda each: (each.model, -each.bytes),
                    )
                ),
                foreign=gpu.usable - gpu.reserve - gpu.free - held,
                reserve=gpu.reserve,
                free=gpu.free,
                flags=() if gpu.closed is None else (str(gpu.closed),),
            )
        )
    nodes = [NodeRow(name=name, gpus=tuple(sorted(gpus, key=lambda gpu: gpu.uuid))) for name, gpus in by_node.items()]
    nodes = [NodeRow(name=each.name, gpus=tuple(sorted(each.gpus, key=lambda gpu: gpu.index or 0))) for each in nodes]
    return FleetView(
        nodes=in_order(nodes),
        waiting=tuple(
            Waiting(
                model=each.model,
                replicas=each.replicas,
                reason=each.reason,
                gpus=each.gpus or None,
                bytes=each.bytes or None,
            )
            for each in waiting
        ),
    )


def _in_use(snapshot: Snapshot) -> int:
    return len({uuid for pod in snapshot.pods if pod.claim is not None and not pod.ended for uuid in pod.claim.gpus})


def _model(model: ModelView, after: Snapshot, asked: frozenset[str]) -> ModelRow:
    ready = former_conditions(model.status).get("Ready", {})
    count = sum(
        pod.ready and pod.claim is not None
        for pod in after.pods
        if (pod.namespace, pod.model) == (model.namespace, model.name)
    )
    return ModelRow(
        model=model.key,
        asked=model.key in asked,
        replicas=model.spec.replicas if model.spec is not None else 0,
        ready=count,
        status=str(ready.get("reason", "")),
        message=str(ready.get("message", "")),
    )


def _placed(pod: PodView, stock: Inventory, running: set[str]) -> PlacedRow:
    assert pod.claim is not None
    gpus = [stock.gpus[uuid] for uuid in pod.claim.gpus if uuid in stock.gpus]
    return PlacedRow(
        model=group_of(pod),
        pod=pod.name,
        node=pod.node or (gpus[0].node if gpus else ""),
        gpus=tuple(sorted(gpu.index for gpu in gpus)),
        bytes=pod.claim.bytes,
        new=pod.uid not in running,
        because=pod.because,
    )


def _waiting(model: ModelView) -> Iterable[WaitingRow]:
    for entry in model.status.get("waiting") or ():
        needed = entry.get("needed")
        yield WaitingRow(
            model=model.key,
            replicas=entry["count"],
            reason=entry["reason"],
            message=entry.get("message", ""),
            bytes=Quantity.parse(needed).bytes if needed else 0,
            gpus=entry.get("gpus") or 0,
            would_fit_if=tuple(entry.get("wouldFitIf") or ()),
        )


def _leaving(found: Rehearsal, former: Inventory) -> Iterable[LeavingRow]:
    for eviction in found.evicted:
        for pod in eviction.pods:
            yield _left(pod, former, why=eviction.reason, message=eviction.message)
    for pod in found.replaced:
        yield _left(pod, former, why="Replaced", message="by a replica of the new template")


def _left(pod: PodView, former: Inventory, *, why: str, message: str) -> LeavingRow:
    first = former.gpus.get(pod.claim.gpus[0]) if pod.claim is not None else None
    node = pod.node or (first.node if first is not None else "")
    return LeavingRow(model=group_of(pod), pod=pod.name, node=node, why=why, message=message)


def replicas_by_model(rows: Iterable[PlacedRow]) -> Mapping[tuple[str, str, tuple[int, ...], bool], int]:
    """Replicas of one model on the same GPUs, counted."""
    return Counter((row.model, row.node, row.gpus, row.new) for row in rows)


def camel(value: Any) -> Any:
    """The same with the names of fields as the API writes names."""
    if isinstance(value, dict):
        return {_word(str(key)): camel(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [camel(each) for each in value]
    return value


def _word(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
