"""What the estimate needs to know of a model."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from vrampack.memory.layers import FeedForward, LayerRun, PagedAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A model. Counts are whole-model counts, sizes are in elements.

    Where all layers are alike, the scalars say it all; else ``runs`` says what each layer is, and ``layers``,
    the heads, ``head_dim``, ``intermediate_size`` and the experts are those of most layers, for messages.
    """

    model_type: str
    layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    dtype: str
    """The checkpoint's computation type as config.json writes it: ``bfloat16``, ``float16``, ``float32``."""
    max_context: int | None = None
    """Longest sequence that the checkpoint allows, tokens; None: it does not say."""
    tied_embeddings: bool = False
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    gated_mlp: bool = True
    """An up and a gate projection (SwiGLU and its kin); False: one up projection."""
    rotary_positions: int = 0
    """Rows of the engine's cos/sin table; 0: no rotary embedding. It is in memory, never in a weight file."""
    rotary_dim: int = 0
    """Elements of a row of that table."""
    runs: tuple[LayerRun, ...] = ()
    """From the first layer to the last; empty: all are alike. Ask ``layer_runs``."""
    class_name: str = ""
    """First of config.json's ``architectures``: what the engine goes by."""
    kv_cache_dtype: str = ""
    """What the checkpoint's quantization makes of ``auto``: ``fp8``; empty: the computation type."""
    encoder_tokens: int = 0
    """Tokens of the encoder that one sequence attends to (Whisper 1500); 0: no cross attention."""
    predict_layers: int = 0
    """Multi-token-prediction layers, loaded only for speculation with them."""
    multimodal: bool = False
    image_tokens: int = 0
    """Tokens that the largest image becomes; 0: no images, or a tower that is not described."""
    video_images: int = 1
    """Images' worth of tokens in the longest video that the engine prepares for, as far as the context allows."""
    image_width: int = 0
    """Elements that encoding holds for each of these tokens on every GPU …"""
    image_split_width: int = 0
    """… and those that are split over the GPUs."""
    image_outputs: int = 1
    """Vectors of ``hidden_size`` that the encoder gives for each of them."""
    pooling: bool = False
    """Answers with a vector, not with tokens."""
    causal: bool = True
    """False: an encoder that keeps nothing (BERT)."""
    assumptions: tuple[str, ...] = ()
    """In whole words, what was taken for granted of an architecture that is not known by name; empty: known."""

    kinds: tuple[LayerRun, ...] = field(init=False, compare=False, repr=False)
    """Layers that are alike counted together, in the order in which they first come: what sums over layers ask, since
    mixed models have dozens of runs of a few kinds."""

    def __post_init__(self) -> None:
        counts: dict[LayerRun, int] = {}
        for run in self.layer_runs:
            alike = replace(run, count=1)
            counts[alike] = counts.get(alike, 0) + run.count
        object.__setattr__(self, "kinds", tuple(replace(run, count=count) for run, count in counts.items()))

    @property
    def layer_runs(self) -> tuple[LayerRun, ...]:
        """The layers, whether they are alike or not."""
        if self.runs:
            return self.runs
        attention = PagedAttention(
            heads=self.attention_heads, kv_heads=self.kv_heads, key_dim=self.head_dim, value_dim=self.head_dim
        )
        feed_forward = FeedForward(
            width=0 if self.experts else self.intermediate_size,
            gated=self.gated_mlp,
            experts=self.experts,
            experts_per_token=self.experts_per_token,
            expert_width=self.expert_intermediate_size,
            shared_width=self.shared_expert_intermediate_size,
        )
        return (LayerRun(count=self.layers, mixers=(attention,), feed_forward=feed_forward),)


class WeightsMethod(StrEnum):
    """Where the bytes of the weights come from, from the best to the least known."""

    TENSORS = "Tensors"
    """Headers of the weight files: every tensor by name, type and shape."""
    FILE_SIZES = "FileSizes"
    """Sizes of the files that the engine loads; what is split how comes from the configuration."""
    SHAPES = "Shapes"
    """The tensors that the configuration implies."""
    PARAMETERS = "Parameters"
    """A count of parameters times the precision: nothing better was known."""


class Split(StrEnum):
    """What tensor parallelism does to a part of the weights."""

    WHOLE = "whole"
    """Every rank has it: norms, routers, the down-projections of latent attention."""
    TENSOR = "tensor"
    """Split over the tensor ranks."""
    HEADS = "heads"
    """By heads of keys and values: split, but a rank has at least one head."""
    VOCABULARY = "vocabulary"
    """By rows of the vocabulary, which the engine pads first."""
    SHARED = "shared"
    """Shared experts: split over the tensor ranks, but whole where each rank has tokens of its own, which is so under
    expert parallelism over several tensor and several data ranks."""
    EXPERT = "expert"
    """Routed experts: split over tensor and data ranks, or dealt out whole under expert parallelism."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPart:
    """Bytes of the whole model that are split in one way."""

    bytes: int
    split: Split
    units: int = 0
    """HEADS: heads; VOCABULARY: rows; EXPERT: experts."""
    width: int = 0
    """EXPERT, where a kernel wants the inner width of a rank's share padded: that width …"""
    align: int = 0
    """… and what its share is a multiple of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTensor:
    """A tensor as the engine holds it: it fuses some that files hold apart."""

    parts: tuple[WeightPart, ...]
    small: bool = False
    """Several tensors, none of which is large enough for the allocator to give it a segment of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """The tensors of each of ``count`` layers in a row that are alike."""

    count: int
    tensors: tuple[LoadedTensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The tensors that the engine loads: their bytes, and how many of them every rank holds in full."""

    total: int
    parameters: int
    precision: str
    """As ``spec.precision.weights`` names it: bf16, fp16, fp32, fp8, …"""
    embedding: int = 0
    """Bytes of the input embedding table and the output head (counted once when tied): padded, then split."""
    replicated: int = 0
    """Bytes that tensor parallelism does not split: norms, routers."""
    tower: int = 0
    """Bytes of vision and audio towers within ``total``; not loaded where the workload takes text alone."""
    predict: int = 0
    """Bytes of multi-token-prediction layers, beside ``total``: loaded only for speculation with them."""
    converted: int = 0
    """Bytes of the files where the engine quantizes as it loads; 0: it loads what it serves."""
    method: WeightsMethod = WeightsMethod.TENSORS
    layers: tuple[LayerWeights, ...] = ()
    """From the first layer to the last. Empty: the architecture's shapes, scaled to the figures above."""
    census: tuple[tuple[int, LoadedTensor], ...] = ()
    """The tensors of all those layers, alike ones counted. Empty: to be counted when they are needed."""
    before: tuple[LoadedTensor, ...] = ()
    """What the first pipeline stage has besides: embeddings, towers."""
    towers: tuple[LoadedTensor, ...] = ()
    """The tensors of the towers. Empty: ``tower`` bytes, split over the tensor ranks."""
    after: tuple[LoadedTensor, ...] = ()
    """What the last pipeline stage has besides: the last norm, the output head."""
