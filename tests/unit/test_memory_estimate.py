"""The estimate: worked examples, what always holds, and what is refused."""

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.known_models import (
    LLAMA_8B,
    LLAMA_8B_WEIGHTS,
    LLAMA_70B,
    LLAMA_70B_WEIGHTS,
    QWEN3_8B,
    QWEN3_8B_WEIGHTS,
    QWEN3_30B_A3B,
    QWEN3_30B_A3B_WEIGHTS,
    bf16_weights,
)
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.estimate import Estimate, Workload, estimate
from vrampack.memory.overheads import captured_sizes
from vrampack.units import MIB

TERMS = (
    "weights",
    "kv_cache",
    "activations",
    "cuda_graphs",
    "communication",
    "runtime_context",
    "allowance",
    "headroom",
)
MODELS = {
    "Llama-3.1-8B": (LLAMA_8B, LLAMA_8B_WEIGHTS),
    "Llama-3.3-70B": (LLAMA_70B, LLAMA_70B_WEIGHTS),
    "Qwen3-8B": (QWEN3_8B, QWEN3_8B_WEIGHTS),
    "Qwen3-30B-A3B": (QWEN3_30B_A3B, QWEN3_30B_A3B_WEIGHTS),
}


def workload(**changes: Any) -> Workload:
    fields = {"context_length": 8192, "concurrency": 16, "tokens_per_sequence": 4096, "max_batched_tokens": 8192}
    return Workload(**fields | changes)


def sized(model: str, **changes: Any) -> Estimate:
    architecture, weights = MODELS[model]
    return estimate(architecture=architecture, weights=weights, workload=workload(**changes))


# ---- worked examples: MiB per GPU --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changes", "expected"),
    [
        (
            "Llama-3.1-8B",
            {},
            {
                "weights": 15349,  # 8,030,261,248 parameters x 2 B = 15,316.5 MiB, and the rotary table of 32 MiB
                "kv_cache": 8194,  # 16 x 4096 tokens x 131,072 B, and the null block of 2 MiB
                "activations": 909,  # 8192 tokens x 2 B x (3 x 4096 + 3 x 14336), 8 MiB statistics, 36 MiB cuBLAS
                "cuda_graphs": 95,  # 7 batch sizes up to 32
                "communication": 0,
                "runtime_context": 861,
                "allowance": 308,
                "headroom": 772,  # 3 % of 25,716 MiB
                "per_gpu": 26488,
            },
        ),
        (
            "Qwen3-8B",
            {"kv_cache_precision": "fp8", "cuda_graphs": False, "headroom_percent": 0},
            {
                "weights": 15635,
                "kv_cache": 4610,  # 65,552 tokens x 73,728 B, rounded up
                "activations": 814,
                "cuda_graphs": 0,
                "headroom": 0,
                "per_gpu": 15635 + 4610 + 814 + 861 + 308,
            },
        ),
        (
            "Llama-3.3-70B",
            {"tensor": 4, "context_length": 32768, "concurrency": 32, "tokens_per_sequence": 8192},
            {
                "weights": 33679,  # a quarter of 134,570 MiB, norms and rotary table whole, the allocator's rests
                "kv_cache": 20482,  # 2 of 8 KV heads a rank: 81,920 B a token
                "activations": 773,
                "communication": 1178,
                "runtime_context": 861,
            },
        ),
    ],
)
def test_worked_example(model: str, changes: dict[str, Any], expected: dict[str, int]) -> None:
    result = sized(model, **changes)
    assert {term: getattr(result, term) / MIB for term in expected} == expected


def test_llama_8b_tells_the_engine_whole_blocks_and_what_it_will_print() -> None:
    result = sized("Llama-3.1-8B")
    assert result.kv_bytes_per_token == 131072
    assert result.kv_blocks == 16 * 256 + 1
    assert result.kv_cache_bytes == 4097 * 16 * 131072
    assert result.max_concurrency_at_context == "8.00"


