"""Weights: the bytes of the files, as one rank of tensor parallelism holds them in memory."""

from collections.abc import Iterator

from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.constants import (
    ALLOCATOR_LARGE,
    ALLOCATOR_SEGMENT,
    ALLOCATOR_UNSPLIT,
    DTYPE_BYTES,
    VOCABULARY_PADDING,
    WEIGHT_BITS,
)
from vrampack.memory.kv import kv_heads_per_rank
from vrampack.units import round_up


def padded_vocabulary(architecture: Architecture) -> int:
    """Rows of the embedding table after the engine's padding."""
    return round_up(architecture.vocab_size, VOCABULARY_PADDING)


def loaded_bytes(architecture: Architecture, weights: Weights, *, tensor: int) -> int:
    """What the engine prints as taken by model loading, per GPU: rests that the allocator does not give back included.

    Reproduces vLLM's "Model loading took" line of dense bf16 models within its rounding.
    """
    rests = sum(count * rest for count, rest in _rests(architecture, weights, tensor) if rest <= ALLOCATOR_UNSPLIT)
    return _tensor_bytes(architecture, weights, tensor) + rests


def reserved_bytes(architecture: Architecture, weights: Weights, *, tensor: int) -> int:
    """What the weights take from the GPU: whole segments of the allocator. Never less than ``loaded_bytes``."""
    rests = sum(count * rest for count, rest in _rests(architecture, weights, tensor))
    return _tensor_bytes(architecture, weights, tensor) + rests


def _tensor_bytes(architecture: Architecture, weights: Weights, tensor: int) -> int:
    """Matrices are split, the padded vocabulary too; norms, routers and the rotary table are whole on every rank."""
    matrices = weights.total - weights.embedding - weights.replicated
    embedding = weights.embedding * padded_vocabulary(architecture)
    return (
        -(-(matrices + _copied_kv_bytes(architecture, weights, tensor)) // tensor)
        + -(-embedding // (architecture.vocab_size * tensor))
        + weights.replicated
        + _rotary_bytes(architecture)
    )


def _copied_kv_bytes(architecture: Architecture, weights: Weights, tensor: int) -> int:
    """With more ranks than KV heads, the K and V projections are copied: bytes over all ranks that no file has."""
    copies = kv_heads_per_rank(architecture, tensor=tensor) * tensor - architecture.kv_heads
    elements = 2 * architecture.layers * architecture.hidden_size * architecture.head_dim * copies
    return elements * WEIGHT_BITS[weights.precision] // 8


def _rotary_bytes(architecture: Architecture) -> int:
    """The cos/sin table: made at start, one for all layers, in the computation type."""
    return architecture.rotary_positions * architecture.rotary_dim * DTYPE_BYTES[architecture.dtype]


def _rests(architecture: Architecture, weights: Weights, tensor: int) -> Iterator[tuple[int, int]]:
    """For each kind of large tensor: how many there are, and the bytes from its end to its last segment's end."""
    for count, size in _tensors(architecture, weights, tensor):
        if size >= ALLOCATOR_LARGE:
            yield count, round_up(size, ALLOCATOR_SEGMENT) - size


def _tensors(architecture: Architecture, weights: Weights, tensor: int) -> Iterator[tuple[int, int]]:
    """Matrices of one rank as vLLM fuses them: how many there are, and the bytes of each."""
    hidden, layers = architecture.hidden_size, architecture.layers
    bits = WEIGHT_BITS[weights.precision]
    query = architecture.attention_heads // tensor * architecture.head_dim
    key_value = 2 * kv_heads_per_rank(architecture, tensor=tensor) * architecture.head_dim
    widths = [query + key_value, query]
    for mlp in _mlp_widths(architecture):
        widths += [(2 if architecture.gated_mlp else 1) * (mlp // tensor), mlp // tensor]
    for width in widths:
        yield layers, hidden * width * bits // 8
    table = padded_vocabulary(architecture) // tensor * hidden * DTYPE_BYTES[architecture.dtype]
    yield (1 if architecture.tied_embeddings else 2), table
    yield 1, _rotary_bytes(architecture)


def _mlp_widths(architecture: Architecture) -> tuple[int, ...]:
    """Widths of a layer's feed-forward matrices; the experts of a layer lie in one tensor."""
    if not architecture.experts:
        return (architecture.intermediate_size,)
    experts = architecture.experts * architecture.expert_intermediate_size
    return (experts, architecture.shared_expert_intermediate_size)
