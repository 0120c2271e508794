"""vLLM's command line: what is always passed, what depends on the contract and the release, and what is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.replicas import FROM_CLAIM, LLAMA_8B, LLAMA_70B
from vrampack.engines.base import AdapterSlots, ClaimModel, Drafts, EngineInput, HubModel, is_reserved
from vrampack.engines.registry import engine
from vrampack.engines.vllm import container
from vrampack.errors import InvalidInputError
from vrampack.memory.overheads import captured_sizes


def arguments(given: EngineInput) -> dict[str, str | None]:
    """By flag; None: a flag without a value."""
    pairs = (each.partition("=") for each in container(given).args)
    return {name: value if equals else None for name, equals, value in pairs}


def environment(given: EngineInput) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in container(given).env}


def test_everything_that_sizes_memory_is_explicit() -> None:
    found = arguments(LLAMA_8B)
    assert found["--max-model-len"] == "8192"
    assert found["--max-num-seqs"] == "16"
    assert found["--max-num-batched-tokens"] == "8192"
    assert found["--tensor-parallel-size"] == "1"
    assert found["--gpu-memory-utilization"] == "$(VRAMPACK_UTILIZATION)"
    assert found["--kv-cache-memory-bytes"] == "$(VRAMPACK_KV_CACHE_BYTES)"
    assert found["--max-cudagraph-capture-size"] == "32"


def test_every_variable_that_an_argument_reads_is_there_before_it_runs() -> None:
    built = container(LLAMA_8B)
    present = {each["name"] for each in built.env}
    assert {each.split("$(")[1].rstrip(")") for each in built.args if "$(" in each} <= present


@pytest.mark.parametrize(
    ("changes", "flag", "value"),
    [
        ({"cuda_graphs": False}, "--enforce-eager", None),
        ({"concurrency": 1000}, "--max-cudagraph-capture-size", "512"),
        ({"concurrency": 1000, "max_batched_tokens": 256}, "--max-cudagraph-capture-size", "256"),
        ({"prefix_caching": True}, "--enable-prefix-caching", None),
        ({"prefix_caching": False}, "--no-enable-prefix-caching", None),
        ({"kv_cache_precision": "fp8"}, "--kv-cache-dtype", "fp8"),
        ({"weights_precision": "fp16", "kv_cache_precision": "fp16"}, "--dtype", "float16"),
        ({"weights_precision": "fp32", "kv_cache_precision": "fp32"}, "--kv-cache-dtype", "auto"),
        ({"weights_precision": "fp8"}, "--quantization", "fp8_per_tensor"),
        ({"weights_precision": "fp8", "version": "0.12.0"}, "--quantization", "fp8"),
        ({"version": "0.12.0"}, "--kv-cache-dtype", "auto"),
        ({"version": "1.2.0"}, "--kv-cache-dtype", "bfloat16"),
        ({"pipeline": 2}, "--pipeline-parallel-size", "2"),
        ({"expert": True}, "--enable-expert-parallel", None),
        ({"decode_context": 2}, "--decode-context-parallel-size", "2"),
        ({"images_per_prompt": 2}, "--limit-mm-per-prompt", '{"image": 2, "video": 0, "audio": 0}'),
        (
            {"drafts": Drafts(method="mtp", tokens=3)},
            "--speculative-config",
            '{"method": "mtp", "num_speculative_tokens": 3}',
        ),
        ({"adapters": AdapterSlots(count=4, rank=32)}, "--enable-lora", None),
        ({"adapters": AdapterSlots(count=4, rank=32)}, "--max-loras", "4"),
        ({"adapters": AdapterSlots(count=4, rank=32)}, "--max-lora-rank", "32"),
    ],
)
def test_flags_follow_the_spec(changes: dict[str, Any], flag: str, value: str | None) -> None:
    found = arguments(replace(LLAMA_8B, **changes))
    assert flag in found
    assert found[flag] == value


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({}, "--quantization"),
        ({}, "--enable-prefix-caching"),
        ({"weights_precision": "awq", "checkpoint_precision": "awq"}, "--quantization"),
        ({"cuda_graphs": False}, "--max-cudagraph-capture-size"),
        ({"version": "0.12.0"}, "--shutdown-timeout"),
        ({}, "--pipeline-parallel-size"),
        ({}, "--enable-expert-parallel"),
        ({}, "--decode-context-parallel-size"),
        ({}, "--limit-mm-per-prompt"),
        ({}, "--speculative-config"),
        ({}, "--enable-lora"),
    ],
)
def test_flags_that_are_left_out(changes: dict[str, Any], flag: str) -> None:
    assert flag not in arguments(replace(LLAMA_8B, **changes))


def test_the_graphs_are_those_that_the_estimate_counts() -> None:
    for concurrency in (1, 3, 16, 100, 256, 1000):
        largest = int(arguments(replace(LLAMA_8B, concurrency=concurrency))["--max-cudagraph-capture-size"] or 0)
        sizes = [1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)]
        counted = captured_sizes(max_sequences=concurrency, max_batched_tokens=LLAMA_8B.max_batched_tokens)
        assert sum(size <= largest for size in sizes) == counted


def test_weights_from_the_hub() -> None:
    found = arguments(LLAMA_8B)
    assert found["--model"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert found["--revision"] == "0e9e39f249a16976918f6564b8830bc894c89659"
    assert "HF_HUB_OFFLINE" not in environment(LLAMA_8B)


def test_weights_from_a_claim_are_mounted_and_the_hub_is_left_alone() -> None:
    built = container(FROM_CLAIM)
    assert arguments(FROM_CLAIM)["--model"] == "/models/llama/8b"
    assert "--revision" not in arguments(FROM_CLAIM)
    assert environment(FROM_CLAIM)["HF_HUB_OFFLINE"] == "1"
    assert {"name": "model", "mountPath": "/models", "readOnly": True} in built.mounts


def test_a_start_may_take_as_long_as_the_weights_need() -> None:
    """15 minutes and 50 MiB/s; vLLM's own limit on loading must not end it earlier."""
    probe = container(LLAMA_70B).probes.startup
    assert probe is not None
    allowed = probe["periodSeconds"] * probe["failureThreshold"]
    assert allowed >= 900 + LLAMA_70B.weight_bytes / (50 * 2**20)
    assert abs(int(environment(LLAMA_70B)["VLLM_ENGINE_READY_TIMEOUT_S"]) - allowed) < probe["periodSeconds"]


