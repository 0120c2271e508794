"""The pool: what the engine prints of it, and how many blocks a workload needs."""

from dataclasses import dataclass
from typing import Final

from vrampack.memory.vllm.layout import KVLayout
from vrampack.memory.workload import Workload

NULL_BLOCKS: Final = 1
"""Read: the pool keeps one block that no request gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KVClaim:
    """What the pool must hold. ``bytes`` are whole blocks, on the rank that has most."""

    blocks: int
    bytes: int
    least: int
    """Blocks without which the engine does not start, or can't serve one request of full length."""
    why: str
    """In whole words, what asks for so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What the engine logs at start."""

    num_blocks: int
    tokens: int
    """The line "GPU KV cache size"."""
    max_concurrency: float
    """The line "Maximum concurrency": requests of full length that fit. The engine prints two digits."""


def claim(layout: KVLayout, workload: Workload) -> KVClaim:
    """Blocks with which an engine starts, and serves ``concurrency`` sequences of ``tokens_per_sequence``.

    The larger of what the sequences hold while they decode, with one of them being admitted, and of what the engine
    demands at start; the null block is counted always, because without it a start ends in a request that waits forever.
    """
    if not layout.groups:
        return KVClaim(blocks=0, bytes=0, least=0, why="the model keeps nothing between steps")
    coarse = layout.coarse()
    concurrency, tokens = workload.concurrency, workload.tokens_per_sequence
    held = coarse.held_blocks(tokens)
    window = max(0, coarse.blocks_of_request(tokens) - held)
    served, demanded = concurrency * held + window + NULL_BLOCKS, _demanded(coarse, workload)
    blocks = max(served, demanded) * layout.coarser
    if served >= demanded:
        why = f"{concurrency} sequences of {tokens} tokens"
    elif demanded > _of_longest(coarse, workload):
        why = f"a block for the state of each of {concurrency} sequences"
    else:
        why = f"one request of {workload.context_length} tokens, which the engine demands at start"
    return KVClaim(blocks=blocks, bytes=blocks * layout.bytes_per_block, least=demanded * layout.coarser, why=why)


def _demanded(layout: KVLayout, workload: Workload) -> int:
    """One request of full length and the null block, and for every sequence a block for its state."""
    longest = _of_longest(layout, workload)
    return max(longest, workload.concurrency) if layout.has_states else longest


def _of_longest(layout: KVLayout, workload: Workload) -> int:
    return layout.blocks_of_request(workload.context_length) + NULL_BLOCKS


def printed(layout: KVLayout, available_bytes: int, max_model_len: int) -> Printed:
    """What the engine prints for a pool of ``available_bytes`` a rank and requests of up to ``max_model_len``."""
    if not layout.groups:
        return Printed(num_blocks=1, tokens=0, max_concurrency=0.0)
    blocks = available_bytes // layout.bytes_per_block
    concurrency = blocks / layout.blocks_of_request(max_model_len)
    if layout.rules.tokens_from_concurrency:
        tokens = int(concurrency * max_model_len)
    else:
        pools = sum(group.pools for group in layout.groups)
        smallest = min(group.block_size for group in layout.groups)
        tokens = blocks // pools * smallest * layout.decode_context
    return Printed(num_blocks=blocks, tokens=tokens, max_concurrency=concurrency)
