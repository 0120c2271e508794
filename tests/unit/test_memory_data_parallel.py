"""Data parallel ranks: each has a scheduler and a cache of its own; experts are spread over all of them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.known_models import LLAMA_8B, LLAMA_8B_WEIGHTS, QWEN3_30B_A3B, bf16_weights
from vrampack.errors import InvalidInputError
from vrampack.memory.estimate import estimate
from vrampack.memory.inverse import largest_concurrency
from vrampack.memory.weights import reserved_bytes
from vrampack.memory.workload import Workload
from vrampack.units import GIB

EXPERTS = bf16_weights(QWEN3_30B_A3B, parameters=30_532_122_624)
WORK = Workload(context_length=8192, concurrency=16, tokens_per_sequence=4096, max_batched_tokens=4096)


def test_a_rank_serves_its_part_of_the_sequences() -> None:
    alone = estimate(architecture=LLAMA_8B, weights=LLAMA_8B_WEIGHTS, workload=replace(WORK, concurrency=4))
    four = estimate(architecture=LLAMA_8B, weights=LLAMA_8B_WEIGHTS, workload=replace(WORK, data=4))
    assert (four.gpus, four.kv_cache, four.weights) == (4, alone.kv_cache, alone.weights)
    assert four.activations == alone.activations
    assert four.communication > 0


@given(concurrency=st.integers(1, 64), data=st.integers(1, 16))
def test_the_worst_rank_is_the_claim(concurrency: int, data: int) -> None:
    """What does not divide evenly is on some rank."""
    load = replace(WORK, concurrency=concurrency, data=data)
    found = estimate(architecture=LLAMA_8B, weights=LLAMA_8B_WEIGHTS, workload=load)
    rank = replace(WORK, concurrency=-(-concurrency // data))
    assert found.kv_cache == estimate(architecture=LLAMA_8B, weights=LLAMA_8B_WEIGHTS, workload=rank).kv_cache


def test_experts_are_spread_over_all_ranks_and_attention_is_not() -> None:
    held = {
        (tensor, data, expert): reserved_bytes(
            QWEN3_30B_A3B, EXPERTS, replace(WORK, tensor=tensor, data=data, expert=expert)
        )
        for tensor, data in ((1, 1), (4, 1), (1, 4), (2, 2))
        for expert in (False, True)
        if (tensor, data) != (1, 1) or not expert
    }
    experts = 48 * 128 * 3 * 768 * 2048 * 2
    rest = held[1, 1, False] - experts
    for expert in (False, True):
        assert abs(held[1, 4, expert] - rest - experts // 4) < GIB // 4, "attention and tables are whole on each rank"
        assert held[4, 1, expert] < held[2, 2, expert] < held[1, 4, expert]


def test_experts_that_do_not_split_over_all_ranks_are_dealt_out_instead() -> None:
    load = replace(WORK, tensor=1, data=7, concurrency=14)
    with pytest.raises(InvalidInputError, match="expert: true") as refusal:
        estimate(architecture=QWEN3_30B_A3B, weights=EXPERTS, workload=load)
    assert refusal.value.field == "spec.parallelism.data"
    estimate(architecture=QWEN3_30B_A3B, weights=EXPERTS, workload=replace(load, expert=True))


@given(data=st.integers(1, 8), free=st.integers(20, 79))
def test_the_largest_concurrency_is_that_of_the_replica(data: int, free: int) -> None:
    load = replace(WORK, data=data)
    given_: dict[str, object] = {"architecture": LLAMA_8B, "weights": LLAMA_8B_WEIGHTS}
    most = largest_concurrency(**given_, workload=load, available=free * GIB).value  # type: ignore[arg-type]

    def claim(concurrency: int) -> int:
        asked = replace(load, concurrency=concurrency)
        return estimate(architecture=LLAMA_8B, weights=LLAMA_8B_WEIGHTS, workload=asked).per_gpu

    if most:
        assert claim(most) <= free * GIB
    if most < load.max_batched_tokens:
        assert claim(most + 1) > free * GIB


def test_llama_cpp_has_no_such_ranks() -> None:
    with pytest.raises(InvalidInputError, match=r"spec\.parallelism\.data"):
        estimate(
            architecture=LLAMA_8B,
            weights=LLAMA_8B_WEIGHTS,
            workload=replace(WORK, engine="llamacpp", engine_version="", data=2),
        )
