"""Lists of modules in a quantization's settings: plain names, names with wildcards, and regular expressions.

Each tool writes the names in its own way, below its own prefix (``model.``, ``model.language_model.``, ``backbone.``).
What counts here is the part from ``layers.N`` on. Modules of towers and of prediction layers have layers of their own
numbers, and are left out. A stranger's expressions are bounded before they are run.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from itertools import product
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.models.tensornames import is_beside_the_decoder, is_of_prediction

PREDICTION: Final = -1
"""In the place of a layer's number: the layers that predict further tokens, where they are named apart."""

_LAYER: Final = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d{1,4})(?:\.(.*))?$", re.DOTALL)
_BEGINNING: Final = re.compile(r"\d\*$")
_MAX_PATTERN: Final = 400
_MAX_REPEATS: Final = 3
_MAX_WILDCARDS: Final = 1000
_MAX_EXPRESSIONS: Final = 64
_NESTED: Final = re.compile(r"\)[*+{]")
_PREFIXES: Final = ("model.", "model.language_model.", "language_model.model.", "backbone.", "")
_PREDICTED: Final = ("mtp.layers.0", "model.mtp.layers.0")
_HEADS: Final = frozenset({"lm_head", "head", "embed_out", "output_layer"})

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
_QKV: Final = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "wqkv", "W_pack")
_PROJECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "q_proj": ("q_proj", *_QKV),
    "k_proj": ("k_proj", *_QKV),
    "v_proj": ("v_proj", *_QKV),
    "o_proj": ("o_proj", "out_proj", "dense", "wo", "c_proj"),
    "gate_proj": ("gate_proj", "gate_up_proj", "w1"),
    "up_proj": ("up_proj", "gate_up_proj", "w3", "dense_h_to_4h", "fc1", "c_fc"),
    "down_proj": ("down_proj", "w2", "dense_4h_to_h", "fc2", "c_proj"),
}
"""The last word, where a name is written out: other classes fuse projections, or number them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleNames:
    """A list of modules, ready to be asked of each."""

    everywhere: tuple[str, ...] = ()
    """Names without a layer."""
    in_layer: frozenset[tuple[int, str]] = field(default_factory=frozenset)
    patterns: tuple[re.Pattern[str], ...] = ()

    @classmethod
    def of(cls, names: Iterable[str], *, setting: str = "ignore") -> "ModuleNames":
        """``setting`` is where the names stand. Raises UnsupportedModelError for an expression that could take for
        ever."""
        everywhere: list[str] = []
        in_layer: set[tuple[int, str]] = set()
        wildcards: list[re.Pattern[str]] = []
        expressions: list[re.Pattern[str]] = []
        for name in names:
            if name.startswith("re:"):
                expressions.append(_expression(name[3:], setting))
                continue
            if is_of_prediction(name):
                in_layer.add((PREDICTION, _in_prediction(name)))
                continue
            if is_beside_the_decoder(name):
                continue
            found = None if _BEGINNING.search(name) else _LAYER.search(name.removesuffix("*").removesuffix("."))
            if found is not None and "*" not in (found[2] or ""):
                in_layer.add((int(found[1]), found[2] or ""))
            elif "*" in name:
                wildcards.append(_wildcards(name, setting))
            elif ".layers." not in f".{name}":
                everywhere.append(name)
        if len(wildcards) > _MAX_WILDCARDS or len(expressions) > _MAX_EXPRESSIONS:
            raise _too_much(f"({len(wildcards)} wildcards and {len(expressions)} expressions)", setting)
        return cls(everywhere=tuple(everywhere), in_layer=frozenset(in_layer), patterns=(*wildcards, *expressions))

    @classmethod
    def joined(cls, lists: Iterable["ModuleNames"]) -> "ModuleNames":
        """What any of the lists has."""
        found = tuple(lists)
        return cls(
            everywhere=tuple(name for each in found for name in each.everywhere),
            in_layer=frozenset().union(*(each.in_layer for each in found)),
            patterns=tuple(pattern for each in found for pattern in each.patterns),
        )

    def have(self, layer: int, name: str) -> bool:
        """Whether the matrix ``name`` of a layer is in the list, by itself or as a part of a module that is.

        ``layer`` PREDICTION asks of the layers that predict further tokens.
        """
        if self.everywhere or self.in_layer:
            for called in _spellings(name):
                parts = called.split(".")
                if any((layer, ".".join(parts[:length])) in self.in_layer for length in range(len(parts) + 1)):
                    return True
                if any(f".{each}." in f".{called}." for each in self.everywhere):
                    return True
        return bool(self.patterns) and any(
            pattern.match(f"{prefix}.{called}")
            for prefix in (_PREDICTED if layer == PREDICTION else [f"{each}layers.{layer}" for each in _PREFIXES])
            for called in _called(name)
            for pattern in self.patterns
        )

    def have_head(self) -> bool:
        """Whether the output head is in the list."""
        named = any(name.rpartition(".")[2] in _HEADS for name in self.everywhere)
        return named or any(pattern.match(f"{prefix}lm_head") for pattern in self.patterns for prefix in ("", "model."))


@lru_cache(maxsize=256)
def _called(name: str) -> tuple[str, ...]:
    """In the words of this and of other model classes: of whole blocks."""
    return tuple(_words(name, _PARTS))


@lru_cache(maxsize=256)
def _spellings(name: str) -> tuple[str, ...]:
    """And of each projection."""
    return tuple(_words(name, _PARTS | _PROJECTIONS))


def _words(name: str, others: dict[str, tuple[str, ...]]) -> Iterator[str]:
    first, *rest = name.split(".")
    for each in product(_OTHER_NAMES.get(first, (first,)), *(others.get(part, (part,)) for part in rest)):
        yield ".".join(each)


def _in_prediction(name: str) -> str:
    """The part below a prediction layer; empty: all of it."""
    found = _LAYER.search(name.rstrip("*."))
    rest = (found[2] or "") if found else ".".join(name.rstrip("*.").split(".")[1:])
    return rest.removeprefix("layers").rstrip("*.")


def _wildcards(name: str, setting: str) -> re.Pattern[str]:
    """The module of that name, or what is inside it. Wildcards never go back, so any number of them is quick."""
    if len(name) > _MAX_PATTERN:
        raise _too_much(name[:100], setting)
    anywhere = name if name.startswith("*") else f"*{name}"
    return re.compile(f"{translate(anywhere)}|{translate(anywhere + '.*')}")


def _expression(text: str, setting: str) -> re.Pattern[str]:
    """Few repeats, and none of a repeat: more could take for ever."""
    repeats = sum(text.count(sign) for sign in "*+{")
    if len(text) > _MAX_PATTERN or repeats > _MAX_REPEATS or _NESTED.search(text):
        raise _too_much(text[:100], setting)
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise _too_much(text[:100], setting) from error


def _too_much(shown: str, setting: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        unknown=f"quantization_config.{setting} {shown}",
        detail="this expression is not one that is run on module names",
    )
