"""What changed in vLLM's allocation, and in which release.

Read from the source of 0.9.1, 0.12.0, 0.20.0, 0.27.1, 0.29.0, 0.31.0, 0.32.0 and 0.33.0, and checked against what the
planners of 0.20.0, 0.27.1 and 0.33.0 answer. A release between two of them that was not read has the rule of the
earlier one, unless the change itself is documented. A version that is newer than all of them has the newest rules.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.memory.layers import StateKind
from vrampack.memory.releases import release_of

SECOND_CORE: Final = (0, 8, 0)
"""The engine core that frees blocks outside a window became the default; the first kept every token of every layer."""

MIXED_GROUPS: Final = (0, 9, 1)
"""Layers of several kinds share one pool in groups (the hybrid manager); before, they all kept every token."""

NEARLY_ALIKE: Final = (((0, 20, 0), 1.5), ((0, 12, 0), 1.25))
"""Kinds whose layer counts differ by less than this factor are padded to the larger count, newest release first. Before
these the smaller count always was the size of a group."""

CHUNKED_GROUPS: Final = (0, 20, 0)
"""Layers with chunks have groups of their own too, but not where layers draft. 0.12.0 turned mixed groups off for such
models, for their latency."""

TOKENS_FROM_CONCURRENCY: Final = (0, 20, 1)
"""The line "GPU KV cache size" is maximum concurrency times maximum length; before, blocks / groups x block size."""

TWO_STEPS_IN_FLIGHT: Final = (0, 26, 0)
"""Blocks outside a window are freed when a step is settled, and with asynchronous scheduling two are under way."""

WIDE_LATENT_BLOCKS: Final = (0, 27, 0)
"""Latent attention beside state layers gets blocks of a multiple of 128 tokens. Not in 0.20.0, there in 0.27.1."""

SHARED_INDEXERS: Final = (0, 27, 0)
"""Sparse layers that take over an earlier layer's choice keep no key of their own. In 0.20.0 each has an indexer."""

DENSE_PACKING: Final = (0, 27, 0)
"""Groups of packed pages overlay each other, and a block is as large as the largest group. In 0.20.0 each slot of a
group had room for a page of every size."""

HYBRIDS_CACHE_PREFIXES: Final = (0, 28, 0)
"""Prefix caching is on for models with state layers too."""

NULL_BLOCK_CHECKED: Final = (0, 29, 0)
"""The check at start counts the block that the pool keeps back. An engine with one block less hung before."""

KIMI_CHECKPOINTS: Final = (0, 29, 0)
"""A prefill may leave a checkpoint of the state of Kimi delta attention: one block more per group."""

WIDE_HEAD_BLOCKS: Final = (0, 31, 0)
"""Heads of 512 elements with an fp8 cache are read in pages of 64 tokens on Hopper. Not in 0.29.0, there in 0.31.0."""

MAMBA2_CHECKPOINTS: Final = (0, 32, 0)
"""As for Kimi, for Mamba 2. Not in 0.31.0."""

DELTA_CHECKPOINTS: Final = (0, 33, 0)
"""As for Kimi, for the gated delta net, and blocks beside it become multiples of 64 tokens. Not in 0.32.0."""

OWN_PRECISION: Final = {"MiMoV2FlashForCausalLM": (0, 32, 0), "MiMoV2ForCausalLM": (0, 32, 0)}
"""Classes that kept K and V in the computation type whatever ``--kv-cache-dtype`` said, before these releases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The allocation rules of one release."""

    frees_windows: bool
    mixed_groups: bool
    chunked_groups: bool
    nearly_alike: float
    """Factor between layer counts below which groups are padded to the larger one."""
    tokens_from_concurrency: bool
    steps_in_flight: int
    latent_hybrid_alignment: int
    """Tokens; blocks of latent attention beside state layers are a multiple of this."""
    shared_indexers: bool
    dense_packing: bool
    hybrids_cache_prefixes: bool
    null_block_checked: bool
    wide_head_blocks: bool
    checkpoints: frozenset[StateKind]
    """Kinds of state that keep one block more for a checkpoint when prefixes are cached."""
    delta_alignment: int
    """Tokens; blocks beside a gated delta net are a multiple of this when prefixes are cached."""
    own_precision: frozenset[str]
    """Classes that keep K and V in the computation type, whatever is asked."""


@lru_cache(maxsize=64)
def rules_of(version: str) -> Rules:
    """Rules of ``0.33.0`` or ``v0.27.1``; empty: the newest.

    Raises InvalidInputError for a text that is no version.
    """
    try:
        release = release_of(version)
    except ValueError as failure:
        raise InvalidInputError(field="spec.engine.version", value=version, allowed=str(failure)) from None
    since = {
        StateKind.KIMI_DELTA: KIMI_CHECKPOINTS,
        StateKind.MAMBA2: MAMBA2_CHECKPOINTS,
        StateKind.GATED_DELTA: DELTA_CHECKPOINTS,
    }
    return Rules(
        frees_windows=release >= SECOND_CORE,
        mixed_groups=release >= MIXED_GROUPS,
        chunked_groups=release >= CHUNKED_GROUPS,
        nearly_alike=next((factor for first, factor in NEARLY_ALIKE if release >= first), 1.0),
        tokens_from_concurrency=release >= TOKENS_FROM_CONCURRENCY,
        steps_in_flight=2 if release >= TWO_STEPS_IN_FLIGHT else 1,
        latent_hybrid_alignment=128 if release >= WIDE_LATENT_BLOCKS else 1,
        shared_indexers=release >= SHARED_INDEXERS,
        dense_packing=release >= DENSE_PACKING,
        hybrids_cache_prefixes=release >= HYBRIDS_CACHE_PREFIXES,
        null_block_checked=release >= NULL_BLOCK_CHECKED,
        wide_head_blocks=release >= WIDE_HEAD_BLOCKS,
        checkpoints=frozenset(kind for kind, first in since.items() if release >= first),
        delta_alignment=64 if release >= DELTA_CHECKPOINTS else 1,
        own_precision=frozenset(name for name, fixed in OWN_PRECISION.items() if release < fixed),
    )
