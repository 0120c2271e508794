"""Attention of the layers of a GGUF file: heads, widths, latents, indexers, as llama.cpp reads the metadata."""

from dataclasses import dataclass
from typing import Final

from vrampack.memory.layers import LatentAttention, PagedAttention, Span
from vrampack.models.ggufkeys import GgufKeys

_GLM_SHARED_CONTEXT: Final = 1024 * 1024

DEEPSEEK4_INDEXED_RATIO: Final = 4
"""Layers of DeepSeek V4 that compress four tokens into one have an indexer; those that compress more have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What all layers' mixers are made from."""

    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    slides: tuple[bool, ...]
    span: Span
    window: int
    owners: int
    """Layers with a cache of their own; those after them share."""
    trunk: int


def head_sizes(keys: GgufKeys, heads: int) -> tuple[int, int]:
    """Elements of a key and of a value head of a full layer. Only PLaMo 2 has some where its first layer has none."""
    if not heads and keys.architecture != "plamo2":
        return 0, 0
    width = keys.size("embedding_length", least=1) // heads if heads else 0
    return keys.size("attention.key_length", default=width), keys.size("attention.value_length", default=width)


def attention_of(keys: GgufKeys, shape: Shape, layer: int) -> PagedAttention | LatentAttention:
    """One layer. Raises InvalidInputError for values that are impossible or missing."""
    key, value = head_sizes(keys, shape.heads[0])
    if keys.architecture == "deepseek4":
        return _compressed(keys, shape, layer, key)
    if keys.size("attention.key_length_mla", default=0) and keys.size("attention.value_length_mla", default=0):
        return _latent(keys, shape, layer, key)
    sliding = shape.slides[layer]
    index = keys.size("attention.indexer.key_length", default=0)
    if layer < keys.size("leading_dense_block_count", default=0):
        index = 0
    return PagedAttention(
        heads=shape.heads[layer],
        kv_heads=shape.kv_heads[layer],
        key_dim=keys.size("attention.key_length_swa", default=key) if sliding else key,
        value_dim=keys.size("attention.value_length_swa", default=value) if sliding else value,
        span=shape.span if sliding else Span.FULL,
        window=shape.window if sliding else 0,
        shares_cache=layer >= shape.owners,
        index_dim=index,
    )


def _latent(keys: GgufKeys, shape: Shape, layer: int, key: int) -> LatentAttention:
    rank = keys.size("attention.kv_lora_rank", least=1, most=key)
    if shape.kv_heads[layer] != 1:
        raise keys.refusal(
            "attention.head_count_kv", shape.kv_heads[layer], "latent attention caches one head: convert the file anew"
        )
    index = keys.size("attention.indexer.key_length", default=0)
    if index and not _has_indexer(keys, shape, layer):
        index = 0
    return LatentAttention(
        heads=shape.heads[layer],
        rank=rank,
        rope_dim=key - rank,
        query_rank=keys.size("attention.q_lora_rank", default=0),
        nope_dim=max(0, keys.size("attention.key_length_mla") - (key - rank)),
        value_dim=keys.size("attention.value_length_mla"),
        index_heads=keys.size("attention.indexer.head_count", default=0) if index else 0,
        # the key, its gate and the pooled value
        index_dim=index * 3 if keys.size("attention.indexer.kpool", default=0) else index,
    )


def _has_indexer(keys: GgufKeys, shape: Shape, layer: int) -> bool:
    """Whether a layer chooses the tokens that it reads by itself, or reads those of a layer before it."""
    types = "attention.indexer.types"
    if layer >= shape.trunk:
        return False
    if keys.architecture == "glm-dsa" and not keys.has(types) and keys.size("context_length") >= _GLM_SHARED_CONTEXT:
        raise keys.refusal(types, None, "GLM 5.2 and later share indexers: which layers have one is required")
    return keys.each(types, shape.trunk, default=(1,) * shape.trunk)[layer] != 0


def _compressed(keys: GgufKeys, shape: Shape, layer: int, key: int) -> LatentAttention:
    rope = keys.size("rope.dimension_count", default=0, most=key)
    ratio = keys.each_of("attention.compress_ratios", len(shape.heads))[layer]
    indexed = ratio == DEEPSEEK4_INDEXED_RATIO
    return LatentAttention(
        heads=shape.heads[layer],
        rank=key - rope,
        rope_dim=rope,
        query_rank=keys.size("attention.q_lora_rank", default=0),
        index_heads=keys.size("attention.indexer.head_count") if indexed else 0,
        index_dim=keys.size("attention.indexer.key_length") if indexed else 0,
        compress_ratio=ratio,
        window=keys.size("attention.sliding_window", least=1),
    )
