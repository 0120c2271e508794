"""What the shapes of a model's tensors depend on besides its layers: biases, norms, gates, towers.

None of it changes the KV cache, so the architecture does not carry it. All together is below a hundredth of most
models' weights, except where said.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vrampack.memory.layers import LatentAttention


class QueryKeyNorm(StrEnum):
    """A norm of queries and keys."""

    NONE = "none"
    HEAD = "head"
    """One vector for all heads (Qwen 3, Gemma 3)."""
    WIDTH = "width"
    """A vector over all heads (OLMo 2, MiniMax M2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """Of the whole model, as the configuration and the model class say."""

    query_bias: bool = False
    """Biases of the query, key and value projections."""
    keys_without_bias: bool = False
    """Of those three, keys have none (Whisper)."""
    output_bias: bool = False
    """Bias of the attention's output projection."""
    query_only_bias: bool = False
    """The configuration's switch for biases leaves the output projection out (GLM)."""
    feed_forward_bias: bool = False
    query_key_norm: QueryKeyNorm = QueryKeyNorm.NONE
    output_gate: bool = False
    """Queries come with a gate of the same size (Qwen3-Next, 3.5): doubles the query projection."""
    head_gate: bool = False
    """A gate with one element a head (Step 3.5)."""
    query_rank: int = 0
    """Queries are compressed first, keys and values are not (Step 3); 0: they are not either."""
    direct_gates: bool = False
    """Gates of Kimi delta attention are single matrices, not of low rank (Ling 2.5)."""
    sinks: bool = False
    """A learned logit a head (gpt-oss, MiMo V2)."""
    value_is_key: bool = False
    """Full-attention layers have no value projection in the files; the engine holds the keys' twice (Gemma 4)."""
    latent: LatentAttention | None = None
    """Projections of latent attention whose cache engines keep unpacked, as keys and values (MiniCPM 3)."""
    output_groups: int = 0
    """Groups of the output projection of low rank (DeepSeek V4); 0: it is one matrix."""
    output_rank: int = 0
    layer_norms: int = 2
    """Norms of the hidden size in each layer."""
    norm_bias: bool = False
    """Norms have biases (LayerNorm)."""
    norm_weight: bool = True
    """False: norms without parameters (OLMo 1)."""
    final_norm: bool = True
    router_bias: bool = False
    """A bias or correction a routed expert."""
    idle_experts: int = 0
    """Experts that do nothing: rows of the router alone (LongCat)."""
    expert_bias: bool = False
    """Biases of the experts' projections (gpt-oss)."""
    shared_expert_gate: bool = False
    """A gate of one row for the shared expert (Qwen MoE)."""
    positions: int = 0
    """Rows of learned positions."""
    head_bias: bool = False
    """The output head has a bias."""
    time_step_rank: int = 0
    """Mamba 1: 0 is hidden size / 16."""
    state_norms: bool = False
    """Norms of time step, B and C (Jamba, Falcon-Mamba has them without parameters)."""
    per_layer_width: int = 0
    """Gemma 3n and 4: width of the embedding that each layer has of its own."""
    per_layer_vocabulary: int = 0
    """Rows of that table, which weighs as much as the model."""
    laurel_rank: int = 0
    """Gemma 3n: rank of a learned residual of each layer."""
    alternating_inputs: int = 0
    """Gemma 3n: copies of the hidden state that its layers choose from."""
    shared_blocks: int = 0
    """Zamba 2: blocks of attention and feed-forward part that layers share."""
    adapter_rank: int = 0
    """Rank of what each of those layers adds to a block."""
    adapted_attention: bool = False
    """Layers add to the block's queries, keys and values, too."""
    tower_elements: int = 0
    """Of vision and audio encoders with what joins them to the language model."""
    tower_whole: bool = False
    """Every rank has all of them (Gemma 4); else they are split like the language model."""
    unknown_towers: tuple[str, ...] = ()
    """Fields of the configuration that describe towers whose shapes are not known; their bytes are missing."""
    likely_towers: tuple[str, ...] = ()
    """Fields of towers that are not known by name and are counted by width and depth."""
    encoder_layers: int = 0
    """Of an encoder-decoder model (Whisper, T5, BART)."""
    encoder_width: int = 0
    """Feed-forward width of those."""
    encoder_heads: int = 0
    """Elements of all their heads; 0: the hidden size."""
    encoder_gated: bool = False
    encoder_stem: int = 0
    """Elements of the encoder before its layers: convolutions and positions."""


_QKV_BIAS: Final = TensorFacts(query_bias=True, query_only_bias=True)
_HEAD_NORMS: Final = TensorFacts(query_key_norm=QueryKeyNorm.HEAD)
_ALL_BIASES: Final = TensorFacts(query_bias=True, output_bias=True, feed_forward_bias=True, norm_bias=True)

_FAMILIES: Final[dict[str, TensorFacts]] = {
    "qwen": _QKV_BIAS,
    "qwen2": _QKV_BIAS,
    "qwen2_vl": _QKV_BIAS,
    "qwen2_5_vl": _QKV_BIAS,
    "qwen2_moe": TensorFacts(query_bias=True, query_only_bias=True, shared_expert_gate=True),
    "qwen3": _HEAD_NORMS,
    "qwen3_moe": _HEAD_NORMS,
    "qwen3_vl": _HEAD_NORMS,
    "qwen3_vl_moe": _HEAD_NORMS,
    "qwen3_next": TensorFacts(query_key_norm=QueryKeyNorm.HEAD, output_gate=True, shared_expert_gate=True),
    "qwen3_5": TensorFacts(query_key_norm=QueryKeyNorm.HEAD, output_gate=True),
    "qwen3_5_moe": TensorFacts(query_key_norm=QueryKeyNorm.HEAD, output_gate=True, shared_expert_gate=True),
    "gemma2": TensorFacts(layer_norms=4),
    "gemma3": TensorFacts(layer_norms=4, query_key_norm=QueryKeyNorm.HEAD),
    "gemma3n": TensorFacts(layer_norms=4, query_key_norm=QueryKeyNorm.HEAD),
    "gemma4": TensorFacts(tower_whole=True, layer_norms=4, query_key_norm=QueryKeyNorm.HEAD),
    "glm4": TensorFacts(layer_norms=4, query_only_bias=True),
    "glm4_moe": TensorFacts(router_bias=True, query_only_bias=True),
    "glm_moe_dsa": TensorFacts(router_bias=True),
    "gpt_oss": TensorFacts(query_bias=True, output_bias=True, sinks=True, router_bias=True, expert_bias=True),
    "deepseek_v3": TensorFacts(router_bias=True),
    "deepseek_v32": TensorFacts(router_bias=True),
    "kimi_k2": TensorFacts(router_bias=True),
    "minimax_m2": TensorFacts(query_key_norm=QueryKeyNorm.WIDTH, router_bias=True),
    "olmo": TensorFacts(norm_weight=False, final_norm=False),
    "olmo2": TensorFacts(query_key_norm=QueryKeyNorm.WIDTH),
    "olmo3": TensorFacts(query_key_norm=QueryKeyNorm.WIDTH),
    "olmoe": TensorFacts(query_key_norm=QueryKeyNorm.WIDTH),
    "cohere": TensorFacts(layer_norms=1),
    "cohere2": TensorFacts(layer_norms=1),
    "phi": TensorFacts(
        query_bias=True, output_bias=True, feed_forward_bias=True, layer_norms=1, norm_bias=True, head_bias=True
    ),
    "phimoe": TensorFacts(query_bias=True, output_bias=True, norm_bias=True, head_bias=True),
    "falcon": TensorFacts(layer_norms=1, norm_bias=True),
    "gpt2": _ALL_BIASES,
    "gpt_bigcode": _ALL_BIASES,
    "gpt_neox": _ALL_BIASES,
    "gptj": TensorFacts(feed_forward_bias=True, layer_norms=1, norm_bias=True, head_bias=True),
    "stablelm": TensorFacts(norm_bias=True),
    "starcoder2": _ALL_BIASES,
    "whisper": TensorFacts(
        query_bias=True,
        keys_without_bias=True,
        output_bias=True,
        feed_forward_bias=True,
        layer_norms=3,
        norm_bias=True,
    ),
    "mimo": _QKV_BIAS,
    "mimo_v2": TensorFacts(sinks=True, router_bias=True),
    "mimo_v2_flash": TensorFacts(sinks=True, router_bias=True),
    "exaone4": _HEAD_NORMS,
    "exaone4_5": _HEAD_NORMS,
    "apertus": _HEAD_NORMS,
    "lfm2": _HEAD_NORMS,
    "lfm2_moe": TensorFacts(query_key_norm=QueryKeyNorm.HEAD, router_bias=True),
    "hunyuan_v1_dense": _HEAD_NORMS,
    "hunyuan_v1_moe": _HEAD_NORMS,
    "dots1": TensorFacts(query_key_norm=QueryKeyNorm.HEAD, router_bias=True),
    "step3p5": TensorFacts(query_key_norm=QueryKeyNorm.HEAD, head_gate=True, router_bias=True),
    "step3p7": TensorFacts(query_key_norm=QueryKeyNorm.HEAD, head_gate=True, router_bias=True),
    "glm4v": TensorFacts(layer_norms=4, query_bias=True, query_only_bias=True),
    "glm4v_moe": TensorFacts(router_bias=True, query_only_bias=True),
    "glm": TensorFacts(query_only_bias=True),
    "chatglm": TensorFacts(query_only_bias=True),
    "seed_oss": TensorFacts(query_bias=True, query_only_bias=True),
    "ernie4_5_moe": TensorFacts(router_bias=True),
    "bloom": _ALL_BIASES,
    "opt": _ALL_BIASES,
    "bert": _ALL_BIASES,
    "roberta": _ALL_BIASES,
    "xlm-roberta": _ALL_BIASES,
    "persimmon": _ALL_BIASES,
    "codegen": TensorFacts(feed_forward_bias=True, layer_norms=1, norm_bias=True, head_bias=True),
    "nemotron": TensorFacts(norm_bias=True),
    "jamba": TensorFacts(state_norms=True),
    "afmoe": TensorFacts(layer_norms=4, query_key_norm=QueryKeyNorm.HEAD, output_gate=True, router_bias=True),
    "beam": TensorFacts(layer_norms=4, query_key_norm=QueryKeyNorm.HEAD, output_gate=True),
    "laguna": TensorFacts(query_key_norm=QueryKeyNorm.HEAD, head_gate=True, router_bias=True),
    "longcat_flash": TensorFacts(layer_norms=4, router_bias=True),
    "bailing_hybrid": TensorFacts(head_gate=True, direct_gates=True, router_bias=True),
    "muse_glimmer": TensorFacts(output_gate=True),
    "t5": TensorFacts(layer_norms=3),
    "nemotron_h": TensorFacts(layer_norms=1, router_bias=True),
}
"""By ``model_type``: what a model class does that no field of the configuration says. Read from transformers."""


def family_facts(model_type: str) -> TensorFacts:
    """What the family's model class has by itself; plain RMS norms and no biases where it is not listed."""
    return _FAMILIES.get(model_type.removesuffix("_text"), TensorFacts())
