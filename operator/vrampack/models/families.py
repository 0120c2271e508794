"""What a ``model_type`` says that config.json does not: how it is built, and what absent fields mean to it.

Facts are those of the configuration classes in ``transformers`` and of the model classes of the engine. Most of a model
is read from its fields whatever its name is; here stands only what no field says.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from vrampack.memory.layers import StateKind


class Windows(Enum):
    """What ``sliding_window`` means to a family."""

    NULL_OR_ABSENT = auto()
    """Every layer slides unless the field is null or absent, or other fields say which layers do."""
    NULL_ONLY = auto()
    """As above, and the class puts in 4096 where the field is absent."""
    SWITCHED = auto()
    """``use_sliding_window`` must be true, or the class drops the window."""
    DESCRIBES = auto()
    """It says what every layer keeps besides, not which of them slide."""
    IGNORED = auto()
    """Only layers that are named as sliding slide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One ``model_type``."""

    gated: bool = True
    """Whether the feed-forward part has a gate beside its up projection."""
    tied: bool = False
    """``tie_word_embeddings`` where it is absent."""
    head_dim: int | None = None
    """Where ``head_dim`` is absent; None: hidden size over heads."""
    halved_width: bool = False
    """The file's width counts gate and up projection together (the first Qwen)."""
    intermediate_factor: int | None = None
    """Width of the feed-forward part in hidden sizes, where no field has it; None: a field is required."""
    rotary: bool = True
    default_rotary_fraction: float = 1.0
    default_context: int | None = None
    windows: Windows = Windows.NULL_OR_ABSENT
    full_every: int = 0
    """With a window and no layer kinds: every so-many-th layer is full; 0: no such rule."""
    last_full: bool = False
    window_extra: int = 0
    """Tokens that the engine keeps beyond the window (Cohere 2 looks back one further)."""
    chunked: bool = False
    """``attention_chunk_size`` is meant (MiMo V2 writes it and does not mean it)."""
    latent: bool = False
    """``kv_lora_rank`` makes the engine keep latents."""
    state: StateKind | None = None
    """Layers that keep a state; a family without attention when no field says which layers have some."""
    state_dtype: str = ""
    """Type of the state where no field says it; empty: what the engine takes for the kind."""
    attention_beside: bool = False
    """Every layer has attention beside its state (Falcon-H1)."""
    feed_forward: bool = True
    causal: bool = True
    encoder_decoder: bool = False
    context_is_scaled: bool = False
    """``max_position_embeddings`` holds what the rotary scaling makes of it (Gemma 3)."""
    local_rope: bool = False
    """Sliding layers have a rotary table of their own even where no field says so."""
    compressed: bool = False
    """Latents that stand for several tokens (DeepSeek V4)."""
    states_by_list: str = ""
    """A list of the layers with attention; null: there is none (Bamba)."""
    split: bool = False
    """A layer is either a mixer or a feed-forward part, never both (Nemotron-H)."""
    bare_states: bool = False
    """Layers that only keep a state have no feed-forward part (Zamba 2)."""
    shared_is_dense: bool = False
    """Without experts the shared expert is the feed-forward part (Granite 4)."""
    residual: bool = False
    """``use_residual``: a dense part as wide as the model beside the experts (Arctic)."""
    attends_twice: bool = False
    """Two attention parts in one layer (LongCat)."""
    uniform: bool = True
    """All its members have layers that are alike unless a field says otherwise."""


_PLAIN: Final = Family()
_UNGATED: Final = Family(gated=False)
_GPT2: Final = Family(gated=False, tied=True, rotary=False, intermediate_factor=4)
_QWEN: Final = Family(windows=Windows.SWITCHED)
_LATENT: Final = Family(latent=True)
_COMPRESSED: Final = Family(latent=True, compressed=True, windows=Windows.DESCRIBES, uniform=False)
_MIXED: Final = Family(windows=Windows.IGNORED, uniform=False)
_ENCODER_DECODER: Final = Family(gated=False, tied=True, rotary=False, encoder_decoder=True)
_GATED_ENCODER: Final = Family(causal=False, tied=True)
_ENCODER: Final = Family(gated=False, rotary=False, causal=False, tied=True)
_GEMMA3: Final = Family(tied=True, head_dim=256, full_every=6, context_is_scaled=True, local_rope=True, uniform=False)
_GEMMA4: Final = replace(_GEMMA3, last_full=True)
_GATED_DELTA: Final = Family(state=StateKind.GATED_DELTA, head_dim=256, default_rotary_fraction=0.25, uniform=False)
_MAMBA2: Final = Family(state=StateKind.MAMBA2, uniform=False)
_MAMBA1_ONLY: Final = Family(state=StateKind.MAMBA1, feed_forward=False, tied=True, uniform=False)
_LLAMA4: Final = Family(chunked=True, uniform=False)

