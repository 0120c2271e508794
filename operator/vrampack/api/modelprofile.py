"""ModelProfile: the facts of one model at one revision, and what was measured of it."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from vrampack.api.common import ApiModel, AtLeast, Condition, Quantity, Rule, by_key, rules
from vrampack.api.engine import EngineName, Parallelism
from vrampack.api.modeldeployment import MAX_TOKENS, WeightsPrecision
from vrampack.api.modellayers import LAYER_KINDS, MAX_KINDS, MAX_LAYERS, MAX_SIZE, MAX_WIDTH, LayerKind, LayerRunSpec
from vrampack.api.texts import DIGEST, FILE, REVISION, WEIGHTS_SOURCE
from vrampack.api.weightlayout import WeightLayout


class ComputeType(StrEnum):
    """The type that a model computes in, as config.json writes it."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class ArchitectureSpec(ApiModel):
    """What config.json says and the estimate needs. Counts are of the whole model, sizes in elements.

    A model whose layers are all alike needs the plain fields only. Where layers differ, layerKinds and layerOrder say
    what each of them is, and the plain fields hold what most of them have.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.kvHeads == 0 ? self.attentionHeads == 0 : self.attentionHeads % self.kvHeads == 0",
                message="query heads share heads of keys and values evenly: write a divisor of attentionHeads",
                field_path=".kvHeads",
            ),
            Rule(
                rule="self.experts > 0 || self.intermediateSize > 0 || "
                "has(self.layerOrder) && self.layerOrder.size() > 0",
                message="a dense model has a feed-forward layer: write its width",
                field_path=".intermediateSize",
            ),
            Rule(
                rule="self.attentionHeads > 0 && self.headDim > 0 || "
                "has(self.layerOrder) && self.layerOrder.size() > 0",
                message="a model without attention needs layerKinds and layerOrder: they say what it has instead",
                field_path=".attentionHeads",
            ),
            Rule(
                rule="self.expertsPerToken <= self.experts && (self.experts == 0) == (self.expertsPerToken == 0)",
                message="a token uses at least one expert and at most all of them; a dense model has none",
                field_path=".expertsPerToken",
            ),
            Rule(
                rule="(self.experts == 0) == (self.expertIntermediateSize == 0)",
                message="experts have a width; a dense model has none",
                field_path=".expertIntermediateSize",
            ),
            Rule(
                rule="!has(self.layerOrder) || self.layerOrder.size() == 0 || "
                "self.layerOrder.map(r, r.count).sum() == self.layers",
                message="layerOrder lists every layer: its counts add up to layers",
                field_path=".layerOrder",
            ),
            Rule(
                rule="!has(self.layerOrder) || self.layerOrder.size() == 0 || has(self.layerKinds) && "
                "self.layerOrder.all(r, self.layerKinds.exists(k, k.name == r.kind))",
                message="layerOrder names kinds that layerKinds describes",
                field_path=".layerOrder",
            ),
        )
    )

    model_type: str = Field(min_length=1, max_length=64)
    """Family, as model_type of config.json: llama, qwen3, mixtral, …"""
    layers: int = Field(ge=1, le=MAX_LAYERS)
    """Decoder layers (num_hidden_layers)."""
    hidden_size: int = Field(ge=1, le=MAX_SIZE)
    """Width of the residual stream (hidden_size)."""
    intermediate_size: int = Field(ge=0, le=MAX_SIZE)
    """Width of the dense feed-forward layer (intermediate_size); 0 where no layer has one."""
    vocab_size: int = Field(ge=1, le=MAX_SIZE)
    """Tokens of the vocabulary (vocab_size)."""
    attention_heads: int = Field(ge=0, le=4096)
    """Query heads (num_attention_heads); 0 for a model without attention."""
    kv_heads: int = Field(ge=0, le=4096)
    """Heads of keys and values (num_key_value_heads); as many as attentionHeads without grouped queries."""
    head_dim: int = Field(ge=0, le=MAX_WIDTH)
    """Elements of one head (head_dim, or hidden_size / num_attention_heads), or of the latent where there is one."""
    dtype: ComputeType
    """Computation type as config.json writes it: bfloat16, float16 or float32."""
    max_context: int | None = Field(default=None, ge=1, le=MAX_TOKENS)
    """Longest sequence that the model allows, in tokens (max_position_embeddings). Left out: not known."""
    tied_embeddings: bool = False
    """Whether the output head is the embedding table (tie_word_embeddings)."""
    experts: int = Field(default=0, ge=0, le=65_536)
    """Experts of a layer; 0 for a dense model."""
    experts_per_token: int = Field(default=0, ge=0, le=65_536)
    """Experts that one token uses."""
    expert_intermediate_size: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Width of one expert (moe_intermediate_size)."""
    shared_expert_intermediate_size: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Width of the expert that every token uses; 0 where there is none."""
    gated_mlp: bool = True
    """Whether the feed-forward layer has a gate beside its up projection (SwiGLU and its kin)."""
    rotary_positions: int = Field(default=0, ge=0, le=MAX_TOKENS)
    """Rows of the rotary embedding's table, which is in memory but in no weight file; 0 without rotary embedding."""
    rotary_dim: int = Field(default=0, ge=0, le=MAX_WIDTH)
    """Elements of one row of that table."""
    class_name: str = Field(default="", max_length=128)
    """First name in architectures of config.json: what the engine goes by."""
    kv_cache_dtype: str = Field(default="", max_length=32)
    """What the checkpoint's quantization makes of the KV cache's precision Auto: fp8. Empty: the computation type."""
    encoder_tokens: int = Field(default=0, ge=0, le=MAX_TOKENS)
    """Tokens of the encoder that a sequence attends to; 0 without cross attention."""
    predict_layers: int = Field(default=0, ge=0, le=MAX_LAYERS)
    """Layers that predict more than one token, loaded only for speculation (num_nextn_predict_layers)."""
    multimodal: bool = False
    """Whether the model has a part for images or sound."""
    image_tokens: int = Field(default=0, ge=0, le=MAX_TOKENS)
    """Tokens that the largest image becomes; 0 without images."""
    video_images: int = Field(default=1, ge=1, le=1024)
    """Images' worth of tokens in the longest video that the engine prepares for."""
    image_width: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Elements that encoding holds for each token of an image on every GPU."""
    image_split_width: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Elements that encoding holds for each token of an image, split over the GPUs."""
    image_outputs: int = Field(default=1, ge=1, le=1024)
    """Vectors of hiddenSize that the encoder gives for each token of an image."""
    pooling: bool = False
    """Whether the model answers with a vector instead of tokens."""
    causal: bool = True
    """Whether a token sees the past only. An encoder such as BERT sees all tokens and keeps nothing."""
    assumptions: tuple[Annotated[str, Field(max_length=1024)], ...] = Field(default=(), max_length=16)
    """What was taken for granted of an architecture that is not known by name, in whole words."""
    layer_kinds: tuple[LayerKind, ...] = Field(default=(), max_length=MAX_KINDS, json_schema_extra=LAYER_KINDS)
    """The kinds of layers, where layers differ."""
    layer_order: tuple[LayerRunSpec, ...] = Field(default=(), max_length=MAX_LAYERS)
    """The layers from the first to the last, by the names of their kinds."""


