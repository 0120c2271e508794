"""ModelDeployment: what vrampack did about it, and why."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from vrampack.api.common import ApiModel, Condition, Quantity, by_key

MAX_PLACEMENTS = 64


class EstimateMethod(StrEnum):
    """Where the figures come from."""

    COMPUTED = "Computed"
    MEASURED = "Measured"
    DECLARED = "Declared"


class Summary(ApiModel):
    """Words for the printer columns, which can neither join nor count."""

    ready: str = Field(default="", max_length=32)
    """Ready replicas of wanted ones, such as 2/2."""
    gpus: int | None = Field(default=None, ge=0)
    """Different GPUs that hold a claim of this model."""
    nodes: str = Field(default="", max_length=1024)
    """Nodes of the replicas, joined by commas."""


class ModelFacts(ApiModel):
    """The model as it was resolved."""

    profile: str = Field(default="", max_length=253)
    """Name of the ModelProfile with the facts of this model."""
    revision: str = Field(default="", max_length=255)
    """Commit that is served."""
    weights_digest: str = Field(default="", max_length=256)
    """Digest over the weight files, such as sha256:…"""
    parameters: int | None = Field(default=None, ge=0)
    """Parameters of the checkpoint."""
    precision: str = Field(default="", max_length=32)
    """Precision of the weights that is served."""
    kv_cache_precision: str = Field(default="", max_length=32)
    """Precision of the KV cache that is served."""


class ProductEstimate(ApiModel):
    """What one GPU product needs, where products differ."""

    product: str = Field(min_length=1, max_length=63)
    """GPU product, as in the node label nvidia.com/gpu.product."""
    per_gpu: Quantity
    """Memory on each GPU of this product."""


class PendingEstimate(ApiModel):
    """A newer estimate that waits for the next change of spec."""

    per_gpu: Quantity
    """Memory on each GPU by the newer estimate."""
    because: str = Field(max_length=64)
    """What changed, in one CamelCase word: CalibrationChanged, OperatorChanged, PoolChanged."""


class EstimateStatus(ApiModel):
    """Memory on each GPU of a replica, as a sum of terms."""

    weights: Quantity | None = None
    """Weights on one GPU."""
    kv_cache: Quantity | None = None
    """KV cache on one GPU, in whole blocks."""
    activations: Quantity | None = None
    """Peak of the activations of one forward pass."""
    cuda_graphs: Quantity | None = None
    """Captured CUDA graphs."""
    communication: Quantity | None = None
    """Buffers for communication between the GPUs of a replica."""
    runtime_context: Quantity | None = None
    """CUDA context and libraries; outside the engine's own budget."""
    allowance: Quantity | None = None
    """How far CUDA graphs and memory beside PyTorch's may be off: these two are fitted, not computed."""
    headroom: Quantity | None = None
    """What is kept free on top."""
    per_gpu: Quantity | None = None
    """The sum: what a replica claims on each of its GPUs. Where products differ, the largest of the eligible ones."""
    gpus_per_replica: int | None = Field(default=None, ge=1)
    """GPUs of one replica."""
    kv_bytes_per_token: int | None = Field(default=None, ge=0)
    """Bytes of KV cache for one token on one GPU."""
    max_concurrency_at_context: str = Field(default="", max_length=32)
    """Sequences of contextLength that the KV cache holds: what the engine itself prints at start."""
    host_memory: Quantity | None = None
    """RAM that a pod needs: the default of its request."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm in a pod."""
    by_product: tuple[ProductEstimate, ...] = Field(default=(), max_length=16)
    """Memory on each GPU by product, where products differ."""
    method: EstimateMethod | None = None
    """Computed (from the architecture), Measured (calibrated on earlier runs) or Declared (spec.memory.perGPU)."""
    explanation: str = Field(default="", max_length=2048)
    """The sum in one line of words."""
    pending: PendingEstimate | None = None
    """A newer estimate that waits for the next change of spec; it never restarts a model by itself."""


class PlacedGPU(ApiModel):
    """One GPU of a placed replica."""

    uuid: str = Field(min_length=1, max_length=96)
    """UUID of the GPU."""
    index: int | None = Field(default=None, ge=0)
    """Index of the GPU on its node."""
    claim: Quantity
    """Memory that the replica has claimed on it."""
    observed: Quantity | None = None
    """Memory that the replica was seen to use on it; rewritten on a change of 1 % or more."""
    peak: Quantity | None = None
    """The most that it was seen to use on it since it started: what a start really takes."""


