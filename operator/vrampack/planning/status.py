"""What a ModelDeployment says about itself: figures, conditions and events."""

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from vrampack.api import names
from vrampack.api.modeldeploymentstatus import (
    MAX_PLACEMENTS,
    EstimateStatus,
    ModelDeploymentStatus,
    ModelFacts,
    NominationStatus,
    Summary,
    WaitingStatus,
)
from vrampack.planning.budget import overuses
from vrampack.planning.cases import Case
from vrampack.planning.conditions import Said, conditions_of
from vrampack.planning.contract import facts_conditions
from vrampack.planning.deadends import dead_end
from vrampack.planning.figures import with_pending
from vrampack.planning.inventory import Inventory
from vrampack.planning.placements import placements
from vrampack.planning.podtemplate import selector
from vrampack.planning.queueing import CLAIM_REFUSED, Waits
from vrampack.planning.resolution import Look, Watch
from vrampack.planning.rollout import Rolled
from vrampack.planning.snapshot import Json, PodView
from vrampack.planning.verdict import Blocked, Sized
from vrampack.planning.waitinglist import waiting_list
from vrampack.units import counted, shortened

_NAMED_NODES = 8
_NODES_CHARACTERS = 512
_NAMED_PODS = 8


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
    waiting = waiting_list(case, stock, waits)
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
    stalled = dead_end(case, stock, rolled, waiting)
    reconciling = None if stalled else _reconciling(case, rolled, waiting, error)
    found: list[Said] = []
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
    return conditions_of(found, status=case.model.status, generation=case.model.generation, now=now)


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
        others = f"; and {len(over) - _NAMED_PODS} more" if len(over) > _NAMED_PODS else ""
        return "WithinBudget", False, "UseExceedsClaim", "; ".join(map(str, over[:_NAMED_PODS])) + others
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


def _joined(nodes: Sequence[str]) -> str:
    """Some of them by name: as many as are read in a column, however long their names are."""
    others = len(nodes) - _NAMED_NODES
    shown = shortened(", ".join(nodes[:_NAMED_NODES]), most=_NODES_CHARACTERS)
    return f"{shown} and {others} more" if others > 0 else shown