class WeightsKnownBy(StrEnum):
    """Where the bytes of the weights come from, from the best to the least known."""

    TENSORS = "Tensors"
    FILE_SIZES = "FileSizes"
    SHAPES = "Shapes"
    PARAMETERS = "Parameters"


class WeightFiles(ApiModel):
    """Bytes of the tensors that the engine loads."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="quantity(string(self.bytes)).compareTo(quantity(string(self.embeddingBytes))"
                ".add(quantity(string(self.replicatedBytes)))"
                ".add(quantity(has(self.towerBytes) ? string(self.towerBytes) : '0'))) >= 0",
                message="embeddingBytes, replicatedBytes and towerBytes are parts of bytes: together no more",
                field_path=".bytes",
            )
        )
    )

    bytes: Annotated[Quantity, AtLeast("1")]
    """Bytes of all tensors that the engine loads."""
    by_dtype: dict[str, Quantity] = Field(default_factory=dict, max_length=32)
    """Bytes of the tensors of each type, named as in the safetensors header: BF16, F32, F8_E4M3, …"""
    embedding_bytes: Quantity = Quantity("0")
    """Bytes of the embedding table and the output head; counted once when they are tied."""
    replicated_bytes: Quantity = Quantity("0")
    """Bytes that tensor parallelism does not split: norms and routers."""
    tower_bytes: Quantity | None = None
    """Bytes of vision and audio towers, a part of bytes; not loaded where a prompt holds no images. Left out: none."""
    predict_bytes: Quantity | None = None
    """Bytes of multi-token-prediction layers, beside bytes: loaded only for speculation with them. Left out: none."""
    converted_bytes: Quantity | None = None
    """Bytes of the files where the engine quantizes as it loads. Left out: it loads what it serves."""
    known_by: WeightsKnownBy | None = None
    """Where these figures come from: Tensors (headers of the weight files), FileSizes, Shapes (the tensors that
    config.json implies) or Parameters (a count of parameters times the precision). Left out: Tensors."""
    layout: WeightLayout | None = None
    """The tensors one by one. Left out: those that the architecture implies, scaled to the figures above."""


class ModelProfileSpec(ApiModel):
    """The facts of one model at one revision. Written by vrampack, or by hand for clusters without a model hub."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="!self.source.startsWith('hf://') || "
                "(has(self.revision) && self.revision.matches('^([0-9a-f]{40}|[0-9a-f]{64})$'))",
                message="facts hold for one commit: write it in full (40 hexadecimal digits)",
                field_path=".revision",
            )
        )
    )

    source: Annotated[str, WEIGHTS_SOURCE]
    """Where the engine loads the weights from: hf://ORG/NAME or pvc://CLAIM/PATH."""
    revision: Annotated[str, REVISION] = ""
    """Commit of a hf:// source."""
    file: Annotated[str, FILE] = ""
    """Which file of the source, where there are several to choose from. Empty: all weights."""
    architecture: ArchitectureSpec
    """The fields of config.json that the estimate needs."""
    parameters: int = Field(ge=1)
    """Parameters of the checkpoint."""
    weight_files: WeightFiles
    """Bytes of the tensors that the engine loads."""
    precision: WeightsPrecision = Field(
        json_schema_extra=rules(Rule(rule="self != 'Auto'", message="a fact is not Auto: name the precision"))
    )
    """Precision of the weights in the checkpoint."""
    weights_digest: Annotated[str, DIGEST] = ""
    """Digest over the weight files. Left out: ModelUnchanged is not checked."""


