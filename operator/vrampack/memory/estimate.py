"""The estimate: one number per GPU, as a sum of named terms."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from vrampack.memory import llamacppterms
from vrampack.memory.activations import activation_bytes
from vrampack.memory.adapters import adapter_bytes
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.checks import check
from vrampack.memory.host import host_bytes, ranks, shared_memory_bytes
from vrampack.memory.kv import kv_figures
from vrampack.memory.loading import claimed_bytes
from vrampack.memory.overheads import (
    allowance_bytes,
    communication_bytes,
    cuda_graph_bytes,
    runtime_context_bytes,
)
from vrampack.memory.workload import Workload, of_one_rank
from vrampack.units import MIB, round_up

__all__ = ["Estimate", "Workload", "estimate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes per GPU. Every term is a whole number of MiB, and ``per_gpu`` is their exact sum.

    ``kv_cache_bytes`` is what the engine is told (whole blocks), ``kv_cache`` the same rounded up to MiB.
    """

    weights: int
    """Room for adapters included, and for what loading needs on top where it is more than all that comes after it."""
    kv_cache: int
    activations: int
    cuda_graphs: int
    communication: int
    runtime_context: int
    allowance: int
    """How far the terms that are only fitted, graphs and memory beside PyTorch's, may be off."""
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
    kv_block_bytes: int = 0
    """Bytes of one block; 0: the model keeps nothing."""
    kv_least_blocks: int = 0
    """Blocks without which the engine does not start, or can't serve one sequence of contextLength."""
    kv_tokens: int = 0
    """What the engine prints at start as the size of its cache."""
    kv_why: str = ""
    """In whole words, what asks for so many blocks."""
    measured: tuple[str, ...] = ()
    """Terms, by name, that were seen on real runs and are not computed."""
    assumptions: tuple[str, ...] = ()
    """In whole words, what was taken from another engine because nothing is known of this one."""


_OF_VLLM: Final = (
    "activations and CUDA graphs are counted as vLLM's: {engine} runs the same layers on PyTorch, and prints nothing "
    "that they could be held against"
)
_ASSUMED: Final[Mapping[str, tuple[str, ...]]] = {
    "sglang": (_OF_VLLM.format(engine="SGLang"),),
    "tgi": (_OF_VLLM.format(engine="TGI"),),
}


def _torch_parts(
    architecture: Architecture, weights: Weights, workload: Workload, cache_bytes: int
) -> tuple[int, int, int, int, int, int, int]:
    """Of vLLM, and of its kin for want of better: their steps run the same layers on PyTorch."""
    if workload.engine != "vllm":
        workload = replace(workload, engine_version="")
    activations = activation_bytes(architecture, workload)
    graphs = cuda_graph_bytes(architecture, workload, precision=weights.precision)
    # As they will stand in the sum, or a larger load could cost a MiB less while loading is what sets it.
    besides = sum(round_up(part, MIB) for part in (cache_bytes, activations, graphs))
    held = claimed_bytes(architecture, weights, workload, besides=besides)
    return (
        held + adapter_bytes(architecture, workload),
        cache_bytes,
        activations,
        graphs,
        communication_bytes(workload),
        runtime_context_bytes(workload),
        allowance_bytes(),
    )


def _llamacpp_parts(
    architecture: Architecture, weights: Weights, workload: Workload, cache_bytes: int
) -> tuple[int, int, int, int, int, int, int]:
    return (
        llamacppterms.weight_bytes(architecture, weights, workload) + adapter_bytes(architecture, workload),
        cache_bytes,
        llamacppterms.step_bytes(architecture, workload),
        llamacppterms.GRAPHS if workload.cuda_graphs else 0,
        0,
        runtime_context_bytes(workload),
        allowance_bytes(),
    )


def estimate(*, architecture: Architecture, weights: Weights, workload: Workload) -> Estimate:
    """Bytes per GPU of one replica served by the workload's engine.

    Raises InvalidInputError for a workload that the engine would refuse to start with, UnsupportedModelError for a
    computation type or weight format whose size is not known.
    """
    workload = of_one_rank(workload)
    check(architecture=architecture, weights=weights, workload=workload)
    cache = kv_figures(architecture, workload)
    if workload.engine == "llamacpp":
        parts = _llamacpp_parts(architecture, weights, workload, cache.bytes)
    else:
        parts = _torch_parts(architecture, weights, workload, cache.bytes)
    terms = [round_up(part, MIB) for part in parts]
    total = sum(terms)
    headroom = math.ceil(total // MIB * workload.headroom_percent / 100) * MIB
    return Estimate(
        weights=terms[0],
        kv_cache=terms[1],
        activations=terms[2],
        cuda_graphs=terms[3],
        communication=terms[4],
        runtime_context=terms[5],
        allowance=terms[6],
        headroom=headroom,
        per_gpu=total + headroom,
        gpus=ranks(workload),
        kv_cache_bytes=cache.bytes,
        kv_bytes_per_token=cache.bytes_per_token,
        kv_blocks=cache.blocks,
        max_concurrency_at_context=f"{cache.max_concurrency:.2f}",
        kv_block_bytes=cache.block_bytes,
        kv_least_blocks=cache.least_blocks,
        kv_tokens=cache.tokens,
        kv_why=cache.why,
        host_memory=host_bytes(architecture, workload),
        shared_memory=shared_memory_bytes(workload),
        assumptions=_ASSUMED.get(workload.engine, ()),
    )
