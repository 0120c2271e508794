"""The estimate turned round: what fits, fits, and one more does not."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.known_models import (
    LLAMA_8B,
    LLAMA_8B_WEIGHTS,
    LLAMA_70B,
    LLAMA_70B_WEIGHTS,
    QWEN3_30B_A3B,
    QWEN3_30B_A3B_WEIGHTS,
)
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.estimator import read_model
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.estimate import estimate
from vrampack.memory.inverse import Limit, Reach, largest, largest_concurrency, longest_context, with_context
from vrampack.memory.workload import Workload
from vrampack.units import GIB, MIB

LOAD = Workload(context_length=8192, concurrency=8, tokens_per_sequence=8192, max_batched_tokens=8192)
MODELS = {
    "llama-8b": (LLAMA_8B, LLAMA_8B_WEIGHTS),
    "llama-70b": (LLAMA_70B, LLAMA_70B_WEIGHTS),
    "qwen3-30b-a3b": (QWEN3_30B_A3B, QWEN3_30B_A3B_WEIGHTS),
}


def claim(model: tuple[Architecture, Weights], load: Workload) -> int:
    return estimate(architecture=model[0], weights=model[1], workload=load).per_gpu


def concurrency(model: tuple[Architecture, Weights], load: Workload, available: int) -> Reach:
    return largest_concurrency(architecture=model[0], weights=model[1], workload=load, available=available)


def context(model: tuple[Architecture, Weights], load: Workload, available: int) -> Reach:
    return longest_context(architecture=model[0], weights=model[1], workload=load, available=available)


class TestConcurrency:
    def test_the_claim_of_a_load_bears_that_load_and_no_more(self) -> None:
        model = MODELS["llama-8b"]
        needed = claim(model, LOAD)
        assert concurrency(model, LOAD, needed) == Reach(value=8, limit=Limit.MEMORY)
        assert concurrency(model, LOAD, needed - MIB).value == 7

    def test_not_even_one_sequence(self) -> None:
        assert concurrency(MODELS["llama-70b"], LOAD, 80 * GIB) == Reach(value=0, limit=Limit.MEMORY)

    def test_an_engine_takes_no_more_sequences_than_batched_tokens(self) -> None:
        load = replace(LOAD, max_batched_tokens=64, tokens_per_sequence=128)
        assert concurrency(MODELS["llama-8b"], load, 140 * GIB) == Reach(value=64, limit=Limit.REFUSED)

    def test_a_load_that_is_too_large_itself_may_be_asked_about(self) -> None:
        load = replace(LOAD, concurrency=100_000)
        assert concurrency(MODELS["llama-8b"], load, 24 * GIB) == concurrency(MODELS["llama-8b"], LOAD, 24 * GIB)

    def test_a_question_that_is_wrong_is_refused(self) -> None:
        with pytest.raises(InvalidInputError) as refusal:
            concurrency(MODELS["llama-8b"], replace(LOAD, tensor=3), 80 * GIB)
        assert refusal.value.field == "spec.parallelism.tensor"


class TestContext:
    def test_the_claim_of_a_load_bears_that_load(self) -> None:
        model = MODELS["llama-8b"]
        found = context(model, LOAD, claim(model, LOAD))
        assert found.limit is Limit.MEMORY
        assert found.value >= 8192
        assert found.value - 8192 < 16  # the rest of the last block

    def test_a_model_is_made_for_so_many_tokens(self) -> None:
        found = context(MODELS["llama-8b"], replace(LOAD, concurrency=1), 140 * GIB)
        assert found == Reach(value=131072, limit=Limit.REFUSED)

    def test_expected_tokens_stand_where_they_are_fewer(self) -> None:
        load = replace(LOAD, tokens_per_sequence=1024)
        assert with_context(load, 16384).tokens_per_sequence == 1024
        assert with_context(load, 512).tokens_per_sequence == 512
        assert with_context(LOAD, 16384).tokens_per_sequence == 16384
        # Eight sequences of 1024 tokens are the room of one of 8192.
        assert context(MODELS["llama-8b"], load, claim(MODELS["llama-8b"], load)).value >= 8192


@given(
    name=st.sampled_from(sorted(MODELS)),
    context_length=st.integers(1, 40_960),
    share=st.integers(1, 100),
    batched=st.sampled_from([16, 512, 2048, 8192]),
    tensor=st.sampled_from([1, 2, 4]),
    available=st.integers(1, 200_000).map(lambda size: size * MIB),
)
def test_concurrency_is_a_true_inverse(
    name: str, context_length: int, share: int, batched: int, tensor: int, available: int
) -> None:
    model = MODELS[name]
    load = Workload(
        context_length=context_length,
        concurrency=1,
        tokens_per_sequence=-(-context_length * share // 100),
        max_batched_tokens=batched,
        tensor=tensor,
    )
    found = concurrency(model, load, available)
    if found.value:
        assert claim(model, replace(load, concurrency=found.value)) <= available
    if found.limit is Limit.MEMORY:
        assert claim(model, replace(load, concurrency=found.value + 1)) > available
    else:
        assert found.value == batched


@given(
    name=st.sampled_from(sorted(MODELS)),
    sequences=st.integers(1, 256),
    expected=st.none() | st.integers(1, 4096),
    available=st.integers(1, 200_000).map(lambda size: size * MIB),
)
def test_context_is_a_true_inverse(name: str, sequences: int, expected: int | None, available: int) -> None:
    model = MODELS[name]
    load = Workload(
        context_length=4096, concurrency=sequences, tokens_per_sequence=expected or 4096, max_batched_tokens=2048
    )
    found = context(model, load, available)
    if found.value:
        assert claim(model, with_context(load, found.value)) <= available
    if found.limit is Limit.MEMORY:
        assert claim(model, with_context(load, found.value + 1)) > available
    else:
        assert found.value == model[0].max_context


@given(boundary=st.integers(0, 10_000), most=st.integers(0, 10_000), guess=st.integers(0, 20_000))
def test_the_largest_that_fits_is_found_from_any_guess(boundary: int, most: int, guess: int) -> None:
    asked: list[int] = []

    def fits(value: int) -> bool:
        asked.append(value)
        return value <= boundary

    assert largest(fits, most=most, guess=guess) == min(boundary, most)
    assert all(1 <= value <= most for value in asked)
    assert len(asked) <= 32
    assert len(set(asked)) == len(asked)


def test_a_good_guess_costs_two_questions() -> None:
    asked: list[int] = []

    def fits(value: int) -> bool:
        asked.append(value)
        return value <= 700

    assert largest(fits, most=8192, guess=700) == 700
    assert asked == [700, 701]


PUBLISHED = (
    "google--gemma-4-26B-A4B",
    "Qwen--Qwen3.5-27B",
    "moonshotai--Kimi-K2-Instruct",
    "deepseek-ai--DeepSeek-V4-Flash",
    "openai--gpt-oss-20b",
    "meta-llama--Llama-4-Scout",
    "nvidia--NVIDIA-Nemotron",
    "MiniMaxAI--MiniMax-M2.5",
)
"""Windows, states, latent attention, groups of a kind of their own: what may not grow evenly with the load."""


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp"])
def test_inverses_hold_for_layers_of_every_kind(shared_data: Path, engine: str) -> None:
    asked = 0
    for path in sorted((shared_data / "model-configs").glob("*.json")):
        if not path.name.startswith(PUBLISHED):
            continue
        facts = read_model(path)
        model = (facts.architecture, facts.weights)
        load = Workload(
            context_length=4096,
            concurrency=4,
            tokens_per_sequence=4096,
            max_batched_tokens=2048,
            tensor=1,
            engine=engine,
        )
        try:
            sizes = [claim(model, replace(load, concurrency=many)) for many in (1, 3, 40)]
        except (InvalidInputError, UnsupportedModelError):
            continue
        for available in (*sizes, sizes[0] - 1, sizes[1] + 5 * GIB):
            found = concurrency(model, load, available)
            assert not found.value or claim(model, replace(load, concurrency=found.value)) <= available
            if found.limit is Limit.MEMORY:
                assert claim(model, replace(load, concurrency=found.value + 1)) > available, path.name
            longest = context(model, load, available)
            assert not longest.value or claim(model, with_context(load, longest.value)) <= available
            if longest.limit is Limit.MEMORY:
                assert claim(model, with_context(load, longest.value + 1)) > available, path.name
            asked += 1
        assert concurrency(model, load, sizes[1]).value >= 3, f"{path.name}: fewer sequences cost more"
        assert context(model, load, claim(model, load)).value >= 4096, f"{path.name}: a shorter context costs more"
    assert asked >= 5


def test_each_data_parallel_rank_has_batched_tokens_of_its_own() -> None:
    load = replace(LOAD, context_length=512, tokens_per_sequence=512, max_batched_tokens=64, data=4)
    found = concurrency(MODELS["llama-8b"], load, 10_000 * GIB)
    assert found == Reach(value=256, limit=Limit.REFUSED)
    with pytest.raises(InvalidInputError, match="maxBatchedTokens"):
        claim(MODELS["llama-8b"], replace(load, concurrency=257))
