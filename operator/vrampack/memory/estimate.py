"""The estimate: one number per GPU, as a sum of named terms."""

import math
from dataclasses import dataclass

from vrampack.memory.activations import activation_bytes
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.checks import check
from vrampack.memory.constants import KV_BLOCK_TOKENS
from vrampack.memory.kv import kv_blocks, kv_bytes_per_token, printed_concurrency
from vrampack.memory.overheads import (
    communication_bytes,
    cuda_graph_bytes,
    host_bytes,
    runtime_context_bytes,
    shared_memory_bytes,
)
from vrampack.memory.weights import reserved_bytes
from vrampack.memory.workload import Workload
from vrampack.units import MIB, round_up

__all__ = ["Estimate", "Workload", "estimate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes per GPU. Every term is a whole number of MiB, and ``per_gpu`` is their exact sum.

    ``kv_cache_bytes`` is what the engine is told (whole blocks), ``kv_cache`` the same rounded up to MiB.
    """

    weights: int
    kv_cache: int
    activations: int
    cuda_graphs: int
    communication: int
    runtime_context: int
    headroom: int
    per_gpu: int
    gpus: int
    kv_cache_bytes: int
    kv_bytes_per_token: int
    kv_blocks: int
    max_concurrency_at_context: str
    """What the engine prints at start: sequences of context_length that the pool holds, two digits."""
    host_memory: int
    shared_memory: int
    measured: tuple[str, ...] = ()
    """Terms, by name, that were seen on real runs and are not computed."""


def estimate(*, architecture: Architecture, weights: Weights, workload: Workload) -> Estimate:
    """Bytes per GPU of one replica served by vLLM.

    Raises InvalidInputError for a workload that the engine would refuse to start with, UnsupportedModelError for a
    computation type or weight format whose size is not known.
    """
    check(architecture=architecture, weights=weights, workload=workload)
    tensor, max_batched_tokens = workload.tensor, workload.max_batched_tokens
    per_token = kv_bytes_per_token(architecture, tensor=tensor, precision=workload.kv_cache_precision)
    blocks = kv_blocks(
        concurrency=workload.concurrency,
        tokens_per_sequence=workload.tokens_per_sequence,
        context_length=workload.context_length,
    )
    kv_cache_bytes = blocks * KV_BLOCK_TOKENS * per_token
    activations = activation_bytes(architecture, workload)
    graphs = 0
    if workload.cuda_graphs:
        graphs = cuda_graph_bytes(
            architecture, max_sequences=workload.concurrency, max_batched_tokens=max_batched_tokens
        )
    terms = {
        "weights": round_up(reserved_bytes(architecture, weights, workload), MIB),
        "kv_cache": round_up(kv_cache_bytes, MIB),
        "activations": round_up(activations, MIB),
        "cuda_graphs": round_up(graphs, MIB),
        "communication": round_up(communication_bytes(tensor=tensor), MIB),
        "runtime_context": round_up(runtime_context_bytes(), MIB),
    }
    terms["headroom"] = math.ceil(sum(terms.values()) // MIB * workload.headroom_percent / 100) * MIB
    return Estimate(
        **terms,
        per_gpu=sum(terms.values()),
        gpus=tensor,
        kv_cache_bytes=kv_cache_bytes,
        kv_bytes_per_token=per_token,
        kv_blocks=blocks,
        max_concurrency_at_context=printed_concurrency(blocks=blocks, context_length=workload.context_length),
        host_memory=host_bytes(tensor=tensor),
        shared_memory=shared_memory_bytes(tensor=tensor),
    )
