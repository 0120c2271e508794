"""The part of a ModelDeployment that is about the inference server."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from vrampack.api.common import ApiModel, Rule, rules
from vrampack.api.reserved import argument_rules
from vrampack.api.texts import DRAFT_SOURCE, IMAGE, VERSION

MAX_GPUS_PER_REPLICA = 64
_DRAFTING = "self.method in ['eagle', 'eagle3', 'medusa', 'draft']"


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


class Engine(ApiModel):
    """The inference server and its settings."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.name in ['vllm', 'custom'] || self.version != '0.33.0'",
                message="0.33.0, the default, is a version of vllm: name the version of this engine",
                field_path=".version",
            ),
            Rule(
                rule="self.name != 'custom' || has(self.image)",
                message="a custom engine has no image of its own: name one",
                field_path=".image",
            ),
            *argument_rules(),
        )
    )

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

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule=f"self.tensor * self.pipeline * self.data <= {MAX_GPUS_PER_REPLICA}",
                message="a replica is on one node: keep tensor times pipeline times data at "
                f"{MAX_GPUS_PER_REPLICA} GPUs or fewer",
            ),
            Rule(
                rule="self.tensor % self.decodeContext == 0",
                message="decodeContext splits the tensor parallel GPUs evenly: write a divisor of tensor",
                field_path=".decodeContext",
            ),
        )
    )

    tensor: int = Field(default=1, ge=1, le=MAX_GPUS_PER_REPLICA)
    """Tensor parallel size: each layer is split over this many GPUs."""
    pipeline: int = Field(default=1, ge=1, le=MAX_GPUS_PER_REPLICA)
    """Pipeline parallel size: the layers are dealt out to this many stages."""
    data: int = Field(default=1, ge=1, le=MAX_GPUS_PER_REPLICA)
    """Data parallel ranks inside one replica. Each has a scheduler and a KV cache of its own, and serves an equal part
    of serving.concurrency; experts are spread over all of them."""
    expert: bool = False
    """Expert parallelism: experts are dealt out to the GPUs instead of being split."""
    decode_context: int = Field(default=1, ge=1, le=MAX_GPUS_PER_REPLICA)
    """Decode context parallel size: the KV cache of a sequence is split over this many of the tensor parallel GPUs."""


class Speculation(ApiModel):
    """Speculative decoding."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule=f"!({_DRAFTING}) || (has(self.draftModel) && self.draftModel != '')",
                message="the methods eagle, eagle3, medusa and draft need a draftModel: name its source",
                field_path=".draftModel",
            ),
            Rule(
                rule=f"{_DRAFTING} || !has(self.draftModel) || self.draftModel == ''",
                message="the methods mtp and ngram have no draft model: leave draftModel out",
                field_path=".draftModel",
            ),
        )
    )

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
    max_rank: int = Field(
        default=16,
        ge=1,
        le=512,
        json_schema_extra=rules(
            Rule(
                rule="self in [1, 8, 16, 32, 64, 128, 256, 320, 512]",
                message="engines take 1, 8, 16, 32, 64, 128, 256, 320 or 512: write the next higher one",
            )
        ),
    )
    """Highest rank of an adapter: 1, 8, 16, 32, 64, 128, 256, 320 or 512."""