class Measurement(ApiModel):
    """Memory of one GPU, measured on real runs of one configuration."""

    engine: EngineName
    """The inference server."""
    version: str = Field(max_length=64)
    """Version of the engine."""
    gpu_product: str = Field(max_length=63)
    """GPU product, as in the node label nvidia.com/gpu.product."""
    parallelism: Parallelism
    """How the replica was split over GPUs."""
    kv_cache: str = Field(max_length=32)
    """Precision of the KV cache."""
    max_sequences: int = Field(ge=1)
    """The engine's limit of sequences."""
    max_batched_tokens: int = Field(ge=1)
    """The engine's limit of tokens in one forward pass."""
    context_length: int = Field(ge=1)
    """The engine's limit of tokens in one sequence."""
    cuda_graphs: str = Field(max_length=32)
    """Mode of CUDA graphs."""
    args: tuple[Annotated[str, Field(max_length=4096)], ...] = Field(default=(), max_length=64)
    """Arguments of the user."""
    weights: Quantity | None = None
    """Weights on one GPU."""
    activations: Quantity | None = None
    """Peak of the activations."""
    graphs: Quantity | None = None
    """Captured CUDA graphs."""
    communication: Quantity | None = None
    """Buffers for communication."""
    runtime_context: Quantity | None = None
    """CUDA context and libraries."""
    besides_cache: Quantity | None = None
    """All that its processes were seen to hold, less the KV cache that the engine was told. Written by vrampack from
    what the driver says of running replicas."""
    samples: int = Field(ge=1)
    """Runs that were measured."""
    observed_at: str = Field(max_length=40, json_schema_extra={"format": "date-time"})
    """When it was last measured."""


class ProfileSummary(ApiModel):
    """Words for the printer columns."""

    parameters: str = Field(default="", max_length=32)
    """Parameters in short, such as 8.03B."""
    weights: str = Field(default="", max_length=32)
    """Bytes of the weights in short, such as 14.96 GiB."""
    kv_per_token: str = Field(default="", max_length=32)
    """KV cache of one token over all GPUs of a replica at the model's own precision, such as 128 KiB."""


class ModelProfileStatus(ApiModel):
    """What vrampack learned of the model."""

    observed_generation: int = Field(default=-1, ge=-1)
    """The metadata.generation that this status describes; -1 until vrampack has seen the object."""
    summary: ProfileSummary | None = None
    """Words for the columns of kubectl get."""
    measurements: tuple[Measurement, ...] = Field(default=(), max_length=64)
    """Memory that was measured on real runs."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16, json_schema_extra=by_key("type"))
    """Ready: whether the estimate knows every part of this architecture."""
