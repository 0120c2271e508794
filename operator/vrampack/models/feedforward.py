"""The feed-forward part of each layer: dense, or a mixture of experts, and which layers have which."""

from dataclasses import dataclass
from typing import Final

from vrampack.memory.layers import FeedForward
from vrampack.models.families import Family
from vrampack.models.fields import Fields
from vrampack.models.layerkinds import Kind

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
_EXPERT_WIDTH: Final = ("moe_intermediate_size", "expert_ffn_hidden_size", "ffn_hidden_size")
_WIDTH: Final = (
    "dense_intermediate_size",
    "intermediate_size_mlp",
    "intermediate_size",
    "ff_intermediate_size",
    "ffn_hidden_size",
    "n_inner",
    "decoder_ffn_dim",
    "ffn_dim",
)
_SHARED_WIDTH: Final = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "share_expert_dim",
    "shared_intermediate_size",
)
_SHARED: Final = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


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
    name = nested.names(*_EXPERTS)
    if name is None:
        return Experts()
    listed = nested.get(name)
    if isinstance(listed, list):
        count = max(nested.numbers(name) or [0], default=0)
    else:
        count = nested.size((name,), least=0, most=MAX_EXPERTS)
    if count < 2:
        return Experts()
    width = nested.size(
        _EXPERT_WIDTH, default=None if text.names(*_WIDTH) is None else text.size(("intermediate_size",))
    )
    return Experts(
        count=count,
        per_token=nested.size(_PER_TOKEN, most=count),
        width=width,
        shared_width=_shared_width(text, width),
        latent=text.size(("moe_latent_size", "routed_expert_hidden_size"), least=0, default=0),
    )


def _shared_width(text: Fields, width: int) -> int:
    if text.get("model_type") == "llama4_text":
        return width
    name = text.names(*_SHARED_WIDTH)
    if name is not None:
        return text.size((name,), least=0)
    return text.size(_SHARED, least=0, most=MAX_EXPERTS, default=0) * width


def dense_width(text: Fields, family: Family, *, hidden: int, experts: Experts) -> int:
    """Width of the dense feed-forward part; 0 where only experts are."""
    if not family.feed_forward:
        return 0
    factor = family.intermediate_factor
    default = None if factor is None else factor * hidden
    if default is None and experts.count:
        default = 0
    name = text.names(*_WIDTH) or "intermediate_size"
    return text.size((name,), least=0 if experts.count else 1, default=default)


def feed_forwards(
    text: Fields, family: Family, kinds: list[Kind], *, hidden: int, experts: Experts
) -> list[FeedForward | None]:
    """The feed-forward part of every layer."""
    if not family.feed_forward:
        return [None] * len(kinds)
    pattern = text.get("hybrid_override_pattern") is not None
    width = 0 if pattern and Kind.DENSE not in kinds else dense_width(text, family, hidden=hidden, experts=experts)
    dense = FeedForward(width=width, gated=family.gated)
    beside = width if text.flag("enable_moe_block", default=False) else 0
    mixture = FeedForward(
        width=beside,
        gated=family.gated,
        experts=experts.count,
        experts_per_token=experts.per_token,
        expert_width=experts.width,
        shared_width=experts.shared_width,
        latent=experts.latent,
    )
    if pattern:
        own: dict[Kind, FeedForward] = {Kind.DENSE: dense, Kind.EXPERTS: mixture}
        return [own.get(kind) for kind in kinds]
    if not experts.count:
        return [dense] * len(kinds)
    return [mixture if sparse else dense for sparse in _sparse(text, len(kinds))]


def _sparse(text: Fields, layers: int) -> list[bool]:
    """Which layers have experts."""
    words = text.texts("mlp_layer_types")
    if words is not None and len(words) >= layers:
        return [word == "sparse" for word in words[:layers]]
    places = text.get("moe_layers")
    if isinstance(places, list):
        chosen = set(text.numbers("moe_layers") or [])
        return [index in chosen for index in range(layers)]
    if isinstance(text.get("moe_layer_freq"), list):
        flags = text.numbers("moe_layer_freq") or []
        if len(flags) < layers:
            raise text.refusal("moe_layer_freq", f"{len(flags)} layers", f"one entry for each of the {layers} layers")
        return [bool(flag) for flag in flags[:layers]]
    first = text.size(("first_k_dense_replace", "moe_layer_start_index"), least=0, default=0)
    last = text.size(("moe_layer_end_index",), least=0, default=layers)
    every = text.size(
        ("decoder_sparse_step", "moe_layer_freq", "interleave_moe_layer_step", "moe_layer_interval"), default=1
    )
    shift = 1 if text.names("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval") else 0
    if text.names("expert_layer_period"):
        every = text.size(("expert_layer_period",))
        offset = text.size(("expert_layer_offset",), least=0, default=0)
        return [index % every == offset for index in range(layers)]
    dense = set(text.numbers("mlp_only_layers") or [])
    return [first <= index <= last and (index + shift) % every == 0 and index not in dense for index in range(layers)]
