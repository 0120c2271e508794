"""Replicas that wait, by the reason, as a ModelDeployment's status has them."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from vrampack.api.common import Quantity
from vrampack.api.modeldeploymentstatus import ClosestGPU, WaitingStatus
from vrampack.planning.cases import Case
from vrampack.planning.inventory import Inventory
from vrampack.planning.queueing import Waits
from vrampack.planning.reasons import ruled_out
from vrampack.planning.verdict import Blocked
from vrampack.units import each_of, human_bytes

_MOST: Final = 16


def waiting_list(case: Case, stock: Inventory, waits: Sequence[Waits]) -> list[WaitingStatus]:
    """The largest groups first."""
    groups: dict[str, list[Waits]] = defaultdict(list)
    for each in waits:
        groups[each.reason].append(each)
    found = [_group(reason, members, stock) for reason, members in groups.items()]
    if (refused := _refused_pods(case)) is not None:
        found.append(refused)
    if isinstance(case.sized, Blocked) and case.deployment is None and case.replicas:
        found.append(WaitingStatus(reason=case.sized.reason, count=case.replicas, message=case.sized.message[:2048]))
    return sorted(found, key=lambda each: (-each.count, each.reason))[:_MOST]


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
