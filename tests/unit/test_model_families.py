"""What the layers of each family are, read from the fields that its published files have.

A configuration here has what its family writes, cut down to a few layers; a text says what the engine makes of it:
``3 sliding 8x128 w1024`` are three layers with 8 KV heads of 128 elements over a window of 1024 tokens.
"""

from itertools import groupby
from typing import Any

import pytest

from vrampack.errors import UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import FeedForward, LatentAttention, Mixer, PagedAttention, RecurrentState
from vrampack.models.config import architecture_of

BASE: dict[str, Any] = {
    "num_hidden_layers": 4,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "vocab_size": 32000,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
LATENT = {"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
DELTA = {
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}
MAMBA2 = {
    "mamba_n_heads": 128,
    "mamba_d_head": 64,
    "mamba_d_state": 256,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
}


def config(model_type: str, *without: str, **fields: Any) -> dict[str, Any]:
    """A file of this family, with the base fields that it has."""
    return {"model_type": model_type} | {name: value for name, value in BASE.items() if name not in without} | fields


def mixer(each: Mixer) -> str:
    match each:
        case PagedAttention():
            size = f"{each.kv_heads}x{each.key_dim}" + (f"+{each.value_dim}" * (each.value_dim != each.key_dim))
            window = f" w{each.window}" if each.window else ""
            index = f" index {each.index_dim}" if each.index_dim else ""
            return f"{each.span.value} {size}{window}{index}{' shared' * each.shares_cache}"
        case LatentAttention():
            index = f" index {each.index_heads}x{each.index_dim}" if each.index_heads else ""
            ratio = f" ratio {each.compress_ratio} w{each.window}" if each.window else ""
            return f"latent {each.rank}+{each.rope_dim}{index}{ratio}"
        case _:
            sizes = f"{each.key_heads}x{each.key_dim} {each.value_heads}x{each.value_dim}"
            return f"{each.kind.value} {sizes} k{each.conv_kernel}"


def feed_forward(part: FeedForward | None) -> str:
    if part is None:
        return "none"
    words = [f"{'' if part.gated else 'ungated '}{part.width}"] if part.width else []
    if part.experts:
        words.append(f"{part.experts_per_token} of {part.experts}x{part.expert_width}")
    if part.shared_width:
        words.append(f"shared {part.shared_width}")
    if part.latent:
        words.append(f"in {part.latent}")
    return " + ".join(words)


def mixers(architecture: Architecture) -> str:
    """Layers in a row that mix alike."""
    words = [
        " & ".join(map(mixer, run.mixers)) or "nothing" for run in architecture.layer_runs for _ in range(run.count)
    ]
    return ", ".join(f"{sum(1 for _ in same)} {word}" for word, same in groupby(words))


def parts(architecture: Architecture) -> str:
    """Layers in a row with the same feed-forward part."""
    words = [feed_forward(run.feed_forward) for run in architecture.layer_runs for _ in range(run.count)]
    return ", ".join(f"{sum(1 for _ in same)}: {word}" for word, same in groupby(words))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # ---- heads ------------------------------------------------------------------------------------------------
        (config("llama"), "4 full 8x128"),
        (config("llama", "num_key_value_heads", "head_dim"), "4 full 16x64"),
        (config("falcon", "num_key_value_heads", multi_query=True), "4 full 1x128"),
        (config("RefinedWebModel", "num_key_value_heads", n_head_kv=4, new_decoder_architecture=True), "4 full 4x128"),
        (config("chatglm", "num_key_value_heads", "head_dim", multi_query_group_num=2, kv_channels=64), "4 full 2x64"),
        (config("mpt", "num_key_value_heads", attn_config={"kv_n_heads": 4}), "4 full 4x128"),
        (config("dbrx", "num_key_value_heads", "head_dim", attn_config={"kv_n_heads": 8}), "4 full 8x64"),
        (config("gemma", "head_dim"), "4 full 8x256"),
        (config("minicpm3", "head_dim", **LATENT | {"qk_nope_head_dim": 64}), "4 full 8x128"),
        # ---- sliding windows --------------------------------------------------------------------------------------
        (config("mistral"), "4 sliding 8x128 w4096"),
        (config("mistral", sliding_window=None), "4 full 8x128"),
        (config("starcoder2", sliding_window=4096), "4 sliding 8x128 w4096"),
        (config("phi3", sliding_window=262144), "4 sliding 8x128 w262144"),
        (config("mimo", sliding_window=32768, use_sliding_window=False), "4 sliding 8x128 w32768"),
        (config("qwen2", sliding_window=131072, use_sliding_window=False), "4 full 8x128"),
        (config("qwen3", sliding_window=4096, use_sliding_window=True), "4 sliding 8x128 w4096"),
        (config("llama", sliding_window=0), "4 full 8x128"),
        (
            config("gemma2", sliding_window=4096),
            "1 sliding 8x128 w4096, 1 full 8x128, 1 sliding 8x128 w4096, 1 full 8x128",
        ),
        (
            config("gemma3_text", num_hidden_layers=8, sliding_window=512),
            "5 sliding 8x128 w512, 1 full 8x128, 2 sliding 8x128 w512",
        ),
        (
            config("gemma3_text", sliding_window=512, sliding_window_pattern=2),
            "1 sliding 8x128 w512, 1 full 8x128, 1 sliding 8x128 w512, 1 full 8x128",
        ),
        (config("cohere2", sliding_window=4096), "3 sliding 8x128 w4097, 1 full 8x128"),
        (config("exaone4", sliding_window=4096, sliding_window_pattern="LLLG"), "3 sliding 8x128 w4096, 1 full 8x128"),
        (config("exaone4", sliding_window=None), "4 full 8x128"),
        (config("olmo3", sliding_window=4096), "3 sliding 8x128 w4096, 1 full 8x128"),
        (
            config("gpt_oss", sliding_window=128, layer_types=["sliding_attention", "full_attention"] * 2),
            "1 sliding 8x128 w128, 1 full 8x128, 1 sliding 8x128 w128, 1 full 8x128",
        ),
        (
            config(
                "mimo_v2_flash",
                sliding_window=128,
                attention_chunk_size=128,
                head_dim=192,
                v_head_dim=128,
                swa_num_key_value_heads=16,
                hybrid_layer_pattern=[0, 1, 1, 1],
            ),
            "1 full 8x192+128, 3 sliding 16x192+128 w128",
        ),
        (
            config("step3p5", sliding_window=512, layer_types=["full_attention", *["sliding_attention"] * 3]),
            "1 full 8x128, 3 sliding 8x128 w512",
        ),
        (
            config(
                "gemma4_text",
                sliding_window=512,
                global_head_dim=512,
                num_global_key_value_heads=2,
                layer_types=["sliding_attention", "full_attention"] * 2,
                num_kv_shared_layers=2,
            ),
            "1 sliding 8x128 w512, 1 full 2x512, 1 sliding 8x128 w512 shared, 1 full 2x512 shared",
        ),
        (
            config("gemma4_text", sliding_window=512, num_hidden_layers=4),
            "3 sliding 8x128 w512, 1 full 8x128",
        ),
        (
            config(
                "gemma4_text",
                sliding_window=512,
                layer_types=["sliding_attention"] * 3 + ["full_attention"],
                per_layer_config={"03": {"head_dim": 512, "num_key_value_heads": 2}},
            ),
            "3 sliding 8x128 w512, 1 full 2x512",
        ),
        # ---- chunks -----------------------------------------------------------------------------------------------
        (config("llama4_text", attention_chunk_size=8192), "3 chunked 8x128 w8192, 1 full 8x128"),
        (
            config("llama4_text", attention_chunk_size=8192, no_rope_layers=[1, 0, 1, 0]),
            "1 chunked 8x128 w8192, 1 full 8x128, 1 chunked 8x128 w8192, 1 full 8x128",
        ),
        (config("llama4_text", attention_chunk_size=None), "4 full 8x128"),
        # ---- latents ----------------------------------------------------------------------------------------------
        (config("deepseek_v3", **LATENT), "4 latent 512+64"),
        (config("deepseek_v2", **LATENT | {"kv_lora_rank": None, "v_head_dim": 0}), "4 full 8x128"),
        (
            config("deepseek_v32", **LATENT, index_n_heads=64, index_head_dim=128, index_topk=2048),
            "4 latent 512+64 index 64x128",
        ),
        (
            config(
                "glm_moe_dsa",
                **LATENT,
                index_n_heads=32,
                index_head_dim=128,
                indexer_types=["full", "shared", "shared", "full"],
            ),
            "1 latent 512+64 index 32x128, 2 latent 512+64 index 32x0, 1 latent 512+64 index 32x128",
        ),
        (
            config(
                "deepseek_v4",
                head_dim=512,
                qk_rope_head_dim=64,
                sliding_window=128,
                index_n_heads=64,
                index_head_dim=128,
                compress_ratios=[0, 4, 128, 128, 0],
            ),
            "1 latent 448+64 ratio 0 w128, 1 latent 448+64 index 64x128 ratio 4 w128, 2 latent 448+64 ratio 128 w128",
        ),
        (config("longcat_flash", "num_hidden_layers", num_layers=2, **LATENT), "2 latent 512+64 & latent 512+64"),
        # ---- states -----------------------------------------------------------------------------------------------
        (
            config("qwen3_next", **DELTA, full_attention_interval=4),
            "3 gated_delta 16x128 32x128 k4, 1 full 8x128",
        ),
        (
            config("olmo_hybrid", **DELTA, layer_types=["linear_attention"] * 3 + ["full_attention"]),
            "3 gated_delta 16x128 32x128 k4, 1 full 8x128",
        ),
        (
            config(
                "jamba",
                attn_layer_period=4,
                attn_layer_offset=2,
                mamba_d_state=16,
                mamba_d_conv=4,
                mamba_expand=2,
            ),
            "2 mamba1 0x16 1x2048 k4, 1 full 8x128, 1 mamba1 0x16 1x2048 k4",
        ),
        (
            config("mamba", "num_attention_heads", "num_key_value_heads", state_size=16, conv_kernel=4, expand=2),
            "4 mamba1 0x16 1x4096 k4",
        ),
        (
            config(
                "mamba2", "num_attention_heads", num_heads=128, head_dim=64, state_size=128, conv_kernel=4, n_groups=8
            ),
            "4 mamba2 8x128 128x64 k4",
        ),
        (
            config(
                "nemotron_h",
                hybrid_override_pattern="M-*E",
                mamba_num_heads=128,
                mamba_head_dim=64,
                ssm_state_size=128,
                n_groups=8,
                conv_kernel=4,
                n_routed_experts=8,
                num_experts_per_tok=2,
                moe_intermediate_size=512,
            ),
            "1 mamba2 8x128 128x64 k4, 1 nothing, 1 full 8x128, 1 nothing",
        ),
        (
            config("granitemoehybrid", **MAMBA2, layer_types=["mamba", "mamba", "attention", "mamba"]),
            "2 mamba2 1x256 128x64 k4, 1 full 8x128, 1 mamba2 1x256 128x64 k4",
        ),
        (
            config("bamba", **MAMBA2, attn_layer_indices=[1]),
            "1 mamba2 1x256 128x64 k4, 1 full 8x128, 2 mamba2 1x256 128x64 k4",
        ),
        (config("bamba", **MAMBA2, attn_layer_indices=None), "4 mamba2 1x256 128x64 k4"),
        (config("falcon_h1", **MAMBA2), "4 mamba2 1x256 128x64 k4 & full 8x128"),
        (
            config("falcon_h1", **MAMBA2 | {"mamba_d_head": "auto", "mamba_d_ssm": 3072, "mamba_n_heads": 24}),
            "4 mamba2 1x256 24x128 k4 & full 8x128",
        ),
        (
            config(
                "zamba2",
                "head_dim",
                attention_head_dim=224,
                n_mamba_heads=8,
                mamba_headdim=640,
                mamba_d_state=64,
                mamba_ngroups=1,
                mamba_d_conv=4,
                hybrid_layer_ids=[2],
            ),
            "2 mamba2 1x64 8x640 k4, 1 mamba2 1x64 8x640 k4 & full 8x224, 1 mamba2 1x64 8x640 k4",
        ),
        (
            # as first published: no number of heads, which are as many as fit
            config("zamba2", "head_dim", attention_head_dim=224, mamba_headdim=64, state_size=64, mamba_ngroups=2)
            | {"conv_dimension": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "mamba"]},
            "1 mamba2 2x64 32x64 k4, 1 mamba2 2x64 32x64 k4 & full 8x224, 2 mamba2 2x64 32x64 k4",
        ),
        (
            config(
                "kimi_linear",
                **LATENT,
                linear_attn_config={
                    "kda_layers": [1, 2, 3],
                    "full_attn_layers": [4],
                    "num_heads": 32,
                    "head_dim": 128,
                    "short_conv_kernel_size": 4,
                },
            ),
            "3 kimi_delta 32x128 32x128 k4, 1 latent 512+64",
        ),
        (
            config("minimax_text_01", attn_type_list=[0, 0, 0, 1]),
            "3 lightning 16x128 16x128 k0, 1 full 8x128",
        ),
        (
            config("minimax_m1", attn_type_list=[0, 0, 0, 1]),
            "3 lightning 16x128 16x128 k0, 1 full 8x128",
        ),
        (config("deci", "num_key_value_heads", num_key_value_heads_per_layer=[4, 2, 1, 4]), "4 full 4x128"),
        (
            config("minimax_text_01", decoder_attention_types=[0, 1, 0, 1]),
            "1 lightning 16x128 16x128 k0, 1 full 8x128, 1 lightning 16x128 16x128 k0, 1 full 8x128",
        ),
        (
            config("lfm2", "head_dim", conv_L_cache=3, full_attn_idxs=[2]),
            "2 short_conv 0x0 1x1024 k3, 1 full 8x64, 1 short_conv 0x0 1x1024 k3",
        ),
        # ---- others -----------------------------------------------------------------------------------------------
        (
            config(
                "minimax_m3",
                sparse_attention_config={"sparse_attention_freq": [0, 1, 1, 1], "sparse_index_dim": 128},
            ),
            "1 full 8x128, 3 full 8x128 index 128",
        ),
        (
            config(
                "nemotron-nas",
                "num_key_value_heads",
                num_key_value_heads=None,
                block_configs=[
                    {"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 2.625}},
                    {"attention": {"n_heads_in_group": 2}, "ffn": {"no_op": True}},
                    {"attention": {"no_op": True}, "ffn": {"intermediate_size": 512}},
                    {"attention": {"no_op": True}, "ffn": {"intermediate_size": 512}},
                ],
            ),
            "1 full 2x128, 1 full 8x128, 2 nothing",
        ),
        (
            config(
                "whisper",
                "num_hidden_layers",
                "hidden_size",
                "num_attention_heads",
                "num_key_value_heads",
                "head_dim",
                d_model=1280,
                decoder_layers=2,
                decoder_attention_heads=20,
                max_source_positions=1500,
            ),
            "2 full 20x64 & cross 20x64",
        ),
        (  # the file of the turbo: num_hidden_layers is the encoder's
            config(
                "whisper",
                "hidden_size",
                "num_attention_heads",
                "num_key_value_heads",
                "head_dim",
                d_model=1280,
                encoder_layers=32,
                num_hidden_layers=32,
                decoder_layers=4,
                decoder_attention_heads=20,
                max_source_positions=1500,
            ),
            "4 full 20x64 & cross 20x64",
        ),
        (config("bert", "num_key_value_heads", "head_dim"), "4 full 16x64"),
    ],
)
def test_how_layers_keep_the_past(given: dict[str, Any], expected: str) -> None:
    assert mixers(architecture_of(given)) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (config("llama"), "4: 4096"),
        (config("falcon", "intermediate_size"), "4: ungated 4096"),
        (config("arcee"), "4: ungated 4096"),
        (config("mixtral", num_local_experts=8, num_experts_per_tok=2), "4: 2 of 8x4096"),
        (
            config("qwen2_moe", num_experts=60, num_experts_per_tok=4, moe_intermediate_size=1408)
            | {"shared_expert_intermediate_size": 5632},
            "4: 4 of 60x1408 + shared 5632",
        ),
        (
            config("qwen3_moe", num_experts=8, num_experts_per_tok=2, moe_intermediate_size=256)
            | {"decoder_sparse_step": 2, "mlp_only_layers": [3]},
            "1: 4096, 1: 2 of 8x256, 2: 4096",
        ),
        (
            config("deepseek_v3", **LATENT, n_routed_experts=256, num_experts_per_tok=8, moe_intermediate_size=2048)
            | {"n_shared_experts": 1, "first_k_dense_replace": 3},
            "3: 4096, 1: 8 of 256x2048 + shared 2048",
        ),
        (
            config("glm4_moe", n_routed_experts=128, num_experts_per_tok=8, moe_intermediate_size=512)
            | {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
            "1: 4096, 3: 8 of 128x512",
        ),
        (
            config("llama4_text", attention_chunk_size=None, num_local_experts=16, num_experts_per_tok=1)
            | {"intermediate_size_mlp": 8192, "interleave_moe_layer_step": 2},
            "1: 8192, 1: 1 of 16x4096 + shared 4096, 1: 8192, 1: 1 of 16x4096 + shared 4096",
        ),
        (
            config("gemma4_text", sliding_window=None, enable_moe_block=True, num_experts=128, top_k_experts=8)
            | {"moe_intermediate_size": 704},
            "4: 4096 + 8 of 128x704",
        ),
        (
            config("ernie4_5_moe", moe_num_experts=64, moe_k=6, moe_intermediate_size=1536, moe_num_shared_experts=2)
            | {"moe_layer_start_index": 1, "moe_layer_end_index": 2, "moe_layer_interval": 1},
            "1: 4096, 2: 6 of 64x1536 + shared 3072, 1: 4096",
        ),
        (
            config("dbrx", ffn_config={"moe_num_experts": 16, "moe_top_k": 4, "ffn_hidden_size": 10752}),
            "4: 4 of 16x10752",
        ),
        (
            config("step3p5", sliding_window=None, moe_num_experts=288, moe_top_k=8, moe_intermediate_size=1280)
            | {"share_expert_dim": 1280, "moe_layers_enum": "1,2,3"},
            "1: 4096, 3: 8 of 288x1280 + shared 1280",
        ),
        (
            config(
                "jamba", attn_layer_period=2, mamba_d_state=16, mamba_d_conv=4, num_experts=16, num_experts_per_tok=2
            )
            | {"expert_layer_period": 2, "expert_layer_offset": 1},
            "1: 4096, 1: 2 of 16x4096, 1: 4096, 1: 2 of 16x4096",
        ),
        (
            config("granitemoehybrid", **MAMBA2, layer_types=["mamba"] * 4, num_local_experts=0)
            | {"shared_intermediate_size": 8192},
            "4: 8192",
        ),
        (
            config("longcat_flash", "num_hidden_layers", "intermediate_size", num_layers=2, **LATENT)
            | {"ffn_hidden_size": 12288, "expert_ffn_hidden_size": 2048, "n_routed_experts": 512, "moe_topk": 12},
            "2: 24576 + 12 of 512x2048",
        ),
        (
            config("gemma3n_text", intermediate_size=[8192, 8192, 4096, 4096], sliding_window=None),
            "2: 8192, 2: 4096",
        ),
        (
            config("lfm2", conv_L_cache=3, full_attn_idxs=[0], intermediate_size=12288, block_auto_adjust_ff_dim=True),
            "4: 8192",
        ),
        (config("lfm2", conv_L_cache=3, full_attn_idxs=[0], block_ff_dim=6656), "4: 6656"),
        (
            config(
                "nemotron_h",
                hybrid_override_pattern="M-*E",
                mamba_num_heads=128,
                mamba_head_dim=64,
                ssm_state_size=128,
                conv_kernel=4,
            )
            | {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512, "moe_latent_size": 256}
            | {"moe_shared_expert_intermediate_size": 1024},
            "1: none, 1: ungated 4096, 1: none, 1: 2 of 8x512 + shared 1024 + in 256",
        ),
        (config("mamba", state_size=16, conv_kernel=4), "4: none"),
    ],
)
def test_feed_forward_parts(given: dict[str, Any], expected: str) -> None:
    assert parts(architecture_of(given)) == expected


