"""From headers of weight files to the bytes that are loaded."""

import dataclasses
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.known_models import LLAMA_8B, QWEN3_8B
from vrampack.errors import ModelSourceError, UnsupportedModelError
from vrampack.models.quantization import precision_of
from vrampack.models.safetensors import DTYPE_BITS, MAX_HEADER_BYTES, Tensor, header_length, parse_header
from vrampack.models.weights import bytes_by_dtype, matrix_types, stored_dtype, weights_of
from vrampack.units import GIB


def tensor(dtype: str, *shape: int) -> Tensor:
    elements = 1
    for size in shape:
        elements *= size
    return Tensor(dtype=dtype, shape=shape, bytes=elements * DTYPE_BITS[dtype] // 8)


def encode(entries: Any) -> tuple[bytes, int]:
    """A header and the size of its file."""
    header = json.dumps(entries).encode()
    ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    return header, 8 + len(header) + max(ends, default=0)


GOOD = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]},
    "b": {"dtype": "F32", "shape": [], "data_offsets": [64, 68]},
}


def test_header_tells_the_tensors() -> None:
    header, file_bytes = encode(GOOD)
    assert header_length(struct.pack("<Q", len(header)), file="model.safetensors") == len(header)
    tensors = parse_header(header, file="model.safetensors", file_bytes=file_bytes)
    assert tensors == {"a": tensor("BF16", 4, 8), "b": tensor("F32")}


@pytest.mark.parametrize("prefix", [b"", b"1234567", struct.pack("<Q", 0), struct.pack("<Q", MAX_HEADER_BYTES + 1)])
def test_impossible_lengths_are_refused(prefix: bytes) -> None:
    with pytest.raises(ModelSourceError, match=r"model\.safetensors") as refusal:
        header_length(prefix, file="model.safetensors")
    assert refusal.value.reason == "ModelFilesInvalid"
    assert not refusal.value.retriable


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "BF17", "shape": [4, 8], "data_offsets": [0, 64]},
        {"dtype": ["BF16"], "shape": [4, 8], "data_offsets": [0, 64]},
        {"dtype": "BF16", "shape": [4, -8], "data_offsets": [0, 64]},
        {"dtype": "BF16", "shape": [4.0, 8], "data_offsets": [0, 64]},
        {"dtype": "BF16", "shape": [True, 32], "data_offsets": [0, 64]},
        {"dtype": "BF16", "shape": [2**60, 2**60], "data_offsets": [0, 64]},
        {"dtype": "BF16", "shape": [1] * 17, "data_offsets": [0, 2]},
        {"dtype": "BF16", "shape": [4, 9], "data_offsets": [0, 64]},
        {"dtype": "BF16", "shape": [4, 8], "data_offsets": [64, 0]},
        {"dtype": "BF16", "shape": [4, 8], "data_offsets": [4, 68]},
        {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0]},
        {"dtype": "BF16", "shape": [4, 8]},
    ],
)
def test_entries_that_contradict_themselves_are_refused(entry: dict[str, Any]) -> None:
    header = json.dumps({"a": entry}).encode()
    with pytest.raises(ModelSourceError, match=r"model\.safetensors"):
        parse_header(header, file="model.safetensors", file_bytes=8 + len(header) + 64)


def test_a_file_of_another_size_is_refused() -> None:
    header, file_bytes = encode(GOOD)
    with pytest.raises(ModelSourceError, match=f"describes {file_bytes} bytes, the file has {file_bytes + 1}"):
        parse_header(header, file="model.safetensors", file_bytes=file_bytes + 1)


@given(st.binary(max_size=200) | st.just(b"[" * 100_000) | st.just(b'{"a":' * 50_000) | st.just(b"9" * 10_000))
def test_any_bytes_give_tensors_or_a_typed_refusal(header: bytes) -> None:
    with pytest.raises(ModelSourceError):
        parse_header(header, file="model.safetensors", file_bytes=10**6)


# ---- what of it is loaded -----------------------------------------------------------------------------------------


def test_norms_and_routers_are_whole_on_every_rank_and_tables_are_named() -> None:
    tensors = {
        "model.embed_tokens.weight": tensor("BF16", 100, 8),
        "model.layers.0.input_layernorm.weight": tensor("BF16", 8),
        "model.layers.0.mlp.gate.weight": tensor("BF16", 16, 8),
        "model.layers.0.mlp.gate_proj.weight": tensor("BF16", 32, 8),
        "model.layers.0.self_attn.rotary_emb.inv_freq": tensor("F32", 64),
        "lm_head.weight": tensor("BF16", 100, 8),
    }
    weights = weights_of(tensors, architecture=LLAMA_8B, precision="bf16")
    assert weights.embedding == 2 * 100 * 8 * 2
    assert weights.replicated == (8 + 16 * 8) * 2
    assert weights.parameters == 2 * 800 + 8 + 128 + 256
    assert weights.total == weights.parameters * 2


