"""Weights by the headers of the files, and by the configuration: two ways that must agree for every family."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.known_models import LLAMA_8B, QWEN3_8B
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture, WeightsMethod
from vrampack.memory.tensorfacts import TensorFacts
from vrampack.memory.tensorlayout import model_shapes, weights_from_architecture
from vrampack.memory.tensors import TensorShape
from vrampack.memory.weights import loaded_bytes
from vrampack.memory.workload import Workload
from vrampack.models.config import architecture_of
from vrampack.models.quantization import quantization_of
from vrampack.models.safetensors import DTYPE_BITS, Tensor
from vrampack.models.tensorfacts import tensor_facts_of
from vrampack.models.weights import weights_of
from vrampack.units import GIB, MIB

TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def tensor(dtype: str, *shape: int) -> Tensor:
    elements = 1
    for size in shape:
        elements *= size
    return Tensor(dtype=dtype, shape=shape, bytes=elements * DTYPE_BITS[dtype] // 8)


def workload(**changes: Any) -> Workload:
    fields = {"context_length": 8, "concurrency": 1, "tokens_per_sequence": 8, "max_batched_tokens": 8}
    return Workload(**fields | changes)


def files_of(architecture: Architecture, facts: TensorFacts) -> dict[str, Tensor]:
    """The headers of a checkpoint that has these shapes."""
    shapes = model_shapes(architecture, facts=facts)
    found = dict(_entries("model.", shapes.before, architecture))
    layer = 0
    for count, tensors in shapes.layers:
        for _ in range(count):
            found |= dict(_entries(f"model.layers.{layer}.", tensors, architecture))
            layer += 1
    found |= dict(_entries("", shapes.after, architecture))
    return found


def _entries(prefix: str, shapes: tuple[TensorShape, ...], architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
    for shape in shapes:
        if not shape.in_files or shape.name == "tower":
            continue
        sizes = [shape.copies] * (shape.copies > 1) + [shape.rows] + [shape.columns] * (shape.columns > 1)
        name = shape.name if shape.name.endswith((".bias", ".stem")) else f"{shape.name}.weight"
        yield f"{prefix}{name}", tensor(TYPES[architecture.dtype], *sizes)


def read(path: Path) -> tuple[Architecture, TensorFacts] | None:
    config = json.loads(path.read_text())
    try:
        architecture = architecture_of(config, stored_dtype="bfloat16")
    except (UnsupportedModelError, InvalidInputError):
        return None
    return architecture, tensor_facts_of(config, architecture=architecture)


def test_both_ways_agree_for_every_family(shared_data: Path) -> None:
    families = set()
    for path in sorted((shared_data / "model-configs").glob("*.json")):
        known = read(path)
        if known is None or known[0].encoder_tokens or known[0].model_type in families:
            continue
        architecture, facts = known
        families.add(architecture.model_type)
        precision = {"float32": "fp32", "float16": "fp16"}.get(architecture.dtype, "bf16")
        shaped = weights_from_architecture(architecture, precision=precision, facts=facts)
        found = weights_of(files_of(architecture, facts), architecture=architecture, precision=precision)
        assert found.total == shaped.total - shaped.tower, path.name
        assert found.embedding == shaped.embedding, path.name
        assert found.predict == 0
        for changes in ({}, {"tensor": 2}, {"tensor": 8}, {"tensor": 4, "expert": True}, {"tensor": 2, "pipeline": 2}):
            served = workload(text_only=True, **changes)
            loaded = loaded_bytes(architecture, found, served)
            # Biases are split by the engine and taken for whole here: far below a thousandth.
            assert loaded == pytest.approx(loaded_bytes(architecture, shaped, served), rel=0.001, abs=MIB), path.name
    assert len(families) >= 40


def deepseek(**extra: Tensor) -> dict[str, Tensor]:
    return {
        "model.embed_tokens.weight": tensor("BF16", 100, 8),
        "model.layers.0.self_attn.kv_a_proj_with_mqa.weight": tensor("F8_E4M3", 16, 8),
        "model.layers.0.self_attn.kv_b_proj.weight": tensor("F8_E4M3", 32, 8),
        "model.layers.1.mlp.gate.weight": tensor("BF16", 4, 8),
        "model.layers.1.mlp.gate.e_score_correction_bias": tensor("F32", 4),
        **{f"model.layers.1.mlp.experts.{number}.up_proj.weight": tensor("F8_E4M3", 8, 8) for number in range(4)},
        **extra,
    }


def test_layers_beyond_the_architecture_predict_tokens_and_are_not_loaded() -> None:
    architecture = dataclasses.replace(LLAMA_8B, layers=2, experts=4)
    extra = {"model.layers.2.eh_proj.weight": tensor("BF16", 8, 16), "model.layers.2.enorm.weight": tensor("BF16", 8)}
    without = weights_of(deepseek(), architecture=architecture, precision="fp8")
    weights = weights_of(deepseek(**extra), architecture=architecture, precision="fp8")
    assert (weights.total, weights.predict) == (without.total, 2 * (8 * 16 + 8))
    assert without.method is WeightsMethod.TENSORS


@pytest.mark.parametrize("name", ["visual.blocks.0.attn.qkv.weight", "multi_modal_projector.linear_1.weight"])
def test_towers_are_told_apart(name: str) -> None:
    tensors = {"model.embed_tokens.weight": tensor("BF16", 100, 8), name: tensor("BF16", 8, 8)}
    weights = weights_of(tensors, architecture=LLAMA_8B, precision="bf16")
    assert (weights.total, weights.tower) == (2 * 864, 2 * 64)


def gptq(**settings: Any) -> Any:
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, **settings}}
    return quantization_of(config)


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({"sym": True, "desc_act": False}, 0),
        ({"sym": False, "desc_act": False}, 8 * 64 // 2),
        ({"sym": True, "desc_act": True}, 4 * 1024),
    ],
)
def test_gptq_loads_what_its_kernel_needs(settings: dict[str, Any], more: int) -> None:
    prefix = "model.layers.0.mlp.up_proj"
    tensors = {
        f"{prefix}.qweight": tensor("I32", 128, 64),
        f"{prefix}.qzeros": tensor("I32", 8, 8),
        f"{prefix}.scales": tensor("F16", 8, 64),
        f"{prefix}.g_idx": tensor("I32", 1024),
    }
    weights = weights_of(tensors, architecture=QWEN3_8B, precision="gptq", quantization=gptq(**settings))
    assert weights.total == 4 * 128 * 64 + 2 * 8 * 64 + more
    assert weights.parameters == 1024 * 64


def test_mxfp4_experts_are_padded_as_the_engine_pads_them(shared_data: Path) -> None:
    """gpt-oss-20b as its files have it, against the engine's own figure with the same kernel."""
    config = json.loads((shared_data / "model-configs" / "openai--gpt-oss-20b_config.json").read_text())
    architecture = architecture_of(config, stored_dtype="bfloat16")
    quantization = quantization_of(config)
    tensors = {
        name: each
        for name, each in files_of(architecture, tensor_facts_of(config, architecture=architecture)).items()
        if ".experts." not in name
    }
    for layer in range(24):
        prefix = f"model.layers.{layer}.mlp.experts"
        tensors |= {
            f"{prefix}.gate_up_proj_blocks": tensor("U8", 32, 5760, 90, 16),
            f"{prefix}.gate_up_proj_scales": tensor("U8", 32, 5760, 90),
            f"{prefix}.gate_up_proj_bias": tensor("BF16", 32, 5760),
            f"{prefix}.down_proj_blocks": tensor("U8", 32, 2880, 90, 16),
            f"{prefix}.down_proj_scales": tensor("U8", 32, 2880, 90),
            f"{prefix}.down_proj_bias": tensor("BF16", 32, 2880),
        }
    weights = weights_of(tensors, architecture=architecture, precision="mxfp4", quantization=quantization)
    assert weights.parameters == 20_914_757_184
    assert round(weights.total / GIB, 2) == 12.82
    assert loaded_bytes(architecture, weights, workload()) / GIB == pytest.approx(13.7193, rel=0.005)
    eighth = loaded_bytes(architecture, weights, workload(tensor=8))
    assert eighth > loaded_bytes(architecture, weights, workload()) / 8  # 360 columns a rank become 384


