"""ModelDeployment: what an admin asks for."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from vrampack.api.common import DNS_SUBDOMAIN, OBJECT_NAME, ApiModel, Percentage, Quantity, Text

MAX_TOKENS = 16_777_216
MAX_SEQUENCES = 8192
MAX_GPUS_PER_REPLICA = 64

HUB_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
HUB_SOURCE = rf"hf://{HUB_NAME}/{HUB_NAME}"
CLAIM_SOURCE = rf"pvc://{DNS_SUBDOMAIN}(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
PROFILE_SOURCE = rf"profile://{DNS_SUBDOMAIN}"

SOURCE = Text(
    pattern=f"{HUB_SOURCE}|{CLAIM_SOURCE}|{PROFILE_SOURCE}",
    allowed="write hf://ORG/NAME, pvc://CLAIM/PATH or profile://NAME",
    max_length=512,
)
DRAFT_SOURCE = Text(
    pattern=f"({HUB_SOURCE}|{CLAIM_SOURCE})?",
    allowed="write hf://ORG/NAME or pvc://CLAIM/PATH, or leave it out",
    max_length=512,
)
REVISION = Text(
    pattern=r"([A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*)?",
    allowed="write a branch, a tag or a commit: letters, digits, '.', '_', '-' and '/'",
    max_length=255,
)
FILE = Text(
    pattern=r"([A-Za-z0-9_*?\[\]][A-Za-z0-9_.*?\[\]-]*(/[A-Za-z0-9_*?\[\]][A-Za-z0-9_.*?\[\]-]*)*)?",
    allowed="write a file name or a pattern inside the source, such as *Q4_K_M.gguf, without a leading '/' or '..'",
    max_length=255,
)
VERSION = Text(
    pattern=r"[0-9A-Za-z][0-9A-Za-z._+-]*",
    allowed='write a version in quotes, such as "0.33.0"',
    max_length=64,
)
IMAGE = Text(
    pattern=r"[A-Za-z0-9][A-Za-z0-9._:/@-]*",
    allowed="write a container image without spaces, such as registry.example.com/vllm:1.0",
    max_length=512,
)
PRODUCT = Text(
    pattern=r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
    allowed="write a product as the node label nvidia.com/gpu.product has it, such as NVIDIA-L40S",
    max_length=63,
)
DEPLOYMENT_NAME = Text(
    pattern=r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?",
    allowed="write the name of a ModelDeployment of this namespace",
    max_length=53,
)


class WeightsPrecision(StrEnum):
    """How the weights are stored. GGUF: the types are read from the file."""

    AUTO = "Auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    INT8 = "int8"
    AWQ = "awq"
    GPTQ = "gptq"
    BITSANDBYTES = "bitsandbytes"
    MXFP4 = "mxfp4"
    NVFP4 = "nvfp4"
    GGUF = "gguf"


class KVCachePrecision(StrEnum):
    """How keys and values are stored."""

    AUTO = "Auto"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    INT8 = "int8"
    NVFP4 = "nvfp4"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"


class OnMismatch(StrEnum):
    """What happens when the checkpoint is not what the contract says."""

    STALL = "Stall"
    WARN = "Warn"


class EngineName(StrEnum):
    """The inference server."""

    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    TGI = "tgi"
    CUSTOM = "custom"


class CudaGraphs(StrEnum):
    """Whether the engine captures CUDA graphs. Not On and Off: YAML reads those as true and false."""

    AUTO = "Auto"
    DISABLED = "Disabled"


class PrefixCaching(StrEnum):
    """Whether the engine keeps the KV cache of common prefixes."""

    AUTO = "Auto"
    ENABLED = "Enabled"
    DISABLED = "Disabled"


class SpeculationMethod(StrEnum):
    """Where the drafted tokens come from."""

    MTP = "mtp"
    EAGLE = "eagle"
    EAGLE3 = "eagle3"
    MEDUSA = "medusa"
    DRAFT = "draft"
    NGRAM = "ngram"


class Sharing(StrEnum):
    """Whether other models may use the same GPU."""

    SHARED = "Shared"
    EXCLUSIVE = "Exclusive"


class SpreadPolicy(StrEnum):
    """Replicas of one model on different nodes: as a wish, as a must, or not at all."""

    PREFER = "Prefer"
    REQUIRE = "Require"
    IGNORE = "Ignore"


class Rollout(StrEnum):
    """How a new revision replaces the old one."""

    AUTO = "Auto"
    SURGE = "Surge"
    IN_PLACE = "InPlace"


class SecretKeyRef(ApiModel):
    """One key of a Secret in the ModelDeployment's namespace."""

    name: Annotated[str, OBJECT_NAME]
    """Name of the Secret, in this namespace. The chart's value hubTokens.namespaces must list the namespace."""
    key: str = Field(default="token", min_length=1, max_length=253)
    """Key inside the Secret that holds the access token of the model hub."""


