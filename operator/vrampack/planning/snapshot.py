"""What was observed, as one immutable picture: everything that a plan depends on, "now" included.

Views hold what a decision reads, in plain types: bytes, thousandths of a core, seconds. Nothing here is a wire format.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vrampack.api.gpunode import GPUNodeSpec, GPUNodeStatus
from vrampack.api.gpupool import GPUPoolSpec, InjectionStyle
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.api.modelprofile import Measurement, ModelProfileSpec
from vrampack.planning.resolution import Look, Resolution, ResolveRequest, Watch

if TYPE_CHECKING:
    from vrampack.planning.findings import Findings

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Bytes on each of these GPUs, as the pod's annotations say."""

    gpus: tuple[str, ...]
    bytes: int
    epoch: int
    on_node: bool = False
    """Whether another scheduler chooses the GPUs: these are where its bytes are held until its choice is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """A pod that carries vrampack's label. Times are seconds since 1970."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    model: str
    """Name of the ModelDeployment, by the label."""
    owner_uid: str
    """UID of the controller: the ReplicaSet."""
    created: float
    phase: str
    deleting: bool = False
    gated: bool = False
    gates: tuple[str, ...] = ()
    """All scheduling gates, in order: the position of ours is needed to remove it."""
    ready: bool = False
    started: bool = False
    """Whether its engine is known to have got through its start, so that it measures no free memory any more."""
    node: str = ""
    """Node that it is bound to; empty before."""
    refused: str = ""
    """The scheduler's message while it finds no node for the ungated pod."""
    restarts: int = 0
    failure: str = ""
    """Why its engine does not run, such as CrashLoopBackOff."""
    need: str = ""
    """The annotation vrampack.dev/need, unparsed: anybody may have written it."""
    claim: Claim | None = None
    obscure: tuple[str, ...] = ()
    """GPUs that it claims in a way that can't be read: how much of them it may use nobody knows."""
    because: str = ""
    """Why it got its GPUs, as it was written with the claim."""
    annotated: bool = False
    """Whether it has annotations at all: a JSON patch can't add to what is not there."""
    priority: int = 0
    preempts: bool = True
    """Whether it may take the place of replicas of lower priority."""
    cpu: int = 0
    memory: int = 0
    node_selector: Mapping[str, str] = field(default_factory=dict)
    affinity: Json | None = None
    tolerations: tuple[Json, ...] = ()
    runtime_class: str = ""

    @property
    def ended(self) -> bool:
        """Succeeded or Failed: the object may stay, its claim does not."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSetView:
    """One revision of a Deployment."""

    namespace: str
    name: str
    uid: str
    owner_uid: str
    replicas: int
    requests: frozenset[str] = frozenset()
    """Names of the ResourceClaimTemplates that its pods refer to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildView:
    """A Deployment, Service or PodDisruptionBudget that has the name of one of ours. ``object``: as it was read."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    owner_uid: str
    deleting: bool
    object: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A ModelDeployment. ``spec`` is None where it can't be read; ``problem`` then says the field."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    deleting: bool
    refresh: str
    """Value of the user's annotation that asks for the newest estimate."""
    spec: ModelDeploymentSpec | None
    raw_spec: Json
    problem: str = ""
    status: Json = field(default_factory=dict)

    @property
    def key(self) -> str:
        """``namespace/name``"""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileView:
    """A ModelProfile."""

    name: str
    generation: int
    spec: ModelProfileSpec | None
    problem: str = ""
    measurements: tuple[Measurement, ...] = ()
    resource_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUNodeView:
    """A GPUNode, and whether its agent's Lease is fresh."""

    name: str
    generation: int
    spec: GPUNodeSpec
    status: GPUNodeStatus
    raw_status: Json
    agent_alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """A GPUPool. The implicit one, ``default``, is there even without an object: its generation is 0.

    ``problem``: what can't be read. Nothing is placed in such a pool, and of ``spec`` only the selector counts: empty
    where it can't be read either. So its nodes, or all that no pool before it has, take no replica of another pool.
    """

    name: str
    generation: int
    spec: GPUPoolSpec
    problem: str = ""
    status: Json = field(default_factory=dict)
    resource_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A Node."""

    name: str
    labels: Mapping[str, str]
    ready: bool
    unschedulable: bool
    taints: tuple[Json, ...]
    cpu: int
    memory: int
    pods: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    resources: frozenset[str] = frozenset()
    """Names of what is allocatable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedDevice:
    """A GPU as a DRA driver publishes it."""

    uuid: str
    by_memory: bool
    """Whether several claims may have it, each with bytes of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A GPU, or a part of its memory, that a claim was given."""

    uuid: str
    pod_uid: str
    """Pod that it is reserved for; empty: none yet."""
    bytes: int | None
    """None: all of the GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """What the API server knows of devices (DRA); read only where a pool shares by them."""

    problem: str = ""
    """Why it can't be read; the rest is empty then."""
    classes: frozenset[str] = frozenset()
    published: Mapping[str, tuple[PublishedDevice, ...]] = field(default_factory=dict)
    """By node."""
    grants: tuple[Grant, ...] = ()
    """What kube-scheduler gave out, ours and others'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A pod that a PodDisruptionBudget did not let go, or whose claim was refused: what was said, and until when it is
    not asked again. ``times``: how often in a row."""

    until: float
    message: str
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeView:
    """A pod that finds out how its node hands out GPUs."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    node: str
    setup: str
    style: InjectionStyle
    created: float
    succeeded: bool
    failed: bool
    message: str
    """What it saw, or why its container can't be made."""

    @property
    def ended(self) -> bool:
        """Whether it can say no more."""
        return self.succeeded or self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the loop remembers between passes, because no object says it. Lost in a restart, and with it time, and what
    pods that went had claimed beyond what their processes hold.

    Times are of the snapshot's clock. ``refusals``: until when a model keeps off a node that refused it.
    ``deletions``: when a pod was last deleted on a node. ``started``: when this loop began to lead.
    """

    started: float
    refusals: Mapping[tuple[str, str], float] = field(default_factory=dict)
    deletions: Mapping[str, float] = field(default_factory=dict)
    refused_since: Mapping[str, float] = field(default_factory=dict)
    """By pod UID: when it was first seen placed and not bound. Its condition is False from its gate on."""
    conflicts: frozenset[tuple[str, str]] = frozenset()
    """Models (``namespace/name``) and kinds whose child could not be created: its name is taken."""
    child_errors: Mapping[str, str] = field(default_factory=dict)
    """By model: what the API server said when it refused a child."""
    over_since: Mapping[str, float] = field(default_factory=dict)
    """By pod UID: since when it has used more than it claims."""
    held: Mapping[str, Held] = field(default_factory=dict)
    """By pod UID: pods whose eviction was refused a moment ago."""
    unclaimed: Mapping[str, Held] = field(default_factory=dict)
    """By pod UID: pods whose claim the API server refused a moment ago."""
    findings: Mapping[str, "Findings"] = field(default_factory=dict)
    """By pool: what was found beside the passes."""
    departed: tuple[PodView, ...] = ()
    """Pods with a claim that are gone, and whose processes may not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything at one moment. Tuples are sorted by namespace and name. ``now``: seconds since 1970."""

    now: float
    models: tuple[ModelView, ...] = ()
    profiles: tuple[ProfileView, ...] = ()
    gpu_nodes: tuple[GPUNodeView, ...] = ()
    pools: tuple[PoolView, ...] = ()
    nodes: tuple[NodeView, ...] = ()
    pods: tuple[PodView, ...] = ()
    replica_sets: tuple[ReplicaSetView, ...] = ()
    children: tuple[ChildView, ...] = ()
    resolutions: Mapping[ResolveRequest, Resolution] = field(default_factory=dict)
    looks: Mapping[Watch, Look] = field(default_factory=dict)
    probes: tuple[ProbeView, ...] = ()
    devices: DeviceView | None = None
    """None: no pool shares by DRA."""
    memory: Memory
