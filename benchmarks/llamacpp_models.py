"""Models for the llama.cpp oracle: the metadata that a GGUF file of the real model has, and no weights.

Shapes are those of the models named; where llama.cpp asks for keys that do not shape memory, they hold any value.
"""

from collections.abc import Mapping
from typing import Final

Value = bool | int | float | str | list[int] | list[bool] | list[float]

_EVERYWHERE: Final[dict[str, Value]] = {
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.layer_norm_epsilon": 1e-5,
    "context_length": 131072,
}


def models() -> dict[str, dict[str, Value]]:
    """Metadata by the name of the model."""
    return {**_dense(), **_sliding(), **_experts(), **_latent(), **_hybrids(), **_recurrent(), **_others()}


def _model(
    architecture: str,
    *,
    layers: int,
    hidden: int,
    heads: int | list[int],
    kv: int | list[int],
    width: int | list[int],
    vocabulary: int,
    more: Mapping[str, Value] | None = None,
) -> dict[str, Value]:
    own: dict[str, Value] = {
        **_EVERYWHERE,
        "block_count": layers,
        "embedding_length": hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": kv,
        "feed_forward_length": width,
        "vocab_size": vocabulary,
        **(more or {}),
    }
    return {
        "general.architecture": architecture,
        "tokenizer.ggml.model": "none",
        **{f"{architecture}.{key}": value for key, value in own.items()},
    }


def _heads(key: int, value: int | None = None) -> dict[str, Value]:
    return {"attention.key_length": key, "attention.value_length": key if value is None else value}


def _window(tokens: int, pattern: int | list[bool] | None = None) -> dict[str, Value]:
    given: dict[str, Value] = {"attention.sliding_window": tokens, "rope.freq_base_swa": 10000.0}
    return given if pattern is None else given | {"attention.sliding_window_pattern": pattern}


def _moe(count: int, used: int, width: int, *, shared: int = 0, dense: int = 0) -> dict[str, Value]:
    return {
        "expert_count": count,
        "expert_used_count": used,
        "expert_feed_forward_length": width,
        "expert_shared_feed_forward_length": shared * width,
        "expert_shared_count": shared,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
        "leading_dense_block_count": dense,
    }


def _mla(rank: int, rope: int, nope: int, value: int, query: int = 0) -> dict[str, Value]:
    return {
        **_heads(rank + rope, rank),
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": value,
        "attention.kv_lora_rank": rank,
        "rope.dimension_count": rope,
        **({"attention.q_lora_rank": query} if query else {}),
    }


def _ssm(kernel: int, inner: int, state: int, rank: int, groups: int) -> dict[str, Value]:
    return {
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
        "ssm.group_count": groups,
    }


def _every(layers: int, period: int, value: int, *, at: int = -1) -> list[int]:
    """``value`` at one layer of each ``period``, else 0."""
    return [value if layer % period == at % period else 0 for layer in range(layers)]


def _slides(layers: int, period: int) -> list[bool]:
    return [layer % period != period - 1 for layer in range(layers)]


