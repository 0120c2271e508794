"""TGI's blocks."""

from dataclasses import replace

import pytest

from tests.unit.test_memory_sglang import DELTA, LATENT, QUERY, model
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.tgi import block_bytes, claim, memory_fraction, printed
from vrampack.memory.workload import Workload
from vrampack.units import GIB

WORK = Workload(context_length=4096, concurrency=16, tokens_per_sequence=1000, max_batched_tokens=2048, engine="tgi")


def test_a_block_holds_16_tokens_of_every_layer() -> None:
    assert block_bytes(model((28, QUERY)), WORK) == 16 * 28672
    assert block_bytes(model((28, QUERY)), replace(WORK, tensor=2)) == 16 * 28672 // 2
    assert block_bytes(model((61, LATENT)), WORK) == 16 * 61 * 576 * 2


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [({}, 16 * 1008), ({"concurrency": 1}, 4096), ({"concurrency": 1, "max_batched_tokens": 8192}, 8192)],
)
def test_the_claim_holds_every_sequence_and_the_largest_prompt(changes: dict[str, int], tokens: int) -> None:
    needed = claim(model((28, QUERY)), replace(WORK, **changes))  # type: ignore[arg-type]
    assert needed.tokens == tokens
    assert needed.bytes == tokens * 28672


def test_what_is_claimed_is_what_is_printed() -> None:
    needed = claim(model((28, QUERY)), WORK)
    said = printed(model((28, QUERY)), WORK, needed.bytes)
    assert said.tokens == needed.tokens
    assert said.lines == ("KV-cache blocks: 1008, size: 16",)
    assert printed(model((28, QUERY)), WORK, needed.bytes - 1).tokens == needed.tokens - 16


def test_it_fills_nine_tenths_of_its_share() -> None:
    assert memory_fraction(gpu_bytes=80 * GIB, needed=36 * GIB) == 0.5
    assert memory_fraction(gpu_bytes=80 * GIB, needed=100 * GIB) == 1.0


def test_what_it_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"spec\.precision\.kvCache"):
        claim(model((28, QUERY)), replace(WORK, kv_cache_precision="nvfp4"))
    with pytest.raises(UnsupportedModelError, match="gated_delta"):
        claim(model((28, DELTA)), WORK)


@pytest.mark.parametrize("field", ["pipeline", "data", "decode_context"])
def test_ranks_that_it_does_not_have_are_refused(field: str) -> None:
    with pytest.raises(InvalidInputError, match="1: TGI has no such ranks") as refusal:
        block_bytes(model((28, QUERY)), replace(WORK, **{field: 2}))  # type: ignore[arg-type]
    assert refusal.value.field.startswith("spec.parallelism.")
