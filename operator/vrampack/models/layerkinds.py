"""What each layer of a model is, from whichever of the many spellings config.json uses."""

from enum import StrEnum
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.models.families import Family, Windows
from vrampack.models.fields import MAX_ITEMS, MAX_SHOWN, Fields


class Kind(StrEnum):
    """How a layer keeps the past, before its sizes are known."""

    FULL = "full"
    SLIDING = "sliding"
    CHUNKED = "chunked"
    STATE = "state"
    STATE_AND_FULL = "state beside full"
    """Both in one layer: Falcon-H1 beside each other, Zamba 2 one after the other."""
    DENSE = "dense"
    """Nothing but a feed-forward part (Nemotron-H)."""
    EXPERTS = "experts"
    """Nothing but a mixture of experts (Nemotron-H)."""
    NOTHING = "nothing"
    """No attention; the feed-forward part may be there (DeciLM)."""


_WORDS: Final[dict[str, Kind]] = {
    "full_attention": Kind.FULL,
    "attention": Kind.FULL,
    "global": Kind.FULL,
    "global_attention": Kind.FULL,
    "indexed_attention": Kind.FULL,
    "deepseek_sparse_attention": Kind.FULL,
    "minimax_m3_sparse": Kind.FULL,
    "compressed_sparse_attention": Kind.FULL,
    "heavily_compressed_attention": Kind.FULL,
    "sliding_attention": Kind.SLIDING,
    "sliding_window": Kind.SLIDING,
    "local": Kind.SLIDING,
    "local_attention": Kind.SLIDING,
    "chunked_attention": Kind.CHUNKED,
    "linear_attention": Kind.STATE,
    "mamba": Kind.STATE,
    "mamba2": Kind.STATE,
    "conv": Kind.STATE,
    "short_conv": Kind.STATE,
    "hybrid": Kind.STATE_AND_FULL,
    "moe": Kind.EXPERTS,
    "mlp": Kind.DENSE,
}
"""``layer_types`` and ``layers_block_type``."""

_LETTERS: Final[dict[str, Kind]] = {
    "*": Kind.FULL,
    "M": Kind.STATE,
    "-": Kind.DENSE,
    "E": Kind.EXPERTS,
}
"""``hybrid_override_pattern``."""

_WINDOWS: Final = ("sliding_window_size", "sliding_window", "local_attention")
MAX_WINDOW: Final = 2**30
_SWITCHES: Final = (*_WINDOWS, "attention_chunk_size", "sparse_attention_config")
"""Fields that make layers differ: written as null, they say that none does."""


def layer_kinds(text: Fields, family: Family, *, layers: int) -> list[Kind]:
    """The kind of every layer, first to last.

    Raises UnsupportedModelError for a kind that is not known, InvalidInputError for lists of another length.
    """
    pattern = text.text("hybrid_override_pattern", most=4 * layers)
    if pattern is not None:
        return _as_long(text, "hybrid_override_pattern", [_letter(letter) for letter in pattern], layers)
    for name in ("layer_types", "layers_block_type"):
        words = text.texts(name)
        if words is not None:
            kinds = [_word(name, word) for word in words]
            return _windowless(text, family, _as_long(text, name, kinds, layers))
    listed = _from_numbers(text, layers)
    if listed is not None:
        return listed
    spaced = _spaced(text, family, layers)
    if spaced is not None:
        return spaced
    if family.attention_beside:
        return [Kind.STATE_AND_FULL] * layers
    if family.state is not None and not family.feed_forward:
        return [Kind.STATE] * layers
    return _bare(text, family, layers)


def _word(name: str, word: str) -> Kind:
    if word not in _WORDS:
        raise UnsupportedModelError(
            unknown=f"{name} {word[:MAX_SHOWN]}",
            detail=f"a layer of a kind that is not known; known: {', '.join(_WORDS)}",
        )
    return _WORDS[word]


def _letter(letter: str) -> Kind:
    if letter not in _LETTERS:
        raise UnsupportedModelError(
            unknown=f"hybrid_override_pattern {letter}",
            detail=f"a layer of a kind that is not known; known: {', '.join(_LETTERS)}",
        )
    return _LETTERS[letter]


def _as_long(text: Fields, name: str, kinds: list[Kind], layers: int) -> list[Kind]:
    """Lists may go on behind the last layer (they name prediction layers too), never end before it."""
    if len(kinds) < layers:
        raise text.refusal(name, f"{len(kinds)} layers", f"one entry for each of the {layers} layers")
    return kinds[:layers]


def _windowless(text: Fields, family: Family, kinds: list[Kind]) -> list[Kind]:
    """Layers that are said to slide over no window are full."""
    if Kind.SLIDING in kinds and not window_of(text, family):
        raise UnsupportedModelError(unknown="sliding_window", detail="some layers slide, but over how many tokens?")
    return kinds


