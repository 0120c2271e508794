"""GPUPool: the policy for a set of nodes."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from vrampack.api.common import ApiModel, AtMost, Condition, Percentage, Quantity, Rule, by_key, rules
from vrampack.api.texts import LABEL_TEXT, LABELS_ARE_VALID, OPTIONAL_NAME, PRODUCT, RUNTIME_CLASS

Labels = dict[str, Annotated[str, Field(max_length=63)]]


class Mechanism(StrEnum):
    """How a GPU is shared."""

    VISIBLE_DEVICES = "VisibleDevices"
    MEMORY_LIMITS = "MemoryLimits"
    MIG = "MIG"
    MPS = "MPS"
    HAMI = "HAMi"
    HAMI_CORE = "HAMiCore"
    KAI = "KAI"
    DRA = "DRA"


class InjectionStyle(StrEnum):
    """How the container runtime is told which GPU a container gets."""

    AUTO = "Auto"
    BARE = "Bare"
    CDI_RUNTIME = "CDIRuntime"
    CDI_DEVICE_PLUGIN = "CDIDevicePlugin"
    CDI_HOST = "CDIHost"
    NRI = "NRI"


class Startup(StrEnum):
    """Whether engines of one GPU may start together."""

    SERIALIZED = "Serialized"
    PARALLEL = "Parallel"


class Fencing(StrEnum):
    """What keeps the kubelet from handing out a GPU that vrampack uses."""

    NODE = "Node"
    RESERVATION = "Reservation"


class OverusePolicy(StrEnum):
    """What becomes of a replica that uses more memory than it claims."""

    REPORT = "Report"
    EVICT = "Evict"


class PoolObjective(StrEnum):
    """Which of the GPUs that fit is taken."""

    FEWEST_GPUS = "FewestGPUs"
    BALANCED = "Balanced"


class MovesMode(StrEnum):
    """Whether replicas may be moved to make room."""

    NEVER = "Never"
    SUGGEST = "Suggest"
    EVICT = "Evict"


class Layouts(StrEnum):
    """What becomes of the layouts of MIG devices."""

    KEEP = "Keep"
    SUGGEST = "Suggest"


class SelectorOperator(StrEnum):
    """How a label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelRequirement(ApiModel):
    """One requirement on a label."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
                message="In and NotIn need values; Exists and DoesNotExist have none",
                field_path=".values",
            )
        )
    )

    key: str = Field(min_length=1, max_length=317)
    """Key of the label."""
    operator: SelectorOperator
    """In, NotIn, Exists or DoesNotExist."""
    values: tuple[Annotated[str, Field(max_length=63)], ...] = Field(default=(), max_length=32)
    """Values for In and NotIn; none for Exists and DoesNotExist."""


class LabelSelector(ApiModel):
    """Labels that an object must have. An empty one selects everything."""

    match_labels: Labels = Field(default_factory=dict, max_length=16, json_schema_extra=rules(LABELS_ARE_VALID))
    """Labels with their values; all must match."""
    match_expressions: tuple[LabelRequirement, ...] = Field(default=(), max_length=16)
    """Requirements on labels; all must hold."""


class PoolLimit(ApiModel):
    """A quota of GPU memory."""

    namespace_selector: LabelSelector = LabelSelector()
    """Namespaces that share this quota, by their labels. Empty: all."""
    memory: Quantity
    """GPU memory that their replicas may claim together, such as 160Gi."""


class GPUPrice(ApiModel):
    """What a GPU of one product costs while it is in use."""

    product: Annotated[str, PRODUCT]
    """Product as in the node label nvidia.com/gpu.product; of a MIG device with its profile, as in its GPUNode."""
    price: Annotated[Quantity, AtMost("100M")]
    """Price in any unit, the same for all products, such as 1.86; at most 100 million."""


class Overuse(ApiModel):
    """What becomes of a replica that uses more memory of a GPU than it claims. Its neighbours are never touched."""

    policy: OverusePolicy = OverusePolicy.REPORT
    """Report (the ModelDeployment's condition WithinBudget, an event, a metric) or Evict (by the Eviction API as well,
    so that disruption budgets hold)."""
    tolerance: Percentage = Percentage("2%")
    """Share of the claim that may be used on top of it, such as 2%."""
    seconds: int = Field(default=60, ge=0, le=3600)
    """With Evict: how long it must have used too much."""


class Moves(ApiModel):
    """Whether and how fast running replicas may be moved."""

    mode: MovesMode = MovesMode.SUGGEST
    """Never, Suggest (moves are listed in status) or Evict (they are made, by the Eviction API)."""
    per_placement: int = Field(default=2, ge=1, le=16)
    """Most moves that may make room for one replica."""
    per_hour: int = Field(default=6, ge=1, le=120)
    """Most moves in an hour."""


class GPUPoolSpec(ApiModel):
    """How the GPUs of a set of nodes are shared."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.injectionStyle != 'NRI' || self.runtimeClassName == ''",
                message="where GPUs are injected by NRI there is no RuntimeClass, and pods that name one stay Pending: "
                'write runtimeClassName: ""',
                field_path=".runtimeClassName",
            ),
            Rule(
                rule="self.mechanism == 'KAI' || !has(self.queue) || self.queue == ''",
                message="only mechanism KAI has queues: leave queue out",
                field_path=".queue",
            ),
            Rule(
                rule="self.mechanism == 'DRA' || ((!has(self.resourceClaim) || self.resourceClaim == '') && "
                "(!has(self.deviceClass) || self.deviceClass == ''))",
                message="only mechanism DRA has device classes and resource claims: leave deviceClass and "
                "resourceClaim out",
                field_path=".resourceClaim",
            ),
        )
    )

    node_selector: Labels = Field(default_factory=dict, max_length=16, json_schema_extra=rules(LABELS_ARE_VALID))
    """Labels that a node must have to belong to the pool. Empty: every node with GPUs. Where two pools match one node,
    the first by name has it."""
    runtime_class_name: Annotated[str, RUNTIME_CLASS] = "nvidia"
    """RuntimeClass of the pods, which makes the NVIDIA container runtime hand out the GPU. An empty text sets none."""
    limits: tuple[PoolLimit, ...] = Field(default=(), max_length=32)
    """Quotas of GPU memory by namespace."""
    mechanism: Mechanism = Mechanism.VISIBLE_DEVICES
    """How a GPU is shared: VisibleDevices (each container sees its GPU, and the engine keeps its budget), MemoryLimits
    (the same, where the driver keeps containers to it), MIG (a MIG device for each replica), MPS, HAMi, HAMiCore, KAI
    or DRA."""
    queue: Annotated[str, LABEL_TEXT] = ""
    """Queue of the scheduler KAI that the pods go through. Empty: default-queue."""
    device_class: Annotated[str, OPTIONAL_NAME] = ""
    """DeviceClass of the GPUs, for DRA. Empty: gpu.nvidia.com."""
    resource_claim: Annotated[str, OPTIONAL_NAME] = ""
    """Name of a ResourceClaim that the namespaces of the models have, for DRA: their pods share its GPU. Empty: each
    pod has a claim of its own, by bytes."""
    injection_style: InjectionStyle = InjectionStyle.AUTO
    """How the container runtime is told which GPU a container gets: Auto (as the agent found out on each node), Bare
    (by UUID), CDIRuntime, CDIDevicePlugin, CDIHost (by the name in that CDI specification) or NRI (by annotation)."""
    fencing: Fencing = Fencing.NODE
    """What keeps the kubelet from handing out a GPU that vrampack uses. Node: no device plugin offers GPUs there (the
    node label nvidia.com/gpu.deploy.device-plugin=false takes NVIDIA's away); a GPU that one offers is left alone.
    Reservation: of GPUs that a device plugin offers, those are used that a reservation pod of the chart holds. One that
    the kubelet gave to another pod is never used."""
    reserve_per_gpu: Quantity = Quantity("0")
    """Memory of each GPU that vrampack leaves alone, such as 512Mi."""
    headroom: Percentage = Percentage("3%")
    """Share of the estimate that each replica gets on top, such as 3%."""
    startup: Startup = Startup.SERIALIZED
    """Serialized: engines of one GPU start one after the other, since each measures free memory while it starts.
    Parallel: they start together."""
    objective: PoolObjective = PoolObjective.FEWEST_GPUS
    """FewestGPUs leaves whole GPUs free; Balanced leaves every GPU the same room."""
    prices: tuple[GPUPrice, ...] = Field(default=(), max_length=32, json_schema_extra=by_key("product"))
    """With objective FewestGPUs: what GPUs cost while they are in use. The least price is looked for then, instead of
    the least memory of GPUs in use. As long as a product of the pool has no price, memory counts; the condition Priced
    names it."""
    max_replicas_per_gpu: int | None = Field(default=None, ge=1, le=64)
    """Most replicas on one GPU. Left out: as many as its memory takes. Those that are more already stay. A MIG device
    has one."""
    layouts: Layouts = Layouts.SUGGEST
    """With mechanism MIG: Keep (MIG devices are as they are) or Suggest (status.suggestedLayouts lists how idle GPUs
    would be cut for replicas that wait). vrampack never changes a layout."""
    refine_seconds: int = Field(default=0, ge=0, le=600)
    """Work, in seconds of a usual machine, that the search for a better packing may take; 0 takes the first packing. It
    delays no placement: what is found is for replicas that wait while engines start, and for moves."""
    overuse: Overuse = Overuse()
    """What becomes of a replica that uses more memory than it claims."""
    moves: Moves = Moves()
    """Whether running replicas may be moved to make room."""