class ModelRef(ApiModel):
    """Which model."""

    source: Annotated[str, SOURCE]
    """Where the model comes from: hf://ORG/NAME (a repository of the Hugging Face hub), pvc://CLAIM/PATH (a folder of a
    PersistentVolumeClaim in this namespace) or profile://NAME (a ModelProfile that was written by hand)."""
    file: Annotated[str, FILE] = ""
    """Which file of the source, where there are several to choose from, such as "*Q4_K_M.gguf". Empty: all weights."""
    revision: Annotated[str, REVISION] = ""
    """Branch, tag or commit of a hf:// source. A full commit is a pin; a branch is resolved once for each change of
    spec. Empty: the default branch."""
    token_secret_ref: SecretKeyRef | None = None
    """The Secret with the hub's access token, for gated and private repositories."""


class Precision(ApiModel):
    """The precision contract: what is served is what was asked for."""

    weights: WeightsPrecision = WeightsPrecision.AUTO
    """Precision of the weights. Auto takes what the checkpoint has. gguf: the types are read from the file."""
    kv_cache: KVCachePrecision = KVCachePrecision.AUTO
    """Precision of the KV cache. Auto takes the model's own type, never a smaller one."""
    on_mismatch: OnMismatch = OnMismatch.STALL
    """What happens when the checkpoint is not what the contract says: Stall (nothing is served, and the condition says
    why) or Warn (it is served, and the condition PrecisionVerified is False)."""


class Serving(ApiModel):
    """The load that must be served at once; memory follows it."""

    context_length: int = Field(ge=1, le=MAX_TOKENS)
    """Tokens of the longest sequence (prompt and answer) that must be served."""
    concurrency: int = Field(ge=1, le=MAX_SEQUENCES)
    """Sequences that each replica serves at once. It becomes the engine's own limit (vLLM --max-num-seqs); more
    requests wait in the engine's queue."""
    tokens_per_sequence: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    """Tokens that a sequence is expected to hold. The KV cache is sized for concurrency times tokensPerSequence,
    and for at least one sequence of contextLength. Left out: contextLength."""


class Engine(ApiModel):
    """The inference server and its settings."""

    name: EngineName = EngineName.VLLM
    """The inference server: vllm, sglang, llamacpp, tgi, or custom (any image; it gets its share in the environment and
    needs engine.image and memory.perGPU)."""
    version: Annotated[str, VERSION] = "0.33.0"
    """Version of the engine: selects its flags and how it uses memory; the image's tag follows it. The default is a
    version of vLLM; name one for any other engine."""
    image: Annotated[str, IMAGE] | None = None
    """Container image. Left out: the engine's public image of this version."""
    args: tuple[Annotated[str, Field(max_length=4096)], ...] = Field(default=(), max_length=64)
    """Arguments that are appended to the engine's own. A flag that vrampack sets from another field is refused."""
    max_batched_tokens: int = Field(default=8192, ge=1, le=1_048_576)
    """Tokens of one forward pass; always passed to the engine. It bounds the memory of activations."""
    cuda_graphs: CudaGraphs = CudaGraphs.AUTO
    """Auto captures CUDA graphs as the engine does by default; Disabled captures none, which saves memory and costs
    latency."""
    prefix_caching: PrefixCaching = PrefixCaching.AUTO
    """Whether the KV cache of common prefixes is kept: Auto (as the engine does by default), Enabled or Disabled.
    Hybrid models keep more than one state for each sequence with it."""
    images_per_prompt: int = Field(default=1, ge=0, le=64)
    """Images that one prompt of a multimodal model may hold; bounds the encoder's memory. 0 leaves the encoder out."""