def test_one_sequence_of_full_length_always_fits() -> None:
    result = sized("Llama-3.1-8B", context_length=131072, concurrency=1, tokens_per_sequence=100)
    assert result.kv_blocks == 131072 // 16 + 1
    assert result.max_concurrency_at_context == "1.00"


def test_kv_heads_are_copied_where_there_are_more_ranks_than_heads() -> None:
    per_token = {tensor: sized("Qwen3-30B-A3B", tensor=tensor).kv_bytes_per_token for tensor in (1, 2, 4, 8)}
    assert per_token == {1: 98304, 2: 49152, 4: 24576, 8: 24576}


@pytest.mark.parametrize(
    ("max_sequences", "sizes"), [(1, 2), (2, 3), (16, 7), (64, 19), (128, 35), (256, 51), (1024, 51)]
)
def test_batch_sizes_that_the_engine_captures(max_sequences: int, sizes: int) -> None:
    assert captured_sizes(max_sequences=max_sequences, max_batched_tokens=8192) == sizes


# ---- what always holds --------------------------------------------------------------------------------------------

models = st.sampled_from(sorted(MODELS))
lengths = st.integers(1, 40960)
batches = st.integers(512, 32768)
sequences = st.integers(1, 512)
widths = st.sampled_from([1, 2, 4, 8])


@given(models, lengths, sequences, st.integers(1, 40960), batches, widths, st.floats(0, 100))
def test_terms_are_whole_mib_never_negative_and_add_up(
    model: str, context: int, concurrency: int, tokens: int, batched: int, tensor: int, headroom: float
) -> None:
    result = sized(
        model,
        context_length=context,
        concurrency=concurrency,
        tokens_per_sequence=min(tokens, context),
        max_batched_tokens=batched,
        tensor=tensor,
        headroom_percent=headroom,
    )
    terms = [getattr(result, term) for term in TERMS]
    assert all(term >= 0 and term % MIB == 0 for term in terms)
    assert result.per_gpu == sum(terms)
    assert result.headroom >= (result.per_gpu - result.headroom) * headroom / 100 - 1
    assert result.kv_cache - MIB < result.kv_cache_bytes <= result.kv_cache
    assert float(result.max_concurrency_at_context) >= 1


AMOUNTS = {
    "context_length": (4096, 40960),
    "concurrency": (1, 512),
    "tokens_per_sequence": (1, 8192),
    "max_batched_tokens": (512, 32768),
}


@given(models, st.sampled_from(sorted(AMOUNTS)), st.data())
def test_asking_for_more_never_needs_less(model: str, field: str, data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.tuples(*[st.integers(*AMOUNTS[field])] * 2)))
    less, more = (sized(model, **{"tokens_per_sequence": 4096, field: value}) for value in (low, high))
    assert all(getattr(less, term) <= getattr(more, term) for term in TERMS)


@given(models, widths)
def test_more_bits_never_need_less(model: str, tensor: int) -> None:
    by_precision = [sized(model, tensor=tensor, kv_cache_precision=precision) for precision in ("fp8", "bf16", "fp32")]
    assert [each.per_gpu for each in by_precision] == sorted(each.per_gpu for each in by_precision)