@pytest.mark.parametrize("name", ["text_config", "llm_config", "language_config"])
def test_the_text_part_of_a_model_with_images_is_the_difference_to_its_class(name: str) -> None:
    wrapped = {"model_type": "llava", "vision_config": {"hidden_size": 1024}, name: {"model_type": "llama"}}
    architecture = architecture_of(wrapped)
    assert mixers(architecture) == "32 full 32x128"
    assert (architecture.vocab_size, architecture.intermediate_size, architecture.multimodal) == (32000, 11008, True)


def test_the_thinker_has_a_text_part_of_its_own() -> None:
    omni = {"model_type": "qwen2_5_omni", "thinker_config": {"text_config": {"model_type": "qwen2_5_omni_text"}}}
    assert mixers(architecture_of(omni)) == "28 full 4x128"


def test_a_tower_that_is_not_described_is_no_obstacle() -> None:
    part = {"model_type": "gemma3n_text", "num_hidden_layers": 5, "num_kv_shared_layers": 0, "intermediate_size": 8192}
    tower = {"model_type": "gemma3n_vision", "architecture": "mobilenetv5_300m_enc", "hidden_size": 2048}
    given = {"model_type": "gemma3n", "vision_soft_tokens_per_image": 256, "vision_config": tower, "text_config": part}
    assert mixers(architecture_of(given)) == "4 sliding 2x256 w512, 1 full 2x256"


