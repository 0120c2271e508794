"""llama.cpp's cache: our buffers against those that it printed, and its rules one by one."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.llamacpp_models import models
from benchmarks.llamacpp_oracle import gguf, with_tensors
from tests.unit.llamacpp_printed import PRINTED, Buffers
from vrampack.errors import InvalidInputError
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.estimate import estimate
from vrampack.memory.layers import FeedForward, LatentAttention, LayerRun, PagedAttention, Span
from vrampack.memory.llamacpp import LlamaContext, cache_buffers
from vrampack.memory.llamacppcompute import compute_bytes
from vrampack.memory.llamacpppool import claim, printed
from vrampack.memory.workload import Workload
from vrampack.models.gguf import read_header
from vrampack.models.ggufarchitecture import gguf_architecture
from vrampack.units import GIB, MIB, round_up

SHARED = LlamaContext(tokens=32768, sequences=8)
APART = LlamaContext(tokens=10000, sequences=3, micro_batch=384, unified=False, key_type="q8_0", value_type="q8_0")


def architecture_of(name: str) -> Architecture:
    content = gguf(models()[name])
    header = read_header(lambda start, length: content[start:][:length], file=name, file_bytes=len(content))
    return gguf_architecture(with_tensors(header), file=name)


def same(ours: Buffers, theirs: Buffers) -> bool:
    return len(ours) == len(theirs) and all(
        mine[0] == other[0] and abs(mine[1] - other[1]) <= 0.0051 and abs(mine[2] - other[2]) <= 0.0051
        for mine, other in zip(sorted(ours), sorted(theirs), strict=True)
    )


@pytest.mark.parametrize("name", PRINTED)
def test_buffers_are_those_that_llama_cpp_printed(name: str) -> None:
    architecture = architecture_of(name)
    for context, theirs in zip((SHARED, APART), PRINTED[name], strict=True):
        buffers = cache_buffers(architecture, context)
        sums = [(each.cells, each.bytes / MIB, 0.0) for each in buffers if "sums" in each.name]
        rest = [
            (each.cells, each.key_bytes / MIB, each.value_bytes / MIB) for each in buffers if "sums" not in each.name
        ]
        assert not theirs or same(tuple(rest + sums), theirs), context


def test_every_model_of_the_oracle_is_in_the_table() -> None:
    assert set(models()) == set(PRINTED)


LLAMA = PagedAttention(heads=32, kv_heads=8, key_dim=128, value_dim=128)
SLIDING = replace(LLAMA, span=Span.SLIDING, window=1024)


def model(*mixers: PagedAttention | LatentAttention, count: int = 8) -> Architecture:
    return Architecture(
        model_type="llama",
        layers=count * len(mixers),
        hidden_size=4096,
        intermediate_size=14336,
        vocab_size=128256,
        attention_heads=32,
        kv_heads=8,
        head_dim=128,
        dtype="float16",
        runs=tuple(LayerRun(count=count, mixers=(mixer,), feed_forward=FeedForward(width=14336)) for mixer in mixers),
    )


@pytest.mark.parametrize(
    ("context", "cells"),
    [
        (LlamaContext(tokens=8192), 8192),
        (LlamaContext(tokens=8000), 8192),
        (LlamaContext(tokens=1), 256),
        (LlamaContext(tokens=8192, sequences=4), 8192),
        (LlamaContext(tokens=8192, sequences=4, unified=False), 2048),
        (LlamaContext(tokens=8192, sequences=3, unified=False), 2816),
    ],
)
def test_cells_are_padded_in_whole_and_by_part(context: LlamaContext, cells: int) -> None:
    (buffer,) = cache_buffers(model(LLAMA), context)
    assert buffer.cells == cells
    assert buffer.bytes == 2 * cells * buffer.streams * 8 * 1024 * 2


@pytest.mark.parametrize(
    ("context", "cells"),
    [
        (LlamaContext(tokens=32768), 1536),
        (LlamaContext(tokens=32768, sequences=4), 4608),
        (LlamaContext(tokens=32768, sequences=4, unified=False), 1536),
        (LlamaContext(tokens=32768, micro_batch=2048), 3072),
        (LlamaContext(tokens=1024), 1024),
        (LlamaContext(tokens=32768, full_windows=True), 32768),
    ],
)
def test_a_window_has_cells_for_itself_and_the_step(context: LlamaContext, cells: int) -> None:
    full, sliding = cache_buffers(model(SLIDING, LLAMA), context)
    assert (full.name, sliding.name) == ("full", "sliding")
    assert sliding.cells == cells


def test_a_model_that_slides_in_every_layer_keeps_every_token() -> None:
    """As Mistral 7B v0.1, which llama.cpp runs without its window."""
    assert cache_buffers(model(SLIDING), SHARED) == cache_buffers(model(LLAMA), SHARED)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"key_type": "fp8"}, "spec.precision.kvCache"),
        ({"key_type": "q4_k"}, "spec.precision.kvCache"),
        ({"value_type": "q8_0", "flash_attention": False}, "spec.precision.kvCache"),
        ({"sequences": 257}, "spec.serving.concurrency"),
        ({"sequences": 0}, "spec.serving.concurrency"),
    ],
)
def test_what_llama_cpp_refuses_is_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        cache_buffers(model(LLAMA), replace(LlamaContext(tokens=4096), **changes))  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q5_1", "iq4_nl"])
@pytest.mark.parametrize(
    ("heads", "types"),
    [
        ({"kv_heads": 1, "key_dim": 80}, ("key_type",)),
        ({"kv_heads": 8, "key_dim": 80, "value_dim": 80}, ("key_type",)),  # rows are whole blocks, heads are not
        ({"kv_heads": 8, "value_dim": 48}, ("value_type",)),
        ({"kv_heads": 2, "key_dim": 8, "value_dim": 8}, ("key_type", "value_type")),
    ],
)
def test_blocks_of_a_quantized_cache_must_fit_into_a_head(
    heads: dict[str, int], types: tuple[str, ...], kind: str
) -> None:
    changed = model(replace(LLAMA, **heads))
    context = LlamaContext(tokens=256)
    assert cache_buffers(changed, context)
    with pytest.raises(InvalidInputError, match="f32, f16, bf16") as caught:
        cache_buffers(changed, replace(context, **dict.fromkeys(types, kind)))
    assert (caught.value.field, caught.value.value) == ("spec.precision.kvCache", kind)


@pytest.mark.parametrize("dim", [64, 96, 128, 256])
def test_heads_of_whole_blocks_may_be_quantized(dim: int) -> None:
    heads = model(replace(LLAMA, key_dim=dim, value_dim=dim))
    assert cache_buffers(heads, LlamaContext(tokens=256, key_type="q8_0", value_type="q4_0"))


WORK = Workload(
    context_length=32768,
    concurrency=4,
    tokens_per_sequence=8192,
    max_batched_tokens=512,
    kv_cache_precision="fp16",
    engine="llamacpp",
)


@pytest.mark.parametrize(
    ("changes", "tokens", "why"),
    [
        ({}, 32768, "4 sequences of 8192 tokens share the cells"),
        ({"tokens_per_sequence": 9000}, 36096, "4 sequences of 9000 tokens share the cells"),
        ({"tokens_per_sequence": 100}, 32768, "one sequence of 32768 tokens"),
    ],
)
def test_the_claim_holds_every_sequence_and_one_in_full(changes: dict[str, int], tokens: int, why: str) -> None:
    needed = claim(model(LLAMA), replace(WORK, **changes))  # type: ignore[arg-type]
    assert (needed.tokens, needed.why) == (tokens, why)
    assert needed.bytes == tokens * 2 * 8 * 1024 * 2


def test_what_is_claimed_is_what_is_printed() -> None:
    for name in ("Gemma-3-27B", "Qwen3-Next-80B-A3B", "DeepSeek-V3", "DeepSeek-V4-Flash", "Mamba-2.8B"):
        architecture = architecture_of(name)
        needed = claim(architecture, WORK)
        said = printed(architecture, WORK, needed.bytes)
        assert said.tokens >= needed.tokens, name
        if name != "Mamba-2.8B":  # whose states do not grow with the tokens
            assert printed(architecture, WORK, needed.bytes - 1).tokens < needed.tokens, name


def test_the_lines_are_llama_cpp_s_own() -> None:
    said = printed(
        architecture_of("Qwen3-Next-80B-A3B"), WORK, claim(architecture_of("Qwen3-Next-80B-A3B"), WORK).bytes
    )
    keys, states = said.lines
    assert keys == (
        "llama_kv_cache: size =  768.00 MiB ( 32768 cells,  12 layers,  4/1 seqs), "
        "K (f16):  384.00 MiB, V (f16):  384.00 MiB"
    )
    assert states == (
        "llama_memory_recurrent: size =  301.50 MiB (     4 cells,  48 layers,  4 seqs  0 rs_seq), "
        "R (f32):   13.50 MiB, S (f32):  288.00 MiB, P (f32):    0.00 MiB"
    )
    assert said.max_concurrency == 1.0


@pytest.mark.parametrize(
    ("version", "latent", "sliding"),
    [
        ("", 576, 4608),
        ("0.5.0", 576, 4608),
        ("b9000", 576, 4608),
        ("b7916", 576 + 512, 4608),
        ("7000 (abc)", 576 + 512, 4608),
        ("b5553", 576 + 512, 32768),
    ],
)
def test_older_builds_keep_more(version: str, latent: int, sliding: int) -> None:
    work = replace(WORK, engine_version=version)
    assert claim(architecture_of("DeepSeek-V3"), work).bytes == 61 * 32768 * latent * 2
    assert claim(architecture_of("Gemma-3-27B"), work).bytes == (10 * 32768 + 52 * sliding) * 2 * 2048 * 2


def test_what_is_no_build_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"spec\.engine\.version"):
        claim(model(LLAMA), replace(WORK, engine_version="latest"))


def test_a_large_batch_is_computed_in_micro_batches() -> None:
    gemma = architecture_of("Gemma-3-27B")
    assert claim(gemma, replace(WORK, max_batched_tokens=8192)) == claim(gemma, WORK)
    assert claim(gemma, replace(WORK, max_batched_tokens=128)).bytes < claim(gemma, WORK).bytes


def test_drafts_are_refused_unless_they_need_no_layers() -> None:
    assert claim(model(LLAMA), replace(WORK, speculation="ngram", speculative_tokens=4)) == claim(model(LLAMA), WORK)
    with pytest.raises(InvalidInputError, match=r"spec\.speculation\.method"):
        claim(model(LLAMA), replace(WORK, speculation="mtp", speculative_tokens=1))


def test_each_gpu_of_a_pipeline_holds_its_own_layers() -> None:
    """Of 32 layers and the output two GPUs get 17 and 15: the output is with the second."""
    architecture = architecture_of("Llama-3.1-8B")
    assert claim(architecture, replace(WORK, pipeline=2)).bytes == claim(architecture, WORK).bytes * 17 // 32


def test_tensor_parallelism_is_refused_with_what_to_use() -> None:
    with pytest.raises(InvalidInputError, match="use pipeline"):
        claim(model(LLAMA), replace(WORK, tensor=2))


@given(st.integers(1, 65536), st.integers(1, 64), st.sampled_from([128, 512, 2048]), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_more_of_anything_never_needs_less(tokens: int, sequences: int, batch: int, unified: bool, full: bool) -> None:
    architecture = model(SLIDING, LLAMA)
    context = LlamaContext(tokens=tokens, sequences=sequences, micro_batch=batch, unified=unified, full_windows=full)

    def total(each: LlamaContext) -> int:
        return sum(buffer.bytes for buffer in cache_buffers(architecture, each))

    assert total(context) <= total(replace(context, tokens=tokens + 4096 * sequences))
    assert total(context) <= total(replace(context, full_windows=True))
    assert total(replace(context, key_type="q8_0", value_type="q8_0")) < total(context)
    assert compute_bytes(architecture, context) <= compute_bytes(architecture, replace(context, micro_batch=4096))


COMPUTE = {
    "Qwen3-235B-A22B": (LlamaContext(tokens=32768), 312.75),
    "GLM-4-32B": (LlamaContext(tokens=32768), 353.0),
    "Gemma-4-26B-A4B": (LlamaContext(tokens=32768, sequences=2, unified=False), 532.62),
    "Llama-3.1-8B": (LlamaContext(tokens=8192), 266.5),
}
"""MiB that CUDA builds printed in public logs, and the last our own."""


@pytest.mark.parametrize("name", COMPUTE)
def test_the_compute_buffer_is_never_under_and_not_far_over(name: str) -> None:
    context, theirs = COMPUTE[name]
    ours = compute_bytes(architecture_of(name), context) / MIB
    assert theirs <= ours <= 1.35 * theirs


def test_the_estimate_is_llama_cpp_s() -> None:
    architecture = replace(architecture_of("Llama-3.1-8B"), tied_embeddings=False)
    weights = Weights(total=4_920_000_000, parameters=8_030_000_000, precision="gguf", embedding=800_000_000)
    whole = estimate(architecture=architecture, weights=weights, workload=WORK)
    assert whole.kv_cache == 4 * GIB
    assert whole.kv_tokens == 32768
    assert whole.communication == 0
    assert whole.weights == round_up(weights.total - 400_000_000, MIB)
    assert whole.per_gpu == sum(
        (
            whole.weights,
            whole.kv_cache,
            whole.activations,
            whole.cuda_graphs,
            whole.communication,
            whole.runtime_context,
            whole.allowance,
            whole.headroom,
        )
    )


ROWS = {"DeepSeek-V3-0324": "DeepSeek-V3", "Qwen3-235B-A22B": "Qwen3-235B-A22B"}


def test_measured_caches_are_ours_to_the_printed_digit(shared_data: Path) -> None:
    """Rows of llama.cpp and of its fork, whose models the oracle has under another name or shape of its own."""
    with (shared_data / "measurements" / "engine_memory.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if "llama.cpp" in row["engine"] and row["kv_cache_gib"]]
    compared = 0
    for row in rows:
        name = next((ours for theirs, ours in ROWS.items() if row["model"].startswith(theirs)), None)
        if name is None:
            continue
        kind = row["kv_cache_dtype"]
        context = LlamaContext(tokens=int(row["max_model_len"]), key_type=kind, value_type=kind)
        ours = sum(buffer.bytes for buffer in cache_buffers(architecture_of(name), context)) / GIB
        assert abs(ours - float(row["kv_cache_gib"])) <= 0.00006, row["model"]
        compared += 1
    assert compared >= 4
