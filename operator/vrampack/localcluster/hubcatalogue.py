"""Real models as their publishers describe them: config.json and the shape of every tensor. No weights.

The fields of config.json that concern memory are the published ones, and the tensors add up to the published
parameters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vrampack.localcluster.hubshapes import (
    TensorShape,
    decoder_tensors,
    fp8_tensors,
    fused_tensors,
    gemma2_tensors,
    rwkv5_tensors,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueModel:
    """One repository of the hub."""

    repository: str
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorShape]
    copies: Mapping[str, int] = field(default_factory=dict)
    """Other copies of the weights beside the ones that engines load, with their sizes."""
    gated: bool = False
    """Whether the publisher asks for consent to terms before files may be read."""
    private: bool = False


def _llama3(**sizes: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama",
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": 128256,
        "num_key_value_heads": 8,
        **sizes,
    }


def _qwen3(*, layers: int, hidden: int, width: int, heads: int, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": width,
        "max_position_embeddings": 40960,
        "max_window_layers": layers,
        "model_type": "qwen3",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    }


LLAMA_8B: Final = _llama3(num_hidden_layers=32, hidden_size=4096, intermediate_size=14336, num_attention_heads=32)
LLAMA_70B: Final = _llama3(num_hidden_layers=80, hidden_size=8192, intermediate_size=28672, num_attention_heads=64)
QWEN3_0_6B: Final = _qwen3(layers=28, hidden=1024, width=3072, heads=16, tied=True)
QWEN3_1_7B: Final = _qwen3(layers=28, hidden=2048, width=6144, heads=16, tied=True)
QWEN3_4B: Final = _qwen3(layers=36, hidden=2560, width=9728, heads=32, tied=True)
QWEN3_8B: Final = _qwen3(layers=36, hidden=4096, width=12288, heads=32, tied=False)
QWEN3_32B: Final = _qwen3(layers=64, hidden=5120, width=25600, heads=64, tied=False)
QWEN3_8B_FP8: Final = QWEN3_8B | {
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    }
}
QWEN2_5_7B: Final[dict[str, Any]] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
MISTRAL_7B: Final[dict[str, Any]] = {
    "architectures": ["MistralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 32768,
}
PHI_4: Final[dict[str, Any]] = {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 100257,
    "embd_pdrop": 0.0,
    "eos_token_id": 100265,
    "hidden_act": "silu",
    "hidden_size": 5120,
    "initializer_range": 0.02,
    "intermediate_size": 17920,
    "max_position_embeddings": 16384,
    "model_type": "phi3",
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 10,
    "original_max_position_embeddings": 16384,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 250000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 100352,
}
GEMMA_2_9B: Final[dict[str, Any]] = {
    "architectures": ["Gemma2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 50.0,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": 1,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "model_type": "gemma2",
    "num_attention_heads": 16,
    "num_hidden_layers": 42,
    "num_key_value_heads": 8,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "sliding_window_size": 4096,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 256000,
}

RWKV5_3B: Final[dict[str, Any]] = {
    "architectures": ["RwkvForCausalLM"],
    "attention_hidden_size": 2560,
    "bos_token_id": 0,
    "context_length": 4096,
    "eos_token_id": 0,
    "head_size": 64,
    "hidden_size": 2560,
    "intermediate_size": None,
    "layer_norm_epsilon": 1e-05,
    "model_type": "rwkv5",
    "model_version": "5_2",
    "num_hidden_layers": 32,
    "rescale_every": 6,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 65536,
}


def catalogue() -> Iterator[CatalogueModel]:
    """The repositories, with their quirks: tied heads that are stored all the same, second copies of the weights."""
    yield CatalogueModel(
        repository="meta-llama/Llama-3.1-8B-Instruct",
        config=LLAMA_8B,
        tensors=decoder_tensors(LLAMA_8B),
        copies={"original/consolidated.00.pth": 16_060_617_592},
        gated=True,
    )
    yield CatalogueModel(
        repository="meta-llama/Llama-3.3-70B-Instruct",
        config=LLAMA_70B,
        tensors=decoder_tensors(LLAMA_70B),
        copies={f"original/consolidated.{part:02}.pth": 17_652_338_450 for part in range(8)},
        gated=True,
    )
    for name, config, head_in_file in (
        ("Qwen/Qwen3-0.6B", QWEN3_0_6B, True),
        ("Qwen/Qwen3-1.7B", QWEN3_1_7B, True),
        ("Qwen/Qwen3-4B", QWEN3_4B, False),
        ("Qwen/Qwen3-8B", QWEN3_8B, True),
        ("Qwen/Qwen3-32B", QWEN3_32B, True),
    ):
        tensors = decoder_tensors(config, head_in_file=head_in_file, qk_norm=True)
        yield CatalogueModel(repository=name, config=config, tensors=tensors)
    yield CatalogueModel(
        repository="Qwen/Qwen3-8B-FP8",
        config=QWEN3_8B_FP8,
        tensors=fp8_tensors(decoder_tensors(QWEN3_8B_FP8, qk_norm=True)),
    )
    yield CatalogueModel(
        repository="Qwen/Qwen2.5-7B-Instruct", config=QWEN2_5_7B, tensors=decoder_tensors(QWEN2_5_7B, qkv_bias=True)
    )
    yield CatalogueModel(
        repository="mistralai/Mistral-7B-Instruct-v0.3",
        config=MISTRAL_7B,
        tensors=decoder_tensors(MISTRAL_7B),
        copies={"consolidated.safetensors": 14_496_078_512},
        gated=True,
    )
    yield CatalogueModel(repository="microsoft/phi-4", config=PHI_4, tensors=fused_tensors(PHI_4))
    yield CatalogueModel(
        repository="google/gemma-2-9b-it", config=GEMMA_2_9B, tensors=gemma2_tensors(GEMMA_2_9B), gated=True
    )
    yield CatalogueModel(repository="RWKV/rwkv-5-world-3b", config=RWKV5_3B, tensors=rwkv5_tensors(RWKV5_3B))
