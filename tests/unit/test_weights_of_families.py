"""Parameters that configurations imply, family by family, against those of the published checkpoints.

The configurations are the facts of the published ones that shapes depend on, written out here.
"""

from typing import Any

import pytest

from tests.unit.published_models import PUBLISHED, ROUNDED
from vrampack.errors import UnsupportedModelError
from vrampack.memory.architecture import WeightsMethod
from vrampack.models.config import architecture_of
from vrampack.models.tensorfacts import weights_of_config
from vrampack.units import GIB

SMALL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 256,
    "max_position_embeddings": 128,
}


def parameters(config: dict[str, Any]) -> int:
    architecture = architecture_of(config, stored_dtype="bfloat16")
    return weights_of_config(config, architecture=architecture).parameters


ZAMBA2 = {
    "Zyphra/Zamba2-1.2B": (2048, 38, 1, 1, 128, True, [5, 11, 17, 23, 29, 35], 1_215_064_704),
    "Zyphra/Zamba2-2.7B": (2560, 54, 2, 1, 64, False, [6, 12, 18, 24, 30, 36, 42, 47, 51], 2_662_214_560),
    "Zyphra/Zamba2-7B-Instruct": (3584, 81, 2, 2, 64, False, [6, 11, *range(17, 78, 6)], 7_356_749_648),
}
"""Hidden size, layers, shared blocks, groups, state size, adapters of the attention, layers with a block."""


