"""Models for the llama.cpp oracle with attention in every layer."""

from benchmarks.llamacpp_metadata import Value, heads, model, moe, slides, window


def dense() -> dict[str, dict[str, Value]]:
    """Every layer sees all tokens."""
    nas = [0 if layer % 4 == 2 else 8 for layer in range(48)]
    return {
        "Llama-3.1-8B": model("llama", layers=32, hidden=4096, heads=32, kv=8, width=14336, vocabulary=128256),
        "Llama-3.1-70B": model("llama", layers=80, hidden=8192, heads=64, kv=8, width=28672, vocabulary=128256),
        "Mistral-7B-v0.1": model(
            "llama", layers=32, hidden=4096, heads=32, kv=8, width=14336, vocabulary=32000, more=window(4096)
        ),
        "Nemotron-NAS": model(
            "deci",
            layers=48,
            hidden=8192,
            heads=[8 * each for each in nas],
            kv=nas,
            width=[28672] * 48,
            vocabulary=128256,
        ),
        "Qwen2.5-7B": model("qwen2", layers=28, hidden=3584, heads=28, kv=4, width=18944, vocabulary=152064),
        "Qwen3-8B": model(
            "qwen3", layers=36, hidden=4096, heads=32, kv=8, width=12288, vocabulary=151936, more=heads(128)
        ),
        "Gemma-7B": model(
            "gemma", layers=28, hidden=3072, heads=16, kv=16, width=24576, vocabulary=256000, more=heads(256)
        ),
        "Phi-3-mini": model(
            "phi3",
            layers=32,
            hidden=3072,
            heads=32,
            kv=32,
            width=8192,
            vocabulary=32064,
            more={**window(2047), "rope.dimension_count": 96, "rope.scaling.original_context_length": 4096},
        ),
        "StarCoder2-7B": model("starcoder2", layers=32, hidden=4608, heads=36, kv=4, width=18432, vocabulary=49152),
        "GPT-2": model("gpt2", layers=12, hidden=768, heads=12, kv=12, width=3072, vocabulary=50257),
        "Falcon-7B": model("falcon", layers=32, hidden=4544, heads=71, kv=1, width=18176, vocabulary=65024),
        "GLM-4-32B": model(
            "glm4",
            layers=61,
            hidden=6144,
            heads=48,
            kv=8,
            width=23040,
            vocabulary=151552,
            more={**heads(128), "rope.dimension_count": 64},
        ),
        "Command-R": model(
            "command-r",
            layers=40,
            hidden=8192,
            heads=64,
            kv=64,
            width=22528,
            vocabulary=256000,
            more={"logit_scale": 1.0},
        ),
        "OLMo-2-7B": model("olmo2", layers=32, hidden=4096, heads=32, kv=32, width=11008, vocabulary=100352),
        "Granite-3-8B": model(
            "granite",
            layers=40,
            hidden=4096,
            heads=32,
            kv=8,
            width=12800,
            vocabulary=49155,
            more={"logit_scale": 1.0, "residual_scale": 1.0, "embedding_scale": 1.0, "attention.scale": 1.0},
        ),
        "SmolLM3-3B": model("smollm3", layers=36, hidden=2048, heads=16, kv=4, width=11008, vocabulary=128256),
        "Seed-OSS-36B": model(
            "seed_oss", layers=64, hidden=5120, heads=80, kv=8, width=27648, vocabulary=155136, more=heads(128)
        ),
    }