def _dense() -> dict[str, dict[str, Value]]:
    nas = [0 if layer % 4 == 2 else 8 for layer in range(48)]
    return {
        "Llama-3.1-8B": _model("llama", layers=32, hidden=4096, heads=32, kv=8, width=14336, vocabulary=128256),
        "Llama-3.1-70B": _model("llama", layers=80, hidden=8192, heads=64, kv=8, width=28672, vocabulary=128256),
        "Mistral-7B-v0.1": _model(
            "llama", layers=32, hidden=4096, heads=32, kv=8, width=14336, vocabulary=32000, more=_window(4096)
        ),
        "Nemotron-NAS": _model(
            "deci",
            layers=48,
            hidden=8192,
            heads=[8 * each for each in nas],
            kv=nas,
            width=[28672] * 48,
            vocabulary=128256,
        ),
        "Qwen2.5-7B": _model("qwen2", layers=28, hidden=3584, heads=28, kv=4, width=18944, vocabulary=152064),
        "Qwen3-8B": _model(
            "qwen3", layers=36, hidden=4096, heads=32, kv=8, width=12288, vocabulary=151936, more=_heads(128)
        ),
        "Gemma-7B": _model(
            "gemma", layers=28, hidden=3072, heads=16, kv=16, width=24576, vocabulary=256000, more=_heads(256)
        ),
        "Phi-3-mini": _model(
            "phi3",
            layers=32,
            hidden=3072,
            heads=32,
            kv=32,
            width=8192,
            vocabulary=32064,
            more={**_window(2047), "rope.dimension_count": 96, "rope.scaling.original_context_length": 4096},
        ),
        "StarCoder2-7B": _model("starcoder2", layers=32, hidden=4608, heads=36, kv=4, width=18432, vocabulary=49152),
        "GPT-2": _model("gpt2", layers=12, hidden=768, heads=12, kv=12, width=3072, vocabulary=50257),
        "Falcon-7B": _model("falcon", layers=32, hidden=4544, heads=71, kv=1, width=18176, vocabulary=65024),
        "GLM-4-32B": _model(
            "glm4",
            layers=61,
            hidden=6144,
            heads=48,
            kv=8,
            width=23040,
            vocabulary=151552,
            more={**_heads(128), "rope.dimension_count": 64},
        ),
        "Command-R": _model(
            "command-r",
            layers=40,
            hidden=8192,
            heads=64,
            kv=64,
            width=22528,
            vocabulary=256000,
            more={"logit_scale": 1.0},
        ),
        "OLMo-2-7B": _model("olmo2", layers=32, hidden=4096, heads=32, kv=32, width=11008, vocabulary=100352),
        "Granite-3-8B": _model(
            "granite",
            layers=40,
            hidden=4096,
            heads=32,
            kv=8,
            width=12800,
            vocabulary=49155,
            more={"logit_scale": 1.0, "residual_scale": 1.0, "embedding_scale": 1.0, "attention.scale": 1.0},
        ),
        "SmolLM3-3B": _model("smollm3", layers=36, hidden=2048, heads=16, kv=4, width=11008, vocabulary=128256),
        "Seed-OSS-36B": _model(
            "seed_oss", layers=64, hidden=5120, heads=80, kv=8, width=27648, vocabulary=155136, more=_heads(128)
        ),
    }


