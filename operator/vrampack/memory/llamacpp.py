"""How llama.cpp allots its cache: buffers of cells, made in full when the context is made.

A cell holds the keys and values of one token in every layer of its kind. Layers with a sliding window have a buffer of
their own with fewer cells; recurrent layers have one state per sequence instead. Read from ``src/llama-context.cpp``,
``llama-kv-cache*.cpp`` and ``llama-memory-*.cpp`` of release 0.3.36 of its Python package (November 2026), and equal
to what that build prints (``benchmarks/llamacpp_oracle.py``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.ggml import CACHE_TYPES, GGML_TYPES
from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention, RecurrentState, Span
from vrampack.units import round_up

CELL_PADDING: Final = 256
"""Cells of every buffer are a multiple of this (``GGML_PAD(n_ctx, 256)``)."""

MAX_SEQUENCES: Final = 256
"""``LLAMA_MAX_SEQ``."""

WITHOUT_FLASH_ATTENTION: Final = frozenset(("grok",))
"""Architectures for which llama.cpp turns it off, so that their values can't be quantized."""

KV_FIELD: Final = "spec.precision.kvCache"

_STATE_ALIGNMENT: Final = 128
"""Each tensor in a CUDA buffer begins at a multiple of this."""
_STATE_BYTES: Final = 4
"""States are 32 bit, whatever the cache type."""
_RATIOS: Final = MappingProxyType({4: 8, 128: 128})
"""DeepSeek V4: tokens that one entry stands for, and rows of the compressor's running sums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaContext:
    """What a context is made with. Tokens, except for the types."""

    tokens: int
    """``--ctx-size``: of all sequences together."""
    sequences: int = 1
    """``--parallel``."""
    micro_batch: int = 512
    """``--ubatch-size``: tokens of one step."""
    unified: bool = True
    """``--kv-unified``: the sequences share the cells. False: each has its own equal part."""
    full_windows: bool = False
    """``--swa-full``: sliding layers keep every token too."""
    key_type: str = "f16"
    value_type: str = "f16"
    flash_attention: bool = True
    """Without it the values of all layers are padded to the widest."""
    latent_values: bool = False
    """Latent attention keeps the value's part of its vector once more, as older builds did."""

    @property
    def streams(self) -> int:
        """Equal parts that the cells are in."""
        return 1 if self.unified else self.sequences

    @property
    def cells(self) -> int:
        """Cells of one part: what one sequence can hold."""
        return round_up(round_up(self.tokens, CELL_PADDING) // self.streams, CELL_PADDING)

    @property
    def step(self) -> int:
        """Tokens of one step: never more than the context was asked for."""
        return min(self.micro_batch, self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheBuffer:
    """One buffer of the cache, as one ``size =`` line of the log names it."""

    name: str
    """full, sliding, index or state; of DeepSeek V4 entries and sums, by the tokens that each stands for."""
    cells: int
    streams: int
    layers: int
    key_bytes: int
    """Keys; of states, the inputs of the convolution."""
    value_bytes: int
    """Values; of states, the recurrent part."""

    @property
    def bytes(self) -> int:
        return self.key_bytes + self.value_bytes


def cache_buffers(architecture: Architecture, context: LlamaContext) -> tuple[CacheBuffer, ...]:
    """The buffers of the whole model; those without a layer are left out.

    Raises InvalidInputError for a context that llama.cpp refuses, UnsupportedModelError for layers it has no cache of.
    """
    check_context(context)
    if not architecture.causal:
        return ()
    return buffers_of(cached_layers(architecture), context)


def cached_layers(architecture: Architecture) -> tuple[tuple[Mixer, ...], ...]:
    """The mixers of each layer, as llama.cpp takes them.

    A model whose layers all slide (Mistral v0.1, Phi-3, Qwen2) keeps every token: only mixed ones have two buffers.
    """
    layers = tuple(run.mixers for run in architecture.layer_runs for _ in range(run.count))
    mixers = [mixer for layer in layers for mixer in layer]
    if all(isinstance(mixer, PagedAttention) and mixer.span is Span.SLIDING for mixer in mixers):
        return tuple(tuple(_seeing_all(mixer) for mixer in layer) for layer in layers)
    return layers


def _seeing_all(mixer: Mixer) -> Mixer:
    assert isinstance(mixer, PagedAttention)
    return PagedAttention(
        heads=mixer.heads,
        kv_heads=mixer.kv_heads,
        key_dim=mixer.key_dim,
        value_dim=mixer.value_dim,
        shares_cache=mixer.shares_cache,
    )


def buffers_of(layers: tuple[tuple[Mixer, ...], ...], context: LlamaContext) -> tuple[CacheBuffer, ...]:
    """The buffers of some layers in a row: of those that one GPU holds."""
    mixers = [mixer for layer in layers for mixer in layer]
    if any(isinstance(mixer, LatentAttention) and mixer.window for mixer in mixers):
        return tuple(buffer for buffer in _compressed(mixers, context) if buffer.layers)
    states = [mixer for mixer in mixers if isinstance(mixer, RecurrentState)]
    paged = [mixer for mixer in mixers if isinstance(mixer, PagedAttention) and mixer.span is not Span.CROSS]
    latent = [mixer for mixer in mixers if isinstance(mixer, LatentAttention)]
    for mixer in paged:
        _check_blocks(mixer.key_dim, context.key_type, what="heads")
        _check_blocks(mixer.value_dim, context.value_type, what="heads")
    widest = 0 if context.flash_attention else max((mixer.kv_heads * mixer.value_dim for mixer in paged), default=0)
    buffers = []
    for name, spans in (("full", (Span.FULL,)), ("sliding", (Span.SLIDING, Span.CHUNKED))):
        kept = [mixer for mixer in paged if mixer.span in spans and not mixer.shares_cache]
        widths = [(mixer.kv_heads * mixer.key_dim, widest or mixer.kv_heads * mixer.value_dim) for mixer in kept]
        if name == "full":
            widths += [(mixer.rank + mixer.rope_dim, mixer.rank * context.latent_values) for mixer in latent]
            # layers without attention have rows of nothing, unless there are recurrent ones: then they have no row
            widths += [(0, widest)] * sum(not layer for layer in layers) if not states else []
        window = max((mixer.window for mixer in kept), default=0)
        buffers.append(_buffer(name, widths, window_cells(window, context), context.streams, context))
    # beside recurrent layers, or latent attention, the indexer keeps a key alone; else a value of the model's width too
    index = [(mixer.index_dim, 0) for mixer in latent if mixer.index_dim]
    index += [(mixer.index_dim, 0 if states else mixer.value_dim) for mixer in paged if mixer.index_dim]
    buffers.append(_buffer("index", index, context.cells, context.streams, context))
    buffers.append(_states(states, context))
    return tuple(buffer for buffer in buffers if buffer.layers)


def window_cells(window: int, context: LlamaContext) -> int:
    """Cells for a window: those of all sequences that share the cells, and of the step under way."""
    if not window or context.full_windows:
        return context.cells
    sharing = context.sequences if context.unified else 1
    return round_up(min(context.cells, window * sharing + context.step), CELL_PADDING)


def _buffer(name: str, widths: list[tuple[int, int]], cells: int, streams: int, context: LlamaContext) -> CacheBuffer:
    key, value = GGML_TYPES[context.key_type], GGML_TYPES[context.value_type]
    for row in widths:
        _check_blocks(row[0], key.name, what="rows")
        _check_blocks(row[1], value.name, what="rows")
    return CacheBuffer(
        name=name,
        cells=cells,
        streams=streams,
        layers=len(widths),
        key_bytes=cells * streams * sum(key.row_bytes(width) for width, _ in widths),
        value_bytes=cells * streams * sum(value.row_bytes(width) for _, width in widths),
    )


def _check_blocks(width: int, kind: str, *, what: str) -> None:
    """A block of a quantized type lies within one head, and in one row (``llama_init_from_model``)."""
    if width % GGML_TYPES[kind].block:
        fitting = ", ".join(name for name in CACHE_TYPES if width % GGML_TYPES[name].block == 0)
        raise InvalidInputError(
            field=KV_FIELD, value=kind, allowed=f"a type whose blocks fit into {what} of {width}: {fitting}"
        )


def _states(states: list[RecurrentState], context: LlamaContext) -> CacheBuffer:
    rows = [state_elements(state) for state in states]
    past, state = (
        sum(round_up(row[part] * context.sequences * _STATE_BYTES, _STATE_ALIGNMENT) for row in rows) for part in (0, 1)
    )
    return CacheBuffer(
        name="state",
        cells=context.sequences,
        streams=1,
        layers=len(states),
        key_bytes=past,
        value_bytes=state,
    )


def state_elements(state: RecurrentState) -> tuple[int, int]:
    """Elements per sequence of the convolution's last inputs, and of the recurrent state.

    One formula for all kinds: what a kind does not have is 0 (``llama_hparams::n_embd_r`` and ``n_embd_s``).
    """
    inner = state.value_heads * state.value_dim
    return max(0, state.conv_kernel - 1) * (inner + 2 * state.key_heads * state.key_dim), inner * state.key_dim


def _compressed(mixers: list[Mixer], context: LlamaContext) -> Iterator[CacheBuffer]:
    """DeepSeek V4: a window, and entries that stand for several tokens each, with the compressor's running sums.

    Every sequence has cells of its own, for the whole context, even where the others are shared.
    """
    layers = [mixer for mixer in mixers if isinstance(mixer, LatentAttention)]
    unknown = [mixer.compress_ratio for mixer in layers if mixer.compress_ratio not in (0, 1, *_RATIOS)]
    if unknown or len(layers) != len(mixers):
        raise UnsupportedModelError(
            unknown=f"compress_ratios {unknown[:1]}",
            detail="llama.cpp has no cache for such a layer; known: 0, 4 and 128",
        )
    streams = context.sequences
    window = max(mixer.window for mixer in layers)
    cells = context.cells
    if not context.full_windows:
        cells = round_up(min(context.cells, window + context.step), CELL_PADDING)
    yield _buffer("sliding", [(mixer.rank + mixer.rope_dim, 0) for mixer in layers], cells, streams, context)
    for ratio, rows in _RATIOS.items():
        kept = [mixer for mixer in layers if mixer.compress_ratio == ratio]
        if not kept:
            continue
        entries = round_up(max(1, -(-context.cells // ratio)), CELL_PADDING)
        width = kept[0].rank + kept[0].rope_dim
        yield _buffer(f"entries {ratio}", [(width, 0)] * len(kept), entries, streams, context)
        indexed = [(mixer.index_dim, 0) for mixer in kept if mixer.index_dim]
        yield _buffer("index", indexed, entries, streams, context)
        overlap = rows // ratio
        for name, elements, count in (("", width, len(kept)), ("index ", kept[0].index_dim, len(indexed))):
            sums = overlap * elements * rows * streams * _STATE_BYTES * count
            yield CacheBuffer(
                name=f"{name}sums {ratio}",
                cells=rows,
                streams=streams,
                layers=count,
                key_bytes=sums,
                value_bytes=sums,
            )


def check_context(context: LlamaContext) -> None:
    """Raise InvalidInputError for what llama.cpp refuses to make a context with."""
    if not 1 <= context.sequences <= MAX_SEQUENCES:
        raise InvalidInputError(
            field="spec.serving.concurrency", value=context.sequences, allowed=f"from 1 to {MAX_SEQUENCES}"
        )
    for kind in (context.key_type, context.value_type):
        if kind not in CACHE_TYPES:
            raise InvalidInputError(field=KV_FIELD, value=kind, allowed=f"llama.cpp: {', '.join(CACHE_TYPES)}")
    if GGML_TYPES[context.value_type].quantized and not context.flash_attention:
        raise InvalidInputError(
            field=KV_FIELD, value=context.value_type, allowed="a quantized cache of values needs flash attention"
        )
