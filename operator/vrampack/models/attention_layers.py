"""Attention of a layer: how many heads, how wide, over which span, and whether it keeps latents."""

from dataclasses import dataclass, replace
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.layers import LatentAttention, PagedAttention, Span
from vrampack.models.families import Family
from vrampack.models.fields import Fields
from vrampack.models.layerkinds import Kind, window_of

MAX_HEADS: Final = 4096
MAX_HEAD_DIM: Final = 8192
HEADS: Final = ("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads")
_KV_HEADS: Final = (
    "n_head_kv",
    "num_kv_heads",
    "num_key_value_heads",
    "multi_query_group_num",
    "num_attention_groups",
)
_HEAD_DIM: Final = ("head_dim", "hidden_size_per_head", "attention_head_dim", "kv_channels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """Of most layers of a model."""

    count: int
    kv: int
    dim: int
    value_dim: int


def heads_of(text: Fields, family: Family, *, hidden: int) -> Heads:
    """Heads as the engine counts them.

    Raises InvalidInputError where query heads do not share KV heads evenly.
    """
    count = text.size(HEADS, most=MAX_HEADS)
    kv = _kv_heads(text, heads=count)
    if count % kv:
        raise text.refusal(text.names(*_KV_HEADS) or HEADS[0], kv, f"a divisor of {count}")
    dim = _head_dim(text, family, hidden=hidden, heads=count)
    return Heads(count=count, kv=kv, dim=dim, value_dim=text.size(("v_head_dim",), most=MAX_HEAD_DIM, default=dim))


def attention_of(text: Fields, family: Family, heads: Heads, kind: Kind, *, index: int, layers: int) -> PagedAttention:
    """Paged attention of one layer."""
    span = {Kind.SLIDING: Span.SLIDING, Kind.CHUNKED: Span.CHUNKED}.get(kind, Span.FULL)
    own = _heads_of_kind(text, heads, span)
    window = 0
    if span is Span.SLIDING:
        window = window_of(text, family) or 0
        window += family.window_extra
    elif span is Span.CHUNKED:
        window = text.size(("attention_chunk_size",))
    shared = text.size(("num_kv_shared_layers",), least=0, most=layers, default=0)
    return PagedAttention(
        heads=own.count,
        kv_heads=own.kv,
        key_dim=own.dim,
        value_dim=own.value_dim,
        span=span,
        window=window,
        shares_cache=index >= layers - shared,
    )


def _heads_of_kind(text: Fields, heads: Heads, span: Span) -> Heads:
    """Some families give full and sliding layers heads of their own."""
    if span is Span.FULL:
        dim = text.size(("global_head_dim",), most=MAX_HEAD_DIM, default=heads.dim)
        kv = text.size(("num_global_key_value_heads",), most=MAX_HEADS, default=heads.kv)
        value_dim = dim if dim != heads.dim else heads.value_dim
        return replace(heads, dim=dim, kv=kv, value_dim=value_dim)
    dim = text.size(("swa_head_dim",), most=MAX_HEAD_DIM, default=heads.dim)
    return Heads(
        count=text.size(("swa_num_attention_heads",), most=MAX_HEADS, default=heads.count),
        kv=text.size(("swa_num_key_value_heads",), most=MAX_HEADS, default=heads.kv),
        dim=dim,
        value_dim=text.size(("swa_v_head_dim",), most=MAX_HEAD_DIM, default=heads.value_dim),
    )


def latent_of(text: Fields, *, index: int) -> LatentAttention:
    """Multi-head latent attention of one layer, with the indexer where there is one."""
    heads = text.size(HEADS, most=MAX_HEADS)
    rope = text.size(("qk_rope_head_dim",), most=MAX_HEAD_DIM)
    index_heads = text.size(("index_n_heads",), least=0, most=MAX_HEADS, default=0)
    index_dim = text.size(("index_head_dim",), most=MAX_HEAD_DIM, default=128) if index_heads else 0
    query_rank = text.size(("q_lora_rank",), least=0, default=0)
    ratios = text.numbers("compress_ratios")
    if ratios is None:
        return LatentAttention(
            heads=heads,
            rank=text.size(("kv_lora_rank",)),
            rope_dim=rope,
            query_rank=query_rank,
            nope_dim=text.size(("qk_nope_head_dim",), most=MAX_HEAD_DIM),
            value_dim=text.size(("v_head_dim",), most=MAX_HEAD_DIM),
            index_heads=index_heads,
            index_dim=index_dim,
        )
    if index >= len(ratios):
        raise text.refusal("compress_ratios", f"{len(ratios)} layers", "one entry for each layer")
    ratio = ratios[index]
    if ratio not in (0, 4, 128):
        raise UnsupportedModelError(unknown=f"compress_ratios {ratio}", detail="known: 0, 4 and 128 tokens an entry")
    width = text.size(("head_dim",), least=rope + 1, most=MAX_HEAD_DIM)
    indexed = ratio == 4
    return LatentAttention(
        heads=heads,
        rank=width - rope,
        rope_dim=rope,
        query_rank=query_rank,
        nope_dim=width - rope,
        value_dim=width,
        index_heads=index_heads if indexed else 0,
        index_dim=index_dim if indexed else 0,
        compress_ratio=ratio,
        window=text.size(("sliding_window",)),
    )


def _kv_heads(text: Fields, *, heads: int) -> int:
    """Multi-query models of older families say so by a switch instead of a number."""
    match text.get("model_type"):
        case "gpt_bigcode":
            return 1 if text.flag("multi_query", default=True) else heads
        case "falcon" if not text.flag("new_decoder_architecture", default=False):
            if text.flag("multi_query", default=True):
                return 1
    attention = text.below("attn_config")  # MPT, DBRX
    if attention is not None:
        if attention.text("attn_type") == "multiquery_attention":
            return 1
        return attention.size(("kv_n_heads",), most=MAX_HEADS, default=heads)
    if text.get("multi_query_attention") is False:  # ChatGLM
        return heads
    return text.size(_KV_HEADS, most=MAX_HEADS, default=heads)


def _head_dim(text: Fields, family: Family, *, hidden: int, heads: int) -> int:
    nope = text.get("qk_nope_head_dim")
    if nope is not None and text.get("kv_lora_rank") is not None and not family.latent:
        # MiniCPM 3 keeps whole heads: the values are padded to the width of the keys
        parts = [text.size((name,), most=MAX_HEAD_DIM) for name in ("qk_nope_head_dim", "qk_rope_head_dim")]
        return sum(parts)
    name = text.names(*_HEAD_DIM)
    if name is not None and text.get(name) != 0:
        return text.size((name,), most=MAX_HEAD_DIM)
    if family.head_dim is not None:
        return family.head_dim
    if hidden // heads > MAX_HEAD_DIM or hidden < heads:
        raise text.refusal(HEADS[0], heads, f"heads of 1 to {MAX_HEAD_DIM} elements at the hidden size {hidden}")
    return hidden // heads
