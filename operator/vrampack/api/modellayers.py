"""The layers of a model in a ModelProfile: kinds of layers by name, and in which order they stand."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from vrampack.api.common import ApiModel, Rule, Text, by_key, rules

MAX_SIZE: Final = 2**31 - 1
MAX_HEADS: Final = 4096
MAX_WIDTH: Final = 65_536
MAX_LAYERS: Final = 1024
MAX_KINDS: Final = 128

KIND_NAME: Final = Text(
    pattern=r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?",
    allowed="write a short name of lower-case letters, digits and dashes, such as sliding or mamba-2",
    max_length=32,
)


class AttentionSpan(StrEnum):
    """Which tokens of the past an attention layer keeps."""

    FULL = "Full"
    SLIDING = "Sliding"
    CHUNKED = "Chunked"
    CROSS = "Cross"


class StateName(StrEnum):
    """How a layer keeps one state for each sequence."""

    MAMBA1 = "Mamba1"
    MAMBA2 = "Mamba2"
    GATED_DELTA = "GatedDelta"
    KIMI_DELTA = "KimiDelta"
    LIGHTNING = "Lightning"
    SHORT_CONV = "ShortConv"
    WKV = "WKV"


class AttentionSpec(ApiModel):
    """Attention that keeps a key and a value for each token and KV head."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.span in ['Sliding', 'Chunked']) == (self.window > 0)",
                message="layers that slide or look at chunks have a window in tokens; the others have none",
                field_path=".window",
            )
        )
    )

    heads: int = Field(ge=1, le=MAX_HEADS)
    """Query heads."""
    kv_heads: int = Field(ge=1, le=MAX_HEADS)
    """Heads of keys and values."""
    key_dim: int = Field(ge=1, le=MAX_WIDTH)
    """Elements of the key of one head."""
    value_dim: int = Field(ge=1, le=MAX_WIDTH)
    """Elements of the value of one head."""
    span: AttentionSpan = AttentionSpan.FULL
    """Full: every token of the past. Sliding: the last. Chunked: those of the present chunk. Cross: the encoder's."""
    window: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Tokens of a sliding window or of a chunk."""
    shares_cache: bool = False
    """Whether the layer reads another layer's cache and keeps nothing itself (num_kv_shared_layers)."""
    index_dim: int = Field(default=0, ge=0, le=MAX_WIDTH)
    """Width of the key that a sparse layer keeps for each token to choose what it reads; 0 without."""


class LatentSpec(ApiModel):
    """Multi-head latent attention: one compressed vector for each token."""

    heads: int = Field(ge=1, le=MAX_HEADS)
    """Query heads."""
    rank: int = Field(ge=1, le=MAX_WIDTH)
    """Elements of the compressed part (kv_lora_rank)."""
    rope_dim: int = Field(ge=0, le=MAX_WIDTH)
    """Elements with rotary embedding (qk_rope_head_dim)."""
    query_rank: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Elements of the compressed query (q_lora_rank); 0 where it is not compressed."""
    nope_dim: int = Field(default=0, ge=0, le=MAX_WIDTH)
    """Elements of a head's key without rotary embedding (qk_nope_head_dim)."""
    value_dim: int = Field(default=0, ge=0, le=MAX_WIDTH)
    """Elements of a head's value (v_head_dim)."""
    index_heads: int = Field(default=0, ge=0, le=MAX_HEADS)
    """Heads of the indexer of sparse attention (index_n_heads); 0 without."""
    index_dim: int = Field(default=0, ge=0, le=MAX_WIDTH)
    """Width of the indexer's key; 0 where the layer has no indexer of its own."""
    compress_ratio: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Tokens that one entry of the cache stands for (compress_ratios); 0 for one each."""
    window: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Tokens that such a layer keeps uncompressed besides."""


class StateSpec(ApiModel):
    """A state of one size for each sequence: state-space layers, linear attention, short convolution."""

    kind: StateName
    """What kind of state it is."""
    conv_kernel: int = Field(ge=0, le=MAX_HEADS)
    """Length of the convolution; 0 without."""
    key_heads: int = Field(default=0, ge=0, le=MAX_HEADS)
    """Heads of keys; groups in Mamba 2."""
    key_dim: int = Field(default=0, ge=0, le=MAX_WIDTH)
    """Elements of a key; the state size in Mamba."""
    value_heads: int = Field(default=0, ge=0, le=MAX_HEADS)
    """Heads of values; heads in Mamba 2, 1 in Mamba 1 and short convolution."""
    value_dim: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Elements of a value; the inner width in Mamba 1 and short convolution."""
    state_dtype: str = Field(default="", max_length=100)
    """Type of the state as config.json names it, such as float32. Empty: what the engine takes for this kind."""


class MixerSpec(ApiModel):
    """One way in which a layer mixes tokens: exactly one of these."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(has(self.attention) ? 1 : 0) + (has(self.latent) ? 1 : 0) + (has(self.state) ? 1 : 0) == 1",
                message="write exactly one of attention, latent and state; a second one is an entry of its own",
            )
        )
    )

    attention: AttentionSpec | None = None
    """Keys and values of each token."""
    latent: LatentSpec | None = None
    """A compressed vector of each token."""
    state: StateSpec | None = None
    """A state of each sequence."""


class FeedForwardSpec(ApiModel):
    """The feed-forward part of a layer: dense, a mixture of experts, or both."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.expertsPerToken <= self.experts && (self.experts == 0) == (self.expertWidth == 0)",
                message="experts have a width and a token uses at most all of them; without experts both are 0",
                field_path=".experts",
            )
        )
    )

    width: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Width of the dense part; 0 where there is none."""
    gated: bool = True
    """Whether a gate stands beside the up projection (SwiGLU and its kin)."""
    experts: int = Field(default=0, ge=0, le=MAX_WIDTH)
    """Experts; 0 for a dense part alone."""
    experts_per_token: int = Field(default=0, ge=0, le=MAX_WIDTH)
    """Experts that one token uses."""
    expert_width: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Width of one expert."""
    shared_width: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Width of all experts that every token uses, together."""
    latent: int = Field(default=0, ge=0, le=MAX_SIZE)
    """Width of the space that experts work in, where it is not hiddenSize; 0 otherwise."""


class LayerKind(ApiModel):
    """Layers that are alike."""

    name: Annotated[str, KIND_NAME]
    """How layerOrder calls it."""
    mixers: tuple[MixerSpec, ...] = Field(default=(), max_length=4)
    """How it mixes tokens. Most layers do it in one way; a layer with a feed-forward part alone in none."""
    feed_forward: FeedForwardSpec | None = None
    """Its feed-forward part. Left out: none."""


class LayerRunSpec(ApiModel):
    """Layers of one kind in a row."""

    kind: Annotated[str, KIND_NAME]
    """Name of the kind."""
    count: int = Field(default=1, ge=1, le=MAX_LAYERS)
    """How many of them in a row."""


LAYER_KINDS: Final = by_key("name")
