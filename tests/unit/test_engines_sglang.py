"""SGLang's command line: a pool in tokens, a fraction that leaves room for it, and the flags of each release."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replicas import QWEN_SGLANG
from vrampack.engines.base import AdapterSlots, Budget, ClaimModel, Drafts, EngineInput
from vrampack.engines.sglang import container
from vrampack.errors import InvalidInputError
from vrampack.memory.sglang import claim, pools_of
from vrampack.units import GIB, MIB


def arguments(given: EngineInput) -> dict[str, str | None]:
    """By flag; None: a flag without a value."""
    pairs = (each.partition("=") for each in container(given).args)
    return {name: value if equals else None for name, equals, value in pairs}


def environment(given: EngineInput) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in container(given).env}


def test_everything_that_sizes_memory_is_explicit() -> None:
    found = arguments(QWEN_SGLANG)
    assert found["--max-total-tokens"] == "32768"
    assert found["--max-running-requests"] == "8"
    assert found["--context-length"] == "8192"
    assert found["--chunked-prefill-size"] == found["--max-prefill-tokens"] == "4096"
    assert found["--cuda-graph-max-bs-decode"] == "16"
    assert found["--cuda-graph-backend-prefill"] == "disabled"
    assert found["--kv-cache-dtype"] == "bf16"


def test_nothing_reads_the_gpu_that_a_replica_gets() -> None:
    assert not [each for each in container(QWEN_SGLANG).args if "$(" in each]


@given(
    weights=st.integers(1 * GIB, 200 * GIB),
    kv_cache=st.integers(4608 * MIB, 100 * GIB),
    working=st.integers(256 * MIB, 8 * GIB),
    beside=st.integers(0, 80 * GIB),
)
def test_the_tokens_fit_wherever_the_claim_is_free(weights: int, kv_cache: int, working: int, beside: int) -> None:
    """SGLang's own rule: of what is free at start it keeps a fraction for weights and pool, whatever else is free."""
    budget = Budget(weights=weights, kv_cache=kv_cache, working=working, claim=0, slack=0)
    fraction = float(arguments(replace(QWEN_SGLANG, budget=budget))["--mem-fraction-static"] or 0)
    free = weights + kv_cache + working + beside
    assert 0 < fraction <= 0.99
    assert fraction == 0.99 or free - weights - free * (1 - fraction) >= kv_cache


@pytest.mark.parametrize(
    ("changes", "flag", "value"),
    [
        ({"cuda_graphs": False}, "--cuda-graph-backend-decode", "disabled"),
        ({"version": "0.5.12", "cuda_graphs": False}, "--disable-cuda-graph", None),
        ({"version": "0.5.12"}, "--cuda-graph-max-bs", "16"),
        ({"version": "0.5.12"}, "--disable-piecewise-cuda-graph", None),
        ({"version": "0.5.15.post1"}, "--cuda-graph-max-bs-decode", "16"),
        ({"prefix_caching": False}, "--disable-radix-cache", None),
        ({"kv_cache_precision": "fp8"}, "--kv-cache-dtype", "fp8_e4m3"),
        ({"weights_precision": "fp16", "kv_cache_precision": "fp16"}, "--kv-cache-dtype", "auto"),
        ({"weights_precision": "fp8"}, "--quantization", "fp8"),
        ({"tensor": 2}, "--tp-size", "2"),
        ({"pipeline": 2}, "--pp-size", "2"),
        ({"tensor": 2, "expert": True}, "--ep-size", "2"),
        ({"images_per_prompt": 2}, "--limit-mm-data-per-request", '{"image": 2, "video": 0, "audio": 0}'),
        ({"images_per_prompt": 0}, "--language-model-only", None),
        ({"drafts": Drafts(method="mtp", tokens=3)}, "--speculative-num-draft-tokens", "4"),
        ({"drafts": Drafts(method="mtp", tokens=3)}, "--speculative-algorithm", "NEXTN"),
        ({"drafts": Drafts(method="ngram", tokens=3)}, "--speculative-algorithm", "NGRAM"),
        ({"adapters": AdapterSlots(count=4, rank=32)}, "--max-loras-per-batch", "4"),
        ({"adapters": AdapterSlots(count=4, rank=32)}, "--max-lora-rank", "32"),
    ],
)
def test_flags_follow_the_spec(changes: dict[str, Any], flag: str, value: str | None) -> None:
    found = arguments(replace(QWEN_SGLANG, **changes))
    assert flag in found
    assert found[flag] == value


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({}, "--cuda-graph-max-bs"),
        ({}, "--disable-piecewise-cuda-graph"),
        ({"version": "0.5.12"}, "--cuda-graph-max-bs-decode"),
        ({}, "--quantization"),
        ({}, "--swa-full-tokens-ratio"),
        ({}, "--max-mamba-cache-size"),
        ({}, "--disable-radix-cache"),
    ],
)
def test_flags_that_are_left_out(changes: dict[str, Any], flag: str) -> None:
    assert flag not in arguments(replace(QWEN_SGLANG, **changes))


