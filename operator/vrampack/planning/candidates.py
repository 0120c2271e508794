"""A waiting replica as the packer sees it: what it asks for, and the hosts that can't take it."""

from collections.abc import Iterable, Mapping

from vrampack.api.gpupool import PoolObjective
from vrampack.packing.arrays import PLENTY
from vrampack.packing.problem import Host, Item, Objective, Reason, Spread
from vrampack.planning.cases import Case
from vrampack.planning.eligibility import refusal
from vrampack.planning.injection import style_of
from vrampack.planning.mechanisms import lacks
from vrampack.planning.need import Need, company
from vrampack.planning.probing import unknown
from vrampack.planning.reasons import Obstacle
from vrampack.planning.snapshot import PodView, PoolView, Snapshot
from vrampack.sharing.visible_devices import runs_with


class Eligibility:
    """Hosts that can't take a pod, with the reason; replicas of one template share the answer. ``probing``: whether
    nodes of which nobody knows how they hand out GPUs are found out about."""

    def __init__(self, snapshot: Snapshot, *, probing: bool = False) -> None:
        self._probing = probing
        self._now = snapshot.now
        self._nodes = {node.name: node for node in snapshot.nodes}
        self._gpu_nodes = {view.name: view for view in snapshot.gpu_nodes}
        self._refusals = snapshot.memory.refusals
        self._devices = snapshot.devices
        self._known: dict[tuple[str, str, str], Mapping[str, str]] = {}

    def refused(self, pod: PodView, *, model: str, pool: PoolView, hosts: Iterable[Host]) -> Mapping[str, str]:
        """Reasons by host, for the hosts that are refused."""
        key = (model, pod.owner_uid, pool.name)
        if key not in self._known:
            found = {}
            for host in hosts:
                if (reason := self._reason(pod, model, pool, host.name)) is not None:
                    found[host.name] = reason
            self._known[key] = found
        return self._known[key]

    def _reason(self, pod: PodView, model: str, pool: PoolView, host: str) -> Obstacle | None:
        node, view = self._nodes.get(host), self._gpu_nodes[host]
        if node is not None and (reason := refusal(pod, node)) is not None:
            return reason
        if self._probing and unknown(view, node, pool):
            return Obstacle.INJECTION_UNKNOWN
        style = style_of(view.status, pool=pool.spec)
        if not runs_with(style, runtime_class=pod.runtime_class or None):
            return Obstacle.INJECTION_STYLE
        if lacks(pool, node, view, self._devices):
            return Obstacle.MECHANISM
        if self._refusals.get((model, host), 0) > self._now:
            return Obstacle.REFUSED
        return None


def item(
    pod: PodView,
    need: Need,
    case: Case,
    *,
    refused: Mapping[str, str],
    rank: int,
    now: float | None = None,
    alone: bool = False,
) -> Item:
    """A replica as the packer sees it. ``now``: seconds since 1970, where it counts how long it has waited. ``alone``:
    no device of its pool has more than one."""
    spec = case.model.spec
    placement = spec.placement if spec is not None else None
    beside = company(need, placement)
    spread = Spread(placement.spread.value) if placement is not None else Spread.PREFER
    return Item(
        key=f"{pod.namespace}/{pod.name}",
        group=case.model.key,
        gpus=demand(need.gpus),
        memory=demand(need.bytes),
        cpu=demand(pod.cpu),
        host_memory=demand(pod.memory),
        exclusive=alone or beside.exclusive,
        products=frozenset(placement.gpu_products) if placement is not None and placement.gpu_products else None,
        avoid=frozenset(f"{pod.namespace}/{name}" for name in beside.avoid),
        spread=Spread.REQUIRE if case.apart else spread,
        priority=pod.priority,
        rank=rank,
        refused=refused,
        waited=0 if now is None else max(0, int(now - pod.created)),
        preempts=pod.preempts,
    )


def demand(asked: int) -> int:
    """Of what one replica asks for, as much as the packer counts. More than that nothing has, so it waits."""
    return min(asked, PLENTY - 1)


def objective_of(pool: PoolView) -> Objective:
    """The pool's objective in the packer's words."""
    return Objective.BALANCED if pool.spec.objective is PoolObjective.BALANCED else Objective.FEWEST_GPUS


def main_reason(rejected: Mapping[str, int]) -> str:
    """The one word: missing memory if that is all that some GPU lacks, else what rules out most of them."""
    if not rejected:
        return "NoMatchingGPU"
    for reason in (Reason.INSUFFICIENT_GPU_MEMORY, Reason.TOO_FEW_GPUS):
        if rejected.get(reason):
            return reason
    rules = {Reason.PRODUCT_MISMATCH, Obstacle.NODE_SELECTOR, Obstacle.NODE_AFFINITY, Obstacle.TAINT}
    if set(rejected) <= rules:
        return "NoMatchingGPU"
    return max(sorted(set(rejected) - rules), key=lambda reason: rejected[reason])
