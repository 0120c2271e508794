"""What config.json says of biases, norms, gates and towers: all that the shapes of tensors depend on besides layers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.architecture import Architecture, Weights, WeightsMethod
from vrampack.memory.layers import LatentAttention, PagedAttention
from vrampack.memory.tensorfacts import QueryKeyNorm, TensorFacts, family_facts
from vrampack.memory.tensorlayout import weights_from_architecture
from vrampack.models.drafters import MEDUSA, decoder_of
from vrampack.models.fields import MAX_SIZE, MAX_WIDTH, Fields
from vrampack.models.identity import identity_of, text_parts
from vrampack.models.quantization import quantization_of
from vrampack.models.towers import towers_of

_LEARNED_POSITIONS: Final[dict[str, str]] = {
    "gpt2": "n_positions",
    "gpt_bigcode": "n_positions",
    **dict.fromkeys(("bert", "camembert", "ernie"), "max_position_embeddings"),
    "roberta": "max_position_embeddings",
    "xlm-roberta": "max_position_embeddings",
    "opt": "max_position_embeddings",
    "whisper": "max_target_positions",
}
_MOST_BLOCKS: Final = 64
_NOT_WRITTEN_OUT: Final[dict[str, str]] = {
    "jetmoe": "its attention has experts of its own",
    "hrm_text": "its layers run through two stacks of weights again and again",
}
"""Families whose layers are known and whose tensors are others than their layers' fields say."""
_COMPUTATION: Final[dict[str, str]] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def weights_of_config(
    config: Mapping[str, object], *, architecture: Architecture, quant_config: Mapping[str, object] | None = None
) -> Weights:
    """The weights that a config.json implies, where no weight file can be read.

    ``architecture`` is what `architecture_of` makes of it. They are marked (``WeightsMethod.PARAMETERS``) where the
    family or a tower is not known by name and counts by its sizes alone, where the file of a model with encoders does
    not speak of them, or where it does not list which modules its quantization leaves out. Raises UnsupportedModelError
    for a quantization whose layout is not known and for a family or tower whose shapes are not, InvalidInputError for
    impossible values.
    """
    if why := _NOT_WRITTEN_OUT.get(architecture.model_type):
        raise UnsupportedModelError(
            unknown=f"model_type {architecture.model_type}",
            detail=f"{why}: the headers of the weight files tell its bytes, config.json alone does not",
        )
    facts = tensor_facts_of(config, architecture=architecture)
    if facts.unknown_towers:
        raise UnsupportedModelError(
            unknown=facts.unknown_towers[0],
            detail="the shapes of this encoder are not known; the headers of the weight files tell its bytes",
        )
    quantization = quantization_of(config, quant_config=quant_config)
    weights = weights_from_architecture(
        architecture,
        precision=quantization.precision if quantization else _COMPUTATION[architecture.dtype],
        facts=facts,
        forms=quantization.form_of if quantization else None,
        prediction=quantization.form_of_prediction if quantization else None,
        head=quantization.head if quantization else None,
    )
    unlisted = quantization is not None and not quantization.listed
    if facts.likely_towers or unlisted or _is_guessed(config, architecture):
        return replace(weights, method=WeightsMethod.PARAMETERS)
    return weights


def _is_guessed(config: Mapping[str, object], architecture: Architecture) -> bool:
    """Whether the file names a family that is not known, or is silent about encoders that the model has."""
    if architecture.model_type == MEDUSA:
        return False
    identity = identity_of(decoder_of(config))
    return not identity.known or identity.is_silent_about_towers()


def likely_dtype(config: Mapping[str, object], *, quant_config: Mapping[str, object] | None = None) -> str | None:
    """The computation type where a configuration names none and no weight file can be read: engines go by the files
    then, and what a quantized checkpoint does not quantize is in 16 bits. None: nothing is quantized, nothing known."""
    return "bfloat16" if quantization_of(config, quant_config=quant_config) is not None else None


