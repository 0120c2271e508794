"""The rotary embedding's table, and the longest sequence that the engine accepts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.models.attention_layers import MAX_HEAD_DIM
from vrampack.models.families import Family
from vrampack.models.fields import Fields

MAX_TOKENS: Final = 2**24
_CONTEXT: Final = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
_FRACTION: Final = ("partial_rotary_factor", "rotary_pct", "rope_pct")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotary:
    """Rows and width of the cos/sin tables, and the longest sequence."""

    positions: int
    dim: int
    context: int | None


def rotary_of(text: Fields, family: Family, *, head_dim: int) -> Rotary:
    """As the engine derives both: scaled by the factor, except where the longer table is in the file already."""
    context = _context(text, family)
    if context is None:
        return Rotary(positions=0, dim=0, context=None)
    if not family.rotary or not head_dim or text.get("alibi") is True or text.get("position_embedding_type") == "nope":
        return Rotary(positions=0, dim=0, context=context)
    tables = _scalings(text)
    dim = sum(_rotary_dim(text, family, scaling, head_dim=head_dim) for scaling in tables)
    scaling = tables[0]
    kind = (scaling.text("rope_type") or scaling.text("type") or "default") if scaling else "default"
    positions = context
    if scaling is not None and kind in ("linear", "dynamic", "yarn", "deepseek_yarn"):
        if kind.endswith("yarn"):
            context = scaling.size(("original_max_position_embeddings",), most=MAX_TOKENS, default=context)
        factor = scaling.number("factor", least=1, most=1024, default=1)
        positions = context = math.floor(context * factor)
    elif kind in ("longrope", "su"):
        original = text.size(("original_max_position_embeddings",), most=MAX_TOKENS, default=context)
        positions += (scaling or text).size(("original_max_position_embeddings",), most=MAX_TOKENS, default=original)
    elif kind not in ("default", "llama3", "mrope", "proportional", "dynamic-yarn"):
        raise UnsupportedModelError(unknown=f"rope_type {kind}", detail="what it makes of the context is not known")
    return Rotary(positions=min(positions, MAX_TOKENS), dim=dim, context=min(context, MAX_TOKENS))


def _context(text: Fields, family: Family) -> int | None:
    """The smallest that is written; ``model_max_length`` overrules them all."""
    if text.get("model_max_length"):
        return text.size(("model_max_length",), most=MAX_TOKENS)
    written = [text.size((name,), most=MAX_TOKENS) for name in _CONTEXT if text.get(name) is not None]
    return min(written, default=family.default_context)


def _scalings(text: Fields) -> list[Fields | None]:
    """One for each table: families with two kinds of attention layers may have two."""
    both = text.get("rope_parameters")
    if isinstance(both, Mapping) and any(isinstance(value, Mapping) for value in both.values()):
        outer = text.inside("rope_parameters", both)
        found: list[Fields | None] = [outer.below(name) for name in sorted(both) if isinstance(both[name], Mapping)]
        return found[:4]
    scaling = text.below("rope_scaling") or text.below("rope_parameters")
    local = text.names("rope_local_base_freq", "swa_rope_theta")
    return [scaling, None] if local else [scaling]


def _rotary_dim(text: Fields, family: Family, scaling: Fields | None, *, head_dim: int) -> int:
    latent = text.get("qk_rope_head_dim")
    if latent is not None:
        return text.size(("qk_rope_head_dim",), most=MAX_HEAD_DIM)
    if text.get("rotary_dim") is not None:
        return text.size(("rotary_dim",), most=MAX_HEAD_DIM)
    fraction = family.default_rotary_fraction
    for name in _FRACTION:
        fraction = text.number(name, least=0, most=1, default=fraction)
        if scaling is not None:
            fraction = scaling.number(name, least=0, most=1, default=fraction)
    return int(head_dim * fraction)