@pytest.mark.parametrize("name", ZAMBA2)
@pytest.mark.parametrize("words", [("adapter_rank", "adapter"), ("lora_rank", "lora")])
def test_blocks_that_layers_share_are_stored_once(name: str, words: tuple[str, str]) -> None:
    hidden, layers, blocks, groups, state, adapted, shared, published = ZAMBA2[name]
    rank, adapter = words
    config = {
        "model_type": "zamba2",
        "architectures": ["Zamba2ForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "hybrid_layer_ids": shared,
        "num_mem_blocks": blocks,
        "intermediate_size": 4 * hidden,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "attention_head_dim": hidden // 16,
        "mamba_d_state": state,
        "mamba_d_conv": 4,
        "mamba_ngroups": groups,
        "mamba_headdim": 64,
        "n_mamba_heads": hidden // 32,
        "max_position_embeddings": 4096,
        "vocab_size": 32000,
        rank: 128,
        f"use_shared_attention_{adapter}": adapted,
    }
    assert parameters(config) == published


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_whole_models(name: str) -> None:
    published, config = PUBLISHED[name]
    assert parameters(config) == pytest.approx(published, rel=2e-5)


@pytest.mark.parametrize("name", ROUNDED)
def test_parameters_as_cards_round_them(name: str) -> None:
    published, config = ROUNDED[name]
    assert parameters(config) == pytest.approx(published, rel=0.0011)


PER_LAYER = {
    "google/gemma-4-E4B-it": (
        14.89,
        {"hidden_size": 2560, "num_hidden_layers": 42, "intermediate_size": 10240},
        2,
        18,
        6,
    ),
    "google/gemma-4-E2B-it": (
        9.54,
        {"hidden_size": 1536, "num_hidden_layers": 35, "intermediate_size": 6144, "use_double_wide_mlp": True},
        1,
        20,
        5,
    ),
}
"""GiB of the published files; KV heads, layers that read another's cache, and every how-many-th layer is full."""


@pytest.mark.parametrize("name", PER_LAYER)
def test_layers_with_inputs_of_their_own(name: str) -> None:
    published, sizes, heads, shared, every = PER_LAYER[name]
    kinds = ["full_attention" if (index + 1) % every == 0 else "sliding_attention" for index in range(42)]
    config = {
        "model_type": "gemma4",
        "architectures": ["Gemma4ForConditionalGeneration"],
        "dtype": "bfloat16",
        "tie_word_embeddings": True,
        "vision_config": {"model_type": "gemma4_vision"},
        "audio_config": {"model_type": "gemma4_audio"},
        "text_config": {
            "model_type": "gemma4_text",
            "num_attention_heads": 8,
            "num_key_value_heads": heads,
            "head_dim": 256,
            "global_head_dim": 512,
            "num_kv_shared_layers": shared,
            "hidden_size_per_layer_input": 256,
            "vocab_size": 262144,
            "vocab_size_per_layer_input": 262144,
            "sliding_window": 512,
            "layer_types": kinds[: sizes["num_hidden_layers"]],
            "max_position_embeddings": 131072,
            **sizes,
        },
    }
    assert 2 * parameters(config) / GIB == pytest.approx(published, abs=0.006)


ARCTIC = {
    "model_type": "arctic",
    "architectures": ["ArcticForCausalLM"],
    "hidden_size": 7168,
    "intermediate_size": 4864,
    "num_hidden_layers": 35,
    "num_attention_heads": 56,
    "num_key_value_heads": 8,
    "num_local_experts": 128,
    "num_experts_per_tok": 2,
    "moe_layer_frequency": 1,
    "use_residual": True,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}


def test_a_dense_part_beside_the_experts_counts() -> None:
    """Arctic: 128 experts of 3.66 B each and a dense transformer of 10 B, as its makers count it."""
    found = parameters(ARCTIC)
    assert found == pytest.approx(478.6e9, rel=0.0005)
    without = parameters(ARCTIC | {"use_residual": False})
    assert found - without == 35 * 3 * 7168**2
    assert found - 35 * 128 * 3 * 7168 * 4864 == pytest.approx(10e9, rel=0.01)


def test_arctic_may_have_experts_in_every_other_layer() -> None:
    architecture = architecture_of(ARCTIC | {"moe_layer_frequency": 2}, stored_dtype="bfloat16")
    parts = [run.feed_forward for run in architecture.layer_runs for _ in range(run.count)]
    assert [part.experts if part else None for part in parts[:4]] == [0, 128, 0, 128]
    assert [part.width if part else None for part in parts[:4]] == [4864, 7168, 4864, 7168]


def test_experts_that_do_nothing_have_rows_of_the_router_alone() -> None:
    """LongCat-Flash-Chat: 562 B with a layer that predicts a further token, which is about 1.2 B of them."""
    config = {
        "model_type": "longcat_flash",
        "architectures": ["LongcatFlashForCausalLM"],
        "hidden_size": 6144,
        "ffn_hidden_size": 12288,
        "expert_ffn_hidden_size": 2048,
        "num_layers": 28,
        "num_attention_heads": 64,
        "n_routed_experts": 512,
        "zero_expert_num": 256,
        "moe_topk": 12,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": 131072,
        "max_position_embeddings": 131072,
    }
    idle = parameters(config) - parameters(config | {"zero_expert_num": 0})
    assert idle == 28 * 256 * 6144
    assert parameters(config) == pytest.approx(560.67e9, rel=0.0001)


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("vision_config", {"vision_config": {"stages": [1, 2]}}),
        ("mm_vision_tower", {"mm_vision_tower": "someone/an-encoder"}),
        ("vision_config", {"model_type": "molmo"}),
        ("audio_config", {"audio_config": {"model_type": "a_new_one"}}),
    ],
)
def test_a_tower_without_sizes_is_refused_by_its_field(field: str, config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        parameters(SMALL | config)
    assert refusal.value.unknown == field


def test_a_tower_of_a_kind_that_is_not_known_is_counted_by_its_width_and_marked() -> None:
    tower = {"model_type": "a_new_one", "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4}
    config = SMALL | {"model_type": "a_new_model", "text_config": SMALL, "vision_config": tower}
    found = weights_of_config(config, architecture=architecture_of(config, stored_dtype="bfloat16"))
    assert found.method is WeightsMethod.PARAMETERS
    assert found.tower / 2 == pytest.approx(4 * 12 * 512**2, rel=0.1)
    plain = weights_of_config(SMALL, architecture=architecture_of(SMALL, stored_dtype="bfloat16"))
    assert plain.method is WeightsMethod.SHAPES


@pytest.mark.parametrize(
    ("config", "method"),
    [
        (SMALL | {"model_type": "a_new_one"}, WeightsMethod.PARAMETERS),
        ({"model_type": "llava", "text_config": SMALL}, WeightsMethod.PARAMETERS),
        ({"model_type": "gemma4_unified", "text_config": SMALL, "vision_config": None}, WeightsMethod.SHAPES),
        (
            {"model_type": "a_draft", "architectures": ["ADraftForCausalLM"], "text_config": SMALL},
            WeightsMethod.SHAPES,
        ),
    ],
    ids=["family", "encoders left out", "encoders said to be none", "text alone"],
)
def test_weights_that_are_likely_and_not_known_are_marked(config: dict[str, Any], method: WeightsMethod) -> None:
    architecture = architecture_of(config, stored_dtype="bfloat16")
    assert weights_of_config(config, architecture=architecture).method is method
    assert bool(architecture.assumptions) is (method is WeightsMethod.PARAMETERS)


@pytest.mark.parametrize("family", ["jetmoe", "hrm_text"])
def test_a_family_whose_tensors_are_others_than_its_layers_say_needs_weight_files(family: str) -> None:
    config = SMALL | {"model_type": family}
    architecture = architecture_of(config, stored_dtype="bfloat16")
    assert architecture.layer_runs[0].mixers
    with pytest.raises(UnsupportedModelError, match="headers of the weight files") as refusal:
        weights_of_config(config, architecture=architecture)
    assert refusal.value.unknown == f"model_type {family}"


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"thinker_config": {"dtype": "float16", "text_config": SMALL}}, "float16"),
        ({"thinker_config": {"torch_dtype": "bfloat16", "text_config": SMALL}}, "bfloat16"),
        ({"thinker_config": {"dtype": "float16", "text_config": SMALL | {"dtype": "bfloat16"}}}, "bfloat16"),
        ({"dtype": "float32", "thinker_config": {"dtype": "float16", "text_config": SMALL}}, "float32"),
        ({"llm_config": SMALL | {"torch_dtype": "float16"}}, "float16"),
        ({"language_config": SMALL | {"torch_dtype": "torch.float16"}}, "float16"),
        (
            {"text_config": SMALL, "vision_config": {"torch_dtype": "bfloat16", "depth": 1, "hidden_size": 8}},
            "bfloat16",
        ),
    ],
)
def test_the_computation_type_may_stand_in_any_part(config: dict[str, Any], dtype: str) -> None:
    assert architecture_of({"model_type": "nested"} | config).dtype == dtype


def test_tied_tables_may_be_said_in_any_part() -> None:
    inner = {"text_config": SMALL}
    for config in (
        {"tie_word_embeddings": True} | inner,
        {"thinker_config": {"tie_word_embeddings": True} | inner},
        {"text_config": SMALL | {"tie_word_embeddings": True}},
    ):
        assert architecture_of({"model_type": "nested"} | config, stored_dtype="bfloat16").tied_embeddings
    outer = {"tie_word_embeddings": False, "text_config": SMALL | {"tie_word_embeddings": True}}
    assert not architecture_of({"model_type": "nested"} | outer, stored_dtype="bfloat16").tied_embeddings
