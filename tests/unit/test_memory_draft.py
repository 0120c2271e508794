"""A second model that drafts: its weights, its layers in the pool, its graphs and its pass are in the claim."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.known_models import LLAMA_8B, LLAMA_70B, QWEN3_8B, bf16_weights
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.draft import Draft
from vrampack.memory.estimate import Estimate, estimate
from vrampack.memory.layers import FeedForward, LayerRun, RecurrentState, StateKind
from vrampack.memory.vllm.layout import kv_layout
from vrampack.memory.workload import SECOND_MODEL, Workload
from vrampack.models.drafters import medusa_of
from vrampack.units import MIB, round_up

WEIGHTS = bf16_weights(LLAMA_70B, parameters=70_553_706_496)
ONE_LAYER = replace(LLAMA_8B, layers=1, hidden_size=8192, attention_heads=64)
EAGLE = Draft(architecture=ONE_LAYER, weights=bf16_weights(ONE_LAYER, parameters=3_000_000_000))
SMALL = Draft(architecture=LLAMA_8B, weights=bf16_weights(LLAMA_8B, parameters=8_030_261_248))
MEDUSA = medusa_of({"num_heads": 5, "hidden_size": 8192, "vocab_size": 128256}, dtype="bfloat16")
HEADS = Draft(architecture=MEDUSA, weights=bf16_weights(MEDUSA, parameters=5 * (8192 * 8192 + 8192 * 128256)))
WORK = Workload(context_length=8192, concurrency=8, tokens_per_sequence=8192, max_batched_tokens=8192, tensor=8)


def load(method: str, draft: Draft | None, **changes: Any) -> Workload:
    return replace(WORK, speculation=method, speculative_tokens=3, draft=draft, **changes)


def ask(workload: Workload) -> Estimate:
    return estimate(architecture=LLAMA_70B, weights=WEIGHTS, workload=workload)


@pytest.mark.parametrize("method", ["eagle", "eagle3", "draft"])
def test_every_layer_of_the_draft_has_its_share_of_a_block(method: str) -> None:
    draft = SMALL if method == "draft" else EAGLE
    plain, drafting = kv_layout(LLAMA_70B, WORK), kv_layout(LLAMA_70B, load(method, draft))
    layer = 16 * 1 * 2 * 128 * 2  # a head on each of eight ranks
    assert drafting.bytes_per_block - plain.bytes_per_block == draft.architecture.layers * layer
    assert len(drafting.groups) == 1


def test_medusa_keeps_nothing_of_the_past() -> None:
    assert kv_layout(LLAMA_70B, load("medusa", HEADS)).bytes_per_block == kv_layout(LLAMA_70B, WORK).bytes_per_block


def test_a_draft_with_heads_of_another_width_shares_the_pool() -> None:
    narrow = Draft(architecture=replace(LLAMA_8B, head_dim=64, kv_heads=8), weights=SMALL.weights)
    layout = kv_layout(LLAMA_70B, load("draft", narrow))
    assert len(layout.groups) == 1
    assert layout.bytes_per_block == 16 * 2 * 2 * (80 * 128 + 32 * 64)


@pytest.mark.parametrize(
    ("method", "draft"), [("eagle", EAGLE), ("eagle3", EAGLE), ("draft", SMALL), ("medusa", HEADS)]
)
def test_no_term_is_below_that_of_the_prompt_s_own_drafts(method: str, draft: Draft) -> None:
    plain, drafting = ask(load("ngram", None)), ask(load(method, draft))
    assert drafting.weights - plain.weights >= draft.weights.total // 8 // MIB * MIB
    assert drafting.activations >= plain.activations
    assert (drafting.cuda_graphs > plain.cuda_graphs) == (method != "medusa")
    assert (drafting.kv_cache > plain.kv_cache) == (method != "medusa")
    parts = (drafting.weights, drafting.kv_cache, drafting.activations, drafting.cuda_graphs, drafting.communication)
    assert drafting.per_gpu == sum(parts) + drafting.runtime_context + drafting.allowance + drafting.headroom


def test_eagle_3_keeps_three_states_of_every_token() -> None:
    tokens = load("eagle", EAGLE, concurrency=1), load("eagle3", EAGLE, concurrency=1)
    first, third = (ask(each).activations for each in tokens)
    assert third - first == round_up(3 * 8192 * 8192 * 2, MIB)


def test_the_draft_is_on_the_last_stage() -> None:
    staged = replace(WORK, tensor=4, pipeline=2)
    plain = ask(replace(staged, speculation="ngram", speculative_tokens=3))
    drafting = ask(replace(staged, speculation="eagle", speculative_tokens=3, draft=EAGLE))
    assert drafting.weights > plain.weights
    assert drafting.kv_block_bytes - plain.kv_block_bytes == 16 * 2 * 2 * 128 * 2


@pytest.mark.parametrize("method", sorted(SECOND_MODEL))
def test_a_draft_that_is_not_there_is_not_forgotten(method: str) -> None:
    with pytest.raises((InvalidInputError, UnsupportedModelError), match=r"spec\.speculation"):
        ask(load(method, None))


def test_a_draft_must_be_split_as_the_model_is() -> None:
    odd = Draft(architecture=replace(LLAMA_8B, attention_heads=20, kv_heads=4), weights=SMALL.weights)
    with pytest.raises(InvalidInputError, match="of the model that drafts"):
        ask(load("draft", odd))


def test_a_whole_model_that_drafts_knows_the_same_words() -> None:
    other = Draft(architecture=QWEN3_8B, weights=SMALL.weights)
    with pytest.raises(InvalidInputError, match="128256") as refusal:
        ask(load("draft", other))
    assert refusal.value.field == "spec.speculation.draftModel"


def test_a_draft_with_states_can_t_take_a_token_back() -> None:
    state = RecurrentState(kind=StateKind.MAMBA1, conv_kernel=4, key_dim=16, value_heads=1, value_dim=8192)
    runs = (LayerRun(count=2, mixers=(state,), feed_forward=FeedForward(width=14336)),)
    recurrent: Architecture = replace(LLAMA_8B, layers=2, runs=runs)
    with pytest.raises(UnsupportedModelError, match="states can't go back"):
        ask(load("draft", Draft(architecture=recurrent, weights=SMALL.weights)))
