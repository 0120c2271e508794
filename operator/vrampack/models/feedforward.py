"""The feed-forward part of each layer: dense, or a mixture of experts, and which layers have which."""

from dataclasses import dataclass
from typing import Final

from vrampack.memory.layers import FeedForward
from vrampack.models.families import Family
from vrampack.models.fields import MAX_SIZE, Fields
from vrampack.models.layerkinds import Kind
from vrampack.units import round_up

MAX_EXPERTS: Final = 65_536
_EXPERTS: Final = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
_PER_TOKEN: Final = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
)
_EXPERT_WIDTH: Final = ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size")
_WIDTH: Final = (
    "block_ff_dim",
    "dense_intermediate_size",
    "intermediate_size_mlp",
    "intermediate_size",
    "ff_intermediate_size",
    "ffn_hidden_size",
    "n_inner",
    "decoder_ffn_dim",
    "ffn_dim",
    "d_ff",
)
_SHARED_WIDTH: Final = (
    "block_ff_dim",
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "share_expert_dim",
    "shared_experts_intermediate_size",
    "shared_intermediate_size",
)
_SHARED: Final = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
_SPARSE_WORDS: Final = frozenset({"sparse", "moe", "hash_moe"})


ASSUMED_PER_TOKEN: Final = 8
"""Experts of a token where no field says it: more than most models use."""


def is_per_token_said(text: Fields) -> bool:
    """Whether config.json says how many experts a token uses."""
    return (text.below("ffn_config") or text).names(*_PER_TOKEN) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Of the layers that have some; ``count`` 0: no layer has."""

    count: int = 0
    per_token: int = 0
    width: int = 0
    shared_width: int = 0
    latent: int = 0


def experts_of(text: Fields) -> Experts:
    """The mixture of experts, where there is one."""
    nested = text.below("ffn_config") or text  # DBRX
    name = next((name for name in _EXPERTS if nested.get(name)), None)
    if name is None:
        return Experts()
    count = _listed(nested, name, most=MAX_EXPERTS, total=False)
    if count < 2:
        return Experts()
    width = _expert_width(nested)
    return Experts(
        count=count,
        per_token=_per_token(nested, most=count),
        width=width,
        shared_width=_shared_width(text, width),
        latent=text.size(("moe_latent_size", "routed_expert_hidden_size", "moe_hidden_size"), least=0, default=0),
    )


def _listed(text: Fields, name: str, *, most: int, total: bool) -> int:
    """A number, or a list of one for each layer or kind of expert: their sum, or the largest."""
    if not isinstance(text.get(name), list):
        return text.size((name,), least=0, most=most)
    values = text.numbers(name) or [0]
    return min(sum(values) if total else max(values), most)


def _expert_width(nested: Fields) -> int:
    """Ernie's experts for text and for images differ in width and not in number: one of each counts as one."""
    name = nested.names(*_EXPERT_WIDTH)
    if name is None:
        name = nested.names("ffn_hidden_size", "intermediate_size") or "moe_intermediate_size"
        return nested.size((name,))
    listed = nested.numbers(name) if isinstance(nested.get(name), list) else None
    if listed is None:
        return nested.size((name,))
    return max(1, min(sum(set(listed)), MAX_SIZE))


def _per_token(nested: Fields, *, most: int) -> int:
    name = nested.names(*_PER_TOKEN)
    if name is None:
        return min(ASSUMED_PER_TOKEN, most)
    if isinstance(nested.get(name), list):
        return max(1, _listed(nested, name, most=most, total=False))
    return nested.size((name,), most=most)


def _shared_width(text: Fields, width: int) -> int:
    if text.get("model_type") == "llama4_text":
        return width
    for name in _SHARED_WIDTH:
        if isinstance(text.get(name), list):
            return max(0, _listed(text, name, most=MAX_SIZE, total=False))
        if written := text.size((name,), least=0, default=0):
            return written
    shared = next((name for name in _SHARED if text.get(name)), None)
    widths = text.get("moe_intermediate_size")
    if isinstance(widths, list):  # Ernie: shared experts are as wide as those for text
        width = _listed(text, "moe_intermediate_size", most=MAX_SIZE, total=False)
    return 0 if shared is None else min(_listed(text, shared, most=MAX_EXPERTS, total=False) * width, MAX_SIZE)


def dense_width(text: Fields, family: Family, *, hidden: int, experts: Experts, index: int = 0) -> int:
    """Width of a layer's dense feed-forward part; 0 where only experts are."""
    if not family.feed_forward:
        return 0
    shared = text.size(("shared_intermediate_size",), least=0, default=0) if family.shared_is_dense else 0
    if shared and not experts.count:
        return shared
    factor = family.intermediate_factor
    if factor is not None:
        factor = text.size(("expansion_ratio",), most=1024, default=factor)  # MPT
    default = None if factor is None else factor * hidden
    if default is None and experts.count:
        default = 0
    name = text.names(*_WIDTH) or "intermediate_size"
    if isinstance(text.get(name), list):
        widths = text.numbers(name) or []
        if index >= len(widths) or widths[index] < 1:
            raise text.refusal(name, f"{len(widths)} layers", "a width for each layer")
        return widths[index]
    width = text.size((name,), least=0 if experts.count else 1, default=default)
    return width // 2 if family.halved_width else _adjusted(text, width)


