"""Tokens that one block stands for: what the attention kernels ask for, and what state layers make of it.

On Hopper. Kernels of other GPUs may ask for blocks of other sizes, which changes only the rounding of a request; a
claim is made for the largest, because it is made before its GPU is known.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import lcm
from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention, RecurrentState, Span, StateKind
from vrampack.memory.vllm.pages import latent_token_bytes, paged_token_bytes, state_bytes
from vrampack.memory.vllm.versions import Rules

DEFAULT_BLOCK: Final = 16
"""Read: ``CacheConfig.DEFAULT_BLOCK_SIZE``."""

_FLASH_MLA_WIDTH: Final = 576
_FLASH_MLA_BLOCK: Final = 64
"""FlashMLA reads fp8 and sparse latents in pages of 64 tokens; bf16 latents are left to FlashAttention, which takes 16.
Latents of another width than 576 go to Triton, which takes 16 too."""

_BLACKWELL_LATENT_BLOCK: Final = 32
"""FlashInfer's kernel for latents, the first choice on Blackwell, takes pages of 32 and of 64 tokens. The other blocks
are as large elsewhere, or smaller."""

_WIDE_HEAD: Final = 512
_WIDE_HEAD_BLOCK: Final = 64
_SPARSE_PAGED_BLOCK: Final = 128
"""Sparse layers with paged attention choose blocks of 128 tokens, and a page is one of these (MiniMax M3)."""

_WITHOUT_CHECKPOINTS: Final = frozenset({"OlmoHybridForCausalLM"})
"""Classes with a gated delta net of their own, which leaves no checkpoints."""

_MAMBA: Final = frozenset({StateKind.MAMBA1, StateKind.MAMBA2})


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBlocks:
    """How state layers share the pool of attention blocks."""

    block_size: int
    """Tokens of a block of attention, which is made large enough to hold a state."""
    state_block: int
    """Tokens after which a state gets a new block."""
    page: int
    """Bytes of a block of one layer; 0: states are as large as they are (no attention beside them)."""
    per_request: int
    """Blocks of each group of states that a request may hold at once."""


def attention_block(mixers: Iterable[Mixer], *, precision: str, rules: Rules) -> int:
    """Tokens of a block that every attention layer can read."""
    size = DEFAULT_BLOCK
    for mixer in mixers:
        if isinstance(mixer, PagedAttention):
            size = max(size, _paged_block(mixer, precision=precision, rules=rules))
        elif isinstance(mixer, LatentAttention) and not mixer.window:
            sparse = mixer.index_heads > 0
            wide = precision == "fp8" and mixer.rank + mixer.rope_dim == _FLASH_MLA_WIDTH
            size = max(size, _FLASH_MLA_BLOCK if sparse or wide else DEFAULT_BLOCK)
    return size


def coarser(mixers: Iterable[Mixer], *, block_size: int) -> int:
    """How many of these blocks one block of another GPU may be as large as."""
    latent = any(isinstance(mixer, LatentAttention) and not mixer.window for mixer in mixers)
    return max(1, _BLACKWELL_LATENT_BLOCK // block_size) if latent else 1


def _paged_block(layer: PagedAttention, *, precision: str, rules: Rules) -> int:
    if layer.index_dim:
        return _SPARSE_PAGED_BLOCK
    if rules.wide_head_blocks and precision == "fp8" and layer.key_dim == _WIDE_HEAD:
        return _WIDE_HEAD_BLOCK
    return DEFAULT_BLOCK


def state_blocks(
    mixers: tuple[Mixer, ...],
    *,
    tensor: int,
    precision: str,
    dtype: str,
    rules: Rules,
    prefix_caching: bool,
    context_length: int,
    speculative_tokens: int,
    class_name: str,
) -> StateBlocks:
    """Blocks of a model with state layers: large enough that a page of attention holds a state.

    With prefix caching states change blocks as attention does (mode ``align``); without, a request has one state.
    Raises InvalidInputError for releases that keep a state for every block of the prompt instead (mode ``all``).
    """
    size = attention_block(mixers, precision=precision, rules=rules)
    states = [mixer for mixer in mixers if isinstance(mixer, RecurrentState)]
    if prefix_caching and not rules.hybrids_cache_prefixes and _MAMBA.intersection(state.kind for state in states):
        raise InvalidInputError(
            field="spec.engine.prefixCaching",
            value="Enabled",
            allowed="Disabled for Mamba layers before vllm 0.28: they would keep a state for every block of a prompt",
        )
    largest = max(
        state_bytes(state, tensor=tensor, dtype=dtype, speculative_tokens=speculative_tokens) for state in states
    )
    checkpoints = class_name not in _WITHOUT_CHECKPOINTS and all(state.kind in rules.checkpoints for state in states)
    per_request = (2 + checkpoints if prefix_caching else 1) + speculative_tokens
    attention = next((mixer for mixer in mixers if _is_attention(mixer)), None)
    if attention is None:
        state_block = size if prefix_caching else context_length
        return StateBlocks(block_size=size, state_block=state_block, page=0, per_request=per_request)
    alignment = size
    if isinstance(attention, LatentAttention):
        token = latent_token_bytes(attention, precision=precision)
        alignment = max(alignment, rules.latent_hybrid_alignment)
    else:
        assert isinstance(attention, PagedAttention)
        token = paged_token_bytes(attention, tensor=tensor, precision=precision)
    if prefix_caching and checkpoints and all(state.kind is StateKind.GATED_DELTA for state in states):
        alignment = lcm(alignment, rules.delta_alignment)
    size = max(size, alignment * -(-largest // (alignment * token)))
    state_block = size if prefix_caching else context_length
    return StateBlocks(block_size=size, state_block=state_block, page=size * token, per_request=per_request)


def _is_attention(mixer: Mixer) -> bool:
    return isinstance(mixer, LatentAttention) or (isinstance(mixer, PagedAttention) and mixer.span is not Span.CROSS)