class MoveOutcome(StrEnum):
    """How far a move has come."""

    MOVING = "Moving"
    DONE = "Done"
    FAILED = "Failed"


class SuggestedMove(ApiModel):
    """A move that would make room, or close a GPU."""

    namespace: str = Field(min_length=1, max_length=63)
    """Namespace of the pod."""
    pod: str = Field(min_length=1, max_length=253)
    """Name of the pod."""
    uid: str = Field(default="", max_length=63)
    """UID of the pod."""
    from_node: str = Field(min_length=1, max_length=253)
    """Node where it is."""
    from_gpus: tuple[Annotated[str, Field(max_length=96)], ...] = Field(default=(), max_length=64)
    """UUIDs of the GPUs that it has."""
    to_node: str = Field(min_length=1, max_length=253)
    """Node where it would go."""
    to_gpus: tuple[Annotated[str, Field(max_length=96)], ...] = Field(default=(), max_length=64)
    """UUIDs of the GPUs that it would get."""
    gain: Quantity | None = None
    """Memory of GPUs that would be empty then, or room that is made for a replica that waits."""
    cost: Quantity | None = None
    """Memory that must be loaded anew."""
    because: str = Field(default="", max_length=256)
    """What the move is good for."""


class SuggestedLayout(ApiModel):
    """How a GPU in MIG mode that nobody uses would be cut for replicas that wait."""

    node: str = Field(min_length=1, max_length=253)
    """Node of the GPU."""
    gpu: str = Field(min_length=1, max_length=96)
    """UUID of the GPU."""
    index: int | None = Field(default=None, ge=0)
    """Index of the GPU on its node."""
    devices: tuple[Annotated[str, Field(max_length=63)], ...] = Field(default=(), max_length=16)
    """MIG devices that it would have, such as 3g.40gb; the largest first."""
    because: str = Field(default="", max_length=256)
    """For which replicas."""


