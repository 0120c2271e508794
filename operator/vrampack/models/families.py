"""How each known family writes its configuration: names of fields, and what holds where a field is absent.

Absent fields mean what the family's configuration class in ``transformers`` makes of them: that is what the engine
sees. Where that class would put in a number of one particular model, the field is required instead.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Windows(Enum):
    """What ``sliding_window`` means to a family. Any layer that slides has a KV cache that is not known yet."""

    NULL_OR_ABSENT = auto()
    """Every layer slides unless the field is null or absent."""
    NULL_ONLY = auto()
    """As above, and the class puts in a window where the field is absent."""
    SWITCHED = auto()
    """``use_sliding_window: false`` makes the class drop the window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One ``model_type``. Tuples are alternative names of one field, the first that is there counts."""

    classes: tuple[str, ...]
    """``architectures`` that generate text with this layout; a classifier or an encoder of the family is none."""
    layers: tuple[str, ...] = ("num_hidden_layers",)
    hidden: tuple[str, ...] = ("hidden_size",)
    heads: tuple[str, ...] = ("num_attention_heads",)
    kv_heads: tuple[str, ...] = ("num_key_value_heads",)
    kv_heads_required: bool = False
    head_dim: int | None = None
    """Where the field is absent; None: hidden size over heads."""
    intermediate: tuple[str, ...] = ("intermediate_size",)
    intermediate_factor: int | None = None
    """Times the hidden size, where the field is absent; None: the field is required."""
    context: tuple[str, ...] = ("max_position_embeddings",)
    default_context: int | None = None
    gated: bool = True
    tied: bool = False
    rotary_fraction: tuple[str, ...] = ("partial_rotary_factor",)
    default_rotary_fraction: float = 1.0
    rotary: bool = True
    windows: Windows = Windows.NULL_OR_ABSENT
    experts: tuple[str, ...] = ()
    expert_intermediate: tuple[str, ...] = ()


_GPT2 = Family(
    classes=("GPT2LMHeadModel",),
    layers=("n_layer",),
    hidden=("n_embd",),
    heads=("n_head",),
    kv_heads=(),
    intermediate=("n_inner",),
    intermediate_factor=4,
    context=("n_positions",),
    gated=False,
    tied=True,
    rotary=False,
)

FAMILIES: Final[dict[str, Family]] = {
    "cohere": Family(classes=("CohereForCausalLM",), tied=True),
    "falcon": Family(
        classes=("FalconForCausalLM",),
        layers=("num_hidden_layers", "n_layer"),
        heads=("num_attention_heads", "n_head"),
        kv_heads=("num_kv_heads", "n_head_kv"),
        intermediate=("ffn_hidden_size",),
        intermediate_factor=4,
        default_context=2048,
        gated=False,
        tied=True,
    ),
    "gemma": Family(classes=("GemmaForCausalLM",), kv_heads_required=True, head_dim=256, tied=True),
    "gpt2": _GPT2,
    "gpt_bigcode": Family(
        classes=("GPTBigCodeForCausalLM",),
        layers=_GPT2.layers,
        hidden=_GPT2.hidden,
        heads=_GPT2.heads,
        kv_heads=(),
        intermediate=_GPT2.intermediate,
        intermediate_factor=4,
        context=_GPT2.context,
        gated=False,
        tied=True,
        rotary=False,
    ),
    "gpt_neox": Family(
        classes=("GPTNeoXForCausalLM",),
        kv_heads=(),
        gated=False,
        rotary_fraction=("rotary_pct",),
        default_rotary_fraction=0.25,
    ),
    "gptj": Family(
        classes=("GPTJForCausalLM",),
        layers=_GPT2.layers,
        hidden=_GPT2.hidden,
        heads=_GPT2.heads,
        kv_heads=(),
        intermediate=_GPT2.intermediate,
        intermediate_factor=4,
        context=_GPT2.context,
        gated=False,
    ),
    "granite": Family(classes=("GraniteForCausalLM",)),
    "llama": Family(classes=("LlamaForCausalLM",)),
    "mistral": Family(classes=("MistralForCausalLM",), kv_heads_required=True, windows=Windows.NULL_ONLY),
    "mixtral": Family(
        classes=("MixtralForCausalLM",),
        kv_heads_required=True,
        experts=("num_local_experts",),
        expert_intermediate=("intermediate_size",),
    ),
    "mpt": Family(
        classes=("MPTForCausalLM", "MptForCausalLM"),
        layers=("n_layers",),
        hidden=("d_model",),
        heads=("n_heads",),
        kv_heads=(),
        intermediate=(),
        intermediate_factor=4,
        context=("max_seq_len",),
        gated=False,
        tied=True,
        rotary=False,
    ),
    "olmo": Family(classes=("OlmoForCausalLM",)),
    "olmo2": Family(classes=("Olmo2ForCausalLM",)),
    "olmoe": Family(
        classes=("OlmoeForCausalLM",), experts=("num_experts",), expert_intermediate=("intermediate_size",)
    ),
    "phi": Family(classes=("PhiForCausalLM",), gated=False, default_rotary_fraction=0.5),
    "phi3": Family(classes=("Phi3ForCausalLM",)),
    "qwen2": Family(classes=("Qwen2ForCausalLM",), kv_heads_required=True, windows=Windows.SWITCHED),
    "qwen2_moe": Family(
        classes=("Qwen2MoeForCausalLM",),
        kv_heads_required=True,
        windows=Windows.SWITCHED,
        experts=("num_experts",),
        expert_intermediate=("moe_intermediate_size",),
    ),
    "qwen3": Family(classes=("Qwen3ForCausalLM",), kv_heads_required=True, head_dim=128, windows=Windows.SWITCHED),
    "qwen3_moe": Family(
        classes=("Qwen3MoeForCausalLM",),
        kv_heads_required=True,
        windows=Windows.SWITCHED,
        experts=("num_experts",),
        expert_intermediate=("moe_intermediate_size",),
    ),
    "stablelm": Family(classes=("StableLmForCausalLM",), kv_heads_required=True, default_rotary_fraction=0.25),
    "starcoder2": Family(classes=("Starcoder2ForCausalLM",), kv_heads_required=True, gated=False, tied=True),
}
"""By ``model_type``."""
