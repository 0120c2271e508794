"""What a plan asks for: writes to the API server, each safe on its own, in the order in which they are to be made."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from vrampack.api import names
from vrampack.planning.resolution import ResolveRequest, Token, Watch
from vrampack.planning.snapshot import Claim, PodView, ProbeView

if TYPE_CHECKING:
    from vrampack.planning.findings import Question

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacePod:
    """One JSON patch: claim, node and gate together. ``annotations`` lack the epoch: it is the writer's."""

    pod: PodView
    node: str
    gpus: tuple[str, ...]
    annotations: Mapping[str, str]
    because: str = ""
    """Why these GPUs, in words."""

    @property
    def claim(self) -> Claim:
        """What the pod's claim will be, but for the epoch."""
        return Claim(gpus=self.gpus, bytes=int(self.annotations[names.CLAIM]), epoch=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateChild:
    """POST: an object of that name that is there already stays as it is."""

    model: str
    manifest: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyChild:
    """Server-side apply to a child that is ours; ``resource_version``: the one that the decision saw."""

    model: str
    manifest: Json
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchChild:
    """Merge patch of a few fields (replicas, strategy) that leaves the template alone."""

    model: str
    kind: str
    namespace: str
    name: str
    resource_version: str
    patch: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteChild:
    """Deletes a child that nothing refers to any more, as it was read."""

    model: str
    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str


ChildAction = CreateChild | ApplyChild | PatchChild | DeleteChild


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePod:
    """Deletes a placed pod that the scheduler refuses. ``node``: where it was to go."""

    pod: PodView
    model: str
    node: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictPods:
    """Asks for all of these pods to be evicted, so that disruption budgets hold and each has its grace period: all of
    them, or none where one may not go now. ``reason``: a CamelCase word; ``message``: what they leave for."""

    pods: tuple[PodView, ...]
    reason: str
    message: str
    events: tuple["Tell", ...] = ()
    """Told once they are evicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteStatus:
    """Server-side apply of a status. ``kind``: ModelDeployment, GPUNode, GPUPool, or ModelProfile, of which only the
    measurements."""

    kind: str
    namespace: str
    name: str
    resource_version: str
    status: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """An event on an object."""

    kind: str
    namespace: str
    name: str
    uid: str
    type: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of a pass. Placements come first: they are what people wait for."""

    placements: tuple[PlacePod, ...] = ()
    children: tuple[ChildAction, ...] = ()
    deletions: tuple[DeletePod, ...] = ()
    evictions: tuple[EvictPods, ...] = ()
    statuses: tuple[WriteStatus, ...] = ()
    events: tuple[Tell, ...] = ()
    resolve: tuple[ResolveRequest, ...] = ()
    watch: Mapping[Watch, tuple[Token, ...]] = field(default_factory=dict)
    """Models that are served, to be looked at from time to time, and the Secrets with which they may be seen."""
    wake_at: float | None = None
    """When something is due without an event, in the snapshot's clock."""
    waiting: Mapping[str, int] | None = None
    """Replicas that wait, by reason: for the metrics."""
    gpu_bytes: Mapping[tuple[str, str], int] | None = None
    """Bytes by (product, kind), kind one of usable, claimed, free, foreign: for the metrics."""
    probes: tuple[Json, ...] = ()
    """Pods to make that find out how their nodes hand out GPUs."""
    ended_probes: tuple[ProbeView, ...] = ()
    """Those to delete, once the statuses are written."""
    over_budget: frozenset[str] = frozenset()
    """UIDs of the pods that use more than they claim."""
    questions: Mapping[str, tuple["Question", int]] = field(default_factory=dict)
    """By pool what to look for beside the passes, and how many chunks of work that is worth."""
    changed: Mapping[str, int] | None = None
    """Models that are not what they were, by reason: for the metrics."""

    def first(self) -> "Plan":
        """What people wait for, and what can't wait. The rest tells and rounds off, and is found again by the plan of a
        later pass, since it follows from what is there."""
        children = tuple(each for each in self.children if _kind(each) not in _ROUNDING_OFF)
        return replace(self, children=children, statuses=(), events=(), probes=(), ended_probes=())


_ROUNDING_OFF: Final = ("Service", "PodDisruptionBudget")


def _kind(child: ChildAction) -> str:
    return child.kind if isinstance(child, PatchChild | DeleteChild) else child.manifest["kind"]