@given(models, sequences, lengths)
def test_more_ranks_never_need_more_weights_and_kv_cache_than_padding(
    model: str, concurrency: int, context: int
) -> None:
    architecture, _ = MODELS[model]
    padding = (64 * 2 * 2 * architecture.hidden_size) + architecture.layers * 8 * MIB
    needs = []
    for tensor in (1, 2, 4, 8):
        result = sized(
            model, tensor=tensor, concurrency=concurrency, context_length=context, tokens_per_sequence=context
        )
        needs.append(result.weights + result.kv_cache)
    assert all(more_ranks <= fewer_ranks + padding for fewer_ranks, more_ranks in itertools.pairwise(needs))


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"context_length": 131073}, "spec.serving.contextLength"),
        ({"context_length": 0}, "spec.serving.contextLength"),
        ({"concurrency": 0}, "spec.serving.concurrency"),
        ({"tokens_per_sequence": -1}, "spec.serving.tokensPerSequence"),
        ({"tokens_per_sequence": 8193}, "spec.serving.tokensPerSequence"),
        ({"max_batched_tokens": 15}, "spec.engine.maxBatchedTokens"),
        ({"kv_cache_precision": "q8_0"}, "spec.precision.kvCache"),
        ({"pipeline": 0}, "spec.parallelism.pipeline"),
        ({"engine_version": "newest"}, "spec.engine.version"),
        ({"speculation": "mtp"}, "spec.engine.speculation.tokens"),
        ({"headroom_percent": -0.5}, "spec.memory.headroom"),
        ({"headroom_percent": float("nan")}, "spec.memory.headroom"),
        ({"tensor": 0}, "spec.parallelism.tensor"),
        ({"tensor": 3}, "spec.parallelism.tensor"),
        ({"tensor": 64}, "spec.parallelism.tensor"),
    ],
)
def test_refused_with_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        sized("Llama-3.1-8B", **changes)
    assert refusal.value.field == field


def test_kv_heads_that_neither_split_nor_copy_evenly_are_refused() -> None:
    architecture = dataclasses.replace(LLAMA_8B, attention_heads=24, kv_heads=6, vocab_size=128256, head_dim=128)
    weights = bf16_weights(architecture, parameters=8_000_000_000)
    with pytest.raises(InvalidInputError, match="divisor or a multiple of the model's 6 KV heads"):
        estimate(architecture=architecture, weights=weights, workload=workload(tensor=4))


@pytest.mark.parametrize(
    ("architecture", "weights", "unknown"),
    [
        (dataclasses.replace(LLAMA_8B, dtype="float8"), LLAMA_8B_WEIGHTS, "dtype float8"),
        (LLAMA_8B, dataclasses.replace(LLAMA_8B_WEIGHTS, precision="int3"), "precision int3"),
    ],
)
def test_what_is_not_known_is_never_guessed(architecture: Architecture, weights: Weights, unknown: str) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        estimate(architecture=architecture, weights=weights, workload=workload())
    assert refusal.value.unknown == unknown


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tgi"])
def test_gguf_files_are_llama_cpp_s_alone(engine: str) -> None:
    weights = dataclasses.replace(LLAMA_8B_WEIGHTS, precision="gguf")
    with pytest.raises(InvalidInputError, match="which alone serves GGUF files") as refusal:
        estimate(architecture=LLAMA_8B, weights=weights, workload=workload(engine=engine, engine_version=""))
    assert (refusal.value.field, refusal.value.value) == ("spec.engine.name", engine)


def test_a_small_gpu_needs_a_smaller_context() -> None:
    work = Workload(context_length=4096, concurrency=4, tokens_per_sequence=4096, max_batched_tokens=4096)
    large, small = (
        estimate(architecture=QWEN3_8B, weights=QWEN3_8B_WEIGHTS, workload=dataclasses.replace(work, product=product))
        for product in ("", "NVIDIA-L4")
    )
    assert large.runtime_context - small.runtime_context in (102 * MIB, 103 * MIB)
    assert large.per_gpu > small.per_gpu
    assert {term for term in TERMS if getattr(large, term) != getattr(small, term)} <= {"runtime_context", "headroom"}


@pytest.mark.parametrize(("engine", "assumed"), [("vllm", False), ("sglang", True), ("tgi", True), ("llamacpp", False)])
def test_what_is_taken_from_another_engine_is_said(engine: str, assumed: bool) -> None:
    work = Workload(
        context_length=4096, concurrency=4, tokens_per_sequence=4096, max_batched_tokens=4096, engine=engine
    )
    found = estimate(architecture=QWEN3_8B, weights=QWEN3_8B_WEIGHTS, workload=work)
    assert any("counted as vLLM's" in each for each in found.assumptions) == assumed
