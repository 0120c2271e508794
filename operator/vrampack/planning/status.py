"""What a ModelDeployment says about itself: figures, conditions and events."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from vrampack.api import names
from vrampack.api.common import Quantity
from vrampack.api.modeldeploymentstatus import (
    MAX_PLACEMENTS,
    ClosestGPU,
    EstimateStatus,
    ModelDeploymentStatus,
    ModelFacts,
    NominationStatus,
    Summary,
    WaitingStatus,
)
from vrampack.planning.budget import overuses
from vrampack.planning.cases import Case
from vrampack.planning.conditions import carried, former_conditions
from vrampack.planning.contract import facts_conditions
from vrampack.planning.figures import with_pending
from vrampack.planning.inventory import Inventory
from vrampack.planning.need import Need
from vrampack.planning.placements import placements
from vrampack.planning.podtemplate import selector
from vrampack.planning.queueing import CLAIM_REFUSED, Waits
from vrampack.planning.reasons import ruled_out
from vrampack.planning.resolution import Look, Watch
from vrampack.planning.rollout import Rolled
from vrampack.planning.snapshot import Json, PodView
from vrampack.planning.verdict import Blocked, Sized
from vrampack.units import counted, each_of, human_bytes

_MAX_WAITING = 16


def model_status(
    case: Case,
    *,
    stock: Inventory,
    rolled: Rolled,
    waits: Sequence[Waits],
    error: str,
    now: float,
    nominations: Sequence[NominationStatus] = (),
    looks: Mapping[Watch, Look] | None = None,
) -> Json:
    """The whole status, as it is to stand in the object. ``looks``: what the hub has now of models."""
    waiting = _waiting(case, stock, waits)
    estimate = _estimate(case)
    claimed = {uuid for pod in case.placed if pod.claim is not None for uuid in pod.claim.gpus}
    nodes = sorted({stock.gpus[uuid].node for uuid in claimed if uuid in stock.gpus})
    status = ModelDeploymentStatus(
        observed_generation=case.model.generation,
        replicas=sum(not pod.deleting for pod in case.pods),
        ready_replicas=case.ready,
        placed_replicas=len(case.placed),
        selector=",".join(f"{key}={value}" for key, value in sorted(selector(case.model.name).items())),
        summary=Summary(ready=f"{case.ready}/{case.replicas}", gpus=len(claimed), nodes=_joined(nodes)),
        model=_facts(case),
        estimate=estimate,
        placements=placements(case, stock),
        placements_omitted=max(0, len(case.placed) - MAX_PLACEMENTS) or None,
        waiting=tuple(waiting),
        nominations=tuple(sorted(nominations, key=lambda each: each.pod))[:MAX_PLACEMENTS],
    ).wire()
    status["conditions"] = _conditions(case, stock, rolled, waiting, error, now, looks or {})
    return status


def _conditions(
    case: Case,
    stock: Inventory,
    rolled: Rolled,
    waiting: Sequence[WaitingStatus],
    error: str,
    now: float,
    looks: Mapping[Watch, Look],
) -> list[Json]:
    stalled = _stalled(case, stock, rolled, waiting)
    reconciling = None if stalled else _reconciling(case, rolled, waiting, error)
    found: list[tuple[str, bool | None, str, str]] = []
    gpus = len({uuid for pod in case.placed if pod.claim is not None for uuid in pod.claim.gpus})
    if stalled is not None:
        found.append(("Ready", False, *stalled))
    elif reconciling is not None:
        found.append(("Ready", False, *reconciling))
    elif case.replicas == 0:
        found.append(("Ready", True, "ScaledToZero", "no replica is wanted, and none holds a GPU"))
    else:
        message = f"{case.ready} of {case.replicas} replicas are ready on {counted(gpus, 'GPU')}"
        found.append(("Ready", True, "AllReplicasReady", message))
    if reconciling is not None:
        found.append(("Reconciling", True, *reconciling))
    if stalled is not None:
        found.append(("Stalled", True, *stalled))
    found += facts_conditions(case, looks)
    missing = case.replicas - len(case.placed)
    if missing > 0:
        first = waiting[0] if waiting else None
        reason = first.reason if first is not None else "Progressing"
        message = f"{len(case.placed)} of {case.replicas} replicas hold their GPUs"
        found.append(("Scheduled", False, reason, f"{message}; {first.message}" if first is not None else message))
    else:
        found.append(("Scheduled", True, "AllPlaced", f"{case.replicas} of {case.replicas} replicas hold their GPUs"))
    found.append(_within_budget(case, stock))
    before = former_conditions(case.model.status)
    return [
        carried(
            before,
            type_=type_,
            holds=holds,
            reason=reason,
            message=message,
            generation=case.model.generation,
            now=now,
        )
        for type_, holds, reason, message in found
    ]


def _stalled(case: Case, stock: Inventory, rolled: Rolled, waiting: Sequence[WaitingStatus]) -> tuple[str, str] | None:
    """A dead end: reason and message, where only a person's change helps."""
    serving = f"; the former revision keeps serving with {counted(case.ready, 'replica')}" if case.ready else ""
    if isinstance(case.sized, Blocked):
        return (case.sized.reason, case.sized.message + serving) if case.sized.stalled else None
    if case.taken:
        kinds = " and ".join(case.taken)
        return (
            "NameConflict",
            (
                f"{kinds} {case.model.namespace}/{case.model.name} is not vrampack's and stays as it is; delete or "
                "rename it, or rename this ModelDeployment"
            ),
        )
    waits = case.replicas > len(case.placed) and (waiting or not case.placed)
    if not waits and not rolled.waits:
        return None
    found = _too_large(case, case.live_need or case.sized.need, stock)
    return (found[0], found[1] + serving) if found is not None else None


