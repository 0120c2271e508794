"""Checkpoints whose modules are not all stored alike: rules for single modules, read into the weights or refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Weights, WeightsMethod
from vrampack.models.config import architecture_of
from vrampack.models.quantization import Quantization, quantization_of
from vrampack.models.tensorfacts import weights_of_config
from vrampack.units import GIB

SMALL: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "torch_dtype": "bfloat16",
    "hidden_size": 1024,
    "num_hidden_layers": 20,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 4096,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}
ROUND = {"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}


def found(**settings: Any) -> Quantization:
    quantization = quantization_of({"quantization_config": settings})
    assert quantization is not None
    return quantization


def bits(quantization: Quantization, layer: int, name: str) -> int:
    form = quantization.form_of(layer, name)
    return 16 if form is None else form.bits


def weights(config: dict[str, Any]) -> Weights:
    return weights_of_config(config, architecture=architecture_of(config))


def matrix_bytes(elements: int, width: int, group: int = 128) -> int:
    """Of whole numbers of ``width`` bits with a scale of two bytes for each group."""
    return elements * width // 8 + 2 * elements // group


@pytest.mark.parametrize(
    ("dynamic", "expected"),
    [
        ({}, {(0, "mlp.up_proj"): 4}),
        ({"-:.*attn.*": {}}, {(3, "self_attn.q_proj"): 16, (3, "mlp.up_proj"): 4, (3, "linear_attn.out_proj"): 16}),
        ({"-:.*shared_expert.*": {}}, {(3, "mlp.shared_experts.up_proj"): 16, (3, "mlp.experts.up_proj"): 4}),
        ({r"+:.*\.18\..*gate.*": {"bits": 8}}, {(18, "mlp.gate_proj"): 8, (17, "mlp.gate_proj"): 4}),
        ({r".*\.(?:18|19)\..*gate.*": {"bits": 8}}, {(19, "mlp.gate_proj"): 8, (19, "mlp.up_proj"): 4}),
        ({r"model\.layers\.3\.mlp\.down_proj": {"bits": 8}}, {(3, "mlp.down_proj"): 8, (4, "mlp.down_proj"): 4}),
        # the first that matches counts
        ({"+:.*up_proj": {"bits": 8}, "-:.*mlp.*": {}}, {(0, "mlp.up_proj"): 8, (0, "mlp.down_proj"): 16}),
        ({"-:.*mlp.*": {}, "+:.*up_proj": {"bits": 8}}, {(0, "mlp.up_proj"): 16}),
        # expressions hold from the beginning of the name
        ({"-:mlp": {}}, {(0, "self_attn.q_proj"): 4}),
        ({"-:.*visual.*": {}, "-:.*mtp.*": {}}, {(0, "self_attn.q_proj"): 4, (0, "mlp.up_proj"): 4}),
    ],
)
def test_gptq_has_rules_for_modules(dynamic: dict[str, Any], expected: dict[tuple[int, str], int]) -> None:
    quantization = found(**GPTQ, dynamic=dynamic)
    assert {place: bits(quantization, *place) for place in expected} == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"modules_in_block_to_quantize": [["self_attn.q_proj"], ["mlp.up_proj"]]}, (4, 16)),
        ({"modules_in_block_to_quantize": ["self_attn.q_proj", "self_attn.o_proj"]}, (4, 4)),
        ({"modules_in_block_to_quantize": None}, (4, 4)),
    ],
)
def test_gptq_may_quantize_nothing_but_some_modules(settings: dict[str, Any], expected: tuple[int, int]) -> None:
    quantization = found(**GPTQ, **settings)
    assert (bits(quantization, 0, "self_attn.q_proj"), bits(quantization, 0, "self_attn.o_proj")) == expected


@pytest.mark.parametrize(
    ("settings", "head"),
    [
        (GPTQ, 16),
        ({**GPTQ, "lm_head": False}, 16),
        ({**GPTQ, "lm_head": True}, 4),
        ({**GPTQ, "lm_head": True, "dynamic": {"+:.*lm_head$": {"bits": 8}}}, 8),
        ({**GPTQ, "lm_head": True, "dynamic": {"-:lm_head": {}}}, 16),
        (ROUND, 16),
        ({**ROUND, "extra_config": {"lm_head": {"bits": 8}}}, 8),
        ({**ROUND, "extra_config": {"lm_head": {"bits": 16, "data_type": "float"}}}, 16),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {
                    "lm_head": {"quant_algo": "FP8"},
                    "model.layers.0.mlp.up_proj": {"quant_algo": "NVFP4"},
                },
            },
            8,
        ),
    ],
)
def test_the_output_head_is_quantized_where_it_is_said(settings: dict[str, Any], head: int) -> None:
    quantization = found(**settings)
    assert (quantization.head.bits if quantization.head else 16) == head
    config = SMALL | {"quantization_config": settings}
    table = SMALL["vocab_size"] * SMALL["hidden_size"]
    plain = weights(SMALL | {"quantization_config": settings | {"lm_head": False, "extra_config": None}})
    if settings.get("quant_method") == "gptq" and head < 16:
        assert weights(config).total == plain.total - 2 * table + matrix_bytes(table, head)
    assert weights(config).parameters == weights(SMALL).parameters


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"model.layers.3.mlp.up_proj": {"bits": 8}}, {(3, "mlp.up_proj"): 8, (4, "mlp.up_proj"): 4}),
        ({"model.layers.3.mlp.up_proj": {"bits": 16, "data_type": "float"}}, {(3, "mlp.up_proj"): 16}),
        ({"model.layers.3.mlp.up_proj": {"group_size": 32}}, {(3, "mlp.up_proj"): 4}),
        ({".*self_attn.*": {"bits": 16}}, {(3, "self_attn.k_proj"): 16, (3, "mlp.up_proj"): 4}),
        ({r"layers\.3\..*": {"bits": 8}}, {(3, "self_attn.k_proj"): 8, (2, "self_attn.k_proj"): 4}),
        ({"model.layers.3.mlp.experts.0.w1": {"bits": 8}}, {(3, "mlp.experts.gate_proj"): 8}),
        # a name counts before an expression
        (
            {".*mlp.*": {"bits": 16}, "model.layers.1.mlp.up_proj": {"bits": 8}},
            {(1, "mlp.up_proj"): 8, (2, "mlp.up_proj"): 16},
        ),
    ],
)
def test_autoround_has_settings_of_single_modules(extra: dict[str, Any], expected: dict[tuple[int, str], int]) -> None:
    quantization = found(**ROUND, extra_config=extra)
    assert {place: bits(quantization, *place) for place in expected} == expected


def test_what_is_left_as_it_was_weighs_sixteen_bits() -> None:
    attention, width = 4 * 1024**2, 3 * 1024 * 4096
    tables = 2 * SMALL["vocab_size"] * 1024
    norms = 41 * 1024
    each = matrix_bytes(width, 4) + 2 * attention
    expected = 20 * each + 2 * (tables + norms)
    assert weights(SMALL | {"quantization_config": GPTQ | {"dynamic": {"-:.*attn.*": {}}}}).total == expected
    extra = {f"model.layers.{layer}.self_attn.{name}_proj": {"bits": 16} for layer in range(20) for name in "qkvo"}
    assert weights(SMALL | {"quantization_config": ROUND | {"extra_config": extra}}).total == expected


@pytest.mark.parametrize(
    ("settings", "unknown"),
    [
        ({**GPTQ, "dynamic": {"-:(a+)+b": {}}}, "quantization_config.dynamic (a+)+b"),
        ({**GPTQ, "dynamic": {f"-:.*{n}": {} for n in range(300)}}, "quantization_config.dynamic"),
        ({**ROUND, "extra_config": {"re(": {"bits": 8}}}, "quantization_config.extra_config .*re("),
        ({**ROUND, "data_type": "codebook"}, "quantization_config.data_type codebook"),
        (
            {**ROUND, "extra_config": {"lm_head": {"bits": 6, "data_type": "mx_fp"}}},
            "quantization_config.data_type mx_fp",
        ),
        (
            {**ROUND, "block_name_to_quantize": "transformer_blocks"},
            "quantization_config.block_name_to_quantize 'transformer_blocks'",
        ),
    ],
)
def test_rules_that_are_not_understood_are_refused_by_their_field(settings: dict[str, Any], unknown: str) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        quantization_of({"quantization_config": settings})
    assert refusal.value.unknown == unknown


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({**GPTQ, "dynamic": ["-:x"]}, "quantization_config.dynamic"),
        ({**GPTQ, "dynamic": {"+:.*": {"bits": 99}}}, "quantization_config.dynamic.+:.*.bits"),
        ({**GPTQ, "lm_head": "yes"}, "quantization_config.lm_head"),
        ({**GPTQ, "modules_in_block_to_quantize": [[1]]}, "quantization_config.modules_in_block_to_quantize"),
        ({**ROUND, "extra_config": 3}, "quantization_config.extra_config"),
        ({**ROUND, "bits": 16}, "quantization_config.bits"),
    ],
)
def test_impossible_rules_name_their_field(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        quantization_of({"quantization_config": settings})
    assert refusal.value.field == f"config.json:{field}"


@pytest.mark.parametrize(
    ("settings", "form"),
    [
        ({**ROUND, "data_type": "int"}, ("gptq", 128, 2)),
        ({**ROUND, "data_type": "mx_fp", "group_size": 32}, ("mxfp4", 32, 1)),
        ({**ROUND, "data_type": "nv_fp", "group_size": 16}, ("nvfp4", 16, 1)),
        ({**ROUND, "data_type": "fp8", "bits": 8}, ("fp8", 0, 4)),
    ],
)
def test_autoround_packs_more_than_whole_numbers(settings: dict[str, Any], form: tuple[str, int, int]) -> None:
    quantization = found(**settings)
    assert (quantization.precision, quantization.group, quantization.form.scale_bytes) == form


def test_layers_of_towers_and_prediction_are_not_those_of_the_decoder() -> None:
    names = [
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj",
        "model.vision_tower.encoder.layers.0.mlp.fc1",
        "mtp.layers.0*",
        "talker.model.layers.0.mlp.up_proj",
    ]
    quantization = found(quant_method="compressed-tensors", format="float-quantized", ignore=names)
    assert [bits(quantization, 0, name) for name in ("self_attn.q_proj", "mlp.up_proj")] == [8, 8]
    assert quantization.form_of_prediction(20, "mlp.up_proj") is None


@pytest.mark.parametrize(
    ("names", "width"),
    [
        (["mtp*"], 16),
        (["mtp.*"], 16),
        (["mtp.layers.0*"], 16),
        (["re:^mtp.*"], 16),
        (["model.layers.20*"], 16),
        (["mtp.fc"], 8),
        (["mtp.layers.0.mlp.gate"], 8),
        ([], 8),
    ],
)
def test_prediction_layers_are_stored_as_they_are_listed(names: list[str], width: int) -> None:
    quantization = found(quant_method="compressed-tensors", format="float-quantized", ignore=names)
    form = quantization.form_of_prediction(20, "mlp.up_proj")
    assert (form.bits if form else 16) == width


@pytest.mark.parametrize(
    ("name", "published"),
    [("Qwen--Qwen3.5-122B-A10B_config", 73.47), ("Qwen--Qwen3.5-397B-A17B_config", 219.56)],
)
def test_files_of_a_mixture_with_rules_are_as_large_as_published(
    shared_data: Path, name: str, published: float
) -> None:
    """With rules as Qwen publishes them. Files hold zero points and an index of each input, too."""
    config = json.loads((shared_data / "model-configs" / f"{name}.json").read_text())
    rules: dict[str, Any] = {f"-:.*{word}.*": {} for word in ("attn", "shared_expert", "mtp", "visual")}
    config["quantization_config"] = GPTQ | {"dynamic": {"lm_head": {}, "model.language_model.embed_tokens": {}} | rules}
    text = config["text_config"]
    experts, hidden, width = text["num_experts"], text["hidden_size"], text["moe_intermediate_size"]
    zeros = 3 * hidden * width // 128 // 2
    index = 4 * (2 * hidden + width)
    beside = text["num_hidden_layers"] * experts * (zeros + index)
    found = weights(config)
    assert (found.total + found.predict + beside) / GIB == pytest.approx(published, rel=0.0007)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("nvidia--MiniMax-M3-NVFP4", 4.2, 4.8),
        ("nvidia--Qwen3.5-397B-A17B-NVFP4", 4.5, 5.0),
        ("nvidia--Qwen3.5-122B-A10B-NVFP4", 4.8, 5.3),
    ],
)
def test_bits_of_a_parameter_in_mixed_checkpoints(shared_data: Path, name: str, least: float, most: float) -> None:
    config = json.loads((shared_data / "model-configs" / f"{name}_config.json").read_text())
    found = weights(config)
    assert least <= 8 * found.total / found.parameters <= most


def test_a_file_that_should_list_what_is_not_quantized_and_does_not_is_marked() -> None:
    listed = SMALL | {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]}}
    assert weights(listed).method is WeightsMethod.SHAPES
    side = {"quantization": {"quant_algo": "NVFP4"}}
    found = weights_of_config(SMALL, architecture=architecture_of(SMALL), quant_config=side)
    assert found.method is WeightsMethod.PARAMETERS
