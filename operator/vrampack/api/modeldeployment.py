"""ModelDeployment: what an admin asks for."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema

from vrampack.api.common import AS_SET, ApiModel, AtLeast, Percentage, Quantity, Rule, rules
from vrampack.api.engine import Adapters, Engine, Parallelism, Speculation
from vrampack.api.names import ENGINE_CONTAINER
from vrampack.api.podtemplate import overlay_schema
from vrampack.api.texts import DEPLOYMENT_NAME, FILE, OBJECT_NAME, PRODUCT, REVISION, SOURCE

MAX_TOKENS = 16_777_216
MAX_SEQUENCES = 8192


class WeightsPrecision(StrEnum):
    """How the weights are stored. GGUF: the types are read from the file."""

    AUTO = "Auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    INT8 = "int8"
    INT4 = "int4"
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

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.source.startsWith('hf://') || !has(self.revision) || self.revision == ''",
                message="only a hf:// source has revisions: leave revision out",
                field_path=".revision",
            ),
            Rule(
                rule="self.source.startsWith('hf://') || !has(self.tokenSecretRef)",
                message="only a hf:// source needs a token: leave tokenSecretRef out",
                field_path=".tokenSecretRef",
            ),
        )
    )

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
    """Precision of the weights: Auto (what the checkpoint has), fp32, bf16, fp16, fp8, int8, awq, gptq, bitsandbytes,
    mxfp4, nvfp4 or gguf (the types are read from the file)."""
    kv_cache: KVCachePrecision = KVCachePrecision.AUTO
    """Precision of the KV cache: Auto (the model's own type, never a smaller one), bf16, fp16, fp8, int8, nvfp4,
    q8_0 or q4_0, as the engine allows."""
    on_mismatch: OnMismatch = OnMismatch.STALL
    """What happens when the checkpoint is not what the contract says: Stall (nothing is served, and the condition says
    why) or Warn (it is served, and the condition PrecisionVerified is False)."""


class Serving(ApiModel):
    """The load that must be served at once; memory follows it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="!has(self.tokensPerSequence) || self.tokensPerSequence <= self.contextLength",
                message="no sequence is longer than contextLength: lower tokensPerSequence, or leave it out",
                field_path=".tokensPerSequence",
            )
        )
    )

    context_length: int = Field(ge=1, le=MAX_TOKENS)
    """Tokens of the longest sequence (prompt and answer) that must be served."""
    concurrency: int = Field(ge=1, le=MAX_SEQUENCES)
    """Sequences that each replica serves at once. It becomes the engine's own limit (vLLM --max-num-seqs); more
    requests wait in the engine's queue."""
    tokens_per_sequence: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    """Tokens that a sequence is expected to hold. The KV cache is sized for concurrency times tokensPerSequence,
    and for at least one sequence of contextLength. Left out: contextLength."""


class MemoryOverride(ApiModel):
    """Figures that replace vrampack's own."""

    per_gpu: Annotated[Quantity, AtLeast("64Mi")] | None = None
    """Memory on each GPU of a replica, such as 20Gi. Replaces the estimate, which then says method Declared."""
    headroom: Percentage | None = None
    """Share of the estimate that is kept free on top, such as 3%. Left out: the pool's."""


class PlacementSpec(ApiModel):
    """Where replicas may go."""

    pool: Annotated[str, OBJECT_NAME] = "default"
    """Name of the GPUPool. The pool default is there without an object."""
    gpu_products: tuple[Annotated[str, PRODUCT], ...] = Field(default=(), max_length=16, json_schema_extra=AS_SET)
    """GPU products that are allowed, as in the node label nvidia.com/gpu.product. Empty: any."""
    sharing: Sharing = Sharing.SHARED
    """Shared: other models may use the rest of the GPU. Exclusive: the whole GPU is this replica's."""
    spread: SpreadPolicy = SpreadPolicy.PREFER
    """Replicas of this model on different nodes: Prefer, Require or Ignore."""
    avoid_models: tuple[Annotated[str, DEPLOYMENT_NAME], ...] = Field(
        default=(), max_length=32, json_schema_extra=AS_SET
    )
    """ModelDeployments of this namespace that must never share a GPU with this one."""


class ServiceSpec(ApiModel):
    """The Service in front of the replicas."""

    port: int = Field(default=8000, ge=1, le=65535)
    """Port of the Service, and of the engine."""


class ModelDeploymentSpec(ApiModel):
    """What is served, at which precision and for how much load."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.engine.maxBatchedTokens >= self.serving.concurrency",
                message="each sequence takes at least one token of a forward pass, so an engine refuses fewer batched "
                "tokens than sequences: raise maxBatchedTokens, or lower serving.concurrency",
                field_path=".engine.maxBatchedTokens",
            ),
            Rule(
                rule="self.engine.name != 'custom' || (has(self.memory) && has(self.memory.perGPU))",
                message="the memory of a custom engine can't be estimated: name it",
                field_path=".memory.perGPU",
            ),
            Rule(
                rule="self.engine.name in ['llamacpp', 'custom'] || !(self.precision.kvCache in ['q8_0', 'q4_0'])",
                message="only llamacpp keeps its KV cache as q8_0 or q4_0: write fp8, int8 or nvfp4",
                field_path=".precision.kvCache",
            ),
            Rule(
                rule="self.engine.name == 'custom' || !has(self.podTemplate) || !has(self.podTemplate.spec) || "
                "!has(self.podTemplate.spec.containers) || self.podTemplate.spec.containers.all(c, "
                f"c.name != '{ENGINE_CONTAINER}' || !has(c.command))",
                message="vrampack sets the command of the engine: use spec.engine.args, or spec.engine.name custom",
                field_path=".podTemplate.spec.containers",
            ),
        )
    )

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
    pod_template: Annotated[dict[str, Any], WithJsonSchema(overlay_schema())] = Field(default_factory=dict)
    """Overlay on the pods of the replicas: nodeSelector, tolerations, volumes, resources, imagePullSecrets, sidecars, …
    What decides which GPU a pod gets is refused."""