def _too_large(case: Case, need: Need, stock: Inventory) -> tuple[str, str] | None:
    """Whether no GPU of the pool would do even if it were empty."""
    spec = case.model.spec
    products = set(spec.placement.gpu_products) if spec is not None else set()
    gpus = [
        gpu
        for gpu in stock.gpus.values()
        if stock.pool_of[gpu.node] == case.pool and gpu.usable and (not products or gpu.product in products)
    ]
    if not gpus:
        return None
    largest = max(gpus, key=lambda gpu: gpu.usable - gpu.reserve)
    room = largest.usable - largest.reserve
    if need.bytes > room:
        return (
            "LargerThanAnyGPU",
            (
                f"needs {human_bytes(need.bytes)} on each GPU, and the largest of the pool that is allowed "
                f"({largest.product}) has {human_bytes(room)}, {human_bytes(need.bytes - room)} too little; "
                "lower serving.concurrency or serving.contextLength, or raise parallelism.tensor"
            ),
        )
    fitting: dict[tuple[str, str], int] = defaultdict(int)
    for gpu in gpus:
        if gpu.usable - gpu.reserve >= need.bytes:
            fitting[gpu.node, gpu.product] += 1
    most = max(fitting.values())
    if most < need.gpus:
        return (
            "LargerThanAnyNode",
            (
                f"needs {need.gpus} GPUs of one product on one node, and no node has more than {most} that are "
                "large enough; lower parallelism.tensor"
            ),
        )
    return None


def _reconciling(case: Case, rolled: Rolled, waiting: Sequence[WaitingStatus], error: str) -> tuple[str, str] | None:
    """Work that is under way, or room that is awaited."""
    if isinstance(case.sized, Blocked):
        return case.sized.reason, case.sized.message
    if error:
        return "ChildRefused", f"the API server refused a child: {error}"
    if rolled.waits:
        return "WaitingForRoom", rolled.waits
    if case.deployment is None or not case.in_force:
        return "Progressing", "the children are being written"
    starting = [pod for pod in case.placed if not pod.ready]
    if waiting and case.replicas > len(case.placed):
        first = waiting[0]
        reason = "Progressing" if first.reason in ("GPUBusyStarting", "Progressing") else "WaitingForRoom"
        if first.reason in ("PodsRefused", CLAIM_REFUSED):
            reason = first.reason
        return reason, f"{case.ready} of {case.replicas} replicas are ready; {first.count} wait: {first.message}"
    # A replica that leaves, maybe for ever from a lost node, is no concern of those that serve; but zero means none.
    leaving = case.replicas == 0 and any(pod.deleting for pod in case.pods)
    if case.ready != case.replicas or case.rolling or leaving:
        words = f"{case.ready} of {case.replicas} replicas are ready"
        if case.replicas == 0:
            return "Progressing", f"{len(case.pods)} replicas are going away"
        failing = next((pod for pod in starting if pod.failure), None)
        if failing is not None:
            return "EngineFailing", f"{words}; the engine of pod {failing.name} says {failing.failure}"
        refused = next((pod for pod in starting if pod.refused), None)
        if refused is not None:
            return "PlacementRefused", f"{words}; the scheduler refuses pod {refused.name}: {refused.refused}"
        if len(case.placed) > case.ready:
            words += f"; {len(case.placed) - case.ready} start on their GPUs"
        return "Progressing", words
    return None