def test_a_window_may_be_switched_off_outside_of_the_text_part() -> None:
    wrapped = {"model_type": "mistral3", "text_config": {"model_type": "mistral"}}
    assert mixers(architecture_of(wrapped)) == "32 sliding 8x128 w4096"
    assert mixers(architecture_of(wrapped | {"sliding_window": None})) == "32 full 8x128"


@pytest.mark.parametrize(
    ("class_name", "pooling"),
    [("LlamaForCausalLM", False), ("LlamaForSequenceClassification", True), ("MistralModel", True)],
)
def test_the_class_says_what_the_model_answers_with(class_name: str, pooling: bool) -> None:
    assert architecture_of(config("llama", architectures=[class_name])).pooling is pooling


@pytest.mark.parametrize(
    ("given", "causal"),
    [
        (config("llama"), True),
        (config("modernbert", sliding_window=None), False),
        (config("qwen2", is_causal=False), False),
        (config("llama", architectures=["LlamaBidirectionalModel"]), False),
        (config("gemma3_text", sliding_window=None, use_bidirectional_attention=True), True),
        (
            config("gemma3_text", sliding_window=None, use_bidirectional_attention=True)
            | {"architectures": ["Gemma3TextModel"]},
            False,
        ),
    ],
)
def test_an_encoder_keeps_nothing_of_the_past(given: dict[str, Any], causal: bool) -> None:
    assert architecture_of(given).causal is causal


