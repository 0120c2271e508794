"""Bytes of one block of one layer on one rank, by what the layer keeps of the past."""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.constants import DTYPE_BYTES
from vrampack.memory.layers import LatentAttention, PagedAttention, RecurrentState, Span, StateKind

KV_FIELD: Final = "spec.precision.kvCache"
_ELEMENT: Final = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
KV_PRECISIONS: Final = (*_ELEMENT, "int8", "nvfp4")
"""What vLLM can keep K and V in."""

_HEAD_SCALE: Final = 4
"""int8: a float32 scale for each vector (``int8_per_token_head``)."""
_NVFP4_GROUP: Final = 16
"""nvfp4: two elements a byte, and a scale of one byte for each 16."""

INDEX_SCALE_GROUP: Final = 128
"""The indexer of sparse latent attention keeps its key in fp8 with a float32 scale for each 128 elements."""

COMPRESSED_BLOCK: Final = 256
"""Tokens of a block of DeepSeek V4's compressed entries."""
_WINDOW_BLOCK: Final = 64
_PACKED_ALIGNMENT: Final = 576
"""Pages of DeepSeek V4 are rounded up to rows of the decode kernel."""
_PACKED_SCALES: Final = 8
"""Seven scales of 64 elements each, and one byte of padding."""
_COMPRESSOR_BLOCKS: Final = {4: 4, 128: 8}
"""Tokens of a block of the compressor's partial sums, by the tokens that one entry stands for."""


class Keeps(StrEnum):
    """Which tokens of a request a layer holds blocks for."""

    ALL = "all"
    WINDOW = "window"
    CHUNK = "chunk"
    ENCODER = "encoder"
    STATE = "state"
    """No tokens: one state, whatever the length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCache:
    """What one layer keeps. Layers whose caches are equal can share a group."""

    keeps: Keeps
    block_size: int
    """Tokens."""
    page: int
    """Bytes."""
    window: int = 0
    """Tokens, for WINDOW and CHUNK."""
    latent: bool = False
    """Such pages can't be padded."""
    shape: tuple[int, ...] = ()
    """Heads and widths: two layers with pages of one size still are of two kinds when these differ."""


def vector_bytes(elements: int, precision: str) -> int:
    """Bytes of one K or V vector.

    Raises InvalidInputError for a precision that vLLM has no KV cache of, or not of so many elements.
    """
    if precision == "int8":
        return elements + _HEAD_SCALE
    if precision == "nvfp4":
        check_groups(elements)
        return elements // 2 + elements // _NVFP4_GROUP
    return elements * element_bytes(precision)


def check_groups(*widths: int) -> None:
    """Raises InvalidInputError for heads that are no whole groups of nvfp4."""
    for width in widths:
        if width % _NVFP4_GROUP:
            allowed = f"nvfp4 takes heads of whole groups of {_NVFP4_GROUP} elements, and these have {width}"
            raise InvalidInputError(field=KV_FIELD, value="nvfp4", allowed=allowed)


def element_bytes(precision: str) -> int:
    """Bytes of one element of a precision without scales."""
    try:
        return _ELEMENT[precision]
    except KeyError:
        raise InvalidInputError(
            field=KV_FIELD, value=precision, allowed=f"this engine: {', '.join(KV_PRECISIONS)}"
        ) from None


def dtype_bytes(dtype: str) -> int:
    """Bytes of one element of a type as config.json names it."""
    try:
        return DTYPE_BYTES[dtype.removeprefix("torch.")]
    except KeyError:
        raise UnsupportedModelError(
            unknown=f"dtype {dtype}", detail=f"its size is not known; known: {', '.join(DTYPE_BYTES)}"
        ) from None