def test_a_tied_output_head_is_loaded_once_though_the_file_has_it_twice() -> None:
    tied = {"model.embed_tokens.weight": tensor("BF16", 100, 8), "lm_head.weight": tensor("BF16", 100, 8)}
    architecture = dataclasses.replace(QWEN3_8B, tied_embeddings=True)
    assert weights_of(tied, architecture=architecture, precision="bf16").total == 1600
    assert bytes_by_dtype(tied) == {"BF16": 3200}


def test_what_is_stored_wider_is_converted_as_it_is_loaded() -> None:
    tensors = {"model.layers.0.mlp.up_proj.weight": tensor("F32", 32, 8)}
    assert stored_dtype(tensors) == "float32"
    assert weights_of(tensors, architecture=LLAMA_8B, precision="bf16").total == 32 * 8 * 2


def qwen3_8b_awq() -> dict[str, Tensor]:
    """The tensors of Qwen/Qwen3-8B-AWQ: 4 bits in groups of 128, everything else in 16 bits."""
    tensors = {
        "model.embed_tokens.weight": tensor("F16", 151936, 4096),
        "lm_head.weight": tensor("F16", 151936, 4096),
        "model.norm.weight": tensor("F16", 4096),
    }
    shapes = {
        "self_attn.q_proj": (4096, 4096),
        "self_attn.k_proj": (4096, 1024),
        "self_attn.v_proj": (4096, 1024),
        "self_attn.o_proj": (4096, 4096),
        "mlp.gate_proj": (4096, 12288),
        "mlp.up_proj": (4096, 12288),
        "mlp.down_proj": (12288, 4096),
    }
    for layer in range(36):
        prefix = f"model.layers.{layer}"
        for name, size in {"input_layernorm": 4096, "post_attention_layernorm": 4096}.items():
            tensors[f"{prefix}.{name}.weight"] = tensor("F16", size)
        for name in ("q_norm", "k_norm"):
            tensors[f"{prefix}.self_attn.{name}.weight"] = tensor("F16", 128)
        for name, (inputs, outputs) in shapes.items():
            tensors[f"{prefix}.{name}.qweight"] = tensor("I32", inputs, outputs // 8)
            tensors[f"{prefix}.{name}.qzeros"] = tensor("I32", inputs // 128, outputs // 8)
            tensors[f"{prefix}.{name}.scales"] = tensor("F16", inputs // 128, outputs)
    return tensors


def test_quantized_weights_count_scales_as_bytes_but_not_as_parameters() -> None:
    weights = weights_of(qwen3_8b_awq(), architecture=QWEN3_8B, precision="awq")
    assert weights.parameters == 8_190_735_360
    assert round(weights.total / GIB, 2) == 5.68  # as published


# ---- precision ----------------------------------------------------------------------------------------------------


def quantized(**settings: Any) -> dict[str, Any]:
    return {"quantization_config": settings}


@pytest.mark.parametrize(
    ("config", "types", "precision"),
    [
        ({}, {"BF16"}, "bf16"),
        ({}, {"F32"}, "bf16"),
        (quantized(quant_method="fp8", weight_block_size=[128, 128]), {"F8_E4M3", "BF16"}, "fp8"),
        (quantized(quant_method="awq", bits=4), {"I32", "F16"}, "awq"),
        (quantized(quant_method="gptq", bits=4), {"I32", "F16"}, "gptq"),
        (quantized(quant_method="compressed-tensors", format="int-quantized"), {"I8", "BF16"}, "int8"),
        (quantized(quant_method="compressed-tensors", format="float-quantized"), {"F8_E4M3", "BF16"}, "fp8"),
        ({"compression_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}}, set(), "fp8"),
        (quantized(quant_method="compressed-tensors", format="nvfp4-pack-quantized"), {"U8", "BF16"}, "nvfp4"),
    ],
)
def test_precision(config: dict[str, Any], types: set[str], precision: str) -> None:
    assert precision_of(config, dtype="bfloat16", matrix_types=types) == precision


@pytest.mark.parametrize(
    ("config", "types", "unknown"),
    [
        ({}, {"F8_E4M3", "BF16"}, "quantization_config"),
        ({}, {"I32", "F16"}, "quantization_config"),
        (quantized(quant_method="aqlm"), set(), "quantization_config.quant_method aqlm"),
        (quantized(bits=4), set(), "quantization_config.quant_method None"),
        (
            quantized(quant_method="compressed-tensors", format="pack-quantized"),
            set(),
            "quantization_config.format pack-quantized",
        ),
    ],
)
def test_formats_that_are_not_known_are_refused(config: dict[str, Any], types: set[str], unknown: str) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        precision_of(config, dtype="bfloat16", matrix_types=types)
    assert refusal.value.unknown == unknown


def test_only_matrices_tell_the_format() -> None:
    tensors = {"a.weight": tensor("BF16", 8, 8), "a.scale": tensor("F8_E4M3", 8)}
    assert matrix_types(tensors) == {"BF16"}
