"""The KV cache of a replica: what the engine is told, and what it prints of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.memory import llamacpppool, sglang, tgi
from vrampack.memory.architecture import Architecture
from vrampack.memory.enginepools import PoolClaim
from vrampack.memory.llamacpp import CELL_PADDING
from vrampack.memory.vllm.layout import kv_layout
from vrampack.memory.vllm.pool import claim, printed
from vrampack.memory.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class KVFigures:
    """Of the rank that needs the most. ``bytes`` are whole blocks."""

    bytes: int
    blocks: int
    block_bytes: int
    """0: the model keeps nothing."""
    least_blocks: int
    """Of the smallest pool with which the engine starts, and can serve a sequence of full length."""
    bytes_per_token: int
    """Of a sequence of full length, on average and before it is rounded to blocks: layers with a window and states
    cost the less, the longer it is."""
    tokens: int
    """What the engine prints as the size of its cache."""
    max_concurrency: float
    """Sequences of full length that it prints."""
    why: str
    """In whole words, what asks for so many blocks."""


def kv_figures(architecture: Architecture, workload: Workload) -> KVFigures:
    """The cache by the rule of the workload's engine.

    Raises InvalidInputError for an engine whose rule is not known here and for what the engine refuses,
    UnsupportedModelError for layers that it could not cache.
    """
    try:
        rule = _RULES[workload.engine]
    except KeyError:
        raise InvalidInputError(
            field="spec.engine.name", value=workload.engine, allowed=f"engines: {', '.join(_RULES)}"
        ) from None
    return rule(architecture, workload)


def _vllm(architecture: Architecture, workload: Workload) -> KVFigures:
    layout = kv_layout(architecture, workload)
    needed = claim(layout, workload)
    said = printed(layout, needed.bytes, workload.context_length)
    return KVFigures(
        bytes=needed.bytes,
        blocks=needed.blocks,
        block_bytes=layout.bytes_per_block,
        least_blocks=needed.least,
        bytes_per_token=math.ceil(layout.bytes_per_token),
        tokens=said.tokens,
        max_concurrency=said.max_concurrency,
        why=needed.why,
    )


def _llamacpp(architecture: Architecture, workload: Workload) -> KVFigures:
    return _of_pool(llamacpppool.claim(architecture, workload), workload, page=CELL_PADDING)


def _sglang(architecture: Architecture, workload: Workload) -> KVFigures:
    return _of_pool(sglang.claim(architecture, workload), workload, page=sglang.page_of(architecture))


def _tgi(architecture: Architecture, workload: Workload) -> KVFigures:
    return _of_pool(tgi.claim(architecture, workload), workload, page=tgi.BLOCK)


def _of_pool(pool: PoolClaim, workload: Workload, *, page: int) -> KVFigures:
    """Of an engine with pools of tokens: a page stands for a block."""
    growing = pool.bytes - pool.state_bytes
    blocks = pool.tokens // page if growing else 0
    return KVFigures(
        bytes=pool.bytes,
        blocks=blocks,
        block_bytes=-(-growing // blocks) if blocks else 0,
        least_blocks=-(-workload.context_length // page) if blocks else 0,
        bytes_per_token=-(-growing // pool.tokens) if growing else 0,
        tokens=pool.tokens if growing else 0,
        max_concurrency=pool.tokens / workload.context_length if growing else 0.0,
        why=pool.why,
    )


_RULES: Final[dict[str, Callable[[Architecture, Workload], KVFigures]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "llamacpp": _llamacpp,
    "tgi": _tgi,
}