def test_a_declared_claim_gets_the_tokens_that_fit() -> None:
    assert QWEN_SGLANG.budget is not None
    assert QWEN_SGLANG.architecture is not None
    assert QWEN_SGLANG.workload is not None
    half = replace(QWEN_SGLANG.budget, kv_cache=claim(QWEN_SGLANG.architecture, QWEN_SGLANG.workload).bytes // 2)
    told = int(arguments(replace(QWEN_SGLANG, budget=half))["--max-total-tokens"] or 0)
    pools = pools_of(QWEN_SGLANG.architecture, QWEN_SGLANG.workload)
    assert 16_000 < told < 16_400
    assert told * pools.token_bytes <= half.kv_cache


def test_the_command_is_known_and_images_follow_the_version() -> None:
    built = container(QWEN_SGLANG)
    assert built.command == ("python3", "-m", "sglang.launch_server")
    assert built.image == "lmsysorg/sglang:v0.5.23"
    assert built.owns_command


def test_weights_from_a_claim_are_mounted_and_the_hub_is_left_alone() -> None:
    given = replace(QWEN_SGLANG, model=ClaimModel(claim="models", path="qwen/8b"))
    assert arguments(given)["--model-path"] == "/models/qwen/8b"
    assert "--revision" not in arguments(given)
    assert environment(given)["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("changes", "field", "allowed"),
    [
        ({"version": "0.4.6"}, "spec.engine.version", "0.5.10 or newer"),
        ({"version": "nightly"}, "spec.engine.version", "0.5.23"),
        ({"weights_precision": "gguf", "checkpoint_precision": "gguf"}, "spec.precision.weights", "not told"),
        ({"weights_precision": "awq"}, "spec.precision.weights", "makes no awq"),
        ({"kv_cache_precision": "q8_0"}, "spec.precision.kvCache", "fp8"),
        ({"version": "0.5.12", "kv_cache_precision": "nvfp4"}, "spec.precision.kvCache", "fp8"),
        ({"version": "0.5.12", "images_per_prompt": 0}, "spec.engine.imagesPerPrompt", "0.5.18"),
        ({"decode_context": 2, "tensor": 2}, "spec.parallelism.decodeContext", "write 1"),
        ({"args": ("--mem-fraction-static", "0.8")}, "spec.engine.args[0]", "memory.perGPU"),
        ({"args": ("--mem-fraction", "0.8")}, "spec.engine.args[0]", "not among"),
        # Weight files that are not mapped are in the pod's RAM, which asks for none of them.
        ({"args": ("--weight-loader-disable-mmap",)}, "spec.engine.args[0]", "not among"),
        ({"args": ("--gated-launch-port", "1")}, "spec.engine.args[0]", "when the engine may start"),
        ({"args": ("--enable-hierarchical-cache",)}, "spec.engine.args[0]", "changes GPU memory"),
    ],
)
def test_refusals_name_the_field(changes: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        container(replace(QWEN_SGLANG, **changes))
    assert caught.value.field == field
    assert allowed in caught.value.allowed
