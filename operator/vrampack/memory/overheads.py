"""What a GPU holds besides weights, KV cache and activations."""

from typing import Final

from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import (
    ALLOWANCE,
    COMMUNICATION,
    GRAPH_BASE,
    GRAPH_EXPERTS,
    GRAPH_LARGEST_BATCH,
    GRAPH_MANY_KERNELS,
    GRAPH_PLAIN,
    GRAPH_PLAIN_FULL,
    NON_TORCH,
)
from vrampack.memory.draft import draft_of
from vrampack.memory.gpus import context_bytes
from vrampack.memory.layers import LayerRun, RecurrentState
from vrampack.memory.releases import release_of
from vrampack.memory.workload import Workload

_SECOND_CORE: Final = (0, 8, 0)
_LIMITED_BY_SEQUENCES: Final = (0, 10, 0)
_COARSE_SIZES: Final = (0, 12, 0)
_UNPACKED: Final = frozenset({"awq", "gptq", "bitsandbytes"})


def cuda_graph_bytes(architecture: Architecture, workload: Workload, *, precision: str = "bf16") -> int:
    """Captured graphs: each layer leaves its share in the graph of each captured batch size.

    ``precision``: of the weights, as ``spec.precision.weights`` names it.
    """
    if not workload.cuda_graphs:
        return 0
    version = workload.engine_version
    sizes = captured_sizes(
        max_sequences=workload.concurrency, max_batched_tokens=workload.max_batched_tokens, version=version
    )
    layers = -(-_graph_shares(architecture, version=version, precision=precision) // workload.pipeline)
    if (draft := draft_of(workload)) and workload.speculation != "medusa":
        layers += _graph_shares(draft.architecture, version=version, precision=draft.weights.precision)
    return GRAPH_BASE + sizes * layers


def _graph_shares(architecture: Architecture, *, version: str, precision: str) -> int:
    """Bytes of all layers in one graph."""
    return sum(
        run.count * _graph_share(run, architecture, version=version, precision=precision) for run in architecture.kinds
    )


def _graph_share(run: LayerRun, architecture: Architecture, *, version: str, precision: str) -> int:
    """Bytes of one layer in one graph: they grow with the kernels that the layer launches."""
    if run.feed_forward is not None and run.feed_forward.experts:
        return GRAPH_EXPERTS
    if (
        architecture.multimodal
        or precision in _UNPACKED
        or any(isinstance(mixer, RecurrentState) for mixer in run.mixers)
    ):
        return GRAPH_MANY_KERNELS
    return GRAPH_PLAIN if release_of(version) < _COARSE_SIZES else GRAPH_PLAIN_FULL


def captured_sizes(*, max_sequences: int, max_batched_tokens: int, version: str = "") -> int:
    """How many batch sizes vLLM captures: 1, 2, 4, every 8th, and since 0.12 every 16th from 256 on, up to its limit.

    Source: ``_set_cudagraph_sizes`` of vLLM 0.8.5, 0.9.2, 0.10.0, 0.12.0, 0.33.0. The first engine core went up to the
    sequences themselves, 0.8 and 0.9 always to the largest size.
    """
    release = release_of(version)
    limit = min(2 * max_sequences, GRAPH_LARGEST_BATCH)
    if release < _SECOND_CORE:
        limit = max_sequences
    elif release < _LIMITED_BY_SEQUENCES:
        limit = GRAPH_LARGEST_BATCH
    limit = min(limit, max_batched_tokens)
    smallest = sum(size <= limit for size in (1, 2, 4))
    if release < _COARSE_SIZES:
        return smallest + limit // 8
    eights = min(limit, 255) // 8
    sixteens = (limit - 256) // 16 + 1 if limit >= 256 else 0
    return smallest + eights + sixteens


def communication_bytes(workload: Workload) -> int:
    """Buffers between the ranks, however the model is split over them; a single GPU has none."""
    return COMMUNICATION if workload.tensor * workload.pipeline * workload.data > 1 else 0


def runtime_context_bytes(workload: Workload) -> int:
    """Context, driver and library workspaces of one process: outside the engine's own budget."""
    return context_bytes(workload.product) + NON_TORCH


def non_torch_bytes(workload: Workload) -> int:
    """What the engine prints as non-torch memory: of the runtime context what it sees grow, and the communication."""
    return NON_TORCH + communication_bytes(workload)


def allowance_bytes() -> int:
    """How far the two terms that are only fitted, graphs and non-torch memory, may be off."""
    return ALLOWANCE