# fmt: off
_PLAIN_NAMES: Final = (
    "aquila", "aria_text", "baichuan", "bailing_moe", "bailing_moe_v2", "bitnet", "chameleon",
    "dbrx", "decilm", "deepseek", "emu3_text_model", "exaone", "exaone4_5_text", "flex_olmo",
    "glm4v_text", "glm_ocr_text", "granite", "granite4_vision_text", "granitemoe", "granitemoeshared", "helium",
    "hrm_text", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3", "hyperclovax", "internlm", "internlm2", "internlm2_ve",
    "internlm3", "iquestcoder", "llama", "llava", "mimo", "minicpm", "minicpmo", "minicpmv", "minimax_m2",
    "ministral3", "mixtral", "mllama_text_model", "molmo", "molmo2_text", "multi_modality", "olmo", "olmo2", "olmoe",
    "orion", "phi3", "phi3_v", "phi4_multimodal", "phi4mm", "phimoe", "qwen2_5_vl_text", "qwen2_vl_text",
    "qwen3_vl_moe_text", "qwen3_vl_text", "sarvam_moe", "seed_oss", "skywork", "solar", "solar_open", "step3_text",
    "telechat2", "teleflm", "xverse", "yi",
)
_TIED_NAMES: Final = (
    "ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe_text", "granite_docling_text", "hunyuan_vl_text", "paddleocr_vl_text",
)
_MIXED_NAMES: Final = (
    "afmoe", "beam", "cwm", "exaone_moe", "flint", "granitemoe_swa", "kolibri1", "laguna", "mellum",
    "muse_glimmer_text", "muse_spark_text", "step3p5", "step3p7",
)
_LATENT_NAMES: Final = (
    "axk1", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "kimi_k2",
    "mistral4", "mistral_large_3", "pangu_ultra_moe",
)
# fmt: on

