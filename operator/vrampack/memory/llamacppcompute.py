"""The compute buffer of llama.cpp: what one step of a prompt needs besides weights and cache.

llama.cpp sizes it once, from the graph of a full micro batch, and reuses memory as soon as a tensor is done with. So
its size is the peak over the phases of the graph: the attention of a layer, its feed-forward part, and the output. For
most dense models the printed figure is such a sum to the MiB; where tensors do not fit into the gaps that others leave,
it is more, so that gaps are counted where layers of several kinds or shared experts leave them. The result is an upper
model, which ``benchmarks/llamacpp_oracle.py`` holds against what is printed.
"""

from dataclasses import replace
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import FeedForward, LatentAttention, Mixer, PagedAttention, RecurrentState, Span, StateKind
from vrampack.memory.llamacpp import (
    CELL_PADDING,
    WITHOUT_FLASH_ATTENTION,
    LlamaContext,
    cached_layers,
    state_elements,
    window_cells,
)
from vrampack.units import MIB, round_up

_FLOAT: Final = 4
_HALF: Final = 2
_FIXED: Final = 16 * MIB
"""Positions, indices, and small gaps: without it 21 of 952 buffers of the oracle were up to 14 MiB larger."""
_IN_LAYER: Final = 5
"""Hidden states alive in a layer: what it adds to, what it reads, what it normalizes, what it writes, and a gap."""
_AT_OUTPUT: Final = 4
_ROUTED_OUTPUTS: Final = 1.5
"""Gaps after routed experts beside a shared one, in outputs of all experts of a token."""
_DELTA_CHUNK: Final = 64
"""Tokens that a delta rule works on at once."""
_INDEX_COPIES: Final = 3
"""Of an indexer's scores: as they are, sorted, and as a mask."""
_NOT_MODELLED: Final = frozenset(("t5", "t5encoder", "chameleon", "glm5-next", "qwen4exp"))
"""Scores with a bias for each distance, logits that are copied, and indexers between several hidden streams."""


def compute_bytes(architecture: Architecture, context: LlamaContext) -> int:
    """Bytes of the compute buffer of one GPU that holds the whole model: an upper bound.

    Raises UnsupportedModelError for architectures whose graphs have phases that are not modelled.
    """
    if architecture.model_type in _NOT_MODELLED:
        raise UnsupportedModelError(
            unknown=f"general.architecture {architecture.model_type}",
            detail="the compute buffer that llama.cpp makes for it is not known",
        )
    if architecture.model_type in WITHOUT_FLASH_ATTENTION:
        context = replace(context, flash_attention=False)
    step = _step(architecture, context)
    hidden = step * architecture.hidden_size * _FLOAT
    mixers = {mixer for layer in cached_layers(architecture) for mixer in layer}
    forwards = {run.feed_forward for run in architecture.layer_runs if run.feed_forward is not None}
    masks = sum(
        cells * step * (_HALF if context.flash_attention else _FLOAT)
        for cells in {_cells(architecture, mixer, context) for mixer in mixers if not isinstance(mixer, RecurrentState)}
    )
    parts = [_mixer_bytes(architecture, mixer, context) for mixer in mixers]
    parts += [_forward_bytes(forward, step, hidden) for forward in forwards]
    layer = _IN_LAYER * hidden + max(parts, default=0)
    routed = max((each.experts_per_token for each in forwards if each.shared_width), default=0) * hidden
    gaps = int(_ROUTED_OUTPUTS * routed) + max((_indexed_gap(mixer, context) for mixer in mixers), default=0)
    output = step * architecture.vocab_size * _FLOAT + _AT_OUTPUT * hidden + gaps
    return max(masks + layer, (masks if _is_mixed(mixers) else 0) + output) + _FIXED


def _is_mixed(mixers: set[Mixer]) -> bool:
    """Whether layers of several kinds, or with latents, follow each other: then masks are in the output's way."""
    kinds = {mixer.span if isinstance(mixer, PagedAttention) else type(mixer).__name__ for mixer in mixers}
    return len(kinds) > 1 or any(isinstance(mixer, LatentAttention) for mixer in mixers)


def _step(architecture: Architecture, context: LlamaContext) -> int:
    """Tokens of a step. Without causal attention it may be longer than the context that was asked for."""
    return context.step if architecture.causal else min(context.micro_batch, round_up(context.tokens, CELL_PADDING))


def _cells(architecture: Architecture, mixer: Mixer, context: LlamaContext) -> int:
    """Cells that a token of a step may look at: those of its own sequence's part."""
    if not architecture.causal:
        return _step(architecture, context)
    if isinstance(mixer, PagedAttention) and mixer.span in (Span.SLIDING, Span.CHUNKED):
        return window_cells(mixer.window, context)
    if isinstance(mixer, LatentAttention) and mixer.window:
        return window_cells(mixer.window, context) + _entries(mixer, context)
    return context.cells


def _entries(mixer: LatentAttention, context: LlamaContext) -> int:
    return round_up(-(-context.cells // mixer.compress_ratio), CELL_PADDING) if mixer.compress_ratio > 1 else 0


def _mixer_bytes(architecture: Architecture, mixer: Mixer, context: LlamaContext) -> int:
    if isinstance(mixer, RecurrentState):
        return _state_bytes(mixer, context)
    step, cells = _step(architecture, context), _cells(architecture, mixer, context)
    scores = 0 if context.flash_attention else cells * step * mixer.heads * _FLOAT
    if isinstance(mixer, LatentAttention):
        queries = (4 if mixer.index_dim or mixer.window else 3) * mixer.heads * (mixer.rank + mixer.rope_dim)
        row = mixer.rank + mixer.rope_dim
        indexed = _entries(mixer, context) if mixer.window else cells
        scores += _INDEX_COPIES * indexed * step * _FLOAT if mixer.index_dim else 0
    else:
        queries = mixer.heads * (2 * mixer.key_dim + mixer.value_dim)
        row = mixer.kv_heads * (mixer.key_dim + mixer.value_dim)
        queries += 2 * row
    # flash attention reads no 32-bit cache: a layer's keys and values are copied to 16 bit first
    copied = cells * context.streams * row * _HALF if context.flash_attention and context.key_type == "f32" else 0
    return step * queries * _FLOAT + scores + copied


def _indexed_gap(mixer: Mixer, context: LlamaContext) -> int:
    """What layers with an indexer leave in pieces that the output does not fit into: queries and scores."""
    if not isinstance(mixer, LatentAttention) or not mixer.index_dim or mixer.window:
        return 0
    queries = 3 * mixer.heads * (mixer.rank + mixer.rope_dim)
    return context.step * (queries + 2 * context.cells) * _FLOAT


def _state_bytes(mixer: RecurrentState, context: LlamaContext) -> int:
    past, state = state_elements(mixer)
    inner = mixer.value_heads * mixer.value_dim + 2 * mixer.key_heads * mixer.key_dim
    working = 4 * context.step * inner + context.sequences * (past + 2 * state)
    if mixer.kind in (StateKind.GATED_DELTA, StateKind.KIMI_DELTA):
        working += 4 * context.step * mixer.value_heads * _DELTA_CHUNK
    return working * _FLOAT


def _forward_bytes(forward: FeedForward, step: int, hidden: int) -> int:
    """The widened state, its gate and their product, of the dense part and of each expert of a token."""
    copies = 3 if forward.gated else 2
    dense = copies * max(forward.width, forward.shared_width) * step * _FLOAT
    routed = forward.experts_per_token * (copies * forward.expert_width * step * _FLOAT + 2 * hidden)
    return dense + routed