def test_the_state_of_nemotron_is_float32_where_no_field_says_it() -> None:
    given = config("nemotron_h", hybrid_override_pattern="MMMM", mamba_num_heads=8, mamba_head_dim=64)
    (state,) = architecture_of(given | {"ssm_state_size": 128, "conv_kernel": 4}).layer_runs[0].mixers
    assert isinstance(state, RecurrentState)
    assert state.state_dtype == "float32"


def test_a_nested_part_without_a_name_is_that_of_the_model_around_it() -> None:
    part = BASE | {"sliding_window": 1024, "num_hidden_layers": 6}
    architecture = architecture_of({"model_type": "gemma3", "text_config": part, "vision_config": None})
    assert mixers(architecture) == "5 sliding 8x128 w1024, 1 full 8x128"
    assert not architecture.assumptions


def test_layers_that_predict_ahead_are_counted_and_not_among_the_layers() -> None:
    architecture = architecture_of(config("mimo", num_nextn_predict_layers=1))
    assert (architecture.predict_layers, architecture.layers) == (1, 4)


def test_a_class_counts_before_an_older_model_type() -> None:
    given = config("mamba", architectures=["Mamba2ForCausalLM"], num_heads=128, head_dim=64, state_size=128)
    assert mixers(architecture_of(given | {"conv_kernel": 4})) == "4 mamba2 1x128 128x64 k4"