class Parallelism(ApiModel):
    """How one replica is split over GPUs of one node."""

    tensor: int = Field(default=1, ge=1, le=MAX_GPUS_PER_REPLICA)
    """Tensor parallel size: each layer is split over this many GPUs."""
    pipeline: int = Field(default=1, ge=1, le=MAX_GPUS_PER_REPLICA)
    """Pipeline parallel size: the layers are dealt out to this many stages."""
    data: int = Field(default=1, ge=1, le=MAX_GPUS_PER_REPLICA)
    """Data parallel size inside one replica."""
    expert: bool = False
    """Expert parallelism: experts are dealt out to the GPUs instead of being split."""
    decode_context: int = Field(default=1, ge=1, le=MAX_GPUS_PER_REPLICA)
    """Decode context parallel size: the KV cache of a sequence is split over this many of the tensor parallel GPUs."""


class Speculation(ApiModel):
    """Speculative decoding."""

    method: SpeculationMethod
    """Where drafted tokens come from: mtp (the model's own heads), eagle, eagle3, medusa or draft (a draftModel), or
    ngram (the prompt)."""
    draft_model: Annotated[str, DRAFT_SOURCE] = ""
    """Source of the draft model, hf://ORG/NAME or pvc://CLAIM/PATH; for the methods eagle, eagle3, medusa and draft."""
    tokens: int = Field(ge=1, le=32)
    """Tokens drafted in each step."""


class Adapters(ApiModel):
    """LoRA adapters."""

    max: int = Field(ge=1, le=128)
    """Adapters that are on the GPU at once."""
    max_rank: int = Field(default=16, ge=1, le=512)
    """Highest rank of an adapter: 1, 8, 16, 32, 64, 128, 256, 320 or 512."""


class MemoryOverride(ApiModel):
    """Figures that replace vrampack's own."""

    per_gpu: Quantity | None = None
    """Memory on each GPU of a replica, such as 20Gi. Replaces the estimate, which then says method Declared."""
    headroom: Percentage | None = None
    """Share of the estimate that is kept free on top, such as 3%. Left out: the pool's."""


class PlacementSpec(ApiModel):
    """Where replicas may go."""

    pool: Annotated[str, OBJECT_NAME] = "default"
    """Name of the GPUPool. The pool default is there without an object."""
    gpu_products: tuple[Annotated[str, PRODUCT], ...] = Field(default=(), max_length=16)
    """GPU products that are allowed, as in the node label nvidia.com/gpu.product. Empty: any."""
    sharing: Sharing = Sharing.SHARED
    """Shared: other models may use the rest of the GPU. Exclusive: the whole GPU is this replica's."""
    spread: SpreadPolicy = SpreadPolicy.PREFER
    """Replicas of this model on different nodes: Prefer, Require or Ignore."""
    avoid_models: tuple[Annotated[str, DEPLOYMENT_NAME], ...] = Field(default=(), max_length=32)
    """ModelDeployments of this namespace that must never share a GPU with this one."""


class ServiceSpec(ApiModel):
    """The Service in front of the replicas."""

    port: int = Field(default=8000, ge=1, le=65535)
    """Port of the Service, and of the engine."""


class ModelDeploymentSpec(ApiModel):
    """What is served, at which precision and for how much load."""

    model: ModelRef
    """Which model is served, and where its files are."""
    precision: Precision = Precision()
    """The precision contract. vrampack never changes the precision to make a model fit."""
    serving: Serving
    """The load that each replica must serve; the memory of a replica follows from it."""
    engine: Engine = Engine()
    """The inference server and its settings."""
    parallelism: Parallelism = Parallelism()
    """How one replica is split over GPUs. All GPUs of a replica are on one node and of one product."""
    speculation: Speculation | None = None
    """Speculative decoding. Left out: none."""
    adapters: Adapters | None = None
    """LoRA adapters. Left out: none."""
    replicas: int = Field(default=1, ge=0, le=10_000)
    """Copies of the model. 0 serves nothing and holds no GPU. Autoscalers scale the ModelDeployment."""
    memory: MemoryOverride = MemoryOverride()
    """Overrides of the estimate."""
    placement: PlacementSpec = PlacementSpec()
    """Which GPUs the replicas may use."""
    priority_class_name: Annotated[str, OBJECT_NAME] | None = None
    """PriorityClass of the pods. Replicas of a higher priority are placed first."""
    rollout: Rollout = Rollout.AUTO
    """How a change replaces running replicas: Surge (new ones start beside the old ones), InPlace (an old one goes
    first), or Auto (surges only where the memory for it is free)."""
    service: ServiceSpec = ServiceSpec()
    """The Service in front of the replicas."""
    pod_template: dict[str, Any] = Field(default_factory=dict)
    """Overlay on the pods of the replicas."""
