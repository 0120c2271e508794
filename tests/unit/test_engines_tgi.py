"""TGI's command line: a fraction that is the claim's, and what it fills of it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.replicas import QWEN_TGI
from vrampack.engines.base import AdapterSlots, Budget, Drafts, EngineInput
from vrampack.engines.tgi import container
from vrampack.errors import InvalidInputError
from vrampack.sharing.base import Share, utilization
from vrampack.units import GIB, MIB


def arguments(given: EngineInput) -> dict[str, str | None]:
    """By flag; None: a flag without a value."""
    pairs = (each.partition("=") for each in container(given).args)
    return {name: value if equals else None for name, equals, value in pairs}


def environment(given: EngineInput) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in container(given).env}


def test_everything_that_sizes_memory_is_explicit() -> None:
    found = arguments(QWEN_TGI)
    assert found["--max-total-tokens"] == "8192"
    assert found["--max-input-tokens"] == "8191"
    assert found["--max-batch-size"] == "8"
    assert found["--max-batch-total-tokens"] == "32768"
    assert found["--max-batch-prefill-tokens"] == "4096"
    assert found["--cuda-memory-fraction"] == "$(VRAMPACK_UTILIZATION)"
    assert found["--cuda-graphs"] == "1,2,4,8"


def test_it_needs_gpus_of_its_own_and_says_why() -> None:
    assert "neighbours" in container(QWEN_TGI).alone


@given(
    weights=st.integers(1 * GIB, 60 * GIB),
    kv_cache=st.integers(4608 * MIB, 60 * GIB),
    working=st.integers(256 * MIB, 4 * GIB),
    outside=st.integers(256 * MIB, 1 * GIB),
    slack=st.integers(512 * MIB, 2 * GIB),
    room=st.integers(0, 40 * GIB),
)
def test_its_own_rule_fills_the_claim_but_for_the_slack(
    weights: int, kv_cache: int, working: int, outside: int, slack: int, room: int
) -> None:
    """Its rule: blocks get what is free of (fraction times what it fills) once the largest step has run."""
    claim = weights + kv_cache + working + outside + slack
    total = claim + room
    budget = Budget(weights=weights, kv_cache=kv_cache, working=working, claim=claim, slack=slack)
    built = container(replace(QWEN_TGI, budget=budget))
    share = Share(kv_cache=kv_cache, runtime_context=outside, communication=0, fraction=built.fraction_bytes)
    fraction = float(utilization(claim_bytes=claim, share=share, usable_bytes=total))
    filled = float(environment(replace(QWEN_TGI, budget=budget))["TGI_WIGGLE_ROOM"])
    used = weights + working + outside
    blocks = max(0, (total - used) - (1 - fraction * filled) * total)
    assert used + blocks <= claim - slack + 1
    assert blocks >= kv_cache - total / 10_000 - claim / 1000 - 1  # the digits that both are rounded down to


@pytest.mark.parametrize(
    ("changes", "flag", "value"),
    [
        ({"cuda_graphs": False}, "--cuda-graphs", "0"),
        ({"concurrency": 100}, "--cuda-graphs", "1,2,4,8,16,32"),
        ({"kv_cache_precision": "fp8"}, "--kv-cache-dtype", "fp8_e4m3fn"),
        ({"tensor": 2}, "--num-shard", "2"),
        ({"weights_precision": "fp16", "kv_cache_precision": "fp16"}, "--dtype", "float16"),
    ],
)
def test_flags_follow_the_spec(changes: dict[str, Any], flag: str, value: str) -> None:
    assert arguments(replace(QWEN_TGI, **changes))[flag] == value


def test_a_quantized_checkpoint_says_its_method_itself() -> None:
    found = arguments(replace(QWEN_TGI, weights_precision="awq", checkpoint_precision="awq"))
    assert "--quantize" not in found
    assert "--dtype" not in found


@pytest.mark.parametrize(
    ("changes", "field", "allowed"),
    [
        ({"version": "2.4.1"}, "spec.engine.version", "3.0.0 or newer"),
        ({"pipeline": 2}, "spec.parallelism.pipeline", "use tensor"),
        ({"expert": True}, "spec.parallelism.expert", "write false"),
        ({"drafts": Drafts(method="ngram", tokens=3)}, "spec.speculation", "leave it out"),
        ({"adapters": AdapterSlots(count=1, rank=16)}, "spec.adapters", "leave it out"),
        ({"images_per_prompt": 1}, "spec.engine.name", "use vllm"),
        ({"weights_precision": "fp8"}, "spec.precision.weights", "as they are"),
        ({"checkpoint_precision": "gguf", "weights_precision": "gguf"}, "spec.precision.weights", "as they are"),
        ({"kv_cache_precision": "q8_0"}, "spec.precision.kvCache", "or as fp8"),
        ({"args": ("--cuda-memory-fraction", "0.5")}, "spec.engine.args[0]", "memory.perGPU"),
        ({"args": ("--rope-scaling", "linear")}, "spec.engine.args[0]", "changes GPU memory"),
    ],
)
def test_refusals_name_the_field(changes: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        container(replace(QWEN_TGI, **changes))
    assert caught.value.field == field
    assert allowed in caught.value.allowed