def test_shared_memory_only_for_ranks_that_talk() -> None:
    assert container(LLAMA_8B).shared_memory == 0
    assert container(LLAMA_70B).shared_memory == LLAMA_70B.shared_memory


def test_image() -> None:
    assert container(LLAMA_8B).image == "vllm/vllm-openai:v0.33.0"
    assert container(replace(LLAMA_8B, image="mirror.example.com/vllm:x")).image == "mirror.example.com/vllm:x"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"version": "0.11.2"}, "spec.engine.version"),
        ({"version": "latest"}, "spec.engine.version"),
        ({"weights_precision": "gguf", "checkpoint_precision": "gguf"}, "spec.precision.weights"),
        ({"weights_precision": "bitsandbytes", "checkpoint_precision": "bitsandbytes"}, "spec.precision.weights"),
        ({"weights_precision": "awq"}, "spec.precision.weights"),
        ({"weights_precision": "bf16", "checkpoint_precision": "fp8"}, "spec.precision.weights"),
        ({"kv_cache_precision": "fp16"}, "spec.precision.kvCache"),
        ({"kv_cache_precision": "q8_0"}, "spec.precision.kvCache"),
    ],
)
def test_what_vllm_can_not_serve(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        container(replace(LLAMA_8B, **changes))
    assert refused.value.field == field


@pytest.mark.parametrize(
    "args",
    [
        ("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        ("--seed=7", "--trust-remote-code", "--no-enable-log-requests"),
        ("--disable-log-requests",),
        ("--chat_template", "/templates/a.jinja", "--root-path=/v1"),
        ("--api-key", "a", "b", "--max-log-len", "-1"),
        ("--default-chat-template-kwargs.enable_thinking", "false"),
    ],
)
def test_arguments_that_leave_memory_alone_are_passed_on(args: tuple[str, ...]) -> None:
    assert container(replace(LLAMA_8B, args=args)).args[-len(args) :] == args


@pytest.mark.parametrize(
    ("args", "position", "word"),
    [
        (("--max-model-len", "4096"), 0, "serving.contextLength"),
        (("--seed=1", "--max_num_seqs=4"), 1, "serving.concurrency"),
        (("--gpu-memory-utilization=0.9",), 0, "claim"),
        (("-tp", "2"), 0, "from parallelism"),
        (("-tp=2",), 0, "from parallelism"),
        (("--no-enable-prefix-caching",), 0, "engine.prefixCaching"),
        (("--disable-prefix-caching",), 0, "engine.prefixCaching"),
        (("--enable-lora",), 0, "from adapters"),
        (("--data-parallel-rpc-port=1",), 0, "from parallelism"),
        (("--speculative-config.method=mtp",), 0, "from speculation"),
        (("--cpu-offload-gb", "4"), 0, "changes GPU memory"),
        (("--swap-space=4",), 0, "changes GPU memory"),
        (("--block-size", "32"), 0, "changes GPU memory"),
        (("--num-gpu-blocks-override", "32"), 0, "claim"),
        (("--enable-sleep-mode",), 0, "changes GPU memory"),
        (("--mamba-cache-dtype=float32",), 0, "changes GPU memory"),
        (("--no-enable-chunked-prefill",), 0, "changes GPU memory"),
        (("--gpu-memory-util=0.9",), 0, "engine custom"),
        (("--something-new",), 0, "engine custom"),
        (("-O3",), 0, "engine.cudaGraphs"),
        (("--seed", "1", "2"), 2, "begins with --"),
        (("org/model",), 0, "begins with --"),
        (("--seed", "--trust-remote-code"), 0, "needs a value"),
        (("--seed",), 0, "needs a value"),
        (("--trust-remote-code=true",), 0, "no value"),
    ],
)
def test_arguments_that_are_refused(args: tuple[str, ...], position: int, word: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        container(replace(LLAMA_8B, args=args))
    assert refused.value.field == f"spec.engine.args[{position}]"
    assert refused.value.value == args[position]
    assert word in refused.value.allowed


def test_variables_of_the_share_are_reserved_and_others_are_not() -> None:
    reserved = {each["name"] for each in container(LLAMA_70B).env if is_reserved(each["name"])}
    assert reserved == {
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
        "NVIDIA_GPU_MEMORY_REQUEST",
        "NVIDIA_GPU_MEMORY_LIMIT",
        "CUDA_DEVICE_ORDER",
        "VRAMPACK_GPUS",
        "VRAMPACK_CLAIM_BYTES",
        "VRAMPACK_UTILIZATION",
        "VRAMPACK_KV_CACHE_BYTES",
    }
    assert is_reserved("CUDA_VISIBLE_DEVICES")
    assert not is_reserved("HF_TOKEN")


def test_no_container_sets_cuda_visible_devices() -> None:
    """Older releases of vLLM crash on a UUID in it."""
    assert "CUDA_VISIBLE_DEVICES" not in environment(LLAMA_70B)


def test_registry() -> None:
    assert engine("vllm") is container
    with pytest.raises(InvalidInputError, match="custom, llamacpp, sglang, tgi, vllm"):
        engine("ollama")


@pytest.mark.parametrize(
    ("draft", "told"),
    [
        (HubModel(repository="org/draft", commit="c" * 40), {"model": "org/draft", "revision": "c" * 40}),
        (ClaimModel(claim="models", path="drafts/eagle/"), {"model": "/models/drafts/eagle"}),
    ],
)
def test_a_model_that_drafts_is_named_and_can_be_had(draft: HubModel | ClaimModel, told: dict[str, str]) -> None:
    given = replace(FROM_CLAIM, tensor=2, drafts=Drafts(method="eagle3", tokens=3, model=draft))
    made = container(given)
    [argument] = [each for each in made.args if each.startswith("--speculative-config=")]
    config = json.loads(argument.partition("=")[2])
    common = {"method": "eagle3", "num_speculative_tokens": 3, "draft_tensor_parallel_size": 2}
    assert config == common | told
    offline = [each for each in made.env if each["name"] == "HF_HUB_OFFLINE"]
    assert bool(offline) == isinstance(draft, ClaimModel), "a draft on the hub has to be fetched"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"drafts": Drafts(method="draft", tokens=3, model=None), "version": "0.12.0"}, "spec.speculation.method"),
        (
            {"drafts": Drafts(method="eagle", tokens=3, model=ClaimModel(claim="other", path="eagle"))},
            "spec.speculation.draftModel",
        ),
    ],
)
def test_drafts_that_it_can_t_load_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        container(replace(FROM_CLAIM, **changes))
    assert refusal.value.field == field


def test_a_rank_of_several_is_told_its_own_part() -> None:
    made = container(replace(LLAMA_8B, data=4, concurrency=18))
    assert {"--data-parallel-size=4", "--max-num-seqs=5", "--max-cudagraph-capture-size=10"} <= set(made.args)
    assert made.cpu == container(LLAMA_8B).cpu + 3 * 1000
    assert made.shared_memory > 0
