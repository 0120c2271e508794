"""Odd but real configuration files: spellings, wrappers and scalings that tools and forks write."""

from typing import Any

import pytest

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.models.config import architecture_of
from vrampack.models.quantization import quantization_of

BASE: dict[str, Any] = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "num_hidden_layers": 4,
    "max_position_embeddings": 32768,
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("scaling", "written", "context"),
    [
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 32768, 131072),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072, 131072),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 40960, 131072),
        ({"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}, 163840, 163840),
        ({"rope_type": "yarn", "factor": 2048.0, "original_max_position_embeddings": 512}, 1048576, 1048576),
        ({"type": "linear", "factor": 2.0}, 8192, 16384),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}, 131072, 131072),
        ({"type": "longrope", "short_factor": [1], "long_factor": [2]}, 131072, 131072),
        (None, 8192, 8192),
    ],
)
def test_what_scaling_makes_of_the_context(scaling: dict[str, Any] | None, written: int, context: int) -> None:
    for name in ("rope_scaling", "rope_parameters"):
        config = {**BASE, "max_position_embeddings": written, name: scaling}
        assert architecture_of(config).max_context == context, name


@pytest.mark.parametrize("method", ["AWQ", "awq", "Compressed-Tensors", "compressed_tensors", "FP8", "ModelOpt"])
def test_methods_in_any_case(method: str) -> None:
    settings = {"quant_method": method, "bits": 4, "group_size": 128, "quant_algo": "FP8", "format": "float-quantized"}
    found = quantization_of({**BASE, "quantization_config": settings})
    assert found is not None
    assert found.bits in (4, 8)


@pytest.mark.parametrize("name", ["n_experts", "num_experts_total_experts", "number_of_experts", "num_zero_experts"])
def test_experts_under_a_name_that_nobody_read_are_no_dense_model(name: str) -> None:
    config = {**BASE, "model_type": "fancy", "architectures": ["FancyForCausalLM"]}
    assert architecture_of(config).assumptions
    with pytest.raises(UnsupportedModelError, match=name):
        architecture_of({**config, name: 16})
    assert architecture_of({**config, name: 0}).experts == 0, "none are said to be there"


@pytest.mark.parametrize("name", ["Qwen2_5OmniModel", "UltravoxModel", "InternVLChatModel", "GPT2LMHeadModel"])
def test_models_by_name_that_write_text(name: str) -> None:
    assert not architecture_of({**BASE, "architectures": [name]}).pooling


@pytest.mark.parametrize("name", ["Qwen2Model", "Qwen2ForSequenceClassification"])
def test_models_by_name_that_answer_with_a_vector(name: str) -> None:
    assert architecture_of({**BASE, "architectures": [name]}).pooling


def test_a_tower_that_is_not_described_is_said() -> None:
    bare = architecture_of({**BASE, "vision_config": {"model_name": "siglip"}})
    assert any("the peak of encoding is not counted" in each for each in bare.assumptions)
    described = {"hidden_size": 1024, "num_hidden_layers": 24, "image_size": 448, "patch_size": 14}
    assert not architecture_of({**BASE, "vision_config": described}).assumptions


@pytest.mark.parametrize(
    ("changes", "kv_heads", "head_dim"),
    [
        ({"num_key_value_heads": None}, 32, 128),
        ({"head_dim": None}, 8, 128),
        ({"head_dim": 0}, 8, 128),
        ({"num_attention_heads": 30, "num_key_value_heads": 6}, 6, 136),
        ({"head_dim": 64}, 8, 64),
    ],
)
def test_heads_that_are_left_out(changes: dict[str, Any], kv_heads: int, head_dim: int) -> None:
    found = architecture_of({**BASE, **changes})
    assert (found.kv_heads, found.head_dim) == (kv_heads, head_dim)


@pytest.mark.parametrize("value", [0, -1, [8, 8, 4, 4], "8", 8.0, True, 7])
def test_kv_heads_that_can_t_be_are_refused_with_the_field(value: object) -> None:
    with pytest.raises(InvalidInputError, match="num_key_value_heads"):
        architecture_of({**BASE, "num_key_value_heads": value})


@pytest.mark.parametrize("name", ["text_config", "llm_config", "language_config"])
def test_the_part_that_writes_text_by_any_name(name: str) -> None:
    outer = {"model_type": "wrapper", "architectures": ["WrapperForConditionalGeneration"], name: BASE}
    assert architecture_of(outer).layers == 4
    assert architecture_of({**outer, name: {"model_type": "middle", "text_config": BASE}}).layers == 4
