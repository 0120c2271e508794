"""Which layers of a GGUF file slide, and over how many tokens, as llama.cpp reads the metadata.

Where the file gives no pattern, llama.cpp takes one for granted per architecture: the table here is its own
(``src/models/*.cpp``).
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vrampack.memory.layers import Span
from vrampack.models.ggufkeys import GgufKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class _Windows:
    """Which layers slide. ``period`` 0: the file lists them."""

    period: int = 0
    """The last of every so many layers sees all tokens."""
    full_first: bool = False
    """The first of them does instead."""
    optional: bool = False
    """Without a window in the file no layer slides."""
    window: int = 0
    """Where the file names none."""
    fixed: int = 0
    """The engine's own, whatever the file names."""


_WINDOWS: Final = MappingProxyType(
    {
        "afmoe": _Windows(period=4, optional=True),
        "cohere2": _Windows(period=4),
        "cohere2moe": _Windows(period=4, full_first=True),
        "exaone-moe": _Windows(period=4),
        "gemma2": _Windows(period=2, window=4096),
        "gemma3": _Windows(period=6, optional=True),
        "gemma3n": _Windows(period=5),
        "gemma4": _Windows(),
        "gpt-oss": _Windows(period=2),
        "granite_swa": _Windows(),
        "laguna": _Windows(period=4, full_first=True, optional=True),
        "maple": _Windows(),
        "mellum": _Windows(period=4, optional=True),
        "mimo2": _Windows(),
        "muse-glimmer": _Windows(period=4),
        "olmo2": _Windows(period=4, optional=True),
        "plamo3": _Windows(period=8, optional=True),
        "smallthinker": _Windows(period=4, full_first=True, optional=True, fixed=4096),
        "spark2_5": _Windows(),
        "step35": _Windows(),
    }
)
"""Architectures that are not here have no sliding layers, whatever ``attention.sliding_window`` says: Mistral, Phi-3
and Qwen2 keep every token."""

_EXAONE4_SLIDING_LAYERS: Final = 64
"""Of EXAONE 4 only the 32B slides; llama.cpp tells it by its layers."""
_LLAMA4_CHUNK: Final = 8192

SLIDING: Final = frozenset(_WINDOWS) | {"exaone4", "llama4", "lfm2"}
"""Architectures that may have sliding layers."""


def sliding_layers(keys: GgufKeys, layers: int, trunk: int) -> tuple[tuple[bool, ...], Span, int]:
    """For each layer whether it slides, over what, and the window in tokens.

    Raises InvalidInputError where the file has to list the layers, and does not.
    """
    none = ((False,) * layers, Span.FULL, 0)
    rule = _WINDOWS.get(keys.architecture)
    span = Span.SLIDING
    if keys.architecture == "llama4":
        if keys.size("attention.sliding_window", default=_LLAMA4_CHUNK) == 0:
            return none
        rule, span = _Windows(period=4, fixed=_LLAMA4_CHUNK, window=_LLAMA4_CHUNK), Span.CHUNKED
    elif keys.architecture == "exaone4" and trunk == _EXAONE4_SLIDING_LAYERS:
        rule = _Windows(period=4, window=4096)
    elif keys.architecture == "lfm2":
        window = keys.size("attention.sliding_window", default=0)
        return ((True,) * trunk + (False,) * (layers - trunk), span, window) if window else none
    if rule is None:
        return none
    default = 0 if rule.optional else rule.window or None
    window = keys.size("attention.sliding_window", default=default)
    if window == 0:
        return none
    pattern = "attention.sliding_window_pattern"
    if keys.is_array(pattern) or not rule.period:
        if not keys.is_array(pattern):
            raise keys.refusal(pattern, None, f"a list of the sliding layers is required for {keys.architecture}")
        slides = tuple(flag != 0 for flag in keys.each_of(pattern, layers))
    else:
        period = keys.size(pattern, default=rule.period)
        full = 0 if rule.full_first else period - 1
        slides = tuple(layer < trunk and (not period or layer % period != full) for layer in range(layers))
    return slides, span, rule.fixed or window
