"""Lists of modules in a quantization's settings: plain names, names with wildcards, and regular expressions.

Each tool writes the names in its own way, below its own prefix (``model.``, ``model.language_model.``, ``backbone.``).
What counts here is the part from ``layers.N`` on. A stranger's expressions are bounded before they are run.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Final

from vrampack.errors import UnsupportedModelError

_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d{1,4})(?:\.(.*))?$", re.DOTALL)
_MAX_PATTERN: Final = 400
_MAX_REPEATS: Final = 3
_MAX_WILDCARDS: Final = 1000
_MAX_EXPRESSIONS: Final = 64
_NESTED: Final = re.compile(r"\)[*+{]")
_PREFIXES: Final = ("model.", "model.language_model.", "language_model.model.", "backbone.", "")

_OTHER_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "mlp": ("mlp", "block_sparse_moe", "feed_forward", "ffn", "mixer"),
    "self_attn": ("self_attn", "attn", "attention", "mixer"),
    "mixer": ("mixer", "mamba"),
    "mamba": ("mamba", "mixer"),
}
"""The first word of a module's name, and what other model classes call it."""
_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "in_proj_qkvz": ("in_proj_qkvz", "in_proj_qkv"),
    "in_proj_ba": ("in_proj_ba", "in_proj_b"),
    "shared_experts": ("shared_experts", "shared_expert"),
    "experts": ("experts", "experts.0"),
}
"""A later word of a module's name, and what other model classes call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleNames:
    """A list of modules, ready to be asked of each."""

    everywhere: tuple[str, ...] = ()
    """Names without a layer."""
    in_layer: frozenset[tuple[int, str]] = field(default_factory=frozenset)
    patterns: tuple[re.Pattern[str], ...] = ()

    @classmethod
    def of(cls, names: Iterable[str]) -> "ModuleNames":
        """Raises UnsupportedModelError for an expression that could take for ever."""
        everywhere: list[str] = []
        in_layer: set[tuple[int, str]] = set()
        wildcards: list[re.Pattern[str]] = []
        expressions: list[re.Pattern[str]] = []
        for name in names:
            if name.startswith("re:"):
                expressions.append(_expression(name[3:]))
                continue
            found = _LAYER.search(name.removesuffix("*").removesuffix("."))
            if found is not None and "*" not in (found[2] or ""):
                in_layer.add((int(found[1]), found[2] or ""))
            elif "*" in name:
                wildcards.append(_wildcards(name))
            elif ".layers." not in f".{name}":
                everywhere.append(name)
        if len(wildcards) > _MAX_WILDCARDS or len(expressions) > _MAX_EXPRESSIONS:
            raise _too_much(f"({len(wildcards)} wildcards and {len(expressions)} expressions)")
        return cls(everywhere=tuple(everywhere), in_layer=frozenset(in_layer), patterns=(*wildcards, *expressions))

    def have(self, layer: int, name: str) -> bool:
        """Whether the matrix ``name`` of a layer is in the list, by itself or as a part of a module that is."""
        for called in _called(name):
            parts = called.split(".")
            if any((layer, ".".join(parts[:length])) in self.in_layer for length in range(len(parts) + 1)):
                return True
            if any(f".{each}." in f".{called}." for each in self.everywhere):
                return True
            full = f"layers.{layer}.{called}"
            if any(pattern.match(f"{prefix}{full}") for pattern in self.patterns for prefix in _PREFIXES):
                return True
        return False


def _called(name: str) -> Iterator[str]:
    first, _, rest = name.partition(".")
    later = [rest]
    for word, others in _PARTS.items():
        later += [
            ".".join(other if part == word else part for part in rest.split("."))
            for other in others[1:]
            if word in rest.split(".")
        ]
    for head in _OTHER_NAMES.get(first, (first,)):
        for tail in later:
            yield f"{head}.{tail}" if tail else head


def _wildcards(name: str) -> re.Pattern[str]:
    """The module of that name, or what is inside it. Wildcards never go back, so any number of them is quick."""
    if len(name) > _MAX_PATTERN:
        raise _too_much(name[:100])
    anywhere = name if name.startswith("*") else f"*{name}"
    return re.compile(f"{translate(anywhere)}|{translate(anywhere + '.*')}")


def _expression(text: str) -> re.Pattern[str]:
    """Few repeats, and none of a repeat: more could take for ever."""
    repeats = sum(text.count(sign) for sign in "*+{")
    if len(text) > _MAX_PATTERN or repeats > _MAX_REPEATS or _NESTED.search(text):
        raise _too_much(text[:100])
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise _too_much(text[:100]) from error


def _too_much(shown: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        unknown=f"quantization_config.ignore {shown}", detail="this expression is not one that is run on module names"
    )
