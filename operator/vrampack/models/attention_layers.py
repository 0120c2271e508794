"""Attention of a layer: how many heads, how wide, over which span, and whether it keeps latents."""

from dataclasses import dataclass, replace
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.layers import LatentAttention, PagedAttention, Span
from vrampack.models.families import Family
from vrampack.models.fields import MAX_WIDTH, Fields
from vrampack.models.layerkinds import MAX_WINDOW, Kind, window_of

MAX_HEADS: Final = 4096
HEADS: Final = ("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "num_heads")
_KV_HEADS: Final = (
    "n_head_kv",
    "num_kv_heads",
    "num_key_value_heads",
    "multi_query_group_num",
    "num_attention_groups",
    "decoder_key_value_heads",
)
_HEAD_DIM: Final = ("head_dim", "hidden_size_per_head", "attention_head_dim", "kv_channels", "d_kv")
_SHARED_INDEX: Final = frozenset({"shared", "S"})


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
    whole = _whole_head(text, family)
    if whole:
        return Heads(count=count, kv=kv, dim=whole, value_dim=whole)
    dim = _head_dim(text, family, hidden=hidden, heads=count)
    return Heads(count=count, kv=kv, dim=dim, value_dim=_or_zero(text, "v_head_dim") or dim)


def attention_of(text: Fields, family: Family, heads: Heads, kind: Kind, *, index: int, layers: int) -> PagedAttention:
    """Paged attention of one layer."""
    span = {Kind.SLIDING: Span.SLIDING, Kind.CHUNKED: Span.CHUNKED}.get(kind, Span.FULL)
    own = _heads_of_kind(text, heads, span, index=index)
    if own.count % own.kv:
        raise text.refusal(HEADS[0], own.count, f"a multiple of the layer's {own.kv} KV heads")
    window = 0
    if span is Span.SLIDING:
        window = (window_of(text, family) or 0) + family.window_extra
    elif span is Span.CHUNKED:
        window = text.size(("attention_chunk_size",), most=MAX_WINDOW)
    shared = text.size(("num_kv_shared_layers",), least=0, most=layers, default=0)
    return PagedAttention(
        heads=own.count,
        kv_heads=own.kv,
        key_dim=own.dim,
        value_dim=own.value_dim,
        span=span,
        window=window,
        shares_cache=index >= layers - shared,
        index_dim=_index_dim(text, index=index),
    )


def _heads_of_kind(text: Fields, heads: Heads, span: Span, *, index: int) -> Heads:
    """Some families give full and sliding layers heads of their own."""
    counts = text.numbers("num_attention_heads_per_layer")
    if counts is not None and index < len(counts) and counts[index] > 0:
        heads = replace(heads, count=counts[index])
    if span is Span.FULL:
        dim = _or_zero(text, "global_head_dim") or heads.dim
        kv = text.size(("num_global_key_value_heads",), most=MAX_HEADS, default=heads.kv)
        return replace(heads, dim=dim, kv=kv, value_dim=dim if dim != heads.dim else heads.value_dim)
    other = text.below("attention_other_setting")
    count = other.size(("num_attention_heads",), most=MAX_HEADS, default=heads.count) if other else heads.count
    dim = _or_zero(text, "swa_head_dim") or heads.dim
    return Heads(
        count=text.size(("swa_num_attention_heads", "num_sliding_attention_heads"), most=MAX_HEADS, default=count),
        kv=text.size(("swa_num_key_value_heads",), most=MAX_HEADS, default=heads.kv),
        dim=dim,
        value_dim=_or_zero(text, "swa_v_head_dim") or (dim if dim != heads.dim else heads.value_dim),
    )


def _index_dim(text: Fields, *, index: int) -> int:
    """MiniMax M3: sparse layers keep one key more for each token."""
    sparse = text.below("sparse_attention_config")
    if sparse is not None:
        flags = sparse.numbers("sparse_attention_freq") or []
        return sparse.size(("sparse_index_dim",), most=MAX_WIDTH) if index < len(flags) and flags[index] else 0
    words = text.texts("layer_types") or []
    if index < len(words) and words[index] == "minimax_m3_sparse":
        return text.size(("index_head_dim",), most=MAX_WIDTH)
    return 0


def latent_of(text: Fields, *, index: int) -> LatentAttention:
    """Multi-head latent attention of one layer, with the indexer where there is one."""
    if _compression(text, index=index) is not None:
        return _compressed(text, index=index)
    text.get("index_topk")  # how many tokens are chosen takes no memory
    index_heads = text.size(("index_n_heads",), least=0, most=MAX_HEADS, default=0)
    own_index = bool(index_heads) and not _index_is_shared(text, index=index)
    return LatentAttention(
        heads=text.size(HEADS, most=MAX_HEADS),
        rank=text.size(("kv_lora_rank",), most=MAX_WIDTH),
        rope_dim=text.size(("qk_rope_head_dim",), least=0, most=MAX_WIDTH, default=0),
        query_rank=_or_zero(text, "q_lora_rank"),
        nope_dim=text.size(("qk_nope_head_dim",), most=MAX_WIDTH),
        value_dim=text.size(("v_head_dim",), most=MAX_WIDTH),
        index_heads=index_heads,
        index_dim=text.size(("index_head_dim",), most=MAX_WIDTH) if own_index else 0,
    )


def _index_is_shared(text: Fields, *, index: int) -> bool:
    """Some layers take over what an earlier layer's indexer chose, and have none."""
    for name in ("indexer_types", "index_topk_pattern"):
        words = text.get(name)
        if isinstance(words, str):
            words = list(text.text(name, most=MAX_HEADS) or "")
        elif words is not None:
            words = text.texts(name)
        if isinstance(words, list):
            return index < len(words) and words[index] in _SHARED_INDEX
    every = text.size(("index_topk_freq",), most=MAX_HEADS, default=1)
    offset = text.size(("index_skip_topk_offset",), least=0, most=MAX_HEADS, default=2)
    return max(index - offset + 1, 0) % every != 0


def _compression(text: Fields, *, index: int) -> int | None:
    """Tokens that one entry of the layer's cache stands for (DeepSeek V4); None: this model does not compress."""
    ratios = text.numbers("compress_ratios")
    if ratios is not None:
        if index >= len(ratios):
            raise text.refusal("compress_ratios", f"{len(ratios)} layers", "one entry for each layer")
        return ratios[index]
    rates = text.below("compress_rates")
    words = text.texts("layer_types") or []
    if rates is None or index >= len(words):
        return None
    return rates.size((words[index],), most=MAX_WIDTH, default=0) if words[index] != "sliding_attention" else 0


def _compressed(text: Fields, *, index: int) -> LatentAttention:
    ratio = _compression(text, index=index)
    if ratio not in (0, 4, 128):
        raise UnsupportedModelError(unknown=f"compress_ratios {ratio}", detail="known: 0, 4 and 128 tokens an entry")
    rope = text.size(("qk_rope_head_dim",), most=MAX_WIDTH)
    width = text.size(("head_dim",), least=rope + 1, most=MAX_WIDTH)
    indexed = ratio == 4
    return LatentAttention(
        heads=text.size(HEADS, most=MAX_HEADS),
        rank=width - rope,
        rope_dim=rope,
        query_rank=_or_zero(text, "q_lora_rank"),
        nope_dim=width - rope,
        value_dim=width,
        index_heads=text.size(("index_n_heads",), most=MAX_HEADS) if indexed else 0,
        index_dim=text.size(("index_head_dim",), most=MAX_WIDTH) if indexed else 0,
        compress_ratio=ratio,
        window=text.size(("sliding_window",), most=MAX_WINDOW),
    )


def is_latent(text: Fields, family: Family, kind: Kind) -> bool:
    """Whether the engine keeps latents: families that know of them, where the sizes are there.

    Raises UnsupportedModelError for a layer whose latents slide, and for a file that does not say what they compress.
    """
    if not family.latent:
        return False
    compressed = text.names("compress_ratios", "compress_rates")
    if compressed and family.compressed:
        return True
    if compressed:
        raise UnsupportedModelError(unknown=compressed, detail="how this family compresses its cache is not known")
    if family.compressed:
        raise UnsupportedModelError(unknown="compress_ratios", detail="what each layer's cache stands for is not said")
    if text.get("kv_lora_rank") is None:
        return False
    if kind is not Kind.FULL:
        raise UnsupportedModelError(unknown="sliding_window", detail="latents of a window are not known")
    return True


def _kv_heads(text: Fields, *, heads: int) -> int:
    """Multi-query models of older families say so by a switch instead of a number."""
    match text.get("model_type"):
        case "gpt_bigcode":
            return 1 if text.flag("multi_query", default=True) else heads
        case "falcon" | "RefinedWeb" | "RefinedWebModel" if not text.flag("new_decoder_architecture", default=False):
            if text.flag("multi_query", default=True):
                return 1
    attention = text.below("attn_config")  # MPT, DBRX
    if attention is not None:
        if attention.text("attn_type") == "multiquery_attention":
            return 1
        return attention.size(("kv_n_heads",), most=MAX_HEADS, default=heads)
    if text.get("multi_query_attention") is False:  # ChatGLM
        return heads
    if each := text.numbers("num_key_value_heads_per_layer"):  # DeciLM: the engine gives all layers the most
        if not 1 <= max(each) <= MAX_HEADS:
            raise text.refusal("num_key_value_heads_per_layer", max(each), f"numbers from 1 to {MAX_HEADS}")
        return max(each)
    return text.size(_KV_HEADS, most=MAX_HEADS, default=heads)


def _whole_head(text: Fields, family: Family) -> int:
    """MiniCPM 3 makes whole heads out of its latents, its values as wide as its keys; 0: another model."""
    if family.latent or text.get("kv_lora_rank") is None:
        return 0
    return _or_zero(text, "qk_nope_head_dim") + _or_zero(text, "qk_rope_head_dim")


def _head_dim(text: Fields, family: Family, *, hidden: int, heads: int) -> int:
    for name in _HEAD_DIM:
        if written := _or_zero(text, name):
            return written
    if family.head_dim is not None:
        return family.head_dim
    if not 1 <= hidden // heads <= MAX_WIDTH:
        raise text.refusal(HEADS[0], heads, f"heads of 1 to {MAX_WIDTH} elements at the hidden size {hidden}")
    return hidden // heads


def _or_zero(text: Fields, name: str) -> int:
    """Some files write 0, and some null, for what they do not have."""
    return text.size((name,), least=0, most=MAX_WIDTH, default=0)