def _sliding() -> dict[str, dict[str, Value]]:
    gemma4 = _slides(30, 6)
    return {
        "Gemma-2-9B": _model(
            "gemma2",
            layers=42,
            hidden=3584,
            heads=16,
            kv=8,
            width=14336,
            vocabulary=256000,
            more={**_heads(256), **_window(4096)},
        ),
        "Gemma-3-27B": _model(
            "gemma3",
            layers=62,
            hidden=5376,
            heads=32,
            kv=16,
            width=21504,
            vocabulary=262144,
            more={**_heads(128), **_window(1024)},
        ),
        "Gemma-3-1B": _model(
            "gemma3",
            layers=26,
            hidden=1152,
            heads=4,
            kv=1,
            width=6912,
            vocabulary=262144,
            more={**_heads(256), **_window(512)},
        ),
        "Gemma-3n-E4B": _model(
            "gemma3n",
            layers=35,
            hidden=2048,
            heads=8,
            kv=2,
            width=16384,
            vocabulary=262144,
            more={**_heads(256), **_window(512, _slides(35, 5)), "embedding_length_per_layer_input": 256},
        ),
        "Gemma-4-26B-A4B": _model(
            "gemma4",
            layers=30,
            hidden=2816,
            heads=16,
            kv=[8 if each else 2 for each in gemma4],
            width=2112,
            vocabulary=262144,
            more={
                **_heads(512),
                **_window(1024, gemma4),
                **_moe(128, 8, 704),
                "attention.key_length_swa": 256,
                "attention.value_length_swa": 256,
                "attention.shared_kv_layers": 0,
                "rope.dimension_count": 512,
                "rope.dimension_count_swa": 256,
                "embedding_length_per_layer_input": 0,
            },
        ),
        "Gemma-4-E4B": _model(
            "gemma4",
            layers=42,
            hidden=2560,
            heads=8,
            kv=2,
            width=10240,
            vocabulary=262144,
            more={
                **_heads(512),
                **_window(512, _slides(42, 6)),
                "attention.key_length_swa": 256,
                "attention.value_length_swa": 256,
                "attention.shared_kv_layers": 18,
                "rope.dimension_count": 512,
                "rope.dimension_count_swa": 256,
                "embedding_length_per_layer_input": 256,
            },
        ),
        "gpt-oss-20b": _model(
            "gpt-oss",
            layers=24,
            hidden=2880,
            heads=64,
            kv=8,
            width=2880,
            vocabulary=201088,
            more={**_heads(64), **_window(128), **_moe(32, 4, 2880)},
        ),
        "Cohere-2-7B": _model(
            "cohere2",
            layers=32,
            hidden=4096,
            heads=32,
            kv=8,
            width=14336,
            vocabulary=256000,
            more={**_window(4096), "logit_scale": 1.0, "rope.dimension_count": 128},
        ),
        "EXAONE-4-32B": _model(
            "exaone4", layers=64, hidden=5120, heads=40, kv=8, width=27392, vocabulary=102400, more=_window(4096)
        ),
        "EXAONE-4-1.2B": _model("exaone4", layers=30, hidden=2048, heads=32, kv=8, width=4096, vocabulary=102400),
        "OLMo-3-7B": _model(
            "olmo2", layers=32, hidden=4096, heads=32, kv=32, width=11008, vocabulary=100278, more=_window(4096)
        ),
        "Llama-4-Scout": _model(
            "llama4",
            layers=48,
            hidden=5120,
            heads=40,
            kv=8,
            width=16384,
            vocabulary=202048,
            more={**_heads(128), **_moe(16, 1, 8192, shared=1), "interleave_moe_layer_step": 1},
        ),
        "MiMo-V2-Flash": _model(
            "mimo2",
            layers=48,
            hidden=4096,
            heads=64,
            kv=[8 if each else 4 for each in _slides(48, 6)],
            width=16384,
            vocabulary=152576,
            more={
                **_heads(192, 128),
                **_window(128, _slides(48, 6)),
                **_moe(256, 8, 2048, dense=1),
                "rope.dimension_count": 64,
            },
        ),
        "Step-3.5-Flash": _model(
            "step35",
            layers=45,
            hidden=4096,
            heads=[96 if each else 64 for each in _slides(45, 4)],
            kv=8,
            width=11264,
            vocabulary=128896,
            more={
                **_heads(128),
                **_window(512, _slides(45, 4)),
                **_moe(288, 8, 1280, shared=1, dense=3),
                "rope.dimension_count": 64,
            },
        ),
        "AFMoE": _model(
            "afmoe",
            layers=32,
            hidden=2048,
            heads=32,
            kv=4,
            width=6144,
            vocabulary=200192,
            more={**_heads(128), **_window(2048), **_moe(128, 8, 1024, shared=1, dense=2)},
        ),
        "SmallThinker-21B": _model(
            "smallthinker",
            layers=52,
            hidden=2560,
            heads=28,
            kv=4,
            width=768,
            vocabulary=151936,
            more={**_heads(128), **_window(4096), **_moe(64, 6, 768)},
        ),
        "PLaMo-3": _model(
            "plamo3",
            layers=40,
            hidden=2560,
            heads=32,
            kv=4,
            width=8192,
            vocabulary=99584,
            more={**_heads(128), **_window(2048)},
        ),
    }


