"""What the configuration class of a text part puts in where its file leaves a field out.

A nested configuration is written as the difference to its class, so a field that is absent there has the value that
stands here (``transformers`` 5.23). A file of its own is written in whole: there an absent size is a missing fact.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_NAMES: Final = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)


def _sizes(*sizes: int, **others: int) -> Mapping[str, object]:
    """In the order of ``_NAMES``; 0: the class derives it from the others."""
    given = {name: size for name, size in zip(_NAMES, sizes, strict=True) if size}
    return MappingProxyType(given | others)


_DEEPSEEK: Final = {"qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
_DELTA: Final = {
    "full_attention_interval": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
}

CLASS_DEFAULTS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "cohere": _sizes(40, 8192, 64, 0, 0, 22528, 256000, 8192),
        "cohere2": _sizes(40, 8192, 64, 0, 0, 22528, 256000, 8192, sliding_window=4096),
        "deepseek_v2": _sizes(
            *(32, 4096, 32, 0, 0, 11008, 102400, 2048),
            moe_intermediate_size=1407,
            n_shared_experts=2,
            kv_lora_rank=512,
            q_lora_rank=1536,
            **_DEEPSEEK,
        ),
        "deepseek_v3": _sizes(
            *(61, 7168, 128, 128, 0, 18432, 129280, 4096),
            moe_intermediate_size=2048,
            n_routed_experts=256,
            num_experts_per_tok=8,
            n_shared_experts=1,
            first_k_dense_replace=3,
            kv_lora_rank=512,
            q_lora_rank=1536,
            **_DEEPSEEK,
        ),
        "gemma": _sizes(28, 3072, 16, 16, 256, 24576, 256000, 8192),
        "gemma2": _sizes(26, 2304, 8, 4, 256, 9216, 256000, 8192, sliding_window=4096),
        "gemma3_text": _sizes(26, 2304, 8, 4, 256, 9216, 262208, 131072, sliding_window=4096),
        "gemma3n_text": _sizes(
            *(35, 2048, 8, 2, 256, 16384, 262400, 32768),
            sliding_window=512,
            num_kv_shared_layers=15,
            hidden_size_per_layer_input=256,
            vocab_size_per_layer_input=262144,
            laurel_rank=64,
            altup_num_inputs=4,
        ),
        "gemma4_text": _sizes(
            *(30, 2304, 8, 4, 256, 9216, 262144, 131072),
            sliding_window=512,
            global_head_dim=512,
            hidden_size_per_layer_input=256,
            vocab_size_per_layer_input=262144,
        ),
        "glm4": _sizes(40, 4096, 32, 2, 128, 13696, 151552, 131072),
        "glm4v_text": _sizes(40, 4096, 32, 2, 0, 13696, 151552, 32768),
        "glm4v_moe_text": _sizes(
            *(46, 4096, 96, 8, 0, 10944, 151424, 65536),
            moe_intermediate_size=1408,
            n_routed_experts=128,
            num_experts_per_tok=8,
            n_shared_experts=1,
            first_k_dense_replace=1,
        ),
        "gpt_oss": _sizes(
            *(36, 2880, 64, 8, 64, 2880, 201088, 131072),
            sliding_window=128,
            num_local_experts=128,
            num_experts_per_tok=4,
        ),
        "granite": _sizes(32, 4096, 32, 0, 0, 11008, 32000, 2048),
        "lfm2": _sizes(32, 2560, 32, 8, 0, 12288, 65536, 128000, conv_L_cache=3),
        "llama": _sizes(32, 4096, 32, 0, 0, 11008, 32000, 2048),
        "llama4_text": _sizes(
            *(48, 5120, 40, 8, 128, 8192, 202048, 131072),
            num_local_experts=16,
            num_experts_per_tok=1,
            attention_chunk_size=8192,
            intermediate_size_mlp=16384,
        ),
        "ministral3": _sizes(34, 4096, 32, 8, 128, 14336, 131072, 262144),
        "mistral": _sizes(32, 4096, 32, 8, 0, 14336, 32000, 131072, sliding_window=4096),
        "mistral4": _sizes(
            *(36, 4096, 32, 32, 0, 12288, 131072, 1048576),
            moe_intermediate_size=2048,
            n_routed_experts=128,
            num_experts_per_tok=4,
            n_shared_experts=1,
            kv_lora_rank=256,
            q_lora_rank=1024,
            qk_rope_head_dim=64,
            qk_nope_head_dim=64,
            v_head_dim=128,
        ),
        "mixtral": _sizes(*(32, 4096, 32, 8, 0, 14336, 32000, 131072), num_local_experts=8, num_experts_per_tok=2),
        "mllama_text_model": _sizes(40, 4096, 32, 8, 0, 14336, 128256, 131072),
        "phi": _sizes(24, 2048, 32, 0, 0, 8192, 51200, 2048),
        "phi3": _sizes(32, 3072, 32, 0, 0, 8192, 32064, 4096),
        "qwen2": _sizes(32, 4096, 32, 32, 0, 22016, 151936, 32768),
        "qwen2_vl_text": _sizes(80, 8192, 64, 8, 0, 29568, 152064, 32768),
        "qwen2_5_vl_text": _sizes(80, 8192, 64, 8, 0, 29568, 152064, 32768),
        "qwen2_5_omni_text": _sizes(28, 3584, 28, 4, 0, 18944, 152064, 32768),
        "qwen3": _sizes(32, 4096, 32, 32, 128, 22016, 151936, 32768),
        "qwen3_moe": _sizes(
            *(24, 2048, 32, 4, 0, 6144, 151936, 32768),
            moe_intermediate_size=768,
            num_experts=128,
            num_experts_per_tok=8,
        ),
        "qwen3_vl_text": _sizes(32, 4096, 32, 32, 128, 22016, 151936, 128000),
        "qwen3_vl_moe_text": _sizes(
            *(24, 2048, 16, 16, 128, 5632, 151936, 128000),
            moe_intermediate_size=1408,
            num_experts=60,
            num_experts_per_tok=4,
        ),
        "qwen3_5_text": _sizes(32, 4096, 16, 4, 256, 12288, 248320, 32768, **_DELTA),
        "qwen3_5_moe_text": _sizes(
            *(40, 2048, 16, 2, 256, 0, 248320, 32768),
            moe_intermediate_size=512,
            num_experts=256,
            num_experts_per_tok=8,
            shared_expert_intermediate_size=512,
            **_DELTA,
        ),
        "smollm3": _sizes(36, 2048, 16, 4, 0, 11008, 128256, 32768),
        "starcoder2": _sizes(30, 3072, 24, 2, 0, 12288, 49152, 4096),
    }
)
"""By ``model_type`` of the text part."""
