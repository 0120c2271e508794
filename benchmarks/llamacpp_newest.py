"""Architectures for the llama.cpp oracle that no well-known model stands for yet, in a common shape."""

from typing import Final

from benchmarks.llamacpp_metadata import Value, every, heads, mla, model, moe, ssm

_LATENT: Final = {**mla(512, 64, 128, 128, query=1536), **moe(8, 2, 1408, shared=1, dense=1)}
_INDEX: Final[dict[str, Value]] = {
    "attention.indexer.head_count": 32,
    "attention.indexer.key_length": 128,
    "attention.indexer.top_k": 2048,
}
_DELTA: Final[dict[str, Value]] = {"ssm.conv_kernel": 4, "kda.head_dim": 128, "kda.gate_lower_bound": -5.0}
_STREAMS: Final[dict[str, Value]] = {
    "hyper_connection.count": 4,
    "hyper_connection.epsilon": 1e-6,
    "hyper_connection.magnitude": 2.0,
    "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.low_rank": 8,
}
_RANKS: Final[dict[str, Value]] = {
    "wkv.head_size": 64,
    "token_shift_count": 1,
    "time_mix_extra_dim": 32,
    "time_decay_extra_dim": 64,
    "attention.decay_lora_rank": 96,
    "attention.iclr_lora_rank": 96,
    "attention.value_residual_mix_lora_rank": 64,
    "attention.gate_lora_rank": 256,
}
_ONE_HEAD: Final = every(8, 4, 1)


def newest() -> dict[str, dict[str, Value]]:
    """By architecture."""
    shapes: dict[str, tuple[int | list[int], dict[str, Value]]] = {
        "mistral4": (1, _LATENT),
        "hy_v4": (
            1,
            _LATENT | _INDEX | _STREAMS | {"attention.indexer.types": [1, 0] * 4, "swiglu_clamp_exp": 10.0},
        ),
        "kimi-k3": (
            _ONE_HEAD,
            _LATENT
            | _DELTA
            | {
                "attn_res.block_size": 12,
                "activation.situ_beta": 4.0,
                "activation.situ_linear_beta": 25.0,
                "expert_latent_length": 1024,
            },
        ),
        "bailingmoe3": (
            _ONE_HEAD,
            _LATENT | _DELTA | {"kda.safe_gate": True, "rope.dimension_sections": [8, 12, 12, 0]},
        ),
        "glm5-next": (
            _ONE_HEAD,
            _LATENT | mla(512, 0, 192, 128, query=1536) | _DELTA | _INDEX | _STREAMS | {"attention.indexer.kpool": 4},
        ),
        "qwen4exp": (
            2,
            heads(256)
            | ssm(4, 4096, 128, 32, 16)
            | moe(8, 2, 1408, shared=1)
            | _INDEX
            | _STREAMS
            | {
                "attention.indexer.key_length": 256,
                "attention.compress_ratios": [4] * 8,
                "rope.dimension_sections": [11, 11, 10, 0],
                "rope.dimension_count": 64,
            },
        ),
        "graniteswitch": (
            8,
            {
                "logit_scale": 1.0,
                "residual_scale": 1.0,
                "embedding_scale": 1.0,
                "attention.scale": 1.0,
                "adapters.count": 2,
                "adapters.lora_rank": 16,
                "adapters.token_ids_activate": [1, 2],
                "adapters.token_ids_substitute": [3, 4],
            },
        ),
        "hrm_text": (16, {"hrm.layers_per_stack": 2, "hrm.h_cycles": 2, "hrm.l_cycles": 1, "embedding_scale": 1.0}),
        "arwkv7": (8, _RANKS),
        "olmoe": (16, moe(64, 8, 5632)),
        "dots1": (16, heads(128) | moe(8, 2, 1408, shared=1, dense=1)),
        "deepseek2-ocr": (16, moe(8, 2, 1408, shared=1, dense=1)),
        "t5encoder": (16, heads(128) | {"attention.relative_buckets_count": 32}),
    }
    made = {
        f"({name})": model(name, layers=8, hidden=2048, heads=16, kv=kv, width=5632, vocabulary=32000, more=more)
        for name, (kv, more) in shapes.items()
    }
    made["(nemotron_h_moe)"] = model(
        "nemotron_h_moe",
        layers=8,
        hidden=2048,
        heads=16,
        kv=[0, 8, 0, 0, 8, 0, 0, 0],
        width=[0, 0, 0, 5632, 0, 0, 5632, 0],
        vocabulary=32000,
        more=heads(128) | ssm(4, 4096, 128, 64, 8) | moe(8, 2, 1408, shared=1),
    )
    return made