def test_a_model_type_that_is_not_known_is_read_as_its_class_and_marked() -> None:
    given = config("house_brand", architectures=["Gemma2ForCausalLM"], sliding_window=512)
    architecture = architecture_of(given)
    assert mixers(architecture).startswith("1 sliding 8x128 w512, 1 full 8x128")
    assert architecture.assumptions


def test_what_is_not_known_by_name_is_read_and_marked() -> None:
    architecture = architecture_of(config("nova"))
    assert mixers(architecture) == "4 full 8x128"
    assert architecture.assumptions == (
        "model_type nova is not known by name: its fields are read as other decoders mean them",
    )


def test_experts_per_token_that_are_not_said_are_taken_and_marked() -> None:
    architecture = architecture_of(config("deepseek", n_routed_experts=64, moe_intermediate_size=1408))
    assert parts(architecture) == "4: 8 of 64x1408"
    assert "how many experts a token uses" in architecture.assumptions[0]


@pytest.mark.parametrize(
    ("given", "unknown"),
    [
        (config("nova", retention_chunk=64), "retention_chunk"),
        (config("nova", "num_attention_heads"), "num_attention_heads"),
        (config("nova", layer_types=["retention"] * 4), "layer_types retention"),
        (config("llama", layer_types=["linear_attention"] * 4), "layer_types"),
        (config("gemma2", layer_types=["sliding_attention"] * 4), "sliding_window"),
        (config("gemma3_text"), "layer_types"),
        (config("qwen3_next", **DELTA), "layer_types"),
        (config("qwen3_next", **DELTA, sliding_window=None), "layer_types"),
        (config("granitemoehybrid", **MAMBA2), "layer_types"),
        (config("lfm2", conv_L_cache=3), "layer_types"),
        (config("llama4_text"), "layer_types"),
        (config("step3p5", sliding_window=512), "layer_types"),
        (config("nemotron-nas"), "layer_types"),
        (config("nemotron_h", hybrid_override_pattern="M?*E"), "hybrid_override_pattern ?"),
        (config("deepseek_v4", sliding_window=128), "compress_ratios"),
        (config("deepseek_v5", compress_ratios=[4] * 4), "compress_ratios"),
        (config("nova", param_sink_number=128), "param_sink_number"),
        (config("rwkv6", attention_hidden_size=1024), "model_type rwkv6"),
        (config("kimi_linear", **LATENT, linear_attn_config={"num_heads": 32}), "linear_attn_config.kda_layers"),
        (config("nemotron-nas", block_configs=[{"block_type": "moe"}] * 4), "block_configs"),
        ({"architectures": ["Qwen3_5ForConditionalGeneration"]} | BASE, "layer_types"),
        ({"architectures": ["DeepseekV32ForCausalLM"]} | BASE, "layer_types"),
        ({"architectures": ["LlamaForCausalLM"]} | BASE, "model_type"),
    ],
)
def test_missing_and_unknown_kinds_are_refused_with_their_field(given: dict[str, Any], unknown: str) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        architecture_of(given)
    assert refusal.value.unknown == unknown


