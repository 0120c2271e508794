"""SGLang's pools: what they hold, what the log says of them, and what it takes by itself."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import LatentAttention, LayerRun, Mixer, PagedAttention, RecurrentState, Span, StateKind
from vrampack.memory.sglang import claim, pools_of, printed, tokens_within
from vrampack.memory.sglangdefaults import default_fraction, defaults_of, reserve_mib, static_fraction
from vrampack.memory.workload import Workload
from vrampack.models.config import architecture_of
from vrampack.units import GIB

QUERY = PagedAttention(heads=12, kv_heads=2, key_dim=128, value_dim=128)
LATENT = LatentAttention(heads=128, rank=512, rope_dim=64)
DELTA = RecurrentState(
    kind=StateKind.GATED_DELTA, conv_kernel=4, key_heads=16, key_dim=128, value_heads=32, value_dim=128
)
WORK = Workload(context_length=4096, concurrency=16, tokens_per_sequence=1024, max_batched_tokens=2048, engine="sglang")


def model(*layers: tuple[int, Mixer], class_name: str = "Qwen2ForCausalLM") -> Architecture:
    return Architecture(
        model_type="qwen2",
        layers=sum(count for count, _ in layers),
        hidden_size=1536,
        intermediate_size=8960,
        vocab_size=151936,
        attention_heads=12,
        kv_heads=2,
        head_dim=128,
        dtype="bfloat16",
        class_name=class_name,
        runs=tuple(LayerRun(count=count, mixers=(mixer,), feed_forward=None) for count, mixer in layers),
    )


@pytest.mark.parametrize(
    ("mixer", "changes", "token"),
    [
        (QUERY, {}, 28 * 2 * 256 * 2),
        (QUERY, {"tensor": 2}, 28 * 1 * 256 * 2),
        (QUERY, {"tensor": 8}, 28 * 1 * 256 * 2),
        (QUERY, {"kv_cache_precision": "fp8"}, 28 * 2 * 256),
        (QUERY, {"kv_cache_precision": "nvfp4"}, 28 * (256 + 2 * 128 * 2 // 16)),
        (LATENT, {}, 28 * 576 * 2),
        (LATENT, {"tensor": 8}, 28 * 576 * 2),
        (replace(LATENT, index_dim=128), {}, 28 * (576 * 2 + 128 + 4)),
        (replace(LATENT, index_dim=128), {"kv_cache_precision": "fp8"}, 28 * (656 + 128 + 4)),
    ],
)
def test_bytes_of_a_token(mixer: Mixer, changes: dict[str, object], token: int) -> None:
    assert pools_of(model((28, mixer)), replace(WORK, **changes)).token_bytes == token  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "tokens", "why"),
    [
        ({}, 16 * 1024, "16 sequences of 1024 tokens"),
        ({"concurrency": 2}, 4097, "one sequence of 4096 tokens"),
    ],
)
def test_the_pool_holds_every_sequence_and_one_in_full(changes: dict[str, int], tokens: int, why: str) -> None:
    needed = claim(model((28, QUERY)), replace(WORK, **changes))  # type: ignore[arg-type]
    assert (needed.tokens, needed.why) == (tokens, why)
    assert needed.bytes == (tokens + 1) * 28672


def test_a_window_pool_is_beside_the_full_one_only_where_sglang_has_one() -> None:
    sliding = replace(QUERY, span=Span.SLIDING, window=128)
    both = model((12, sliding), (12, QUERY), class_name="GptOssForCausalLM")
    pools = pools_of(both, WORK)
    assert pools.token_bytes == pools.window_token_bytes == 12 * 1024
    assert pools.window_tokens == 16 * (128 + 2) + 2 * 2048 + 2 + 128
    assert int(pools.tokens * pools.window_ratio) >= pools.window_tokens
    assert pools_of(replace(both, class_name="Gemma3ForCausalLM"), WORK).token_bytes == 24 * 1024


def test_states_are_three_for_a_request_and_one_without_prefix_caching() -> None:
    hybrid = model((36, DELTA), (12, QUERY))
    state = 36 * (3 * (4096 + 2 * 2048) * 2 + 4096 * 128 * 4)
    assert claim(hybrid, WORK).state_bytes == (16 * 3 + 1) * state
    assert claim(hybrid, replace(WORK, prefix_caching=False)).state_bytes == 17 * state


def test_states_of_a_type_that_nobody_knows_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="int3"):
        claim(model((1, QUERY), (3, replace(DELTA, state_dtype="int3"))), WORK)


def test_drafting_layers_and_tokens_have_their_share() -> None:
    plain, drafting = (replace(WORK, speculation=each, speculative_tokens=3) for each in ("ngram", "eagle"))
    assert pools_of(model((28, QUERY)), plain).token_bytes == 28 * 1024
    assert pools_of(model((28, QUERY)), drafting).token_bytes == 29 * 1024
    hybrid = model((36, DELTA), (12, QUERY))
    assert claim(hybrid, drafting).state_bytes == (16 * 3 + 1 + 16 * 3) * pools_of(hybrid, WORK).state_bytes


def test_what_is_claimed_is_what_is_printed() -> None:
    for each in (model((28, QUERY)), model((61, LATENT)), model((36, DELTA), (12, QUERY))):
        pools = pools_of(each, WORK)
        given = pools.tokens * pools.token_bytes + pools.states * pools.state_bytes
        said = printed(each, WORK, given)
        assert said.tokens == claim(each, WORK).tokens
        assert printed(each, WORK, given - 1).tokens < said.tokens
        assert said.max_concurrency == said.tokens / 4096


def test_a_stage_of_a_pipeline_has_the_pools_of_its_own_layers() -> None:
    alike = model((28, QUERY))
    assert pools_of(alike, replace(WORK, pipeline=2)).token_bytes == 14 * 1024
    assert pools_of(alike, replace(WORK, pipeline=3)).token_bytes == 10 * 1024, "one stage has a layer more"
    lopsided = model((12, QUERY), (12, DELTA))
    states = pools_of(lopsided, replace(WORK, pipeline=2))
    assert (states.token_bytes, states.states) == (0, 48), "the states are more than the tokens"


@pytest.mark.parametrize("changes", [{"decode_context": 2, "tensor": 2}, {"kv_cache_precision": "q8_0"}])
def test_what_sglang_does_not_have_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        pools_of(model((28, QUERY)), replace(WORK, **changes))  # type: ignore[arg-type]


def test_the_line_is_sglang_s_own() -> None:
    said = printed(model((28, QUERY)), WORK, 1_287_482 * 28672)
    assert said.lines == ("KV Cache is allocated. #tokens: 1287482, K size: 17.19 GB, V size: 17.19 GB",)


def test_what_it_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"spec\.precision\.kvCache"):
        claim(model((28, QUERY)), replace(WORK, kv_cache_precision="q8_0"))
    with pytest.raises(UnsupportedModelError, match="compress_ratios"):
        claim(model((28, replace(LATENT, window=128, compress_ratio=4))), WORK)


@pytest.mark.parametrize(
    ("gpu_mib", "tensor", "chunk", "graphs", "fraction"),
    [
        (16_384, 1, 2048, 8, 0.772),
        (24_564, 1, 2048, 24, 0.847),
        (24_564, 4, 2048, 80, 0.827),
        (46_068, 1, 4096, 32, 0.851),
        (81_559, 1, 8192, 256, 0.835),
        (81_559, 8, 8192, 512, 0.818),
        (183_359, 1, 16_384, 512, 0.857),
    ],
)
def test_what_it_takes_by_itself(gpu_mib: int, tensor: int, chunk: int, graphs: int, fraction: float) -> None:
    defaults = defaults_of(gpu_mib, tensor=tensor)
    assert (defaults.chunked_prefill, defaults.graph_batch) == (chunk, graphs)
    reserve = reserve_mib(gpu_mib=gpu_mib, chunked_prefill=chunk, graph_batch=graphs, tensor=tensor)
    assert default_fraction(gpu_mib=gpu_mib, reserve=reserve) == fraction


def test_the_static_fraction_leaves_the_pools_their_bytes() -> None:
    fraction = static_fraction(free_before=80 * GIB, weights=16 * GIB, pools=20 * GIB)
    assert fraction == 0.45
    assert static_fraction(free_before=80 * GIB, weights=16 * GIB, pools=20 * GIB + 1) == 0.451


def test_measured_pools_are_ours_to_the_printed_digit(shared_data: Path) -> None:
    """The pool that the log names has one page more than its tokens; DeepSeek on Ascend has pages of 128."""
    with (shared_data / "measurements" / "engine_memory.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["engine"] == "sglang" and row["kv_cache_tokens"]]
    assert len(rows) >= 3
    for row in rows:
        config = json.loads((shared_data / "model-configs" / row["config"]).read_text())
        architecture = architecture_of(config)
        page = 128 if "page 128" in row["note"] or "Ascend" in row["note"] else 1
        workload = replace(WORK, kv_cache_precision="bf16")
        token = pools_of(architecture, workload).token_bytes
        tokens = int(row["kv_cache_tokens"])
        assert abs((tokens + page) * token / GIB - float(row["kv_cache_gib"])) <= 0.0051, row["model"]
        least = tokens_within(architecture, workload, int((float(row["kv_cache_gib"]) - 0.005) * GIB), page=page)
        most = tokens_within(architecture, workload, int((float(row["kv_cache_gib"]) + 0.005) * GIB) + 1, page=page)
        assert least - page <= tokens <= most + page, row["model"]


def test_a_state_of_a_type_without_a_size_is_refused_by_it() -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        claim(model((24, replace(DELTA, state_dtype="int3")), (8, QUERY)), WORK)
    assert refusal.value.unknown == "dtype int3"