def _experts() -> dict[str, dict[str, Value]]:
    return {
        "Mixtral-8x7B": _model(
            "llama", layers=32, hidden=4096, heads=32, kv=8, width=14336, vocabulary=32000, more=_moe(8, 2, 14336)
        ),
        "Qwen3-30B-A3B": _model(
            "qwen3moe",
            layers=48,
            hidden=2048,
            heads=32,
            kv=4,
            width=6144,
            vocabulary=151936,
            more={**_heads(128), **_moe(128, 8, 768)},
        ),
        "Qwen3-235B-A22B": _model(
            "qwen3moe",
            layers=94,
            hidden=4096,
            heads=64,
            kv=4,
            width=12288,
            vocabulary=151936,
            more={**_heads(128), **_moe(128, 8, 1536)},
        ),
        "GLM-4.5-Air": _model(
            "glm4moe",
            layers=47,
            hidden=4096,
            heads=96,
            kv=8,
            width=10944,
            vocabulary=151552,
            more={
                **_heads(128),
                **_moe(128, 8, 1408, shared=1, dense=1),
                "nextn_predict_layers": 1,
                "rope.dimension_count": 64,
            },
        ),
        "Phi-3.5-MoE": _model(
            "phimoe",
            layers=32,
            hidden=4096,
            heads=32,
            kv=8,
            width=6400,
            vocabulary=32064,
            more={**_moe(16, 2, 6400), "rope.dimension_count": 128, "rope.scaling.original_context_length": 4096},
        ),
        "DBRX": _model(
            "dbrx",
            layers=40,
            hidden=6144,
            heads=48,
            kv=8,
            width=10752,
            vocabulary=100352,
            more={**_moe(16, 4, 10752), "attention.clamp_kqv": 8.0},
        ),
        "MiniMax-M2": _model(
            "minimax-m2",
            layers=62,
            hidden=3072,
            heads=48,
            kv=8,
            width=1536,
            vocabulary=200064,
            more={**_heads(128), **_moe(256, 8, 1536), "rope.dimension_count": 64},
        ),
        "Bailing-MoE-2": _model(
            "bailingmoe2",
            layers=20,
            hidden=2048,
            heads=16,
            kv=4,
            width=5120,
            vocabulary=157184,
            more={**_heads(128), **_moe(256, 8, 512, shared=1, dense=1), "rope.dimension_count": 64},
        ),
    }


def _latent() -> dict[str, dict[str, Value]]:
    deepseek = {**_mla(512, 64, 128, 128, query=1536), **_moe(256, 8, 2048, shared=1, dense=3)}
    indexed = {
        **deepseek,
        "attention.indexer.head_count": 64,
        "attention.indexer.key_length": 128,
        "attention.indexer.top_k": 2048,
    }
    return {
        "DeepSeek-V3": _model(
            "deepseek2", layers=61, hidden=7168, heads=128, kv=1, width=18432, vocabulary=129280, more=deepseek
        ),
        "DeepSeek-V2-Lite": _model(
            "deepseek2",
            layers=27,
            hidden=2048,
            heads=16,
            kv=1,
            width=10944,
            vocabulary=102400,
            more={**_mla(512, 64, 128, 128), **_moe(64, 6, 1408, shared=2, dense=1)},
        ),
        "DeepSeek-V2 (old file)": _model(
            "deepseek2",
            layers=60,
            hidden=5120,
            heads=128,
            kv=128,
            width=12288,
            vocabulary=102400,
            more={
                **_heads(192, 128),
                **_moe(160, 6, 1536, shared=2, dense=1),
                "attention.kv_lora_rank": 512,
                "attention.q_lora_rank": 1536,
                "rope.dimension_count": 64,
            },
        ),
        "DeepSeek-V3.2": _model(
            "deepseek32",
            layers=62,
            hidden=7168,
            heads=128,
            kv=1,
            width=18432,
            vocabulary=129280,
            more={**indexed, "nextn_predict_layers": 1},
        ),
        "GLM-5": _model(
            "glm-dsa",
            layers=79,
            hidden=6144,
            heads=64,
            kv=1,
            width=12288,
            vocabulary=154880,
            more={**indexed, "nextn_predict_layers": 1, "attention.indexer.head_count": 32},
        ),
        "DeepSeek-V4-Flash": _model(
            "deepseek4",
            layers=44,
            hidden=4096,
            heads=64,
            kv=1,
            width=2048,
            vocabulary=129280,
            more={
                **_heads(512),
                **_moe(256, 6, 2048, shared=1),
                **_window(128),
                "attention.q_lora_rank": 1024,
                "rope.dimension_count": 64,
                "attention.indexer.head_count": 64,
                "attention.indexer.key_length": 128,
                "attention.indexer.top_k": 512,
                "attention.output_group_count": 8,
                "attention.output_lora_rank": 1024,
                "attention.compress_ratios": [0, 0] + [4 if layer % 2 else 128 for layer in range(42)],
                "attention.compress_rope_freq_base": 160000.0,
                "hyper_connection.count": 4,
                "hyper_connection.sinkhorn_iterations": 20,
                "hyper_connection.epsilon": 1e-6,
                "hash_layer_count": 0,
                "swiglu_clamp_exp": 10.0,
                "expert_gating_func": 4,
            },
        ),
        "MiniCPM3-4B": _model(
            "minicpm3",
            layers=62,
            hidden=2560,
            heads=40,
            kv=40,
            width=6400,
            vocabulary=73448,
            more={
                **_heads(96, 64),
                "attention.q_lora_rank": 768,
                "attention.kv_lora_rank": 256,
                "rope.dimension_count": 32,
            },
        ),
        "MiniMax-M3": _model(
            "minimax-m3",
            layers=60,
            hidden=6144,
            heads=64,
            kv=4,
            width=12288,
            vocabulary=200064,
            more={
                **_heads(128),
                **_moe(128, 4, 3072, shared=1, dense=3),
                "rope.dimension_count": 64,
                "attention.indexer.head_count": 4,
                "attention.indexer.key_length": 128,
                "attention.indexer.top_k": 16,
                "attention.indexer.block_size": 128,
                "attention.indexer.local_blocks": 1,
            },
        ),
    }