YARN = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 2048}
LINEAR = {"rope_type": "linear", "factor": 8}
FP8 = {"dynamic": False, "num_bits": 8, "type": "float"}
SIDE = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}


@pytest.mark.parametrize(
    ("settings", "side", "kv_cache"),
    [
        (None, None, ""),
        (None, SIDE, "fp8"),
        (None, SIDE | {"producer": None}, ""),
        ({"quant_method": "fp8"}, SIDE, ""),
        ({"quant_method": "modelopt", "kv_cache_scheme": FP8}, None, "fp8"),
        ({"quant_method": "modelopt"}, SIDE, ""),
        ({"quant_method": "modelopt", "kv_cache_scheme": FP8 | {"dynamic": True}}, None, ""),
        ({"quant_algo": "FP8", "kv_cache_scheme": "FP8", "producer": {"name": "modelopt"}}, None, ""),
        ({"quant_method": "modelopt", "kv_cache_quant_algo": "NVFP4"}, None, "nvfp4"),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": FP8}, None, "fp8"),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": None}, None, ""),
    ],
)
def test_the_type_of_the_kv_cache_that_the_checkpoint_asks_for(
    settings: dict[str, Any] | None, side: dict[str, Any] | None, kv_cache: str
) -> None:
    given = config("llama", quantization_config=settings)
    assert architecture_of(given, quant_config=side).kv_cache_dtype == kv_cache