class PlacementStatus(ApiModel):
    """A replica and its GPUs."""

    pod: str = Field(min_length=1, max_length=253)
    """Name of the pod."""
    node: str = Field(min_length=1, max_length=253)
    """Name of the node."""
    gpus: tuple[PlacedGPU, ...] = Field(max_length=64)
    """GPUs of the replica."""
    because: str | None = Field(default=None, max_length=512)
    """Why it got these."""


class ClosestGPU(ApiModel):
    """The GPU that came nearest."""

    node: str = Field(min_length=1, max_length=253)
    """Name of the node."""
    gpu: int = Field(ge=0)
    """Index of the GPU on that node."""
    free: Quantity
    """Memory that is free on it."""
    short: Quantity
    """Memory that is missing on it."""


class WaitingStatus(ApiModel):
    """Replicas that have no GPU for one reason."""

    reason: str = Field(min_length=1, max_length=64)
    """Why, in one CamelCase word: NoMatchingGPU, InsufficientGPUMemory, InsufficientCPU, GPUBusyStarting, PodsRefused,
    ModelUnresolved, …"""
    count: int = Field(ge=1)
    """Replicas that wait for this reason."""
    pod: str = Field(default="", max_length=253)
    """Name of one of their pods. Empty where Kubernetes made none."""
    message: str = Field(default="", max_length=2048)
    """The reason in whole words; Kubernetes' own where it refused the pods."""
    needed: Quantity | None = None
    """Memory that a replica needs on each GPU."""
    gpus: int | None = Field(default=None, ge=1)
    """GPUs that a replica needs."""
    closest: ClosestGPU | None = None
    """The GPU that came nearest, and what is missing on it."""
    rejected: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict, max_length=32)
    """Number of GPUs that each reason ruled out."""
    would_fit_if: tuple[Annotated[str, Field(max_length=512)], ...] = Field(default=(), max_length=16)
    """Changes that would make a replica fit; each one was computed."""


class EvictedPod(ApiModel):
    """A pod that is evicted."""

    namespace: str = Field(min_length=1, max_length=63)
    """Namespace of the pod."""
    pod: str = Field(min_length=1, max_length=253)
    """Name of the pod."""
    uid: str = Field(min_length=1, max_length=63)
    """UID of the pod."""


class NominationStatus(ApiModel):
    """A replica that waits for room which others give back: it is kept for this replica until it is placed."""

    pod: str = Field(min_length=1, max_length=253)
    """Name of the pod that waits."""
    uid: str = Field(min_length=1, max_length=63)
    """UID of the pod that waits."""
    node: str = Field(min_length=1, max_length=253)
    """Node where it will be placed."""
    gpus: tuple[Annotated[str, Field(max_length=96)], ...] = Field(min_length=1, max_length=64)
    """UUIDs of the GPUs that it will get."""
    evicts: tuple[EvictedPod, ...] = Field(default=(), max_length=64)
    """Replicas of lower priority that are evicted for it."""
    moves: tuple[EvictedPod, ...] = Field(default=(), max_length=64)
    """Replicas that get another place for it."""


class ModelDeploymentStatus(ApiModel):
    """What vrampack did, and why. Written by vrampack alone."""

    observed_generation: int = Field(default=-1, ge=-1)
    """The metadata.generation that this status describes; -1 until vrampack has seen the object."""
    replicas: int | None = Field(default=None, ge=0)
    """Replicas that have a pod."""
    ready_replicas: int | None = Field(default=None, ge=0)
    """Replicas that answer requests."""
    placed_replicas: int | None = Field(default=None, ge=0)
    """Replicas that hold their GPUs."""
    selector: str | None = Field(default=None, max_length=512)
    """Label selector of the pods, for autoscalers."""
    summary: Summary | None = None
    """Words for the columns of kubectl get."""
    model: ModelFacts | None = None
    """The model as it was resolved."""
    estimate: EstimateStatus | None = None
    """Memory that a replica needs on each GPU, term by term."""
    placements: tuple[PlacementStatus, ...] = Field(default=(), max_length=MAX_PLACEMENTS)
    """Placed replicas and their GPUs; at most 64 of them."""
    placements_omitted: int | None = Field(default=None, ge=0)
    """Placed replicas that the list leaves out."""
    waiting: tuple[WaitingStatus, ...] = Field(default=(), max_length=16)
    """Why replicas have no GPU, grouped by reason."""
    nominations: tuple[NominationStatus, ...] = Field(default=(), max_length=64)
    """Replicas for which room is being freed, with their GPUs and who is evicted for them."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16, json_schema_extra=by_key("type"))
    """Ready, Reconciling, Stalled, Estimated, Scheduled, PrecisionVerified, WithinBudget, ModelUnchanged."""