@pytest.mark.parametrize("dtype", ["I8", "U8", "I32"])
def test_packed_elements_are_counted_one_by_one(dtype: str) -> None:
    """Two to a byte in NVFP4 and DeepSeek V4, eight to a word in compressed-tensors."""
    config = {"quantization_config": {"quant_method": "fp8"}, "expert_dtype": "fp4"}
    width = 64 * 4 // DTYPE_BITS[dtype]
    tensors = {
        "layers.0.ffn.experts.0.w1.weight": tensor(dtype, 32, width),
        "layers.0.ffn.experts.0.w1.scale": tensor("F8_E8M0", 32, 2),
    }
    found = weights_of(tensors, architecture=LLAMA_8B, precision="mxfp4", quantization=quantization_of(config))
    assert found.total == 32 * 32 + 64
    assert found.parameters == 32 * 64


def test_scales_that_are_quantized_again_are_held_in_full() -> None:
    """bitsandbytes' nested quantization, which engines undo as they load."""
    prefix = "model.layers.0.mlp.up_proj.weight"
    tensors = {
        prefix: tensor("U8", 2048, 1),
        f"{prefix}.absmax": tensor("U8", 64),
        f"{prefix}.nested_absmax": tensor("F32", 1),
        f"{prefix}.quant_map": tensor("F32", 16),
        f"{prefix}.nested_quant_map": tensor("F32", 256),
        f"{prefix}.quant_state.bitsandbytes__nf4": tensor("U8", 80),
    }
    weights = weights_of(tensors, architecture=QWEN3_8B, precision="bitsandbytes")
    assert weights.total == 2048 + 4 * 64
    assert weights.parameters == 4096