class MoveStatus(SuggestedMove):
    """A move that vrampack makes, or made in the last hour: a new replica first, and then the old one is evicted."""

    model: str = Field(min_length=1, max_length=63)
    """Name of its ModelDeployment."""
    outcome: MoveOutcome
    """Moving, Done or Failed."""
    started_at: str = Field(max_length=32, json_schema_extra={"format": "date-time"})
    """When it began."""
    waiting_uid: str = Field(default="", max_length=63)
    """UID of the pod that it makes room for; empty where it closes a GPU."""
    message: str = Field(default="", max_length=512)
    """Why it failed."""


class PackingBound(ApiModel):
    """How far the packing is from the best one possible."""

    least_memory: Quantity | None = None
    """Memory of the GPUs that any packing of the present replicas needs at least; proven. Left out where prices
    count."""
    used_memory: Quantity | None = None
    """Memory of the GPUs that hold a replica now. Left out where prices count."""
    least_price: Quantity | None = None
    """Where spec.prices counts: what the GPUs of any packing cost at least; proven."""
    used_price: Quantity | None = None
    """Where spec.prices counts: what the GPUs cost that hold a replica now."""
    distance: str = Field(default="", max_length=16)
    """The difference as a percentage of the least."""
    explanation: str = Field(default="", max_length=512)
    """The same in words, with the constraints that the least leaves out."""
    work: str = Field(default="", max_length=64)
    """What the search for it has done: pricing rounds, dives and nodes."""


class GPUPoolStatus(ApiModel):
    """What the pool has, and how well it is used."""

    observed_generation: int = Field(default=-1, ge=-1)
    """The metadata.generation that this status describes; -1 until vrampack has seen the object."""
    nodes: int | None = Field(default=None, ge=0)
    """Nodes of the pool."""
    gpus: int | None = Field(default=None, ge=0)
    """GPUs of the pool."""
    capacity: Quantity | None = None
    """Usable memory of the pool's GPUs."""
    claimed: Quantity | None = None
    """Memory that replicas have claimed."""
    stranded: Quantity | None = None
    """Free memory that no waiting or typical replica can use."""
    suggested_moves: tuple[SuggestedMove, ...] = Field(default=(), max_length=64)
    """Moves that would make room."""
    suggested_layouts: tuple[SuggestedLayout, ...] = Field(default=(), max_length=32)
    """With mechanism MIG: layouts of idle GPUs that would give replicas that wait a MIG device."""
    moves: tuple[MoveStatus, ...] = Field(default=(), max_length=128)
    """Moves under way, and those of the last hour."""
    bound: PackingBound | None = None
    """How far the packing is from the best one possible."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16, json_schema_extra=by_key("type"))
    """Ready, Fenced (the kubelet hands out no GPU that vrampack may use), MechanismReady (what the cluster lacks for
    it), Priced where there are prices, and Overlap where another pool matches the same node."""