def local_heads(kv_heads: int, tensor: int) -> int:
    """KV heads that one rank stores: with more ranks than heads each keeps one, they are copied, not split."""
    return max(1, kv_heads // tensor)


def paged_token_bytes(layer: PagedAttention, *, tensor: int, precision: str) -> int:
    """Bytes of a token's K and V on one rank."""
    vectors = vector_bytes(layer.key_dim, precision) + vector_bytes(layer.value_dim, precision)
    return local_heads(layer.kv_heads, tensor) * vectors


def latent_token_bytes(layer: LatentAttention, *, precision: str) -> int:
    """Bytes of a token's latent vector; every rank holds it in full.

    An fp8 cache of a sparse layer keeps the rotary part in 16 bit, and a float32 scale for each 128 elements.
    Raises InvalidInputError for a precision without a latent layout.
    """
    if precision not in _ELEMENT:
        raise InvalidInputError(
            field=KV_FIELD, value=precision, allowed=f"with latent attention: {', '.join(_ELEMENT)}"
        )
    if precision == "fp8" and layer.index_heads:
        return layer.rank + 4 * (layer.rank // INDEX_SCALE_GROUP) + 2 * layer.rope_dim
    return (layer.rank + layer.rope_dim) * element_bytes(precision)


def index_token_bytes(layer: LatentAttention) -> int:
    """Bytes of a token's key in the indexer."""
    return layer.index_dim + 4 * (layer.index_dim // INDEX_SCALE_GROUP)


@lru_cache(maxsize=64)
def compressed_caches(layer: LatentAttention) -> tuple[LayerCache, ...]:
    """DeepSeek V4: a window, and the entries that stand for several tokens, with the compressor's partial sums.

    Always packed: fp8, the rotary part in 16 bit. Source: ``models/deepseek_v4/{attention,compressor}.py``.
    """
    ratio = layer.compress_ratio
    width = layer.rank + layer.rope_dim
    token = layer.rank + 2 * layer.rope_dim + _PACKED_SCALES
    caches = [
        LayerCache(
            keeps=Keeps.WINDOW,
            block_size=_WINDOW_BLOCK,
            page=_packed(_WINDOW_BLOCK * token),
            window=layer.window,
            latent=True,
            shape=(width,),
        )
    ]
    if ratio <= 1:
        return tuple(caches)
    if ratio not in _COMPRESSOR_BLOCKS:
        raise UnsupportedModelError(
            unknown=f"compress_ratios {ratio}", detail="how such a layer is cached is not known; known: 4 and 128"
        )
    overlap = 2 if ratio == 4 else 1
    entries = COMPRESSED_BLOCK // ratio
    caches.append(_compressed(entries * token, shape=(width, ratio)))
    caches.append(_partial_sums(width, ratio=ratio, overlap=overlap))
    if layer.index_dim:
        caches.append(_compressed(entries * index_token_bytes(layer), shape=(layer.index_dim, ratio)))
        caches.append(_partial_sums(layer.index_dim, ratio=ratio, overlap=overlap))
    return tuple(caches)


def _compressed(size: int, *, shape: tuple[int, ...]) -> LayerCache:
    return LayerCache(keeps=Keeps.ALL, block_size=COMPRESSED_BLOCK, page=_packed(size), latent=True, shape=shape)


def _partial_sums(width: int, *, ratio: int, overlap: int) -> LayerCache:
    """A sum and a score per token of the entry under way, float32; entries of four tokens overlap by one."""
    block_size = _COMPRESSOR_BLOCKS[ratio]
    return LayerCache(
        keeps=Keeps.WINDOW,
        block_size=block_size,
        page=_packed(block_size * 2 * overlap * width * 4),
        window=overlap * ratio,
        latent=True,
        shape=(width, ratio),
    )


def _packed(size: int) -> int:
    return -(-size // _PACKED_ALIGNMENT) * _PACKED_ALIGNMENT


def state_bytes(layer: RecurrentState, *, tensor: int, dtype: str, speculative_tokens: int) -> int:
    """Bytes of one state on one rank: the convolution's last inputs, and the recurrent state.

    ``dtype``: the model's computation type. Source: ``MambaStateShapeCalculator`` of vLLM 0.33.0.
    """
    inputs = dtype_bytes(dtype)
    state = dtype_bytes(layer.state_dtype or ("float32" if layer.kind is StateKind.KIMI_DELTA else dtype))
    past = layer.conv_kernel - 1
    keys, values = layer.key_heads * layer.key_dim, layer.value_heads * layer.value_dim
    drafted = past + speculative_tokens
    match layer.kind:
        case StateKind.MAMBA1:
            inner = values // tensor
            return inner * past * inputs + inner * layer.key_dim * state
        case StateKind.MAMBA2:
            # Groups that do not split evenly are copied until they do.
            groups = layer.key_heads if layer.key_heads % tensor == 0 else tensor
            width = (values + 2 * groups * layer.key_dim) // tensor
            return width * drafted * inputs + values // tensor * layer.key_dim * state
        case StateKind.GATED_DELTA:
            return (2 * keys + values) // tensor * drafted * inputs + values // tensor * layer.key_dim * state
        case StateKind.KIMI_DELTA:
            return (2 * keys + values) // tensor * drafted * inputs + values // tensor * layer.value_dim * state
        case StateKind.LIGHTNING:
            return values // tensor * layer.value_dim * state
        case StateKind.SHORT_CONV:
            return values // tensor * drafted * inputs
        case StateKind.WKV:
            raise UnsupportedModelError(unknown="RWKV layers", detail="this engine has none; llama.cpp serves them")


def keeps_of(span: Span) -> Keeps:
    """What a span of paged attention keeps."""
    match span:
        case Span.FULL:
            return Keeps.ALL
        case Span.SLIDING:
            return Keeps.WINDOW
        case Span.CHUNKED:
            return Keeps.CHUNK
        case Span.CROSS:
            return Keeps.ENCODER