def _hybrids() -> dict[str, dict[str, Value]]:
    nemotron = [{"M": (0, 0), "-": (0, 12544), "*": (8, 0)}[kind] for kind in "M-M-M-M*-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"]
    delta = _ssm(4, 4096, 128, 32, 16)
    sections: dict[str, Value] = {"rope.dimension_sections": [11, 11, 10, 0], "rope.dimension_count": 64}
    return {
        "Qwen3-Next-80B-A3B": _model(
            "qwen3next",
            layers=48,
            hidden=2048,
            heads=16,
            kv=2,
            width=5120,
            vocabulary=151936,
            more={**_heads(256), **delta, **_moe(512, 10, 512, shared=1), "rope.dimension_count": 64},
        ),
        "Qwen3.5-35B-A3B": _model(
            "qwen35moe",
            layers=40,
            hidden=2048,
            heads=16,
            kv=2,
            width=5120,
            vocabulary=248320,
            more={**_heads(256), **delta, **_moe(256, 8, 512, shared=1), **sections},
        ),
        "Qwen3.5-9B": _model(
            "qwen35",
            layers=32,
            hidden=4096,
            heads=16,
            kv=4,
            width=12288,
            vocabulary=248320,
            more={**_heads(256), **delta, **sections, "full_attention_interval": 4},
        ),
        "Jamba-1.5-mini": _model(
            "jamba",
            layers=32,
            hidden=4096,
            heads=32,
            kv=_every(32, 8, 8, at=4),
            width=14336,
            vocabulary=65536,
            more={**_moe(16, 2, 14336), **_ssm(4, 8192, 16, 256, 0)},
        ),
        "Falcon-H1-7B": _model(
            "falcon-h1",
            layers=44,
            hidden=3072,
            heads=12,
            kv=2,
            width=12288,
            vocabulary=130048,
            more={**_heads(128), **_ssm(4, 3072, 256, 24, 1)},
        ),
        "Nemotron-H": _model(
            "nemotron_h",
            layers=len(nemotron),
            hidden=4480,
            heads=40,
            kv=[kv for kv, _ in nemotron],
            width=[width for _, width in nemotron],
            vocabulary=131072,
            more={**_heads(128), **_ssm(4, 10240, 128, 128, 8)},
        ),
        "Granite-4-H-Small": _model(
            "granitehybrid",
            layers=40,
            hidden=4096,
            heads=32,
            kv=_every(40, 10, 8, at=5),
            width=768,
            vocabulary=100352,
            more={
                **_moe(72, 10, 768, shared=2),
                **_ssm(4, 8192, 128, 128, 1),
                "logit_scale": 1.0,
                "residual_scale": 1.0,
                "embedding_scale": 1.0,
                "attention.scale": 1.0,
            },
        ),
        "PLaMo-2-8B": _model(
            "plamo2",
            layers=32,
            hidden=4096,
            heads=[32 if each else 0 for each in _every(32, 2, 1)],
            kv=_every(32, 2, 4),
            width=16384,
            vocabulary=100000,
            more={**_heads(128), **_ssm(4, 8192, 64, 64, 0)},
        ),
        "LFM2-1.2B": _model(
            "lfm2",
            layers=16,
            hidden=2048,
            heads=32,
            kv=_every(16, 3, 8, at=2),
            width=8192,
            vocabulary=65536,
            more={"shortconv.l_cache": 3},
        ),
        "LFM2-8B-A1B": _model(
            "lfm2moe",
            layers=24,
            hidden=2048,
            heads=32,
            kv=_every(24, 4, 8, at=2),
            width=7168,
            vocabulary=65536,
            more={"shortconv.l_cache": 3, **_moe(32, 4, 1792, dense=2)},
        ),
        "Kimi-Linear-48B": _model(
            "kimi-linear",
            layers=27,
            hidden=2304,
            heads=32,
            kv=_every(27, 4, 1),
            width=9216,
            vocabulary=163840,
            more={
                **_mla(512, 64, 128, 128),
                **_moe(256, 8, 1024, shared=1, dense=1),
                "ssm.conv_kernel": 4,
                "kda.head_dim": 128,
            },
        ),
        "MiniMax-Text-01": _model(
            "minimax-01",
            layers=80,
            hidden=6144,
            heads=64,
            kv=8,
            width=9216,
            vocabulary=200064,
            more={**_heads(128), **_moe(32, 2, 9216), "residual_scale": 3.5, "rope.dimension_count": 64},
        ),
    }


