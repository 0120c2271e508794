"""Models for the llama.cpp oracle with recurrent layers, and of other kinds."""

from benchmarks.llamacpp_metadata import Value, every, heads, mla, model, moe, ssm


def hybrids() -> dict[str, dict[str, Value]]:
    """Recurrent layers beside attention."""
    nemotron = [{"M": (0, 0), "-": (0, 12544), "*": (8, 0)}[kind] for kind in "M-M-M-M*-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"]
    delta = ssm(4, 4096, 128, 32, 16)
    sections: dict[str, Value] = {"rope.dimension_sections": [11, 11, 10, 0], "rope.dimension_count": 64}
    return {
        "Qwen3-Next-80B-A3B": model(
            "qwen3next",
            layers=48,
            hidden=2048,
            heads=16,
            kv=2,
            width=5120,
            vocabulary=151936,
            more={**heads(256), **delta, **moe(512, 10, 512, shared=1), "rope.dimension_count": 64},
        ),
        "Qwen3.5-35B-A3B": model(
            "qwen35moe",
            layers=40,
            hidden=2048,
            heads=16,
            kv=2,
            width=5120,
            vocabulary=248320,
            more={**heads(256), **delta, **moe(256, 8, 512, shared=1), **sections},
        ),
        "Qwen3.5-9B": model(
            "qwen35",
            layers=32,
            hidden=4096,
            heads=16,
            kv=4,
            width=12288,
            vocabulary=248320,
            more={**heads(256), **delta, **sections, "full_attention_interval": 4},
        ),
        "Jamba-1.5-mini": model(
            "jamba",
            layers=32,
            hidden=4096,
            heads=32,
            kv=every(32, 8, 8, at=4),
            width=14336,
            vocabulary=65536,
            more={**moe(16, 2, 14336), **ssm(4, 8192, 16, 256, 0)},
        ),
        "Falcon-H1-7B": model(
            "falcon-h1",
            layers=44,
            hidden=3072,
            heads=12,
            kv=2,
            width=12288,
            vocabulary=130048,
            more={**heads(128), **ssm(4, 3072, 256, 24, 1)},
        ),
        "Nemotron-H": model(
            "nemotron_h",
            layers=len(nemotron),
            hidden=4480,
            heads=40,
            kv=[kv for kv, _ in nemotron],
            width=[width for _, width in nemotron],
            vocabulary=131072,
            more={**heads(128), **ssm(4, 10240, 128, 128, 8)},
        ),
        "Granite-4-H-Small": model(
            "granitehybrid",
            layers=40,
            hidden=4096,
            heads=32,
            kv=every(40, 10, 8, at=5),
            width=768,
            vocabulary=100352,
            more={
                **moe(72, 10, 768, shared=2),
                **ssm(4, 8192, 128, 128, 1),
                "logit_scale": 1.0,
                "residual_scale": 1.0,
                "embedding_scale": 1.0,
                "attention.scale": 1.0,
            },
        ),
        "PLaMo-2-8B": model(
            "plamo2",
            layers=32,
            hidden=4096,
            heads=[32 if each else 0 for each in every(32, 2, 1)],
            kv=every(32, 2, 4),
            width=16384,
            vocabulary=100000,
            more={**heads(128), **ssm(4, 8192, 64, 64, 0)},
        ),
        "LFM2-1.2B": model(
            "lfm2",
            layers=16,
            hidden=2048,
            heads=32,
            kv=every(16, 3, 8, at=2),
            width=8192,
            vocabulary=65536,
            more={"shortconv.l_cache": 3},
        ),
        "LFM2-8B-A1B": model(
            "lfm2moe",
            layers=24,
            hidden=2048,
            heads=32,
            kv=every(24, 4, 8, at=2),
            width=7168,
            vocabulary=65536,
            more={"shortconv.l_cache": 3, **moe(32, 4, 1792, dense=2)},
        ),
        "Kimi-Linear-48B": model(
            "kimi-linear",
            layers=27,
            hidden=2304,
            heads=32,
            kv=every(27, 4, 1),
            width=9216,
            vocabulary=163840,
            more={
                **mla(512, 64, 128, 128),
                **moe(256, 8, 1024, shared=1, dense=1),
                "ssm.conv_kernel": 4,
                "kda.head_dim": 128,
            },
        ),
        "MiniMax-Text-01": model(
            "minimax-01",
            layers=80,
            hidden=6144,
            heads=64,
            kv=8,
            width=9216,
            vocabulary=200064,
            more={**heads(128), **moe(32, 2, 9216), "residual_scale": 3.5, "rope.dimension_count": 64},
        ),
    }


def recurrent() -> dict[str, dict[str, Value]]:
    """Recurrent layers alone."""
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
        "Mamba-2.8B": model(
            "mamba", layers=64, hidden=2560, heads=0, kv=0, width=0, vocabulary=50280, more=ssm(4, 5120, 16, 160, 0)
        ),
        "Mamba-Codestral-7B": model(
            "mamba2", layers=64, hidden=4096, heads=0, kv=0, width=0, vocabulary=32768, more=ssm(4, 8192, 128, 128, 8)
        ),
        "RWKV-6-7B": model("rwkv6", layers=32, hidden=4096, heads=0, kv=0, width=14336, vocabulary=65536, more=ranks),
        "RWKV-7-2.9B": model("rwkv7", layers=32, hidden=2560, heads=0, kv=0, width=10240, vocabulary=65536, more=ranks),
    }


def others() -> dict[str, dict[str, Value]]:
    """Encoders, loops, diffusion."""
    return {
        "Flan-T5-XL": model(
            "t5",
            layers=24,
            hidden=2048,
            heads=32,
            kv=32,
            width=5120,
            vocabulary=32128,
            more={**heads(64), "attention.relative_buckets_count": 32},
        ),
        "Nanbeige-loop": model(
            "nanbeige", layers=32, hidden=4096, heads=32, kv=8, width=14336, vocabulary=128256, more={"num_loops": 2}
        ),
        "LLaDA-8B": model("llada", layers=32, hidden=4096, heads=32, kv=32, width=12288, vocabulary=126464),
    }
