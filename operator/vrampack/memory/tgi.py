"""How text-generation-inference sizes its cache: in blocks, of all that is left.

It can't be told the bytes: it takes what is free of its share of the GPU (``--cuda-memory-fraction``) once the largest
prompt has run. So the share is what is given. Layers with a window keep every token. Read from
``flash_causal_lm.py`` (warmup) of huggingface/text-generation-inference.
"""

from typing import Final

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.enginepools import PoolClaim, PrintedPool, refuse_drafts, refuse_splits
from vrampack.memory.layers import LatentAttention, PagedAttention, Span
from vrampack.memory.workload import Workload
from vrampack.units import round_up

BLOCK: Final = 16
"""Read: tokens of a block of paged attention. FlashInfer has 1 and flash decoding 256: named by ``ATTENTION``."""

WIGGLE_ROOM: Final = 0.90
"""Read: ``TGI_WIGGLE_ROOM``: the part of its share that it fills."""

KV_FIELD: Final = "spec.precision.kvCache"

_ELEMENT: Final = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}


def block_bytes(architecture: Architecture, workload: Workload, *, block: int = BLOCK) -> int:
    """Bytes of a block over all layers on one rank.

    Raises InvalidInputError for drafts, ranks and a precision of K and V that it does not have, UnsupportedModelError
    for recurrent layers, which it has no cache of blocks for.
    """
    refuse_drafts(workload, engine="TGI")
    refuse_splits(workload, engine="TGI", fields=("pipeline", "data", "decode_context"))
    if workload.kv_cache_precision not in _ELEMENT:
        raise InvalidInputError(
            field=KV_FIELD, value=workload.kv_cache_precision, allowed=f"TGI: {', '.join(_ELEMENT)}"
        )
    width = 0
    for run in architecture.layer_runs:
        for mixer in run.mixers:
            if isinstance(mixer, LatentAttention):
                width += run.count * (mixer.rank + mixer.rope_dim)
            elif isinstance(mixer, PagedAttention):
                heads = max(1, mixer.kv_heads // workload.tensor)
                width += run.count * heads * (mixer.key_dim + mixer.value_dim) if mixer.span is not Span.CROSS else 0
            else:
                raise UnsupportedModelError(unknown=f"{mixer.kind} layers", detail="TGI keeps no blocks for them")
    return block * width * _ELEMENT[workload.kv_cache_precision]


def claim(architecture: Architecture, workload: Workload) -> PoolClaim:
    """Blocks for every sequence, and for one of full length beside the largest prompt, which is allotted at once."""
    held = workload.concurrency * round_up(workload.tokens_per_sequence, BLOCK)
    longest = round_up(workload.context_length, BLOCK)
    tokens = max(held, longest, round_up(workload.max_batched_tokens, BLOCK))
    return PoolClaim(
        bytes=tokens // BLOCK * block_bytes(architecture, workload),
        tokens=tokens,
        why=f"{workload.concurrency} sequences of {workload.tokens_per_sequence} tokens, at least one prompt in full",
    )


def printed(architecture: Architecture, workload: Workload, available_bytes: int, *, block: int = BLOCK) -> PrintedPool:
    """What the log says when ``available_bytes`` are left for blocks after its wiggle room."""
    blocks = available_bytes // block_bytes(architecture, workload, block=block)
    return PrintedPool(
        tokens=blocks * block,
        max_concurrency=blocks * block / workload.context_length,
        lines=(f"KV-cache blocks: {blocks}, size: {block}",),
    )


def memory_fraction(*, gpu_bytes: int, needed: int) -> float:
    """``--cuda-memory-fraction`` for ``needed`` bytes of weights, peak and blocks: a part of it stays unfilled."""
    return min(1.0, needed / WIGGLE_ROOM / gpu_bytes)
