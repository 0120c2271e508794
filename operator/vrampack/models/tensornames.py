"""What a tensor is, by its name in the files: tables, routers, projections, experts, towers, prediction layers.

Each family has its own words; what decides how a rank splits a tensor is the module's role. A name that no rule knows
is a matrix that is split, or a vector that is whole.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Role(Enum):
    """What the engine does with a tensor."""

    UNUSED = auto()
    """Buffers of older checkpoints that engines compute themselves."""
    TABLE = auto()
    """The input embedding."""
    HEAD = auto()
    """The output head."""
    WHOLE = auto()
    """Every rank has it."""
    QUERIES_KEYS_VALUES = auto()
    """One matrix of queries, keys and values."""
    KEYS_OR_VALUES = auto()
    SHARED_EXPERT = auto()
    EXPERT = auto()
    TOWER = auto()
    PREDICT = auto()
    """A multi-token-prediction layer."""
    SPLIT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorName:
    """A name, taken apart. Numbers of layers and experts are cut out, so that alike tensors have one name."""

    role: Role
    short: str
    """The name with ``#`` for the numbers of its layer and expert."""
    layer: int | None
    """None: outside the layers."""
    fused: str
    """The engine's tensor that it becomes a part of."""
    side: bool
    """It belongs to a quantized matrix and is no parameter of the model: scales, zero points, order."""
    wide: bool
    """The engine holds it in fp32 whatever the computation type: decay rates of states, attention sinks."""
    encoder: bool
    """Of an encoder's layers, where a decoder has its own."""


_LAYER: Final = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer|layers_)\.(\d{1,4})\.")
_EXPERT_NUMBER: Final = re.compile(r"\.experts\.\d+\.")
_UNUSED: Final = re.compile(
    r"rotary_emb\.inv_freq$|\.(attn|attention)\.(bias|masked_bias)$|rotary_pos_emb\.inv_freq$|position_ids$"
    r"|^(talker|token2wav|code2wav)\.|\.quant_map$|\.nested_absmax$|\.nested_quant_map$|\.quant_state\.|weight_shape$|\.[kvq]_scale$|\.[kv]v?_cache\."
)
_TOWER: Final = re.compile(
    r"^(model\.|thinker\.)?(vision_tower|vision_model|vision_encoder|visual|vision|vit|audio_tower|audio_model|"
    r"audio_encoder|sound_encoder|image_newline|multi_modal_projector|mm_projector|embed_vision|embed_audio|"
    r"vision_projection|sound_projection|patch_merger|patch_merge_mlp|mm_vision|mlp1|projector|aligner|"
    r"sam_model|qwen2_model|vpm|apm|resampler|audio_projection_layer|pre_mm_projector_norm|"
    r"vision_language_adapter|vision_adapter)\.|^model\.(vision_embed_tokens|embed_tokens_extend)\."
    r"|^(model\.)?(image_newline|view_seperator)$"
)
_PREDICT: Final = re.compile(r"(^|\.)(mtp|mtp_layers|mtp_block|nextn|next_n|mtp_emb|mtp_head|mtp_norm)(\.|_|$)")
_HEAD: Final = re.compile(
    r"(^|\.)(lm_head|embed_out|output_layer|output|head|score)\.(weight|bias)$"
    r"|(^|\.)lm_head\.(qweight|qzeros|scales|g_idx|weight_(packed|scale|scale_2|scale_inv|zero_point|g_idx)|input_scale)$"
)
_TABLE: Final = re.compile(
    r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|embeddings|embedding|embed)\.weight$"
)
_PER_LAYER_TABLE: Final = re.compile(r"(^|\.)embed_tokens_per_layer\.weight$")
_WHOLE: Final = re.compile(
    r"(^|\.)(wpe|position_embeddings|embed_positions|token_type_embeddings|relative_attention_bias)\.weight$"
    r"|\.(gate|router|shared_expert_gate|wg)(\.(layer|classifier|proj|linear))?\.(weight|bias)$"
    r"|\.(q_a_proj|kv_a_proj_with_mqa|kv_a_proj|fused_qkv_a_proj|wq_a|wkv_a|wkv|f_a_proj|g_a_proj)\."
    r"|\.(indexer|compressor|indexers_proj)\.|\.fc[12]_latent_proj\.|\.hc_|(^|\.)hc_|\.altup\.|\.laurel\.|(^|\.)altup_(unembed_)?projections\b"
    r"|\.(per_layer_input_gate|per_layer_projection)\.|(^|\.)per_layer_model_projection\."
    r"|^(model\.)?fc\.(weight|bias)$|^blocks\.#\.layers\.\d+\.(weight|bias)$"  # of models that draft
)
_FUSED_QKV: Final = re.compile(r"\.(qkv_proj|query_key_value|c_attn|[Ww]qkv|W_pack|att_proj|qkv)\.")
_KEY_OR_VALUE: Final = re.compile(r"\.(k_proj|v_proj|key|value|k|v|wk|wv)\.(weight|qweight|scales|qzeros|bias|\w+)$")
_EXPERT: Final = re.compile(
    r"\.experts\.|\.experts_|\.expert_bias$|\.moe\.(gate_up_proj|down_proj|gate_proj|up_proj)\b"
)
_SHARED: Final = re.compile(r"\.shared_experts?\.|\.shared_mlp\.|\.shared_expert_gate\.")
_STATE_PROJECTION: Final = re.compile(r"\.(linear_attn|mixer|mamba|conv)\.")
_SIDE: Final = re.compile(
    r"scales?$|scale_inv$|_scale_2$|qzeros$|zero_point$|g_idx$|absmax$|\.SCB$|_scales$|input_global|global_scale$"
    r"|weight_scale|input_scale|activation_scale|weight_g_idx$"
)
_ENCODERS: Final = ("model.encoder.", "encoder.block.")
_WIDE: Final = re.compile(r"\.(A_log|attn_sink|ape)(\.weight)?$")

