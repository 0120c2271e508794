"""The layers of a model, by what each keeps of the past (its mixer) and by its feed-forward part.

Sizes are elements and counts are of the whole model, before anything is split over GPUs.
"""

from dataclasses import dataclass
from enum import StrEnum


class Span(StrEnum):
    """Which tokens of the past an attention layer keeps."""

    FULL = "full"
    SLIDING = "sliding"
    """The last ``window`` tokens."""
    CHUNKED = "chunked"
    """Those of the present chunk of ``window`` tokens (Llama 4)."""
    CROSS = "cross"
    """The encoder's, not the decoder's (Whisper, T5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedAttention:
    """A K and a V vector per token and KV head: MHA, MQA and GQA."""

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    span: Span = Span.FULL
    window: int = 0
    """Tokens, for SLIDING and CHUNKED."""
    shares_cache: bool = False
    """Reads another layer's cache and has none of its own (Gemma 3n and 4)."""
    index_dim: int = 0
    """Width of the key that a sparse layer keeps besides, one per token, to choose what it reads (MiniMax M3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (MLA): one compressed vector per token, which every GPU holds in full."""

    heads: int
    rank: int
    """kv_lora_rank."""
    rope_dim: int
    """qk_rope_head_dim."""
    query_rank: int = 0
    """q_lora_rank; 0: queries are not compressed."""
    nope_dim: int = 0
    """qk_nope_head_dim."""
    value_dim: int = 0
    """v_head_dim."""
    index_heads: int = 0
    """Of the sparse-attention indexer (DeepSeek V3.2); 0: there is none."""
    index_dim: int = 0
    """Width of its key; 0 with heads: the layer takes over what an earlier layer's indexer chose (GLM 5.2)."""
    compress_ratio: int = 0
    """Tokens that one cached entry stands for (DeepSeek V4); 0: one each."""
    window: int = 0
    """Tokens that such a layer keeps uncompressed besides; 0: none."""


class StateKind(StrEnum):
    """How a layer without paged attention keeps the past: one state per sequence, whatever its length."""

    MAMBA1 = "mamba1"
    MAMBA2 = "mamba2"
    GATED_DELTA = "gated_delta"
    """Gated delta net (Qwen3-Next, 3.5, 3.6)."""
    KIMI_DELTA = "kimi_delta"
    """Kimi delta attention (Kimi-Linear)."""
    LIGHTNING = "lightning"
    """Linear attention of MiniMax."""
    SHORT_CONV = "short_conv"
    """Short convolution (LFM2)."""
    WKV = "wkv"
    """RWKV 6 and 7: the shifted tokens, one less than ``conv_kernel``, and a state of ``key_dim`` per element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentState:
    """A convolution's last inputs and a recurrent state. What a kind does not have is 0."""

    kind: StateKind
    conv_kernel: int
    key_heads: int = 0
    """Mamba 2: n_groups."""
    key_dim: int = 0
    """Mamba 1 and 2: the state size."""
    value_heads: int = 0
    """Mamba 2: heads. Mamba 1 and short convolution: 1."""
    value_dim: int = 0
    """Mamba 1 and short convolution: the inner width."""
    state_dtype: str = ""
    """As config.json names it; empty: the engine's default for the kind."""


Mixer = PagedAttention | LatentAttention | RecurrentState


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForward:
    """Dense, or a mixture of experts."""

    width: int = 0
    """Of the dense part; 0: none."""
    gated: bool = True
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_width: int = 0
    """All shared experts together."""
    latent: int = 0
    """Width of the space that experts work in where it is not the hidden size (Nemotron 3 Super and Ultra)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRun:
    """``count`` layers in a row that are alike. ``mixers``: most have one; Falcon-H1 runs two beside each other,
    Whisper's decoder one after the other, and a Nemotron-H layer may have none."""

    count: int
    mixers: tuple[Mixer, ...]
    feed_forward: FeedForward | None
