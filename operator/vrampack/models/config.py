"""config.json of a checkpoint, read as the engine reads it. Pure; nothing in a stranger's file is trusted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import DTYPE_BYTES
from vrampack.models.families import FAMILIES, Family, Windows
from vrampack.models.fields import MAX_SHOWN, MAX_SIZE, Fields, shown

MAX_LAYERS: Final = 1024
MAX_HEADS: Final = 4096
MAX_HEAD_DIM: Final = 8192
MAX_EXPERTS: Final = 65_536
MAX_TOKENS: Final = 2**24

_FOREIGN: Final[dict[str, str]] = {
    "text_config": "a multimodal model",
    "llm_config": "a multimodal model",
    "thinker_config": "a multimodal model",
    "vision_config": "a multimodal model",
    "audio_config": "a multimodal model",
    "mm_vision_tower": "a multimodal model",
    "is_encoder_decoder": "an encoder-decoder model",
    "kv_lora_rank": "multi-head latent attention",
    "index_topk": "sparse attention with an indexer",
    "compress_ratios": "a compressed KV cache",
    "hybrid_override_pattern": "a hybrid of attention and state-space layers",
    "attn_layer_period": "a hybrid of attention and state-space layers",
    "full_attention_interval": "a hybrid of full and linear attention",
    "linear_num_key_heads": "a hybrid of full and linear attention",
    "mamba_d_state": "state-space layers",
    "ssm_cfg": "state-space layers",
    "state_size": "state-space layers",
    "sliding_window_pattern": "sliding window layers",
    "attention_chunk_size": "chunked local attention",
    "dual_chunk_attention_config": "dual chunk attention",
    "cross_attention_layers": "cross-attention layers",
    "num_kv_shared_layers": "layers that share a KV cache",
    "block_configs": "layers that differ from each other",
    "num_nextn_predict_layers": "multi-token prediction layers",
}
"""Fields that change what is kept in memory, whatever the family. Absent, null, false, zero and empty are nothing."""


def architecture_of(config: Mapping[str, object], *, stored_dtype: str | None = None) -> Architecture:
    """What the estimate needs of a config.json.

    ``stored_dtype`` (``bfloat16``, …) is that of the weight files, which counts where config.json names none.
    Raises UnsupportedModelError for whatever is not known to be a decoder with full attention in every layer, and
    InvalidInputError, with the field, for values that can't be.
    """
    fields = Fields(config)
    family = _family(fields)
    hidden = fields.size(family.hidden)
    heads = fields.size(family.heads, most=MAX_HEADS)
    kv_heads = _kv_heads(fields, family, heads=heads)
    head_dim = _head_dim(fields, family, hidden=hidden, heads=heads)
    if heads % kv_heads:
        raise InvalidInputError(
            field="config.json:num_key_value_heads", value=kv_heads, allowed=f"a divisor of {heads}"
        )
    factor = family.intermediate_factor
    rotary = _rotary(fields, family, head_dim=head_dim)
    experts = _experts(fields, family)
    return Architecture(
        model_type=fields.text("model_type") or "",
        layers=fields.size(family.layers, most=MAX_LAYERS),
        hidden_size=hidden,
        intermediate_size=fields.size(family.intermediate, default=None if factor is None else factor * hidden),
        vocab_size=fields.size(("vocab_size",)),
        attention_heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        dtype=_dtype(fields, stored_dtype),
        max_context=rotary.context,
        tied_embeddings=fields.flag("tie_word_embeddings", default=family.tied),
        experts=experts.count,
        experts_per_token=experts.per_token,
        expert_intermediate_size=experts.width,
        shared_expert_intermediate_size=experts.shared_width,
        gated_mlp=family.gated,
        rotary_positions=rotary.positions,
        rotary_dim=rotary.dim,
    )


def _family(fields: Fields) -> Family:
    """The family, when everything about this member of it is known."""
    model_type = fields.text("model_type")
    if not model_type:
        raise UnsupportedModelError(unknown="model_type", detail="config.json does not name the model's family")
    _refuse_foreign_parts(fields)
    family = FAMILIES.get(model_type)
    _refuse_windows(fields, family.windows if family else Windows.SWITCHED)
    if family is None:
        raise UnsupportedModelError(
            unknown=f"model_type {model_type}", detail="how this family uses memory is not known yet"
        )
    classes = fields.get("architectures")
    if classes is None:
        return family
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise fields.refusal("architectures", classes, "a list of class names")
    if not set(classes) & set(family.classes):
        raise UnsupportedModelError(
            unknown=f"architecture {', '.join(classes)[:MAX_SHOWN] or '(none)'}",
            detail=f"of the family {model_type} only {', '.join(family.classes)} is known",
        )
    return family


def _refuse_foreign_parts(fields: Fields) -> None:
    for name, part in _FOREIGN.items():
        if fields.get(name):
            raise UnsupportedModelError(unknown=name, detail=f"{part}; the memory of that is not known yet")
    kinds = fields.get("layer_types")
    if kinds is None:
        return
    if not isinstance(kinds, list) or len(kinds) > MAX_LAYERS:
        raise fields.refusal("layer_types", kinds, f"a list of at most {MAX_LAYERS} layer kinds")
    others = {str(kind)[:MAX_SHOWN] for kind in kinds if kind != "full_attention"}
    if others:
        raise UnsupportedModelError(
            unknown=f"layer_types {', '.join(sorted(others)[:4])}",
            detail="only full attention in every layer is known yet",
        )


def _refuse_windows(fields: Fields, windows: Windows) -> None:
    """The engine makes every layer slide where the configuration class keeps a window, even one beyond the context."""
    window, switch = fields.get("sliding_window"), fields.get("use_sliding_window")
    if windows is Windows.SWITCHED and switch is False:
        return
    if window is None and not switch and (windows is not Windows.NULL_ONLY or fields.has("sliding_window")):
        return
    tokens = "absent, which means 4096 tokens" if window is None and not switch else shown(window)
    raise UnsupportedModelError(
        unknown="sliding_window", detail=f"sliding window layers ({tokens}): their KV cache is not known yet"
    )


def _kv_heads(fields: Fields, family: Family, *, heads: int) -> int:
    """Multi-query models of older families say so by a switch instead of a number."""
    match fields.get("model_type"):
        case "gpt_bigcode":
            single = fields.flag("multi_query", default=True)
        case "falcon" if not fields.flag("new_decoder_architecture", default=False):
            single = fields.flag("multi_query", default=True)
        case "mpt":
            attention = fields.below("attn_config")
            kind = attention.text("attn_type") if attention else None
            if attention and kind == "grouped_query_attention":
                return attention.size(("kv_n_heads",), most=MAX_HEADS)
            single = kind == "multiquery_attention"
        case _ if family.kv_heads:
            return fields.size(family.kv_heads, most=MAX_HEADS, default=None if family.kv_heads_required else heads)
        case _:
            single = False
    return 1 if single else heads


def _head_dim(fields: Fields, family: Family, *, hidden: int, heads: int) -> int:
    if fields.get("head_dim") is not None or family.head_dim is not None:
        return fields.size(("head_dim",), most=MAX_HEAD_DIM, default=family.head_dim)
    if hidden % heads or hidden // heads > MAX_HEAD_DIM:
        raise fields.refusal(
            family.heads[0], heads, f"a divisor of the hidden size {hidden}, for heads of at most {MAX_HEAD_DIM}"
        )
    return hidden // heads


def _dtype(fields: Fields, stored: str | None) -> str:
    named = fields.text("dtype") or fields.text("torch_dtype") or stored or "float32"
    dtype = named.removeprefix("torch.")
    if dtype not in DTYPE_BYTES:
        raise UnsupportedModelError(
            unknown=f"dtype {dtype}",
            detail=f"the bytes of its activations are not known; known: {', '.join(DTYPE_BYTES)}",
        )
    return dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class _Experts:
    count: int = 0
    per_token: int = 0
    width: int = 0
    shared_width: int = 0


def _experts(fields: Fields, family: Family) -> _Experts:
    if not family.experts:
        return _Experts()
    count = fields.size(family.experts, most=MAX_EXPERTS)
    return _Experts(
        count=count,
        per_token=fields.size(("num_experts_per_tok",), most=count),
        width=fields.size(family.expert_intermediate),
        shared_width=int(fields.number("shared_expert_intermediate_size", least=0, most=MAX_SIZE, default=0)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rotary:
    """Rows and width of the cos/sin table, and the longest sequence that the engine accepts."""

    positions: int
    dim: int
    context: int | None


def _rotary(fields: Fields, family: Family, *, head_dim: int) -> _Rotary:
    """As vLLM derives both: scaled by the factor, except where the longer table is in the file already."""
    written = any(fields.get(name) is not None for name in family.context)
    context = fields.size(family.context, most=MAX_TOKENS, default=family.default_context or MAX_TOKENS)
    if not written and family.default_context is None:
        return _Rotary(positions=0, dim=0, context=None)
    if not family.rotary or fields.get("alibi") is True:
        return _Rotary(positions=0, dim=0, context=context)
    scaling = fields.below("rope_scaling") or fields.below("rope_parameters")
    dim = _rotary_dim(fields, family, scaling, head_dim=head_dim)
    kind = (scaling.text("rope_type") or scaling.text("type") or "default") if scaling else "default"
    positions = context
    if scaling is not None and kind in ("linear", "dynamic", "yarn"):
        if kind == "yarn":
            context = scaling.size(("original_max_position_embeddings",), most=MAX_TOKENS, default=context)
        factor = scaling.number("factor", least=1, most=1024, default=1)
        positions = context = math.floor(context * factor)
    elif kind in ("longrope", "su"):
        positions += (scaling or fields).size(
            ("original_max_position_embeddings",),
            most=MAX_TOKENS,
            default=fields.size(("original_max_position_embeddings",), most=MAX_TOKENS, default=context),
        )
    elif kind not in ("default", "llama3"):
        raise UnsupportedModelError(unknown=f"rope_type {kind}", detail="what it makes of the context is not known")
    return _Rotary(positions=min(positions, MAX_TOKENS), dim=dim, context=min(context, MAX_TOKENS))


def _rotary_dim(fields: Fields, family: Family, scaling: Fields | None, *, head_dim: int) -> int:
    if fields.get("rotary_dim") is not None:
        return fields.size(("rotary_dim",), most=head_dim)
    fraction = family.default_rotary_fraction
    for name in family.rotary_fraction:
        if scaling is not None:
            fraction = scaling.number(name, least=0, most=1, default=fraction)
        fraction = fields.number(name, least=0, most=1, default=fraction)
    return int(head_dim * fraction)