_FUSIONS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"\.experts\.(#\.)?(gate_proj|up_proj|w1|w3|gate_up_proj|linear_fc1|linear_v)\b"), ".experts.w13"),
    (re.compile(r"\.experts\.(#\.)?(down_proj|w2|linear_fc2)\b"), ".experts.w2"),
    (re.compile(r"\.(q_proj|k_proj|v_proj)\b"), ".qkv_proj"),
    (re.compile(r"\.(gate_proj|up_proj|w1|w3)\b"), ".gate_up_proj"),
    (re.compile(r"\.(q_a_proj|kv_a_proj_with_mqa)\b"), ".fused_qkv_a_proj"),
    (re.compile(r"\.in_proj_(qkv|z)\b"), ".in_proj_qkvz"),
    (re.compile(r"\.in_proj_(a|b)\b"), ".in_proj_ba"),
)
"""What the engine fuses, by the words of the files."""


def parse_name(name: str) -> TensorName:
    """Takes a tensor's name apart."""
    found = _LAYER.search(name)
    layer = int(found[1]) if found else None
    short = name if found is None else f"{name[: found.start(1)]}#{name[found.end(1) :]}"
    short = _EXPERT_NUMBER.sub(".experts.#.", short)
    return TensorName(
        role=_role(short),
        short=short,
        layer=layer,
        fused=_fused(short),
        wide=_WIDE.search(name) is not None,
        side=_SIDE.search(name) is not None,
        encoder=short.startswith(_ENCODERS),
    )


def is_beside_the_decoder(name: str) -> bool:
    """Whether a module is of a tower or an encoder, or is not loaded at all."""
    name = f"{name.rstrip('*')}."
    return name.startswith(_ENCODERS) or bool(_TOWER.search(name) or _UNUSED.search(name))


def is_of_prediction(name: str) -> bool:
    """Whether a module is of a layer that predicts further tokens, and is named so."""
    return _PREDICT.search(name.rstrip("*.")) is not None


def _role(name: str) -> Role:
    if _UNUSED.search(name):
        return Role.UNUSED
    if _PREDICT.search(name):
        return Role.PREDICT
    if _TOWER.search(name):
        return Role.TOWER
    if "#" not in name:
        if _TABLE.search(name) or _PER_LAYER_TABLE.search(name):
            return Role.TABLE
        if _HEAD.search(name):
            return Role.HEAD
    if _WHOLE.search(name):
        return Role.WHOLE
    if _SHARED.search(name):
        return Role.SHARED_EXPERT
    if _EXPERT.search(name):
        return Role.EXPERT
    if not _STATE_PROJECTION.search(name) or ".mixer." in name:
        if _FUSED_QKV.search(name):
            return Role.QUERIES_KEYS_VALUES
        if _KEY_OR_VALUE.search(name):
            return Role.KEYS_OR_VALUES
    return Role.SPLIT


def _fused(name: str) -> str:
    for words, engine in _FUSIONS:
        changed, count = words.subn(engine, name)
        if count:
            return changed
    return name
