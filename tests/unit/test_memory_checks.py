"""What the engine would refuse at its start is refused by the estimate, with the field."""

from dataclasses import replace

import pytest

from tests.unit.known_models import LLAMA_8B, LLAMA_8B_WEIGHTS
from vrampack.errors import InvalidInputError
from vrampack.memory.estimate import estimate
from vrampack.memory.workload import Workload

LOAD = Workload(context_length=4096, concurrency=8, tokens_per_sequence=4096, max_batched_tokens=8192)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tensor": 4, "decode_context": 2}, "spec.parallelism.decodeContext"),  # 8 KV heads: none is there twice
        ({"tensor": 8, "decode_context": 8}, "spec.parallelism.decodeContext"),
        ({"speculation": "mtp", "speculative_tokens": 2}, "spec.speculation.method"),
        ({"lora_adapters": -50, "lora_rank": 64}, "spec.adapters"),
        ({"lora_adapters": 4}, "spec.adapters"),
        ({"context_length": 1.5, "tokens_per_sequence": 1}, "spec.serving.contextLength"),
    ],
)
def test_what_can_not_start_is_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        estimate(architecture=LLAMA_8B, weights=LLAMA_8B_WEIGHTS, workload=replace(LOAD, **changes))
    assert refusal.value.field == field


def test_copies_of_a_kv_head_may_share_out_the_tokens() -> None:
    plain = estimate(architecture=LLAMA_8B, weights=LLAMA_8B_WEIGHTS, workload=replace(LOAD, tensor=16))
    dealt = estimate(
        architecture=LLAMA_8B, weights=LLAMA_8B_WEIGHTS, workload=replace(LOAD, tensor=16, decode_context=2)
    )
    assert dealt.kv_cache < plain.kv_cache
