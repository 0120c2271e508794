"""Replicas that use more of a GPU than they claim: who they are, and who has to go where the pool says so.

An engine that takes more than its share is found out by its neighbour, whose next allocation fails. So the one that is
named, and evicted where the pool wants that, is always the one that uses too much.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vrampack.api.gpupool import OverusePolicy
from vrampack.planning.actions import EvictPods, Tell
from vrampack.planning.cases import Case
from vrampack.planning.inventory import Inventory
from vrampack.planning.snapshot import Memory, PodView, PoolView
from vrampack.units import human_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Overuse:
    """Bytes of one pod on one GPU, beyond its claim and the pool's tolerance."""

    pod: PodView
    gpu: str
    claimed: int
    used: int

    def __str__(self) -> str:
        return f"pod {self.pod.name} uses {human_bytes(self.used)} and claims {human_bytes(self.claimed)}"


def overuses(case: Case, stock: Inventory) -> list[Overuse]:
    """All of a model's replicas that use too much."""
    found = []
    for pod in case.placed:
        for uuid in pod.claim.gpus if pod.claim is not None else ():
            used, gpu = stock.observed.get((uuid, pod.uid)), stock.gpus.get(uuid)
            tolerance = gpu.tolerance if gpu is not None else 0.0
            if pod.claim is not None and used is not None and used > pod.claim.bytes * (1 + tolerance / 100):
                found.append(Overuse(pod=pod, gpu=uuid, claimed=pod.claim.bytes, used=used))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """``over``: UIDs of the pods that use too much. ``wake_at``: when the next of them has done so for too long."""

    over: frozenset[str]
    evictions: tuple[EvictPods, ...]
    wake_at: float | None


def offenders(
    given: Sequence[Case], stock: Inventory, pools: Sequence[PoolView], memory: Memory, *, now: float
) -> Verdicts:
    """Who uses too much, and who has done so for longer than a pool bears."""
    policies = {pool.name: pool.spec.overuse for pool in pools}
    by_pod: dict[str, list[tuple[Overuse, Case]]] = defaultdict(list)
    for case in given:
        for overuse in overuses(case, stock):
            by_pod[overuse.pod.uid].append((overuse, case))
    evictions, wake = [], []
    for uid, found in sorted(by_pod.items()):
        overuse, case = found[0]
        policy = policies[stock.pool_of[stock.gpus[overuse.gpu].node]] if overuse.gpu in stock.gpus else None
        if policy is None or policy.policy is not OverusePolicy.EVICT or overuse.pod.deleting:
            continue
        held = memory.held.get(uid)
        due = max(memory.over_since.get(uid, now) + policy.seconds, held.until if held is not None else 0)
        if due > now:
            wake.append(due)
        else:
            evictions.append(_eviction(overuse, case, seconds=policy.seconds))
    return Verdicts(over=frozenset(by_pod), evictions=tuple(evictions), wake_at=min(wake, default=None))


def _eviction(overuse: Overuse, case: Case, *, seconds: int) -> EvictPods:
    pod, model = overuse.pod, case.model
    message = f"{overuse} of GPU {overuse.gpu}, for {seconds} s or longer"
    told = [
        Tell(
            kind=kind, namespace=pod.namespace, name=name, uid=uid, type="Warning", reason="OverBudget", message=message
        )
        for kind, name, uid in (("Pod", pod.name, pod.uid), ("ModelDeployment", model.name, model.uid))
    ]
    return EvictPods(pods=(pod,), reason="OverBudget", message=message, events=tuple(told))
