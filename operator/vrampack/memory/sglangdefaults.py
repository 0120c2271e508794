"""What SGLang takes where it is told nothing: chunks, graphs, and the static fraction of the GPU.

Only needed to foresee a start without our arguments, such as the one that calibrates. Read from ``server_args.py`` of
sgl-project/sglang (2026-07); sizes there are MiB.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class SglangDefaults:
    """By the memory of the GPU."""

    chunked_prefill: int
    """Tokens."""
    graph_batch: int
    """Largest batch of a captured graph."""


_MANY_RANKS: Final = 4
_BY_MEMORY: Final = (
    (20_480, 2048, 8, 8),
    (35_840, 2048, 24, 80),
    (61_440, 4096, 32, 160),
    (163_840, 8192, 256, 512),
)
"""Below so many MiB: tokens of a chunk, largest graph batch, and the same with four ranks or more."""
_LARGE_GPU: Final = 60 * 1024
_LARGE_RESERVE: Final = 10 * 1024


def defaults_of(gpu_mib: int, *, tensor: int) -> SglangDefaults:
    """Chunk and graphs of a GPU of ``gpu_mib``."""
    for below, chunk, few, many in _BY_MEMORY:
        if gpu_mib < below:
            return SglangDefaults(chunked_prefill=chunk, graph_batch=many if tensor >= _MANY_RANKS else few)
    return SglangDefaults(chunked_prefill=16_384, graph_batch=512)


def reserve_mib(
    *, gpu_mib: int, chunked_prefill: int, graph_batch: int, tensor: int, pipeline: int = 1, data: int = 1
) -> float:
    """MiB of the GPU that are left to activations, graphs and communication. ``data`` above 1: attention by data."""
    reserve = 512 + 1.5 * max(chunked_prefill, 2048) + 2 * graph_batch + 1024 * tensor * pipeline / 8
    if data > 1:
        reserve += 3 * graph_batch * data
        if graph_batch > 300:
            reserve += 1.5 * graph_batch * data
    return max(reserve, _LARGE_RESERVE) if gpu_mib > _LARGE_GPU else reserve


def default_fraction(*, gpu_mib: int, reserve: float) -> float:
    """``mem_fraction_static`` that it settles on, three digits."""
    return round((gpu_mib - reserve) / gpu_mib, 3)


def static_fraction(*, free_before: int, weights: int, pools: int) -> float:
    """``--mem-fraction-static`` that leaves the pools their bytes: of what is free before the weights are loaded.

    Bytes; rounded up to a thousandth. ``weights`` is all that is gone once they are loaded. The tokens are given
    besides, so that the rest of a thousandth is not taken.
    """
    return ceil((weights + pools) / free_before * 1000) / 1000
