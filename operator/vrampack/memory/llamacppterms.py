"""What a GPU holds under llama.cpp besides the cache: weights, the compute buffer, what its kernels borrow."""

from typing import Final

from vrampack.memory.architecture import Architecture, LoadedTensor, Weights
from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention
from vrampack.memory.llamacpp import LlamaContext, cached_layers
from vrampack.memory.llamacppcompute import compute_bytes
from vrampack.memory.llamacpppool import context_of
from vrampack.memory.workload import Workload
from vrampack.units import MIB

_HALF: Final = 2
_PIPELINE_COPIES: Final = 4
"""Read: with several GPUs inputs are there four times (``GGML_SCHED_MAX_COPIES``)."""

FILE_PRECISION: Final = "gguf"
"""Of weights that were read from the very file; else what stays on the host is known by its sum alone."""

GRAPHS: Final = 64 * MIB
"""Chosen: one captured CUDA graph of a decoding step, whatever the batch."""


def weight_bytes(architecture: Architecture, weights: Weights, workload: Workload) -> int:
    """Weights on the GPU that holds the most, all layers offloaded.

    The input tables stay in the memory of the host. A table that is the output head too is on the last GPU besides.
    Layers that predict further tokens are not loaded.
    """
    gpus = workload.pipeline
    if weights.precision != FILE_PRECISION or not weights.layers:
        table = weights.embedding if architecture.tied_embeddings else weights.embedding // 2
        return -(-(weights.total - weights.embedding) // gpus) + table
    layers = [_bytes(layer.tensors) for layer in weights.layers for _ in range(layer.count)]
    stages = [0] * gpus
    for index, size in enumerate(layers):
        stages[index * gpus // (len(layers) + 1)] += size
    stages[-1] += _bytes(weights.after)
    return max(stages)


def step_bytes(architecture: Architecture, workload: Workload) -> int:
    """The compute buffer, and the pool that CUDA kernels borrow from: an upper bound of both."""
    context = context_of(architecture, workload)
    copies = _PIPELINE_COPIES if workload.pipeline > 1 else 1
    inputs = (copies - 1) * context.step * (context.cells * _HALF + architecture.hidden_size * 4)
    return compute_bytes(architecture, context) + inputs + _borrowed(architecture, context)


def _borrowed(architecture: Architecture, context: LlamaContext) -> int:
    """Matrices are multiplied in 16 bit where no kernel takes their type: both sides are copied. And attention reads
    keys and values of a layer in 16 bit, whatever they are kept in."""
    widest = max(architecture.hidden_size, architecture.intermediate_size)
    products = context.step * (architecture.vocab_size + widest) * _HALF
    if context.key_type == "f16":
        return products
    rows = (_row(mixer) for layer in cached_layers(architecture) for mixer in layer)
    return products + max(rows, default=0) * context.cells * context.streams * _HALF


def _row(mixer: Mixer) -> int:
    """Elements that a token has in the cache of a layer."""
    if isinstance(mixer, PagedAttention):
        return mixer.kv_heads * (mixer.key_dim + mixer.value_dim)
    return mixer.rank + mixer.rope_dim if isinstance(mixer, LatentAttention) else 0


def _bytes(tensors: tuple[LoadedTensor, ...]) -> int:
    return sum(part.bytes for tensor in tensors for part in tensor.parts)
