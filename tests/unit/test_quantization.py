"""What a checkpoint's settings say of its precision: each tool's own words."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.known_models import QWEN3_8B
from vrampack.api.modeldeployment import WeightsPrecision
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.tensorlayout import weights_from_architecture
from vrampack.models.modulenames import ModuleNames
from vrampack.models.quantization import Quantization, quantization_of
from vrampack.units import GIB


def settings(**fields: Any) -> dict[str, Any]:
    return {"quantization_config": fields}


def group(**weights: Any) -> dict[str, Any]:
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


def found(config: dict[str, Any], side: dict[str, Any] | None = None) -> Quantization:
    quantization = quantization_of(config, quant_config=side)
    assert quantization is not None
    return quantization


SIDE = {
    "producer": {"name": "modelopt"},
    "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
}


@pytest.mark.parametrize(
    ("config", "side", "precision", "bits", "size"),
    [
        (settings(quant_method="fp8", weight_block_size=[128, 128]), None, "fp8", 8, 128),
        (settings(quant_method="fp8", activation_scheme="static"), None, "fp8", 8, -1),
        (settings(quant_method="fbgemm_fp8"), None, "fp8", 8, 0),
        (settings(quant_method="awq", bits=4, group_size=128), None, "awq", 4, 128),
        (settings(quant_method="awq", w_bit=4, q_group_size=64), None, "awq", 4, 64),
        (settings(quant_method="gptq", bits=4, group_size=128), None, "gptq", 4, 128),
        (settings(quant_method="gptq", bits=3, group_size=-1), None, "gptq", 3, 0),
        (settings(quant_method="gptq", bits=8, group_size=32), None, "gptq", 8, 32),
        (settings(quant_method="auto-round", bits=4, group_size=128), None, "gptq", 4, 128),
        (settings(quant_method="bitsandbytes", load_in_4bit=True), None, "bitsandbytes", 4, 64),
        (settings(quant_method="bitsandbytes", load_in_8bit=True), None, "bitsandbytes", 8, 0),
        (settings(quant_method="mxfp4"), None, "mxfp4", 4, 32),
        (
            settings(
                quant_method="compressed-tensors",
                format="pack-quantized",
                **group(num_bits=4, type="int", strategy="group", group_size=32),
            ),
            None,
            "int4",
            4,
            32,
        ),
        (
            settings(quant_method="compressed-tensors", **group(num_bits=8, type="int", strategy="channel")),
            None,
            "int8",
            8,
            0,
        ),
        (
            settings(quant_method="compressed-tensors", **group(num_bits=8, type="float", strategy="tensor")),
            None,
            "fp8",
            8,
            -1,
        ),
        (
            settings(quant_method="compressed-tensors", **group(num_bits=4, type="float", group_size=16)),
            None,
            "nvfp4",
            4,
            16,
        ),
        (
            settings(quant_method="compressed-tensors", **group(num_bits=4, type="float", group_size=32)),
            None,
            "mxfp4",
            4,
            32,
        ),
        (settings(quant_method="modelopt", quant_algo="FP8"), None, "fp8", 8, -1),
        (settings(quant_method="modelopt_fp4", quant_algo="NVFP4"), None, "nvfp4", 4, 16),
        (settings(quant_algo="MXFP8"), None, "fp8", 8, 32),
        ({}, SIDE, "nvfp4", 4, 16),
        ({"text_config": settings(quant_method="awq", bits=4, group_size=128)}, None, "awq", 4, 128),
    ],
)
def test_precision_bits_and_group(
    config: dict[str, Any], side: dict[str, Any] | None, precision: str, bits: int, size: int
) -> None:
    quantization = found(config, side)
    assert (quantization.precision, quantization.bits, quantization.group) == (precision, bits, size)
    assert WeightsPrecision(quantization.precision)


def test_nothing_quantized_is_nothing() -> None:
    assert quantization_of({"torch_dtype": "bfloat16"}) is None
    assert quantization_of({"quantization_config": None}) is None


@pytest.mark.parametrize(
    ("config", "unknown"),
    [
        (settings(bits=4), "quantization_config.quant_method None"),
        (settings(quant_method="aqlm"), "quantization_config.quant_method aqlm"),
        (settings(quant_method="modelopt", quant_algo="FP6"), "quantization_config.quant_algo FP6"),
        (settings(quant_method="compressed-tensors", format="sparse"), "quantization_config.format sparse"),
        (
            settings(quant_method="compressed-tensors", **group(num_bits=3, type="int")),
            "quantization_config.config_groups int 3",
        ),
        (settings(quant_method="compressed-tensors", config_groups={}), "quantization_config.config_groups"),
        (
            settings(quant_method="compressed-tensors", format="float-quantized", ignore=["re:(a+)+b"]),
            "quantization_config.ignore (a+)+b",
        ),
        (
            settings(quant_method="compressed-tensors", format="float-quantized", ignore=["re:("]),
            "quantization_config.ignore (",
        ),
    ],
)
def test_what_is_not_known_is_refused_by_its_field(config: dict[str, Any], unknown: str) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        quantization_of(config)
    assert refusal.value.unknown == unknown


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"quantization_config": [1]}, "quantization_config"),
        (settings(quant_method="gptq", bits="4"), "quantization_config.bits"),
        (settings(quant_method="gptq", bits=10**30), "quantization_config.bits"),
        (settings(quant_method="fp8", weight_block_size=[0, 128]), "quantization_config.weight_block_size"),
        (
            settings(quant_method="awq", bits=4, modules_to_not_convert=[1]),
            "quantization_config.modules_to_not_convert",
        ),
        (settings(quant_method="awq", bits=4, group_size=True), "quantization_config.group_size"),
        (settings(quant_algo="FP8", quantized_layers=["a"]), "quantization_config.quantized_layers"),
    ],
)
def test_values_of_a_wrong_type_are_refused_by_their_field(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        quantization_of(config)
    assert refusal.value.field == f"config.json:{field}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
METHODS = ("fp8", "awq", "gptq", "bitsandbytes", "mxfp4", "compressed-tensors", "modelopt", "fbgemm_fp8", "quark")
FIELDS = (
    "bits", "group_size", "weight_block_size", "config_groups", "ignore", "quant_algo", "quantized_layers", "format",
    "modules_to_not_convert", "desc_act", "sym", "zero_point", "load_in_8bit", "kv_cache_scheme", "exclude_modules",
)  # fmt: skip


@given(st.sampled_from(METHODS) | JSON, st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6), st.none() | JSON)
def test_any_settings_are_read_or_refused(method: Any, fields: dict[str, Any], side: Any) -> None:
    try:
        quantization = quantization_of(
            settings(quant_method=method, **fields), quant_config=side if isinstance(side, dict) else None
        )
    except (UnsupportedModelError, InvalidInputError):
        return
    assert quantization is None or WeightsPrecision(quantization.precision)


# ---- which modules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "layer", "module", "has"),
    [
        (["lm_head"], 3, "mlp.up_proj", False),
        (["model.layers.3.mlp.gate_proj"], 3, "mlp.gate_proj", True),
        (["model.layers.3.mlp.gate_proj"], 13, "mlp.gate_proj", False),
        (["model.language_model.layers.3.mlp"], 3, "mlp.up_proj", True),
        (["model.layers.3.self_attn*"], 3, "self_attn.o_proj", True),
        (["model.layers.3.*"], 3, "mlp.experts.up_proj", True),
        (["model.layers.*.self_attn"], 7, "self_attn.q_proj", True),
        (["model.layers.*.self_attn"], 7, "mlp.up_proj", False),
        (["*.mlp.shared_expert.*"], 7, "mlp.shared_experts.up_proj", True),
        (["re:.*self_attn.*"], 7, "self_attn.q_proj", True),
        (["re:.*mlp\\.(gate|up|gate_up|down)_proj.*"], 0, "mlp.down_proj", True),
        (["re:.*mlp\\.(gate|up|gate_up|down)_proj.*"], 0, "mlp.experts.down_proj", False),
        (["backbone.layers.4.mixer.in_proj"], 4, "mixer.in_proj", True),
        (["backbone.layers.5.mixer.q_proj"], 5, "self_attn.q_proj", True),
        (["layers.2.ffn.experts"], 2, "mlp.experts.up_proj", True),
        (["model.layers.2.block_sparse_moe.experts.0.w1"], 2, "self_attn.q_proj", False),
        (["model.language_model.layers.0.linear_attn.in_proj_qkv"], 0, "linear_attn.in_proj_qkvz", True),
        (["gate"], 3, "mlp.gate_proj", False),
        (["visual"], 3, "mlp.gate_proj", False),
    ],
)
def test_lists_of_modules(names: list[str], layer: int, module: str, has: bool) -> None:
    assert ModuleNames.of(names).have(layer, module) is has


def test_a_mixed_checkpoint_has_the_word_of_its_smallest_part() -> None:
    config = settings(
        quant_method="modelopt",
        quant_algo="MIXED_PRECISION",
        quantized_layers={
            "model.layers.0.mlp.up_proj": {"quant_algo": "W4A16_NVFP4"},
            "model.layers.0.self_attn.o_proj": {"quant_algo": "FP8"},
        },
    )
    quantization = found(config)
    assert quantization.precision == "nvfp4"
    forms = [quantization.form_of(0, name) for name in ("mlp.up_proj", "self_attn.o_proj", "self_attn.q_proj")]
    assert [form.bits if form else None for form in forms] == [4, 8, None]
    assert quantization.form_of(1, "mlp.up_proj") is None


def test_gptq_says_whether_columns_are_ordered() -> None:
    assert found(settings(quant_method="gptq", bits=4, group_size=128, desc_act=True)).activation_order
    assert not found(settings(quant_method="gptq", bits=4, group_size=128)).activation_order


def test_the_checkpoint_may_choose_the_cache_too() -> None:
    assert found({}, SIDE).kv_cache == "fp8"
    assert found(settings(quant_method="fp8")).kv_cache == ""


# ---- bytes of a layout --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "gib"),
    [
        (settings(quant_method="awq", bits=4, group_size=128), 5.68),  # as published: Qwen3-8B-AWQ
        (settings(quant_method="fp8", weight_block_size=[128, 128]), 8.79),  # as published: Qwen3-8B-FP8
    ],
)
def test_bytes_of_qwen3_8b(config: dict[str, Any], gib: float) -> None:
    quantization = found(config)
    architecture = dataclasses.replace(QWEN3_8B, dtype="float16" if quantization.method == "awq" else "bfloat16")
    weights = weights_from_architecture(architecture, precision=quantization.precision, forms=quantization.form_of)
    assert weights.total / GIB == pytest.approx(gib, abs=0.006)
    assert weights.parameters == 8_190_735_360


def test_every_quantized_configuration_is_understood(shared_data: Path) -> None:
    words: dict[str, int] = {}
    for path in sorted((shared_data / "model-configs").glob("*.json")):
        side = shared_data / "quant-configs" / path.name.replace("_config", "_hf_quant_config")
        quantization = quantization_of(
            json.loads(path.read_text()), quant_config=json.loads(side.read_text()) if side.exists() else None
        )
        if quantization is not None:
            words[quantization.precision] = words.get(quantization.precision, 0) + 1
    assert words.keys() == {"fp8", "int4", "mxfp4", "nvfp4"}
    assert sum(words.values()) >= 55
