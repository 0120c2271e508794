"""How much vLLM takes into one step when its command line does not say.

vrampack always says. This is for engines that others started: for their logs, and for measurements of them.
Source: ``EngineArgs.get_batch_defaults`` and its callers of vLLM 0.8.5, 0.10.0, 0.12.0, 0.17.1, 0.22.0, 0.27.1, 0.33.0.
"""

from dataclasses import dataclass
from typing import Final

from vrampack.memory.releases import release_of
from vrampack.units import GIB

LARGE_GPU: Final = 70 * GIB
"""GPUs of at least this take 1024 sequences, smaller ones 256."""
LARGEST_GPU: Final = 160 * GIB
"""Since 0.33 those of at least this take 16384 tokens."""

SECOND_CORE: Final = (0, 8, 0)
"""Release that made vLLM's second engine core (V1) the default."""
_A100_IS_SMALL: Final = (0, 9, 0)
_THIRD_TIER: Final = (0, 33, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDefaults:
    """What one step of the engine may hold."""

    max_sequences: int
    max_batched_tokens: int


def vllm_batch_defaults(
    *, version: str, total_memory: int, product: str = "", context_length: int, offline: bool = False
) -> BatchDefaults:
    """``max_num_seqs`` and ``max_num_batched_tokens`` of a server, or of the ``LLM`` class when ``offline``.

    ``total_memory``: bytes of the GPU, as the driver gives them. ``product``: its name, ``NVIDIA A100-SXM4-80GB``.
    Raises ValueError for a text that is no version.
    """
    release, name = release_of(version), product.lower()
    if release < SECOND_CORE:
        # The first engine core prefilled whole prompts, up to 32k tokens; longer contexts turned chunks on.
        return BatchDefaults(max_sequences=256, max_batched_tokens=_unchunked(context_length))
    if total_memory >= LARGEST_GPU and release >= _THIRD_TIER:
        sequences, tokens = 1024, 16384
    elif total_memory >= LARGE_GPU and not _counts_as_small(name, release):
        sequences, tokens = 1024, 16384 if offline else 8192
    else:
        sequences, tokens = 256, 8192 if offline else 2048
    tokens = min(tokens, sequences * context_length)
    return BatchDefaults(max_sequences=min(sequences, tokens), max_batched_tokens=tokens)


def _unchunked(context_length: int) -> int:
    return 2048 if context_length > 32768 else max(context_length, 2048)


def _counts_as_small(name: str, release: tuple[int, int, int]) -> bool:
    """GPUs with much memory and less compute."""
    return ("a100" in name and release >= _A100_IS_SMALL) or ("gb10" in name and release >= _THIRD_TIER)