def tensor_facts_of(config: Mapping[str, object], *, architecture: Architecture) -> TensorFacts:
    """What the family has by itself, changed by what the file says. Raises InvalidInputError."""
    text = text_parts(Fields(config))[-1]
    facts = family_facts(architecture.model_type)
    facts = _biases(text, facts)
    if architecture.model_type == "zamba2":
        facts = _shared(text, facts)
    facts = replace(
        facts,
        query_key_norm=_query_key_norm(text, facts.query_key_norm),
        output_gate=text.flag("attn_output_gate", default=facts.output_gate),
        value_is_key=text.flag("attention_k_eq_v", default=facts.value_is_key),
        time_step_rank=_count(text, "mamba_dt_rank", "time_step_rank"),
        per_layer_width=_count(text, "hidden_size_per_layer_input"),
        per_layer_vocabulary=_count(text, "vocab_size_per_layer_input"),
        laurel_rank=_count(text, "laurel_rank"),
        alternating_inputs=_count(text, "altup_num_inputs"),
        positions=_positions(text, architecture),
        query_rank=_count(text, "share_q_dim"),
        idle_experts=_count(text, "zero_expert_num"),
        latent=_latent(text, architecture),
        output_groups=_count(text, "o_groups") if _count(text, "o_lora_rank") else 0,
        output_rank=_count(text, "o_lora_rank"),
    )
    facts = _encoder(text, architecture, facts) if architecture.encoder_tokens else facts
    towers = towers_of(config, hidden_size=architecture.hidden_size)
    return replace(facts, tower_elements=towers.elements, unknown_towers=towers.unknown, likely_towers=towers.likely)


def _shared(text: Fields, facts: TensorFacts) -> TensorFacts:
    """Zamba 2, in the words of its first files too; what is absent is the configuration class's."""
    adapted = text.flag("use_shared_attention_lora", default=False)
    return replace(
        facts,
        shared_blocks=text.size(("num_mem_blocks",), most=_MOST_BLOCKS, default=1),
        adapter_rank=text.size(("adapter_rank", "lora_rank"), most=MAX_WIDTH, default=128),
        adapted_attention=text.flag("use_shared_attention_adapter", default=adapted),
    )


def _positions(text: Fields, architecture: Architecture) -> int:
    """Rows of learned positions, and of the kinds of tokens that BERT tells apart."""
    name = _LEARNED_POSITIONS.get(architecture.model_type)
    return _count(text, name) + _count(text, "type_vocab_size") if name else 0


def _encoder(text: Fields, architecture: Architecture, facts: TensorFacts) -> TensorFacts:
    """T5 counts its encoder's layers as the model's, and has a table of distances in both halves."""
    distances = 2 * _count(text, "relative_attention_num_buckets") * architecture.attention_heads
    return replace(
        facts,
        encoder_layers=_count(text, "encoder_layers", "num_layers"),
        encoder_width=_count(text, "encoder_ffn_dim", "d_ff"),
        encoder_heads=architecture.attention_heads * architecture.head_dim,
        encoder_gated=(text.text("feed_forward_proj") or "").startswith("gated"),
        encoder_stem=_stem(text, architecture) + distances,
    )


def _latent(text: Fields, architecture: Architecture) -> LatentAttention | None:
    """Where the files have latent projections and the engine's cache does not (MiniCPM 3)."""
    rank, heads = _count(text, "kv_lora_rank"), architecture.attention_heads
    paged = all(isinstance(mixer, PagedAttention) for run in architecture.layer_runs for mixer in run.mixers)
    if not rank or not heads or not paged:
        return None
    return LatentAttention(
        heads=heads,
        rank=rank,
        rope_dim=_count(text, "qk_rope_head_dim"),
        query_rank=_count(text, "q_lora_rank"),
        nope_dim=_count(text, "qk_nope_head_dim"),
        value_dim=_count(text, "v_head_dim") or architecture.hidden_size // heads,
    )


def _stem(text: Fields, architecture: Architecture) -> int:
    """Whisper's two convolutions over three frames, and its positions; other encoders share the decoder's table."""
    bins, hidden = _count(text, "num_mel_bins"), architecture.hidden_size
    if not bins:
        return 0
    return 3 * hidden * (bins + hidden) + 2 * hidden + architecture.encoder_tokens * hidden


def _biases(text: Fields, facts: TensorFacts) -> TensorFacts:
    """The names that model classes give their switches."""
    attention = text.flag("attention_bias", default=facts.output_bias)
    query = facts.query_bias or attention
    for name in ("qkv_bias", "add_qkv_bias", "use_qkv_bias"):
        query = text.flag(name, default=query)
    both = text.get("bias")
    if isinstance(both, bool) and not facts.query_bias:
        attention = query = both
    return replace(
        facts,
        query_bias=query,
        output_bias=attention and not facts.query_only_bias,
        feed_forward_bias=text.flag("mlp_bias", default=facts.feed_forward_bias),
    )


def _query_key_norm(text: Fields, family: QueryKeyNorm) -> QueryKeyNorm:
    for name in ("use_qk_norm", "qk_layernorm"):
        value = text.get(name)
        if isinstance(value, bool):
            if not value:
                return QueryKeyNorm.NONE
            return QueryKeyNorm.HEAD if family is QueryKeyNorm.NONE else family
    return family


def _count(text: Fields, *names: str) -> int:
    for name in names:
        value = text.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SIZE:
            return value
    return 0