def _within_budget(case: Case, stock: Inventory) -> tuple[str, bool | None, str, str]:
    if over := overuses(case, stock):
        return "WithinBudget", False, "UseExceedsClaim", "; ".join(map(str, over[:8]))
    pairs = ((uuid, pod) for pod in case.placed for uuid in (pod.claim.gpus if pod.claim is not None else ()))
    if all(_observed(stock, uuid, pod) is None for uuid, pod in pairs):
        return "WithinBudget", None, "NotObserved", "no use was observed yet"
    return "WithinBudget", True, "UseWithinClaim", "observed use is within the claim on every GPU"


def _observed(stock: Inventory, uuid: str, pod: PodView) -> int | None:
    return stock.observed.get((uuid, pod.uid))


def _estimate(case: Case) -> EstimateStatus | None:
    """The estimate in force; beside it a newer one, where there is one."""
    sized = case.sized
    in_force = None
    if case.in_force:
        try:
            in_force = EstimateStatus.model_validate_json(case.annotations.get(names.ESTIMATE, ""))
        except ValidationError:
            in_force = None
    if not isinstance(sized, Sized):
        return in_force
    if in_force is None:
        return sized.estimate
    if in_force.per_gpu == sized.estimate.per_gpu:
        return in_force
    return with_pending(in_force, sized.estimate)


def _facts(case: Case) -> ModelFacts | None:
    if isinstance(case.sized, Sized):
        return case.sized.facts
    former = case.model.status.get("model")
    try:
        return ModelFacts.model_validate(former) if former else None
    except ValidationError:  # what another version wrote; it comes back with the next estimate
        return None


def _waiting(case: Case, stock: Inventory, waits: Sequence[Waits]) -> list[WaitingStatus]:
    groups: dict[str, list[Waits]] = defaultdict(list)
    for each in waits:
        groups[each.reason].append(each)
    found = [_group(reason, members, stock) for reason, members in groups.items()]
    if (refused := _refused_pods(case)) is not None:
        found.append(refused)
    if isinstance(case.sized, Blocked) and case.deployment is None and case.replicas:
        found.append(WaitingStatus(reason=case.sized.reason, count=case.replicas, message=case.sized.message[:2048]))
    return sorted(found, key=lambda each: (-each.count, each.reason))[:_MAX_WAITING]


def _group(reason: str, members: Sequence[Waits], stock: Inventory) -> WaitingStatus:
    first = min(members, key=lambda each: each.pod.name)
    unplaced, need = first.unplaced, first.need
    closest = unplaced.closest if unplaced is not None else None
    message = first.message
    if unplaced is not None and need is not None:
        counts = ruled_out(unplaced.rejected)
        message = f"needs {human_bytes(need.bytes)} on {each_of(need.gpus, 'GPU')}; "
        message += f"ruled out: {counts}" if counts else "the pool has no GPU"
        if closest is not None:
            index = stock.gpus[closest.device].index
            message += (
                f"; closest is GPU {index} of {closest.host} with {human_bytes(closest.free)} free, "
                f"{human_bytes(closest.short)} short"
            )
        if (kept := next((each for each in members if each.kept is not None), None)) is not None and kept.kept:
            where = ", ".join(str(stock.gpus[each].index) for each in kept.kept.devices)
            message += f"; {kept.pod.name} has waited longest, so GPU {where} of {kept.kept.host} is kept for it"
    return WaitingStatus(
        reason=reason,
        count=len(members),
        pod=first.pod.name,
        message=message[:2048],
        needed=None if need is None else Quantity.of(need.bytes),
        gpus=None if need is None else need.gpus,
        closest=None
        if closest is None
        else ClosestGPU(
            node=closest.host,
            gpu=stock.gpus[closest.device].index,
            free=Quantity.of(max(0, closest.free)),
            short=Quantity.of(closest.short),
        ),
        rejected=dict(sorted(unplaced.rejected.items())[:32]) if unplaced is not None else {},
        would_fit_if=first.would_fit_if,
    )


def _refused_pods(case: Case) -> WaitingStatus | None:
    """Replicas for which Kubernetes refuses to make a pod, in its own words."""
    if case.deployment is None:
        return None
    conditions = (case.deployment.object.get("status") or {}).get("conditions") or ()
    failure = next((each for each in conditions if each["type"] == "ReplicaFailure" and each["status"] == "True"), None)
    missing = case.replicas - sum(not pod.deleting for pod in case.pods)
    if failure is None or missing <= 0:
        return None
    return WaitingStatus(reason="PodsRefused", count=missing, message=failure.get("message", "")[:2048])


def _joined(nodes: Sequence[str]) -> str:
    shown = ", ".join(nodes[:8])
    return f"{shown} and {len(nodes) - 8} more" if len(nodes) > 8 else shown
