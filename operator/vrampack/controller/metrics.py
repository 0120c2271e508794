"""What Prometheus reads. Label sets are bounded: a result, a phase, a reason of ours, a GPU product."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_MAX_VALUES: Final = 64
_REST: Final = "other"
_PASS_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PLACEMENT_BUCKETS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


HELD: Final = "Held"
EVICTIONS: Final = ("Preempted", "Moved", "OverBudget", HELD)
"""Why replicas are evicted, and that a PodDisruptionBudget did not let them go."""


class Pass(StrEnum):
    """How a pass ended."""

    OK = "ok"
    UNAVAILABLE = "unavailable"
    """The API server was away."""
    ERROR = "error"


class Phase(StrEnum):
    """The parts of a pass."""

    OBSERVE = "observe"
    PLAN = "plan"
    ACT = "act"


class Placement(StrEnum):
    """What became of the patch that gives a pod its GPUs."""

    PLACED = "placed"
    REFUSED = "refused"
    """By a policy or webhook, or by Kubernetes. One that finds another version of the pod is a conflict."""


class Memory(StrEnum):
    """Kinds of GPU memory. Usable is claimed, foreign and free together; stranded is a part of free."""

    USABLE = "usable"
    CLAIMED = "claimed"
    FREE = "free"
    FOREIGN = "foreign"
    STRANDED = "stranded"
    """Free, and too little for any replica that waits or is usual."""


class Metrics:
    """All metrics of the operator. Counters exist from the start, so that a rate sees their first step."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ProcessCollector(registry=registry)
        self._passes = Counter("vrampack_passes", "Passes of the control loop.", ["result"], registry=registry)
        self._pass_seconds = Histogram(
            "vrampack_pass_seconds",
            "Duration of the parts of a pass.",
            ["phase"],
            buckets=_PASS_BUCKETS,
            registry=registry,
        )
        self._placements = Counter(
            "vrampack_placements", "Patches that give a pod its GPUs.", ["result"], registry=registry
        )
        self._conflicts = Counter(
            "vrampack_conflicts", "Writes refused because the object had changed.", registry=registry
        )
        self._evictions = Counter(
            "vrampack_evictions",
            "Replicas evicted, by what for; and those that a PodDisruptionBudget held back.",
            ["reason"],
            registry=registry,
        )
        self._waiting = Gauge(
            "vrampack_waiting_replicas", "Replicas that wait for a GPU.", ["reason"], registry=registry
        )
        self._changed = Gauge(
            "vrampack_changed_models", "ModelDeployments whose model is not what it was.", ["reason"], registry=registry
        )
        self._memory = Gauge(
            "vrampack_gpu_memory_bytes", "Memory of the fleet's GPUs.", ["product", "kind"], registry=registry
        )
        self._over_budget = Gauge(
            "vrampack_over_budget_replicas", "Replicas that use more GPU memory than they claim.", registry=registry
        )
        self._leader = Gauge("vrampack_leader", "1 where this process holds the Lease.", registry=registry)
        self._event_to_placement = Histogram(
            "vrampack_event_to_placement_seconds",
            "From the creation of a pod to its placement.",
            buckets=_PLACEMENT_BUCKETS,
            registry=registry,
        )
        for result in Pass:
            self._passes.labels(result)
        for phase in Phase:
            self._pass_seconds.labels(phase)
        for placement in Placement:
            self._placements.labels(placement)
        for reason in EVICTIONS:
            self._evictions.labels(reason)

    def count_pass(self, result: Pass) -> None:
        self._passes.labels(result).inc()

    def time_phase(self, phase: Phase, seconds: float) -> None:
        self._pass_seconds.labels(phase).observe(seconds)

    def count_placement(self, result: Placement, *, seconds_since_event: float | None = None) -> None:
        """``seconds_since_event``: since the pod was created, or lost its place; for those that were placed."""
        self._placements.labels(result).inc()
        if seconds_since_event is not None:
            self._event_to_placement.observe(max(0.0, seconds_since_event))

    def count_conflict(self) -> None:
        """Of any write."""
        self._conflicts.inc()

    def count_evictions(self, reason: str, count: int) -> None:
        """``reason``: one of EVICTIONS."""
        self._evictions.labels(reason).inc(count)

    def set_waiting(self, replicas: Mapping[str, int]) -> None:
        """Waiting replicas by reason, all of them: a reason that is absent goes."""
        self._waiting.clear()
        for reason, count in _bounded(replicas).items():
            self._waiting.labels(reason).set(count)

    def set_changed(self, models: Mapping[str, int]) -> None:
        """Models whose ModelUnchanged is False by its reason, all of them: a reason that is absent goes."""
        self._changed.clear()
        for reason, count in _bounded(models).items():
            self._changed.labels(reason).set(count)

    def set_over_budget(self, replicas: int) -> None:
        """Replicas that use more than they claim."""
        self._over_budget.set(replicas)

    def set_gpu_memory(self, fleet: Mapping[str, Mapping[Memory, int]]) -> None:
        """Bytes by product and kind, of the whole fleet: a product that is absent goes."""
        self._memory.clear()
        for kind in Memory:
            by_product = {product: kinds[kind] for product, kinds in fleet.items() if kind in kinds}
            for product, size in _bounded(by_product).items():
                self._memory.labels(product, kind).set(size)

    def set_leader(self, leader: bool) -> None:
        """Who leads no more says nothing of the fleet, so that a sum over all processes stays true."""
        self._leader.set(leader)
        if not leader:
            self._waiting.clear()
            self._changed.clear()
            self._memory.clear()
            self._over_budget.set(0)


def _bounded(values: Mapping[str, int]) -> Mapping[str, int]:
    """At most 64 labels: beyond, the smallest are one."""
    if len(values) <= _MAX_VALUES:
        return values
    ranked = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    kept = dict(ranked[: _MAX_VALUES - 1])
    rest = sum(value for _, value in ranked[_MAX_VALUES - 1 :])
    return {**kept, _REST: kept.get(_REST, 0) + rest}