def _recurrent() -> dict[str, dict[str, Value]]:
    ranks: dict[str, Value] = {
        "wkv.head_size": 64,
        "time_mix_extra_dim": 32,
        "time_decay_extra_dim": 64,
        "attention.decay_lora_rank": 96,
        "attention.iclr_lora_rank": 96,
        "attention.value_residual_mix_lora_rank": 64,
        "attention.gate_lora_rank": 256,
    }
    return {
        "Mamba-2.8B": _model(
            "mamba", layers=64, hidden=2560, heads=0, kv=0, width=0, vocabulary=50280, more=_ssm(4, 5120, 16, 160, 0)
        ),
        "Mamba-Codestral-7B": _model(
            "mamba2", layers=64, hidden=4096, heads=0, kv=0, width=0, vocabulary=32768, more=_ssm(4, 8192, 128, 128, 8)
        ),
        "RWKV-6-7B": _model("rwkv6", layers=32, hidden=4096, heads=0, kv=0, width=14336, vocabulary=65536, more=ranks),
        "RWKV-7-2.9B": _model(
            "rwkv7", layers=32, hidden=2560, heads=0, kv=0, width=10240, vocabulary=65536, more=ranks
        ),
    }


def _others() -> dict[str, dict[str, Value]]:
    return {
        "Flan-T5-XL": _model(
            "t5",
            layers=24,
            hidden=2048,
            heads=32,
            kv=32,
            width=5120,
            vocabulary=32128,
            more={**_heads(64), "attention.relative_buckets_count": 32},
        ),
        "Nanbeige-loop": _model(
            "nanbeige", layers=32, hidden=4096, heads=32, kv=8, width=14336, vocabulary=128256, more={"num_loops": 2}
        ),
        "LLaDA-8B": _model("llada", layers=32, hidden=4096, heads=32, kv=32, width=12288, vocabulary=126464),
    }
