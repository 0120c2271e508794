"""llama.cpp's command line: sizes that follow the estimate alone, the file by its commit, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.replicas import QWEN_GGUF, QWEN_GGUF_FROM_CLAIM
from vrampack.engines.base import AdapterSlots, Drafts, EngineInput
from vrampack.engines.llamacpp import container
from vrampack.errors import InvalidInputError
from vrampack.memory.llamacpppool import claim


def arguments(given: EngineInput) -> dict[str, str]:
    """By flag; the last one has no value."""
    args = container(given).args
    assert args[-1] == "--metrics"
    return dict(zip(args[:-1:2], args[1:-1:2], strict=True))


def environment(given: EngineInput) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in container(given).env}


def with_work(**changes: Any) -> EngineInput:
    """The replica, with the same change in what is told and in what was estimated."""
    assert QWEN_GGUF.workload is not None
    assert QWEN_GGUF.architecture is not None
    assert QWEN_GGUF.budget is not None
    workload = replace(QWEN_GGUF.workload, **changes)
    budget = replace(QWEN_GGUF.budget, kv_cache=claim(QWEN_GGUF.architecture, workload).bytes)
    told = {key: value for key, value in changes.items() if hasattr(QWEN_GGUF, key)}
    return replace(QWEN_GGUF, workload=workload, budget=budget, **told)


def test_everything_that_sizes_memory_is_absolute() -> None:
    found = arguments(QWEN_GGUF)
    assert found["--ctx-size"] == "32768"
    assert found["--parallel"] == "8"
    assert found["--batch-size"] == "2048"
    assert found["--ubatch-size"] == "512"
    assert found["--n-gpu-layers"] == "999"
    assert (found["--cache-type-k"], found["--cache-type-v"]) == ("bf16", "bf16")
    assert found["--split-mode"] == "none"
    said = environment(QWEN_GGUF)
    assert said["LLAMA_ARG_FIT"] == "off"
    assert said["LLAMA_ARG_KV_UNIFIED"] == "true"
    assert said["LLAMA_ARG_CACHE_RAM"] == "0"


def test_nothing_reads_the_gpu_that_a_replica_gets() -> None:
    assert not [each for each in container(QWEN_GGUF).args if "$(" in each]


@pytest.mark.parametrize(
    ("changes", "flag", "value"),
    [
        ({"kv_cache_precision": "q8_0"}, "--cache-type-v", "q8_0"),
        ({"kv_cache_precision": "fp16"}, "--cache-type-k", "f16"),
        ({"pipeline": 2}, "--tensor-split", "1,1"),
        ({"pipeline": 2}, "--split-mode", "layer"),
        ({"max_batched_tokens": 256}, "--ubatch-size", "256"),
        ({"context_length": 16384, "tokens_per_sequence": 16384}, "--ctx-size", "131072"),
    ],
)
def test_flags_follow_the_estimate(changes: dict[str, Any], flag: str, value: str) -> None:
    assert arguments(with_work(**changes))[flag] == value


@pytest.mark.parametrize(
    ("changes", "variable", "value"),
    [
        ({"cuda_graphs": False}, "GGML_CUDA_DISABLE_GRAPHS", "1"),
        ({"prefix_caching": False}, "LLAMA_ARG_CACHE_PROMPT", "false"),
        ({"prefix_caching": True}, "LLAMA_ARG_CACHE_PROMPT", "true"),
        ({}, "LLAMA_ARG_FLASH_ATTN", "1"),
    ],
)
def test_variables_follow_the_spec(changes: dict[str, Any], variable: str, value: str) -> None:
    assert environment(replace(QWEN_GGUF, **changes))[variable] == value


def test_a_declared_claim_gets_the_largest_context_that_fits() -> None:
    assert QWEN_GGUF.budget is not None
    less = replace(QWEN_GGUF.budget, kv_cache=QWEN_GGUF.budget.kv_cache // 2)
    assert arguments(replace(QWEN_GGUF, budget=less))["--ctx-size"] == "16384"


def test_the_file_is_named_by_its_commit() -> None:
    assert arguments(QWEN_GGUF)["--model-url"] == (
        "https://huggingface.co/Qwen/Qwen3-8B-GGUF/resolve/7c41481f57cb95916b40956ab2f0b139b296d974/Qwen3-8B-Q4_K_M.gguf"
    )
    mirrored = replace(QWEN_GGUF, hub_endpoint="https://hub.example.com")
    assert arguments(mirrored)["--model-url"].startswith("https://hub.example.com/Qwen/")


def test_a_file_of_a_claim_is_mounted() -> None:
    assert arguments(QWEN_GGUF_FROM_CLAIM)["--model"] == "/models/qwen/Qwen3-8B-Q4_K_M.gguf"
    assert {"name": "model", "mountPath": "/models", "readOnly": True} in container(QWEN_GGUF_FROM_CLAIM).mounts


def test_the_image_follows_the_build() -> None:
    assert container(QWEN_GGUF).image == "ghcr.io/ggml-org/llama.cpp:server-cuda-b7917"
    assert container(replace(QWEN_GGUF, image="registry.example.com/llama:1")).image == "registry.example.com/llama:1"


def test_answers_under_way_are_waited_for_before_it_is_told_to_end() -> None:
    built = container(QWEN_GGUF)
    assert built.pre_stop == {"sleep": {"seconds": 35}}
    assert built.grace_seconds == 50


@pytest.mark.parametrize(
    ("changes", "field", "allowed"),
    [
        ({"version": "b5000"}, "spec.engine.version", "b5554 or newer"),
        ({"version": "latest"}, "spec.engine.version", "b7917"),
        ({"file": ""}, "spec.model.file", "one GGUF file"),
        ({"checkpoint_precision": "bf16"}, "spec.precision.weights", "name a GGUF file"),
        ({"drafts": Drafts(method="ngram", tokens=3)}, "spec.speculation", "leave it out"),
        ({"adapters": AdapterSlots(count=1, rank=16)}, "spec.adapters", "leave it out"),
        ({"expert": True}, "spec.parallelism.expert", "write false"),
        ({"decode_context": 2}, "spec.parallelism.decodeContext", "write 1"),
        ({"budget": None}, "spec.engine.name", "sized by the estimate"),
        ({"args": ("-c", "4096")}, "spec.engine.args[0]", "memory.perGPU"),
        ({"args": ("--fit-target", "512")}, "spec.engine.args[0]", "on the GPU that was claimed"),
        ({"args": ("--seed=7",)}, "spec.engine.args[0]", "argument of its own"),
        ({"args": ("--swa-full",)}, "spec.engine.args[0]", "changes GPU memory"),
        ({"args": ("--grammar", "x")}, "spec.engine.args[0]", "not among"),
    ],
)
def test_refusals_name_the_field(changes: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        container(replace(QWEN_GGUF, **changes))
    assert caught.value.field == field
    assert allowed in caught.value.allowed


def test_harmless_arguments_come_last() -> None:
    args = container(replace(QWEN_GGUF, args=("--jinja", "--threads", "-1"))).args
    assert args[-3:] == ("--jinja", "--threads", "-1")


def test_a_cache_too_small_for_one_cell_is_not_taken_for_as_many_as_the_model_has() -> None:
    assert QWEN_GGUF.budget is not None
    with pytest.raises(InvalidInputError, match=r"memory\.perGPU"):
        container(replace(QWEN_GGUF, budget=replace(QWEN_GGUF.budget, kv_cache=1)))
