"""Room for LoRA adapters: slots of the highest rank in every linear layer, whatever an adapter changes."""

import dataclasses
from typing import Any

import pytest

from tests.unit.known_models import LLAMA_8B, LLAMA_8B_WEIGHTS, QWEN3_30B_A3B
from vrampack.memory.adapters import adapter_bytes
from vrampack.memory.estimate import estimate
from vrampack.memory.workload import Workload


def load(**changes: Any) -> Workload:
    usual = {"context_length": 8192, "concurrency": 16, "tokens_per_sequence": 8192, "max_batched_tokens": 8192}
    return Workload(**(usual | {"lora_adapters": 1, "lora_rank": 1} | changes))


def elements(**changes: Any) -> float:
    workload = load(**changes)
    buffers = 3 * 8192 * workload.lora_rank * 4
    return (adapter_bytes(LLAMA_8B, workload) - buffers) / 2 / workload.lora_adapters / workload.lora_rank


ATTENTION = 3 * 4096 + (4096 + 2 * 1024) + 4096 + 4096
FEED_FORWARD = 2 * 4096 + 2 * 14336 + 14336 + 4096
TABLES = 2 * (4096 + 128256)


def test_every_linear_layer_and_both_tables_have_factors() -> None:
    assert elements() == 32 * (ATTENTION + FEED_FORWARD) + TABLES


def test_slots_times_rank() -> None:
    assert elements(lora_adapters=4, lora_rank=64) == elements()
    assert adapter_bytes(LLAMA_8B, load(lora_adapters=0)) == 0


def test_one_factor_of_each_layer_is_whole_on_every_rank() -> None:
    attention = 3 * 4096 + (2048 + 2 * 512) + 2048 + 4096
    feed_forward = 2 * 4096 + 2 * 7168 + 7168 + 4096
    assert elements(tensor=2) == 32 * (attention + feed_forward) + TABLES


def test_experts_have_factors_each() -> None:
    dense = adapter_bytes(dataclasses.replace(QWEN3_30B_A3B, experts=0), load())
    assert adapter_bytes(QWEN3_30B_A3B, load()) > 20 * dense


@pytest.mark.parametrize("changes", [{"tensor": 4}, {"tensor": 4, "expert": True}, {"pipeline": 4}])
def test_a_split_never_takes_more(changes: dict[str, int]) -> None:
    assert adapter_bytes(QWEN3_30B_A3B, load(**changes)) <= adapter_bytes(QWEN3_30B_A3B, load())


def test_the_claim_has_room_for_them() -> None:
    without, with_four = (
        estimate(
            architecture=LLAMA_8B,
            weights=LLAMA_8B_WEIGHTS,
            workload=load(lora_adapters=adapters, lora_rank=64, max_batched_tokens=2048, headroom_percent=0),
        )
        for adapters in (0, 4)
    )
    room = adapter_bytes(LLAMA_8B, load(lora_adapters=4, lora_rank=64, max_batched_tokens=2048))
    assert 0 <= with_four.per_gpu - without.per_gpu - room < 2**20