def sliding() -> dict[str, dict[str, Value]]:
    """Some layers see a window."""
    gemma4 = slides(30, 6)
    return {
        "Gemma-2-9B": model(
            "gemma2",
            layers=42,
            hidden=3584,
            heads=16,
            kv=8,
            width=14336,
            vocabulary=256000,
            more={**heads(256), **window(4096)},
        ),
        "Gemma-3-27B": model(
            "gemma3",
            layers=62,
            hidden=5376,
            heads=32,
            kv=16,
            width=21504,
            vocabulary=262144,
            more={**heads(128), **window(1024)},
        ),
        "Gemma-3-1B": model(
            "gemma3",
            layers=26,
            hidden=1152,
            heads=4,
            kv=1,
            width=6912,
            vocabulary=262144,
            more={**heads(256), **window(512)},
        ),
        "Gemma-3n-E4B": model(
            "gemma3n",
            layers=35,
            hidden=2048,
            heads=8,
            kv=2,
            width=16384,
            vocabulary=262144,
            more={**heads(256), **window(512, slides(35, 5)), "embedding_length_per_layer_input": 256},
        ),
        "Gemma-4-26B-A4B": model(
            "gemma4",
            layers=30,
            hidden=2816,
            heads=16,
            kv=[8 if each else 2 for each in gemma4],
            width=2112,
            vocabulary=262144,
            more={
                **heads(512),
                **window(1024, gemma4),
                **moe(128, 8, 704),
                "attention.key_length_swa": 256,
                "attention.value_length_swa": 256,
                "attention.shared_kv_layers": 0,
                "rope.dimension_count": 512,
                "rope.dimension_count_swa": 256,
                "embedding_length_per_layer_input": 0,
            },
        ),
        "Gemma-4-E4B": model(
            "gemma4",
            layers=42,
            hidden=2560,
            heads=8,
            kv=2,
            width=10240,
            vocabulary=262144,
            more={
                **heads(512),
                **window(512, slides(42, 6)),
                "attention.key_length_swa": 256,
                "attention.value_length_swa": 256,
                "attention.shared_kv_layers": 18,
                "rope.dimension_count": 512,
                "rope.dimension_count_swa": 256,
                "embedding_length_per_layer_input": 256,
            },
        ),
        "gpt-oss-20b": model(
            "gpt-oss",
            layers=24,
            hidden=2880,
            heads=64,
            kv=8,
            width=2880,
            vocabulary=201088,
            more={**heads(64), **window(128), **moe(32, 4, 2880)},
        ),
        "Cohere-2-7B": model(
            "cohere2",
            layers=32,
            hidden=4096,
            heads=32,
            kv=8,
            width=14336,
            vocabulary=256000,
            more={**window(4096), "logit_scale": 1.0, "rope.dimension_count": 128},
        ),
        "EXAONE-4-32B": model(
            "exaone4", layers=64, hidden=5120, heads=40, kv=8, width=27392, vocabulary=102400, more=window(4096)
        ),
        "EXAONE-4-1.2B": model("exaone4", layers=30, hidden=2048, heads=32, kv=8, width=4096, vocabulary=102400),
        "OLMo-3-7B": model(
            "olmo2", layers=32, hidden=4096, heads=32, kv=32, width=11008, vocabulary=100278, more=window(4096)
        ),
        "Llama-4-Scout": model(
            "llama4",
            layers=48,
            hidden=5120,
            heads=40,
            kv=8,
            width=16384,
            vocabulary=202048,
            more={**heads(128), **moe(16, 1, 8192, shared=1), "interleave_moe_layer_step": 1},
        ),
        "MiMo-V2-Flash": model(
            "mimo2",
            layers=48,
            hidden=4096,
            heads=64,
            kv=[8 if each else 4 for each in slides(48, 6)],
            width=16384,
            vocabulary=152576,
            more={
                **heads(192, 128),
                **window(128, slides(48, 6)),
                **moe(256, 8, 2048, dense=1),
                "rope.dimension_count": 64,
            },
        ),
        "Step-3.5-Flash": model(
            "step35",
            layers=45,
            hidden=4096,
            heads=[96 if each else 64 for each in slides(45, 4)],
            kv=8,
            width=11264,
            vocabulary=128896,
            more={
                **heads(128),
                **window(512, slides(45, 4)),
                **moe(288, 8, 1280, shared=1, dense=3),
                "rope.dimension_count": 64,
            },
        ),
        "AFMoE": model(
            "afmoe",
            layers=32,
            hidden=2048,
            heads=32,
            kv=4,
            width=6144,
            vocabulary=200192,
            more={**heads(128), **window(2048), **moe(128, 8, 1024, shared=1, dense=2)},
        ),
        "SmallThinker-21B": model(
            "smallthinker",
            layers=52,
            hidden=2560,
            heads=28,
            kv=4,
            width=768,
            vocabulary=151936,
            more={**heads(128), **window(4096), **moe(64, 6, 768)},
        ),
        "PLaMo-3": model(
            "plamo3",
            layers=40,
            hidden=2560,
            heads=32,
            kv=4,
            width=8192,
            vocabulary=99584,
            more={**heads(128), **window(2048)},
        ),
    }