def _from_numbers(text: Fields, layers: int) -> list[Kind] | None:
    """Lists of 0 and 1, or of the places of one kind."""
    flags = text.numbers("hybrid_layer_pattern")  # MiMo V2: 1 slides
    if flags is not None:
        return _as_long(text, "hybrid_layer_pattern", [Kind.SLIDING if flag else Kind.FULL for flag in flags], layers)
    name = text.names("attn_type_list", "decoder_attention_types")  # MiniMax: 0 is linear
    flags = text.numbers(name) if name else None
    if name and flags is not None:
        return _as_long(text, name, [Kind.FULL if flag else Kind.STATE for flag in flags], layers)
    shared = text.numbers("hybrid_layer_ids")
    if shared is not None:  # Zamba 2
        both = set(shared)
        return [Kind.STATE_AND_FULL if index in both else Kind.STATE for index in range(layers)]
    for name in ("full_attn_idxs", "attn_layer_indices"):  # LFM2, Bamba: all others keep a state
        places = text.numbers(name)
        if places is not None:
            attending = set(places)
            return [Kind.FULL if index in attending else Kind.STATE for index in range(layers)]
    linear = text.below("linear_attn_config")  # Kimi-Linear counts layers from 1
    if linear is not None:
        full = linear.numbers("full_attn_layers") or []
        delta = linear.numbers("kda_layers")
        if delta is None:
            raise UnsupportedModelError(
                unknown="linear_attn_config.kda_layers", detail="which layers keep a state is not said"
            )
        states, attending = set(delta), set(full)
        kinds = [Kind.STATE if index + 1 in states else Kind.FULL for index in range(layers)]
        if full and any((kind is Kind.FULL) != (index + 1 in attending) for index, kind in enumerate(kinds)):
            raise text.refusal(
                "linear_attn_config.full_attn_layers", f"{len(full)} layers", "every layer that is not in kda_layers"
            )
        return kinds
    return None


def _spaced(text: Fields, family: Family, layers: int) -> list[Kind] | None:
    """One full layer in every so many."""
    if text.get("full_attention_interval") is not None:
        every = text.size(("full_attention_interval",), most=layers)
        return [Kind.FULL if (index + 1) % every == 0 else Kind.STATE for index in range(layers)]
    if text.get("layer_group_size") is not None and family.state is not None:  # Bailing
        every = text.size(("layer_group_size",), most=MAX_ITEMS)
        return [Kind.FULL if (index + 1) % every == 0 else Kind.STATE for index in range(layers)]
    if text.get("attn_layer_period") is not None:  # Jamba
        every = text.size(("attn_layer_period",), most=MAX_ITEMS)
        offset = text.size(("attn_layer_offset",), least=0, most=MAX_ITEMS, default=0)
        return [Kind.FULL if index % every == offset else Kind.STATE for index in range(layers)]
    chunk = text.get("attention_chunk_size") if family.chunked else None
    if chunk is not None:
        return _llama4(text, layers)
    if window_of(text, family) is None:
        return None
    every = family.full_every
    letters = text.get("sliding_window_pattern")
    if isinstance(letters, str):  # Exaone 4: LLLG
        letters = text.text("sliding_window_pattern") or "L"
        kinds = [Kind.FULL if letters[index % len(letters)] == "G" else Kind.SLIDING for index in range(layers)]
        return [*kinds[:-1], Kind.FULL]
    if letters is not None:
        every = text.size(("sliding_window_pattern",), most=MAX_ITEMS)
    if not every:
        return None
    kinds = [Kind.FULL if (index + 1) % every == 0 else Kind.SLIDING for index in range(layers)]
    if family.last_full:
        kinds[-1] = Kind.FULL
    return kinds


def _llama4(text: Fields, layers: int) -> list[Kind]:
    """Layers with rotary embedding see only their chunk."""
    flags = text.numbers("no_rope_layers")
    if flags:
        kinds = [Kind.CHUNKED if flag else Kind.FULL for flag in flags]
        return _as_long(text, "no_rope_layers", kinds, layers)
    every = text.size(("no_rope_layer_interval",), most=MAX_ITEMS, default=4)
    return [Kind.FULL if (index + 1) % every == 0 else Kind.CHUNKED for index in range(layers)]


def _bare(text: Fields, family: Family, layers: int) -> list[Kind]:
    """A window and nothing that says which layers slide: the engine makes all of them slide.

    In a family whose layers may differ, a file that says nothing of them at all is incomplete.
    """
    window = window_of(text, family)
    if family.uniform:
        return [Kind.FULL if window is None or family.windows is Windows.IGNORED else Kind.SLIDING] * layers
    if family.states_by_list and text.has(family.states_by_list):
        return [Kind.STATE] * layers
    if family.compressed or (window is None and family.state is None and any(text.has(name) for name in _SWITCHES)):
        return [Kind.FULL] * layers
    raise UnsupportedModelError(
        unknown="layer_types", detail="layers of this family differ, and nothing says which of them are of which kind"
    )


def window_of(text: Fields, family: Family) -> int | None:
    """Tokens of the window, None where there is none. Some files write 0 for none."""
    if family.windows is Windows.DESCRIBES or (
        family.windows is Windows.SWITCHED and text.get("use_sliding_window") is not True
    ):
        return None
    name = text.names(*_WINDOWS)
    if name is None:
        return 4096 if family.windows is Windows.NULL_ONLY and not text.has("sliding_window") else None
    if isinstance(text.get(name), list):  # one for each layer: those of the layers that slide are alike
        return min(max(text.numbers(name) or [0], default=0), MAX_WINDOW) or None
    return text.size((name,), least=0, most=MAX_WINDOW) or None
