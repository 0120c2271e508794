"""What a GPU holds besides weights, KV cache and activations; and what the pod needs of the host."""

from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import (
    COMMUNICATION,
    CUDA_CONTEXT,
    GRAPH_BASE,
    GRAPH_LARGEST_BATCH,
    GRAPH_PER_LAYER_AND_SIZE,
    GRAPH_PER_LAYER_AND_SIZE_MOE,
    HOST_BASE,
    HOST_PER_RANK,
    NON_TORCH,
    SHARED_MEMORY_PER_RANK,
)


def cuda_graph_bytes(architecture: Architecture, *, max_sequences: int, max_batched_tokens: int) -> int:
    """Captured graphs: each layer leaves its share in the graph of each captured batch size."""
    sizes = captured_sizes(max_sequences=max_sequences, max_batched_tokens=max_batched_tokens)
    each = GRAPH_PER_LAYER_AND_SIZE_MOE if architecture.experts else GRAPH_PER_LAYER_AND_SIZE
    return GRAPH_BASE + architecture.layers * sizes * each


def captured_sizes(*, max_sequences: int, max_batched_tokens: int) -> int:
    """How many batch sizes vLLM captures: 1, 2, 4, then every 8th below 256, then every 16th, up to its limit."""
    limit = min(2 * max_sequences, GRAPH_LARGEST_BATCH, max_batched_tokens)
    smallest = sum(size <= limit for size in (1, 2, 4))
    eights = min(limit, 255) // 8
    sixteens = (limit - 256) // 16 + 1 if limit >= 256 else 0
    return smallest + eights + sixteens


def communication_bytes(*, tensor: int) -> int:
    """Buffers between the ranks; a single GPU has none."""
    return COMMUNICATION if tensor > 1 else 0


def runtime_context_bytes() -> int:
    """Context, driver and library workspaces of one process: outside the engine's own budget."""
    return CUDA_CONTEXT + NON_TORCH


def host_bytes(*, tensor: int) -> int:
    """RAM to request for the pod. Weight files are read through the page cache, which needs no request."""
    return HOST_BASE + tensor * HOST_PER_RANK


def shared_memory_bytes(*, tensor: int) -> int:
    """Size limit of the pod's /dev/shm."""
    return tensor * SHARED_MEMORY_PER_RANK