def _adjusted(text: Fields, width: int) -> int:
    """LFM2 makes its width out of the one that is written."""
    if not text.flag("block_auto_adjust_ff_dim", default=False):
        return width
    width = 2 * width // 3
    width = int(width * text.number("block_ffn_dim_multiplier", least=0, most=1024, default=1))
    return min(round_up(width, text.size(("block_multiple_of",), most=MAX_EXPERTS, default=256)), MAX_SIZE)


def feed_forwards(
    texts: list[Fields], family: Family, kinds: list[Kind], *, hidden: int, experts: Experts
) -> list[FeedForward | None]:
    """The feed-forward part of every layer. ``texts``: the fields that hold for each of them."""
    if not family.feed_forward:
        return [None] * len(kinds)
    doubled = texts[0].flag("use_double_wide_mlp", default=False)  # Gemma 4: layers that read another's cache
    narrow = len(kinds) - (texts[0].size(("num_kv_shared_layers",), least=0, default=0) if doubled else 0)
    sparse = _sparse(texts[0], len(kinds)) if experts.count else [False] * len(kinds)
    parts: list[FeedForward | None] = []
    for index, (text, kind) in enumerate(zip(texts, kinds, strict=True)):
        if (family.split and kind not in (Kind.DENSE, Kind.EXPERTS)) or (family.bare_states and kind is Kind.STATE):
            parts.append(None)
            continue
        mixture = kind is Kind.EXPERTS or (sparse[index] and kind is not Kind.DENSE)
        beside = not mixture or text.flag("enable_moe_block", default=False) or family.attends_twice
        width = dense_width(text, family, hidden=hidden, experts=experts, index=index) if beside else 0
        width = 2 * width if family.attends_twice else width  # one behind each attention
        if index >= narrow and not mixture:
            width *= 2
        if mixture and family.residual and text.flag("use_residual", default=False):
            width = hidden
        gated = family.gated or (text.text("feed_forward_proj") or "").startswith("gated")  # T5
        parts.append(_part(gated, width, experts if mixture else Experts()))
    return parts


def _part(gated: bool, width: int, experts: Experts) -> FeedForward:
    return FeedForward(
        width=width,
        gated=gated,
        experts=experts.count,
        experts_per_token=experts.per_token,
        expert_width=experts.width,
        shared_width=experts.shared_width,
        latent=experts.latent,
    )


def _sparse(text: Fields, layers: int) -> list[bool]:
    """Which layers have experts."""
    words = text.texts("mlp_layer_types")
    if words is not None and len(words) >= layers:
        return [word in _SPARSE_WORDS for word in words[:layers]]
    if isinstance(text.get("moe_layers"), list):
        chosen = set(text.numbers("moe_layers") or [])
        return [index in chosen for index in range(layers)]
    enumerated = text.text("moe_layers_enum", most=8 * layers)
    if enumerated is not None:
        places = {int(place) for place in enumerated.split(",") if place.strip().isascii() and place.strip().isdigit()}
        return [index in places for index in range(layers)]
    if isinstance(text.get("moe_layer_freq"), list):
        flags = text.numbers("moe_layer_freq") or []
        if len(flags) < layers:
            raise text.refusal("moe_layer_freq", f"{len(flags)} layers", f"one entry for each of the {layers} layers")
        return [bool(flag) for flag in flags[:layers]]
    return _regular(text, layers)


def _regular(text: Fields, layers: int) -> list[bool]:
    """Every so-many-th layer, behind some dense ones."""
    if text.names("expert_layer_period"):  # Jamba
        every = text.size(("expert_layer_period",))
        offset = text.size(("expert_layer_offset",), least=0, default=0)
        return [index % every == offset for index in range(layers)]
    first = text.size(("first_k_dense_replace", "num_dense_layers"), least=0, default=0)
    if text.names("moe_layer_start_index"):
        first = max(0, min(_listed_least(text, "moe_layer_start_index"), layers))
    last = _listed_least(text, "moe_layer_end_index") if text.names("moe_layer_end_index") else layers
    if last < 0:
        last = layers
    shifted = text.names(
        "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval", "moe_layer_frequency"
    )
    every = text.size((shifted or "moe_layer_freq",), default=1)
    shift = 1 if shifted else 0
    dense = set(text.numbers("mlp_only_layers") or [])
    return [first <= index <= last and (index + shift) % every == 0 and index not in dense for index in range(layers)]


def _listed_least(text: Fields, name: str) -> int:
    values = text.numbers(name) if isinstance(text.get(name), list) else [text.size((name,), least=-1)]
    return min(values or [0])