@pytest.mark.parametrize(
    ("given", "context", "rows", "width"),
    [
        (config("llama"), 8192, 8192, 128),
        (config("llama", rope_scaling=LINEAR), 65536, 65536, 128),
        (
            config("llama", rope_scaling={"type": "yarn", "factor": 4, "original_max_position_embeddings": 2048}),
            8192,
            8192,
            128,
        ),
        (config("chatglm"), 8192, 8192, 64),
        (config("deepseek_v3", **LATENT), 8192, 8192, 64),
        (config("command_r", model_max_length=131072), 131072, 131072, 128),
        (config("gpt2"), 8192, 0, 0),
        # half of the head in full layers: 8192 rows of 128 and of 64
        (config("step3p5", sliding_window=None, partial_rotary_factors=[0.5, 1.0, 1.0, 1.0]), 8192, 8192, 192),
        (config("nemotron_h", hybrid_override_pattern="****"), 8192, 0, 0),
        # a table for sliding layers beside the scaled one: 65536 rows of 128 and 8192 of 128
        (
            config("gemma3_text", sliding_window=512, rope_scaling={"rope_type": "linear", "factor": 8}),
            8192,
            65536,
            144,
        ),
    ],
)
def test_context_and_tables_of_the_rotary_embedding(given: dict[str, Any], context: int, rows: int, width: int) -> None:
    architecture = architecture_of(given)
    assert (architecture.max_context, architecture.rotary_positions, architecture.rotary_dim) == (context, rows, width)
