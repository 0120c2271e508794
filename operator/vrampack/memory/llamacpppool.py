"""What to give llama.cpp for a workload, and what it prints of it.

The sequences share the cells (``--kv-unified``): then any of them may grow to contextLength, as a request may, while
the rest hold what they hold. Every GPU of a pipeline holds the caches of its own layers.
"""

from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.memory.architecture import Architecture
from vrampack.memory.enginepools import PoolClaim, PrintedPool, refuse_drafts, refuse_splits
from vrampack.memory.layers import LatentAttention, Mixer
from vrampack.memory.llamacpp import (
    CELL_PADDING,
    KV_FIELD,
    WITHOUT_FLASH_ATTENTION,
    CacheBuffer,
    LlamaContext,
    buffers_of,
    cached_layers,
    check_context,
)
from vrampack.memory.llamacppbuilds import LATENTS_WITHOUT_VALUES, WINDOWS_OF_THE_STEP, build_of
from vrampack.memory.workload import Workload
from vrampack.units import MIB, round_up

MICRO_BATCH: Final = 512
"""``--ubatch-size``: tokens that are computed at once, llama.cpp's own default. ``maxBatchedTokens`` is the batch that
it takes them from (``--batch-size``), which costs nothing."""

_TYPES: Final = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_OWN: Final = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl")
_MOST_CELLS: Final = 2**31


def context_of(architecture: Architecture, workload: Workload, *, tokens: int | None = None) -> LlamaContext:
    """The context to make. ``tokens``: as many cells instead of those that the workload needs.

    DeepSeek V4 keeps cells for every sequence in full whatever is asked, so its sequences are apart.
    Raises InvalidInputError for a precision of K and V that llama.cpp does not have, for ranks and drafts that it
    does not, and for a version that is none.
    """
    refuse_drafts(workload, engine="llama.cpp")
    precision = workload.kv_cache_precision
    kind = _TYPES.get(precision, precision if precision in _OWN else None)
    if kind is None:
        allowed = ", ".join((*_TYPES, *_OWN))
        raise InvalidInputError(field=KV_FIELD, value=precision, allowed=f"llama.cpp: {allowed}")
    refuse_splits(
        workload,
        engine="llama.cpp",
        fields=("tensor", "data", "decode_context"),
        use=", it spreads whole layers: use pipeline",
    )
    apart = _keeps_windows_beside(architecture)
    needed = max(workload.concurrency * workload.tokens_per_sequence, workload.context_length)
    if apart:
        needed = workload.concurrency * round_up(workload.context_length, CELL_PADDING)
    build = build_of(workload.engine_version)
    context = LlamaContext(
        tokens=round_up(needed if tokens is None else tokens, CELL_PADDING),
        sequences=workload.concurrency,
        micro_batch=min(workload.max_batched_tokens, MICRO_BATCH),
        unified=not apart,
        full_windows=build < WINDOWS_OF_THE_STEP,
        key_type=kind,
        value_type=kind,
        flash_attention=architecture.model_type not in WITHOUT_FLASH_ATTENTION,
        latent_values=build < LATENTS_WITHOUT_VALUES,
    )
    check_context(context)
    return context


def claim(architecture: Architecture, workload: Workload) -> PoolClaim:
    """The cache of the GPU that holds the most. Raises what ``context_of`` and ``cache_buffers`` raise."""
    context = context_of(architecture, workload)
    buffers = largest_stage(architecture, workload, context)
    states = sum(buffer.bytes for buffer in buffers if buffer.name == "state")
    held = workload.concurrency * workload.tokens_per_sequence
    if not context.unified:
        why = f"{workload.concurrency} sequences with cells of their own for {workload.context_length} tokens each"
    elif held >= workload.context_length:
        why = f"{workload.concurrency} sequences of {workload.tokens_per_sequence} tokens share the cells"
    else:
        why = f"one sequence of {workload.context_length} tokens"
    return PoolClaim(
        bytes=sum(buffer.bytes for buffer in buffers),
        tokens=context.cells * context.streams,
        state_bytes=states,
        why=why,
    )


def printed(architecture: Architecture, workload: Workload, available_bytes: int) -> PrintedPool:
    """The largest context whose cache fits into ``available_bytes`` of each GPU, and its lines in the log."""
    tokens = _most_tokens(architecture, workload, available_bytes)
    if tokens == 0:
        return PrintedPool(tokens=0, max_concurrency=0.0, lines=())
    context = context_of(architecture, workload, tokens=tokens)
    buffers = largest_stage(architecture, workload, context)
    return PrintedPool(
        tokens=tokens,
        max_concurrency=tokens / workload.context_length,
        lines=tuple(size_line(buffer, context, layers=len(cached_layers(architecture))) for buffer in buffers),
    )


def largest_stage(architecture: Architecture, workload: Workload, context: LlamaContext) -> tuple[CacheBuffer, ...]:
    """The buffers of the GPU with the most bytes of them."""
    stages = stages_of(architecture, workload.pipeline)
    buffers = [buffers_of(stage, context) if architecture.causal else () for stage in stages]
    return max(buffers, key=lambda each: sum(buffer.bytes for buffer in each))


def stages_of(architecture: Architecture, gpus: int) -> list[tuple[tuple[Mixer, ...], ...]]:
    """The layers of each GPU under ``--split-mode layer`` with equal ``--tensor-split``: the output counts as one."""
    layers = cached_layers(architecture)
    places = [index * gpus // (len(layers) + 1) for index in range(len(layers))]
    return [
        tuple(layer for layer, place in zip(layers, places, strict=True) if place == stage) for stage in range(gpus)
    ]


def size_line(buffer: CacheBuffer, context: LlamaContext, *, layers: int) -> str:
    """The ``size =`` line of a buffer, as llama.cpp prints it: of states it counts all ``layers`` of the model."""
    total, keys, values = (size / MIB for size in (buffer.bytes, buffer.key_bytes, buffer.value_bytes))
    if buffer.name == "state":
        held = f"{buffer.cells:6} cells, {layers:3} layers, {context.sequences:2} seqs {0:2} rs_seq"
        parts = f"R (f32): {keys:7.2f} MiB, S (f32): {values:7.2f} MiB, P (f32): {0:7.2f} MiB"
        return f"llama_memory_recurrent: size = {total:7.2f} MiB ({held}), {parts}"
    held = f"{buffer.cells:6} cells, {buffer.layers:3} layers, {context.sequences:2}/{buffer.streams} seqs"
    parts = f"K ({context.key_type}): {keys:7.2f} MiB, V ({context.value_type}): {values:7.2f} MiB"
    return f"llama_kv_cache: size = {total:7.2f} MiB ({held}), {parts}"


def _most_tokens(architecture: Architecture, workload: Workload, available_bytes: int) -> int:
    """The most cells, a multiple of the padding; 0 where not even the fewest fit."""
    step = CELL_PADDING * (workload.concurrency if _keeps_windows_beside(architecture) else 1)

    def fits(steps: int) -> bool:
        context = context_of(architecture, workload, tokens=steps * step)
        return sum(buffer.bytes for buffer in largest_stage(architecture, workload, context)) <= available_bytes

    if not fits(1):
        return 0
    low, high = 1, _MOST_CELLS // step
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low * step


def _keeps_windows_beside(architecture: Architecture) -> bool:
    return any(
        isinstance(mixer, LatentAttention) and mixer.window for run in architecture.layer_runs for mixer in run.mixers
    )
