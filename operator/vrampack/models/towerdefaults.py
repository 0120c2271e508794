"""What the configuration class of a tower puts in where its file leaves a field out.

Nested configurations are written as the difference to their class (``transformers`` 5.24); some leave out the
``model_type`` as well, which the model's own then tells.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vrampack.models.fields import Fields


def _vit(hidden: int, width: int, layers: int, image: int, patch: int, **others: int) -> Mapping[str, object]:
    """``image`` 0: of any size."""
    sizes = {"hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": layers, "patch_size": patch}
    return MappingProxyType(sizes | ({"image_size": image} if image else {}) | others)


def _qwen(hidden: int, width: int, patch: int, **others: object) -> Mapping[str, object]:
    return MappingProxyType(
        {"depth": 27, "hidden_size": hidden, "intermediate_size": width, "patch_size": patch} | others
    )


_QWEN3: Final = {"out_hidden_size": 3584, "num_position_embeddings": 2304}
_DEEP: Final = {"deepstack_visual_indexes": [8, 16, 24]}
_FULL: Final = {"depth": 32, "fullatt_block_indexes": [7, 15, 23, 31], "out_hidden_size": 3584, "num_heads": 16}
_GLM: Final = MappingProxyType(
    {
        "depth": 24,
        "hidden_size": 1536,
        "out_hidden_size": 4096,
        "intermediate_size": 13696,
        "image_size": 336,
        "patch_size": 14,
        "num_heads": 12,
    }
)
_WHISPER: Final = {
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_ffn_dim": 5120,
    "num_mel_bins": 128,
    "max_source_positions": 1500,
}

_DEFAULTS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "clip_vision_model": _vit(768, 3072, 12, 224, 32),
        "siglip_vision_model": _vit(768, 3072, 12, 224, 16),
        "siglip2_vision_model": _vit(768, 3072, 12, 0, 16, num_patches=256),
        "blip_2_vision_model": _vit(1408, 6144, 39, 224, 14),
        "pixtral": _vit(1024, 4096, 24, 1024, 16),
        "idefics2_vision": _vit(768, 3072, 12, 224, 32),
        **dict.fromkeys(("idefics3_vision", "smolvlm_vision"), _vit(1152, 3072, 12, 224, 32)),
        "paddleocr_vl_vision": _vit(1152, 4304, 27, 384, 14),
        "janus_vision_model": MappingProxyType(
            {"hidden_size": 1024, "num_hidden_layers": 24, "image_size": 384, "patch_size": 16}
        ),
        "llama4_vision_model": _vit(768, 5632, 34, 448, 14, vision_output_dim=7680),
        "mllama_vision_model": _vit(1280, 5120, 32, 448, 14, num_global_layers=8, vision_output_dim=7680),
        "gemma4_vision": _vit(768, 3072, 16, 0, 16, position_embedding_size=10240, num_attention_heads=12, head_dim=64),
        "internvl_vision": _vit(1024, 4096, 24, 448, 14),
        "molmo2": _vit(1152, 4304, 25, 378, 14),
        "kimi_k25_vision": _vit(1152, 4304, 27, 0, 14),
        "minimax_m3_vl_vision": _vit(1280, 5120, 32, 2016, 14),
        "step3_vision_encoder": _vit(1792, 3072, 63, 728, 14, output_hidden_size=4096),
        "step3p5_vision": _vit(1536, 8960, 47, 728, 14),
        "ovis2_vision": _vit(1024, 2816, 24, 224, 14),
        "qwen2_vl_vision": MappingProxyType({"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "patch_size": 14}),
        **dict.fromkeys(("qwen2_5_vl_vision", "qwen2_5_omni_vision_encoder"), _qwen(3584, 3420, 14, **_FULL)),
        "exaone4_5_vision": _qwen(3584, 3420, 14, **_FULL, num_key_value_heads=8),
        **dict.fromkeys(
            ("qwen3_vl_vision", "qwen3_vl_moe_vision", "qwen3_omni_moe_vision_encoder"),
            _qwen(1152, 4304, 16, **_QWEN3, **_DEEP),
        ),
        **dict.fromkeys(("qwen3_5_vision", "qwen3_5_moe_vision"), _qwen(1152, 4304, 16, **_QWEN3)),
        **dict.fromkeys(("glm4v_vision", "glm4v_moe_vision"), _GLM),
        "glm_ocr_vision": MappingProxyType(
            {**_GLM, "hidden_size": 1024, "out_hidden_size": 1536, "intermediate_size": 4096, "num_heads": 16}
        ),
        "ernie4_5_vl_moe_vision": MappingProxyType({"depth": 32, "hidden_size": 1280, "patch_size": 14}),
        "qwen2_audio_encoder": MappingProxyType(_WHISPER),
        "qwen2_5_omni_audio_encoder": MappingProxyType(_WHISPER | {"output_dim": 3584}),
        "qwen3_omni_moe_audio_encoder": MappingProxyType(_WHISPER | {"output_dim": 3584}),
        "qwen3_asr_encoder": MappingProxyType(
            {"d_model": 1024, "encoder_layers": 24, "encoder_ffn_dim": 4096, "output_dim": 3584}
        ),
        "voxtral_encoder": MappingProxyType(
            {
                "hidden_size": 1280,
                "intermediate_size": 5120,
                "num_hidden_layers": 32,
                "max_source_positions": 1500,
            }
        ),
        "gemma3n_audio": MappingProxyType({"hidden_size": 1536, "conf_num_hidden_layers": 12}),
        "gemma4_audio": MappingProxyType({"hidden_size": 1024, "num_hidden_layers": 12}),
    }
)
"""By the ``model_type`` of the tower."""

_OTHER_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "clip": "clip_vision_model",
        "siglip": "siglip_vision_model",
        "siglip2": "siglip2_vision_model",
        "siglip_vision": "siglip_vision_model",
        "qwen2_vl": "qwen2_vl_vision",
        "qwen2_5_vl": "qwen2_5_vl_vision",
        "qwen3_vl": "qwen3_vl_vision",
        "qwen3_vl_moe": "qwen3_vl_moe_vision",
        "qwen3_5": "qwen3_5_vision",
        "qwen3_5_moe": "qwen3_5_moe_vision",
        "glm4v": "glm4v_vision",
        "glm4v_moe": "glm4v_moe_vision",
        "glm_ocr": "glm_ocr_vision",
        "idefics3": "idefics3_vision",
        "idefics2": "idefics2_vision",
        "kimi_k25": "kimi_k25_vision",
        "minimax_m3_vl": "minimax_m3_vl_vision",
        "janus": "janus_vision_model",
        "ernie4_5_vl_moe": "ernie4_5_vl_moe_vision",
    }
)
_OF_MODEL: Final[Mapping[str, str]] = MappingProxyType(
    {
        **_OTHER_NAMES,
        **dict.fromkeys(("llava", "llava_next", "llava_next_video", "vipllava"), "clip_vision_model"),
        **dict.fromkeys(("gemma3", "paligemma", "llava_onevision", "aya_vision", "minicpmv"), "siglip_vision_model"),
        "mistral3": "pixtral",
        "llama4": "llama4_vision_model",
        "mllama": "mllama_vision_model",
        "internvl": "internvl_vision",
        "internvl_chat": "intern_vit_6b",
        "smolvlm": "smolvlm_vision",
        "step3_vl": "step3_vision_encoder",
        **dict.fromkeys(("step3p5_vl", "step3p7"), "step3p5_vision"),
        "kimi_vl": "moonvit",
        "gemma4": "gemma4_vision",
        "gemma3n": "gemma3n_vision",
        "blip-2": "blip_2_vision_model",
        **dict.fromkeys(("qwen2_5_omni", "qwen2_5_omni_thinker"), "qwen2_5_omni_vision_encoder"),
        **dict.fromkeys(("qwen3_omni_moe", "qwen3_omni_moe_thinker"), "qwen3_omni_moe_vision_encoder"),
    }
)
_SOUND_OF_MODEL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "qwen2_audio": "qwen2_audio_encoder",
        "voxtral": "voxtral_encoder",
        "granite_speech": "granite_speech_encoder",
        "gemma3n": "gemma3n_audio",
        "gemma4": "gemma4_audio",
        **dict.fromkeys(("qwen2_5_omni", "qwen2_5_omni_thinker"), "qwen2_5_omni_audio_encoder"),
        **dict.fromkeys(("qwen3_omni_moe", "qwen3_omni_moe_thinker"), "qwen3_omni_moe_audio_encoder"),
    }
)


_WITHOUT_HEAD: Final = ("minicpmv", "minicpmo")
"""Models with a SigLIP of their own, which does not pool."""


def tower_fields(root: Fields, tower: Fields, *, sound: bool) -> Fields:
    """The tower's fields with the defaults of its class. Raises InvalidInputError."""
    written = tower.text("model_type")
    of_model = (_SOUND_OF_MODEL if sound else _OF_MODEL).get(root.text("model_type") or "")
    kind = _OTHER_NAMES.get(written, written) if written else of_model
    if kind is None:
        return tower
    pooled = {"vision_use_head": False} if root.text("model_type") in _WITHOUT_HEAD else {}
    return tower.with_defaults({**_DEFAULTS.get(kind, {}), **pooled, "model_type": kind})