FAMILIES: Final[dict[str, Family]] = {
    **dict.fromkeys(_PLAIN_NAMES, _PLAIN),
    **dict.fromkeys(("apertus", "apertus1p5_text", "cosmos3_edge_text"), _UNGATED),
    "arctic": Family(residual=True),
    "arcee": _UNGATED,
    "bailing_hybrid": Family(state=StateKind.KIMI_DELTA, latent=True, uniform=False),
    "bailing_moe_linear": Family(state=StateKind.LIGHTNING, latent=True, uniform=False),
    "bart": _ENCODER_DECODER,
    **dict.fromkeys(("bert", "camembert", "electra", "ernie", "xlm-roberta", "roberta"), _ENCODER),
    **dict.fromkeys(("eurobert", "gte", "modernbert", "new", "nomic_bert"), _GATED_ENCODER),
    "bloom": Family(gated=False, tied=True, rotary=False, intermediate_factor=4),
    "chatglm": Family(default_rotary_fraction=0.5),
    "cohere": Family(tied=True),
    "cohere2_moe": Family(tied=True, full_every=4, window_extra=1, uniform=False),
    "cohere2": Family(tied=True, full_every=4, window_extra=1, uniform=False),
    **dict.fromkeys(_LATENT_NAMES, _LATENT),
    **dict.fromkeys(_MIXED_NAMES, _MIXED),
    **dict.fromkeys(_TIED_NAMES, Family(tied=True)),
    **dict.fromkeys(("glm", "glm4", "glm4_moe", "glm4v_moe_text"), Family(default_rotary_fraction=0.5)),
    "granite_swa": replace(_MIXED, tied=True),
    "deepseek_v4": _COMPRESSED,
    "deepseek_ref": _COMPRESSED,
    "exaone4": Family(full_every=4, uniform=False),
    **dict.fromkeys(
        ("falcon", "RefinedWeb", "RefinedWebModel"),
        Family(gated=False, tied=True, intermediate_factor=4, default_context=2048),
    ),
    "falcon_h1": Family(state=StateKind.MAMBA2, attention_beside=True, uniform=False),
    "falcon_mamba": _MAMBA1_ONLY,
    "gemma": Family(tied=True, head_dim=256),
    "gemma2": Family(tied=True, head_dim=256, full_every=2, uniform=False),
    "gemma3_text": _GEMMA3,
    "gemma3n_text": replace(_GEMMA3, full_every=5),
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4,
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neox": Family(gated=False, default_rotary_fraction=0.25),
    "gpt_oss": Family(full_every=2, head_dim=64, uniform=False),
    "jais2": _UNGATED,
    "gptj": Family(gated=False, intermediate_factor=4),
    "granitemoehybrid": Family(state=StateKind.MAMBA2, shared_is_dense=True, uniform=False),
    "bamba": Family(
        state=StateKind.MAMBA2, states_by_list="attn_layer_indices", default_rotary_fraction=0.5, uniform=False
    ),
    "jamba": Family(state=StateKind.MAMBA1, rotary=False, uniform=False),
    "kimi_linear": Family(state=StateKind.KIMI_DELTA, latent=True, uniform=False),
    "lfm2": Family(state=StateKind.SHORT_CONV, tied=True, uniform=False),
    "lfm2_moe": Family(state=StateKind.SHORT_CONV, tied=True, uniform=False),
    "llama4_text": _LLAMA4,
    "longcat_flash": Family(latent=True, attends_twice=True),
    "mamba": _MAMBA1_ONLY,
    "mamba2": Family(state=StateKind.MAMBA2, feed_forward=False, uniform=False),
    **dict.fromkeys(("mimo_v2", "mimo_v2_flash"), _MIXED),
    "minicpm3": Family(tied=True),
    "minimax": Family(state=StateKind.LIGHTNING, uniform=False),
    **dict.fromkeys(("minimax_text_01", "minimax_m1"), Family(state=StateKind.LIGHTNING, uniform=False)),
    **dict.fromkeys(("minimax_m3", "minimax_m3_vl", "minimax_m3_vl_text"), Family(uniform=False)),
    "mbart": _ENCODER_DECODER,
    "ministral": Family(windows=Windows.NULL_ONLY),
    "mistral": Family(windows=Windows.NULL_ONLY),
    "mpt": Family(gated=False, tied=True, rotary=False, intermediate_factor=4),
    "nemotron-nas": Family(uniform=False),
    "nemotron": Family(gated=False, default_rotary_fraction=0.5),
    "nemotron_h": Family(
        state=StateKind.MAMBA2, state_dtype="float32", gated=False, rotary=False, split=True, uniform=False
    ),
    "olmo3": Family(full_every=4, uniform=False),
    "olmo_hybrid": Family(state=StateKind.GATED_DELTA, uniform=False),
    "opt": Family(gated=False, tied=True, rotary=False),
    "persimmon": Family(gated=False, default_rotary_fraction=0.5),
    "plamo3": Family(full_every=8, uniform=False),
    "phi": Family(gated=False, default_rotary_fraction=0.5),
    "phi-msft": Family(gated=False, intermediate_factor=4),
    "dots1": Family(windows=Windows.IGNORED),
    "smollm3": Family(windows=Windows.SWITCHED, tied=True),
    "qwen3_omni_moe_text": _QWEN,
    "qwen": Family(halved_width=True),
    "qwen2": _QWEN,
    "qwen2_moe": _QWEN,
    "qwen2_vl": _QWEN,
    **dict.fromkeys(("qwen2_5_vl", "qwen2_5_omni_text", "qwen2_audio"), _QWEN),
    "qwen3": Family(windows=Windows.SWITCHED, head_dim=128),
    "qwen3_moe": _QWEN,
    "qwen3_next": _GATED_DELTA,
    "qwen3_5_text": _GATED_DELTA,
    "qwen3_5_moe_text": _GATED_DELTA,
    "stablelm": Family(default_rotary_fraction=0.25),
    "phi3small": Family(tied=True),
    "starcoder2": Family(gated=False, tied=True),
    "t5": replace(_ENCODER_DECODER, default_context=512),
    "whisper": _ENCODER_DECODER,
    "vaultgemma": Family(tied=True, head_dim=256, full_every=2, uniform=False),
    "zamba2": Family(state=StateKind.MAMBA2, tied=True, bare_states=True, uniform=False),
}
"""By ``model_type`` of the text part."""
