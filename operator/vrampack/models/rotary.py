"""The rotary embedding's tables, and the longest sequence that the engine accepts."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.layers import LatentAttention, LayerRun, PagedAttention, Span
from vrampack.models.families import Family
from vrampack.models.fields import MAX_ITEMS, MAX_SHOWN, MAX_WIDTH, Fields

MAX_TOKENS: Final = 2**24
_MOST_KINDS: Final = 8
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
_UNSCALED: Final = frozenset(
    {"default", "llama3", "mrope", "proportional", "gptj", "mllama4", "bailing_mrope", "xdrope", "fope"}
)
_YARN: Final = frozenset({"yarn", "deepseek_yarn", "deepseek_llama_scaling"})
_SCALED: Final = frozenset({"linear", "dynamic", "ntk", "dynamic-yarn"})
_LONG: Final = frozenset({"longrope", "su"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotary:
    """Rows and width of the cos/sin tables (several count as one of their total size), and the longest sequence."""

    positions: int
    dim: int
    context: int | None


def rotary_of(text: Fields, family: Family, runs: tuple[LayerRun, ...]) -> Rotary:
    """As the engine derives both: scaled by the factor, except where the longer table is in the file already.

    Raises UnsupportedModelError for a scaling that is not known.
    """
    written = _written_context(text, family)
    if written is None:
        return Rotary(positions=0, dim=0, context=None)
    widths = _head_dims(runs)
    kinds = _kinds(text)
    context = written if family.context_is_scaled else _stretched(text, kinds, written=written)
    off = text.get("alibi") is True or text.get("position_embedding_type") in ("nope", "alibi", "learned")
    if not family.rotary or not widths or off:
        return Rotary(positions=0, dim=0, context=context)
    tables = set(_tables(text, family, widths, written=written))
    rows = max(rows for rows, _, _ in tables)
    total = sum(rows * dim for rows, dim, _ in tables)
    return Rotary(positions=rows, dim=-(-total // rows), context=context)


def _written_context(text: Fields, family: Family) -> int | None:
    """The smallest that is written; ``model_max_length`` overrules them all."""
    if text.get("model_max_length"):
        return text.size(("model_max_length",), most=MAX_TOKENS)
    written = [text.size((name,), most=MAX_TOKENS) for name in _CONTEXT if text.get(name) is not None]
    return min(written, default=family.default_context)


def _head_dims(runs: tuple[LayerRun, ...]) -> dict[str, int]:
    """Width of what is rotated, by the name that ``rope_parameters`` has for such layers."""
    found: dict[str, int] = {}
    for run in runs:
        for mixer in run.mixers:
            match mixer:
                case PagedAttention(span=Span.SLIDING | Span.CHUNKED):
                    found["sliding_attention"] = mixer.key_dim
                case PagedAttention():
                    found["full_attention"] = mixer.key_dim
                case LatentAttention() if mixer.rope_dim:
                    found["full_attention"] = mixer.rope_dim
    return found


def _kinds(text: Fields) -> list[tuple[str, Fields | None]]:
    """The scaling of each kind of layers, or the one of all under an empty name."""
    both = text.get("rope_parameters")
    if isinstance(both, Mapping):
        outer = text.inside("rope_parameters", both)
        names = [name for name in both if str(name).isidentifier() and len(str(name)) <= MAX_SHOWN]
        found = [(str(name), outer.below(str(name))) for name in names if isinstance(both[name], Mapping)]
        if found:
            return found[:_MOST_KINDS]
    return [("", text.below("rope_scaling") or text.below("rope_parameters"))]


def _kind(scaling: Fields | None) -> str:
    return (scaling.text("rope_type") or scaling.text("type") or "default") if scaling else "default"


def _stretched(text: Fields, kinds: list[tuple[str, Fields | None]], *, written: int) -> int:
    """What the scaling makes of the context: YaRN counts from the original one, whatever is written besides.

    Source: ``_get_and_verify_max_len`` of vLLM.
    """
    lengths = [_rows(text, scaling, written=written) for _, scaling in kinds if _kind(scaling) in _SCALED | _YARN]
    return min(max(lengths, default=written), MAX_TOKENS)


def _factor(scaling: Fields | None) -> float:
    return scaling.number("factor", least=1, most=65_536, default=1) if scaling else 1.0


def _tables(
    text: Fields, family: Family, widths: dict[str, int], *, written: int
) -> Iterator[tuple[int, int, tuple[object, ...]]]:
    """Rows, width and what tells tables of one size apart: layers of one kind share theirs."""
    kinds = _kinds(text)
    widest = max(widths.values())
    for name, scaling in kinds:
        width = widths.get(name, widest)
        rows = _rows(text, scaling, written=written) * _video(scaling)
        yield min(rows, MAX_TOKENS), _dim(text, family, scaling, width=width), _base(scaling)
    factors = text.get("partial_rotary_factors")  # Step 3.5: one for each layer
    for factor in {value for value in factors[:MAX_ITEMS] if _is_part(value)} if isinstance(factors, list) else ():
        yield written, int(widest * factor), ("layers", factor)
    local = text.names("rope_local_base_freq", "swa_rope_theta")
    if len(kinds) == 1 and "sliding_attention" in widths and (local or family.local_rope):
        yield written, _dim(text, family, None, width=widths["sliding_attention"]), ("local",)


def _is_part(value: object) -> bool:
    """Below the whole head, whose table is there already."""
    return isinstance(value, float) and 0 < value < 1


def _video(scaling: Fields | None) -> int:
    """Positions of three dimensions run ahead of the tokens in a video: vLLM's table is four times as long."""
    return 4 if scaling is not None and scaling.get("mrope_section") else 1


def _base(scaling: Fields | None) -> tuple[object, ...]:
    if scaling is None:
        return ()
    return (_kind(scaling), _factor(scaling), scaling.number("rope_theta", least=0, most=1e12, default=0))


def _rows(text: Fields, scaling: Fields | None, *, written: int) -> int:
    kind = _kind(scaling)
    if kind in _UNSCALED or scaling is None:
        return written
    own = text.size(("original_max_position_embeddings",), most=MAX_TOKENS, default=written)
    original = scaling.size(("original_max_position_embeddings",), most=MAX_TOKENS, default=own)
    if kind in _YARN:
        return min(math.floor(original * _factor(scaling)), MAX_TOKENS)
    if kind in _SCALED:
        return min(math.floor(written * _factor(scaling)), MAX_TOKENS)
    if kind in _LONG:
        return min(written + original, MAX_TOKENS)
    raise UnsupportedModelError(unknown=f"rope_type {kind}", detail="what it makes of the context is not known")


def _dim(text: Fields, family: Family, scaling: Fields | None, *, width: int) -> int:
    if text.get("qk_rope_head_dim"):
        return text.size(("qk_rope_head_dim",), most=MAX_WIDTH)
    if _kind(scaling) == "proportional":  # the engine rotates the whole head, parts of it by nothing
        return width
    if text.get("rotary_dim") is not None:
        return min(text.size(("rotary_dim",), most=MAX_WIDTH), width)
    fraction = family.default_rotary_fraction
    for name in _FRACTION:
        fraction = text.number(name, least=0, most=1, default=fraction)
        if scaling is not None:
            fraction = scaling.number(name, least=0, most=1, default=fraction)
    return int(width * fraction)
