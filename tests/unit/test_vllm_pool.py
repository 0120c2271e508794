"""vLLM's allocation rule, fact by fact: pages, blocks, groups, requests, the pool, and what changed when."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.known_models import LLAMA_8B
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import (
    FeedForward,
    LatentAttention,
    LayerRun,
    Mixer,
    PagedAttention,
    RecurrentState,
    Span,
    StateKind,
)
from vrampack.memory.vllm.groups import least_padding
from vrampack.memory.vllm.layout import KVLayout, kv_layout
from vrampack.memory.vllm.pages import compressed_caches, state_bytes, vector_bytes
from vrampack.memory.vllm.pipeline import stages
from vrampack.memory.vllm.pool import claim, printed
from vrampack.memory.workload import Workload

MLP = FeedForward(width=8192)
FULL = PagedAttention(heads=32, kv_heads=8, key_dim=128, value_dim=128)
SLIDING = dataclasses.replace(FULL, span=Span.SLIDING, window=1024)
CHUNKED = dataclasses.replace(FULL, span=Span.CHUNKED, window=8192)
LATENT = LatentAttention(heads=128, rank=512, rope_dim=64, nope_dim=128, value_dim=128)
SPARSE = dataclasses.replace(LATENT, index_heads=64, index_dim=128)
DELTA = RecurrentState(  # Qwen3-Next: 16 heads of keys and 32 of values, 128 wide
    kind=StateKind.GATED_DELTA, conv_kernel=4, key_heads=16, key_dim=128, value_heads=32, value_dim=128
)
MAMBA2 = RecurrentState(kind=StateKind.MAMBA2, conv_kernel=4, key_heads=8, key_dim=128, value_heads=128, value_dim=64)
WIDE = PagedAttention(heads=16, kv_heads=2, key_dim=256, value_dim=256)  # Qwen3-Next's full layers


def of(*layers: tuple[int, Mixer], **changes: Any) -> Architecture:
    """A model of these layers, in this order."""
    runs = tuple(LayerRun(count=count, mixers=(mixer,), feed_forward=MLP) for count, mixer in layers)
    return dataclasses.replace(LLAMA_8B, layers=sum(run.count for run in runs), runs=runs, **changes)


def load(**changes: Any) -> Workload:
    fields = {"context_length": 32768, "concurrency": 8, "tokens_per_sequence": 16384, "max_batched_tokens": 2048}
    return Workload(**fields | changes)


def layout(architecture: Architecture, **changes: Any) -> KVLayout:
    return kv_layout(architecture, load(**changes))


GEMMA_3_27B = of(
    *(((5, dataclasses.replace(SLIDING, heads=32, kv_heads=16)), (1, dataclasses.replace(FULL, kv_heads=16))) * 10),
    (2, dataclasses.replace(SLIDING, kv_heads=16)),
)
GPT_OSS = of(
    *(
        (1, dataclasses.replace(SLIDING, window=128, key_dim=64, value_dim=64)),
        (1, dataclasses.replace(FULL, key_dim=64, value_dim=64)),
    )
    * 12
)
LLAMA_4 = of(*((3, CHUNKED), (1, FULL)) * 12)
QWEN3_NEXT = of(*((3, DELTA), (1, WIDE)) * 12)
HYBRID_MAMBA2 = of((28, MAMBA2), (4, FULL))
PLAIN = of((32, FULL))


# ---- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "size"), [("fp32", 512), ("bf16", 256), ("fp16", 256), ("fp8", 128), ("int8", 132), ("nvfp4", 72)]
)
def test_bytes_of_a_vector_of_128_elements(precision: str, size: int) -> None:
    assert vector_bytes(128, precision) == size


@pytest.mark.parametrize(
    ("mixer", "tensor", "precision", "token"),
    [
        (FULL, 1, "bf16", 8 * 2 * 256),
        (FULL, 4, "fp8", 2 * 2 * 128),
        (FULL, 16, "bf16", 2 * 256),  # more ranks than heads: each keeps a copy of one
        (dataclasses.replace(FULL, key_dim=192), 1, "bf16", 8 * (384 + 256)),
        (LATENT, 8, "bf16", 2 * 576),  # every rank holds the latents in full
        (LATENT, 8, "fp8", 576),
        (SPARSE, 1, "bf16", 2 * 576 + 132),  # the indexer's key: fp8 and a scale
        (SPARSE, 1, "fp8", 656 + 132),  # the rotary part stays in 16 bit
        (dataclasses.replace(FULL, index_dim=128), 4, "bf16", 2 * 2 * 256 + 256),  # its key is whole on every rank
    ],
)
def test_bytes_of_a_token_in_one_layer(mixer: Mixer, tensor: int, precision: str, token: int) -> None:
    found = layout(of((10, mixer)), tensor=tensor, kv_cache_precision=precision)
    assert found.bytes_per_token == 10 * token
    assert found.bytes_per_block == 10 * token * found.block_size


@pytest.mark.parametrize(
    ("state", "tensor", "size"),
    [
        (MAMBA2, 1, 2 * ((8192 + 2 * 8 * 128) * 3 + 8192 * 128)),
        (MAMBA2, 8, (2 * ((8192 + 2 * 8 * 128) * 3 + 8192 * 128)) // 8),
        (dataclasses.replace(MAMBA2, key_heads=1), 8, 2 * ((8192 + 2 * 8 * 128) // 8 * 3 + 1024 * 128)),
        (DELTA, 1, 2 * (8192 * 3 + 4096 * 128)),
        (dataclasses.replace(DELTA, state_dtype="float32"), 1, 2 * 8192 * 3 + 4 * 4096 * 128),
        (
            RecurrentState(
                kind=StateKind.KIMI_DELTA, conv_kernel=4, key_heads=32, key_dim=128, value_heads=32, value_dim=128
            ),
            1,
            2 * 3 * 4096 * 3 + 4 * 4096 * 128,  # its state is float32
        ),
        (
            RecurrentState(kind=StateKind.MAMBA1, conv_kernel=4, key_dim=16, value_heads=1, value_dim=8192),
            2,
            2 * 4096 * 19,
        ),
        (RecurrentState(kind=StateKind.SHORT_CONV, conv_kernel=3, value_heads=1, value_dim=2048), 1, 2 * 2 * 2048),
        (RecurrentState(kind=StateKind.LIGHTNING, conv_kernel=0, value_heads=64, value_dim=128), 4, 2 * 16 * 128 * 128),
    ],
)
def test_bytes_of_a_state(state: RecurrentState, tensor: int, size: int) -> None:
    assert state_bytes(state, tensor=tensor, dtype="bfloat16", speculative_tokens=0) == size


def test_a_layer_of_deepseek_v4_keeps_a_window_entries_and_sums() -> None:
    layer = LatentAttention(
        heads=64, rank=448, rope_dim=64, index_heads=64, index_dim=128, compress_ratio=4, window=128
    )
    assert [(cache.block_size, cache.page, cache.window) for cache in compressed_caches(layer)] == [
        (64, 37440, 128),
        (256, 37440, 0),  # 64 entries of 584 bytes, to rows of 576
        (4, 32832, 8),
        (256, 8640, 0),
        (4, 8640, 8),
    ]


# ---- blocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mixer", "changes", "size"),
    [
        (FULL, {}, 16),
        (FULL, {"kv_cache_precision": "fp8"}, 16),
        (LATENT, {}, 16),
        (LATENT, {"kv_cache_precision": "fp8"}, 64),
        (dataclasses.replace(LATENT, rank=256, rope_dim=32), {"kv_cache_precision": "fp8"}, 16),
        (SPARSE, {}, 64),
        (dataclasses.replace(FULL, key_dim=512, value_dim=512), {}, 16),
        (dataclasses.replace(FULL, key_dim=512, value_dim=512), {"kv_cache_precision": "fp8"}, 64),
        (
            dataclasses.replace(FULL, key_dim=512, value_dim=512),
            {"kv_cache_precision": "fp8", "engine_version": "0.29.0"},
            16,
        ),
        (dataclasses.replace(FULL, index_dim=128), {}, 128),
    ],
)
def test_tokens_of_a_block(mixer: Mixer, changes: dict[str, Any], size: int) -> None:
    assert layout(of((4, mixer)), **changes).block_size == size


@pytest.mark.parametrize(
    ("model", "changes", "size"),
    [
        (QWEN3_NEXT, {"engine_version": "0.27.1"}, 544),  # 1,097,728 bytes of state / 2,048 a token, to 16 tokens
        (QWEN3_NEXT, {"engine_version": "0.27.1", "kv_cache_precision": "fp8"}, 1072),
        (QWEN3_NEXT, {}, 576),  # to 64 tokens, for checkpoints of the state
        (QWEN3_NEXT, {"prefix_caching": False}, 544),
        (QWEN3_NEXT, {"tensor": 8}, 192),
        (of((3, DELTA), (1, WIDE), class_name="OlmoHybridForCausalLM"), {}, 544),
        (HYBRID_MAMBA2, {}, 528),  # 2,158,592 / 4,096, to 16 tokens
        (of((3, DELTA), (1, LATENT)), {"engine_version": "0.27.1"}, 1024),  # to 128 tokens
        (of((3, DELTA), (1, LATENT)), {"engine_version": "0.20.0"}, 960),
    ],
)
def test_a_block_of_attention_holds_a_state(model: Architecture, changes: dict[str, Any], size: int) -> None:
    assert layout(model, **changes).block_size == size


# ---- groups --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "pools", "layers"),
    [
        (PLAIN, [1], 32),
        (of((32, SLIDING)), [1], 32),
        (GEMMA_3_27B, [6, 1], 10),  # 52 windows in groups of 10, 10 full
        (GPT_OSS, [1, 1], 12),
        (LLAMA_4, [3, 1], 12),
        (of((12, SLIDING), (13, FULL)), [1, 1], 13),  # nearly as many of both: padded to the larger
        (of((20, SLIDING), (30, FULL)), [1, 2], 20),
    ],
)
def test_layers_in_groups_of_one_size(model: Architecture, pools: list[int], layers: int) -> None:
    found = layout(model)
    assert [group.pools for group in found.groups] == pools
    assert found.bytes_per_block == layers * found.groups[0].parts[0][0].page


def test_pages_of_two_sizes_become_one_by_larger_blocks() -> None:
    """MiMo V2: full layers have half the heads of the others, so their blocks hold twice the tokens."""
    full, others = dataclasses.replace(FULL, kv_heads=4), dataclasses.replace(SLIDING, kv_heads=8)
    found = layout(of((9, full), (39, others)))
    assert [(group.pools, group.block_size) for group in found.groups] == [(1, 32), (5, 16)]
    assert found.bytes_per_block == 9 * 16 * 8 * 2 * 256


def test_full_layers_of_several_widths_share_one_group() -> None:
    narrow = dataclasses.replace(FULL, kv_heads=2)
    [group] = layout(of((10, FULL), (20, narrow))).groups
    assert group.bytes == 16 * (10 * 8 + 20 * 2) * 2 * 256


def test_layers_that_read_another_layers_cache_have_none() -> None:
    assert layout(of((20, FULL), (10, dataclasses.replace(FULL, shares_cache=True)))) == layout(of((20, FULL)))


def test_an_encoder_keeps_nothing() -> None:
    found = layout(dataclasses.replace(LLAMA_8B, causal=False))
    assert (found.groups, found.bytes_per_block, found.minimum_bytes(512)) == ((), 0, 0)
    assert claim(found, load()).bytes == 0
    assert printed(found, 10**9, 512).tokens == 0


def test_deepseek_v4_packs_pages_of_several_sizes() -> None:
    def layer(ratio: int) -> LatentAttention:
        index = 128 if ratio == 4 else 0
        return LatentAttention(
            heads=64, rank=448, rope_dim=64, index_heads=index // 2, index_dim=index, compress_ratio=ratio, window=128
        )

    flash = of((2, layer(0)), *((1, layer(4)), (1, layer(128))) * 20, (1, layer(4)))
    found = layout(flash, context_length=131072)
    assert sorted((group.block_size, group.pools) for group in found.groups) == [(4, 1), (8, 1), (64, 2), (256, 1)]
    assert found.bytes_per_block == 21 * 37440 + 21 * 8640 + 20 * 1728
    assert found.resident_blocks(16001) == 63 + 2 * 3 + 3 + 17


def test_deepseek_v4_had_slots_for_every_page_size_in_0_20() -> None:
    def layer(ratio: int) -> LatentAttention:
        return LatentAttention(heads=64, rank=448, rope_dim=64, compress_ratio=ratio, window=128)

    model = of((2, layer(0)), *((1, layer(4)), (1, layer(128))) * 20)
    slots, largest = (layout(model, engine_version=version).bytes_per_block for version in ("0.20.0", "0.27.1"))
    assert slots == 21 * (37440 + 1728)  # 42 windows in two groups of 21
    assert largest == 21 * 37440


def test_sparse_layers_that_share_an_indexer_keep_no_key_since_0_27() -> None:
    shared = dataclasses.replace(SPARSE, index_dim=0)
    model = of((21, SPARSE), (57, shared))
    older, newer = (layout(model, engine_version=version).bytes_per_token for version in ("0.20.0", "0.27.1"))
    assert (older, newer) == (78 * (1152 + 132), 78 * 1152 + 21 * 132)
    assert layout(model, engine_version="0.20.0", pipeline=2).bytes_per_token == older


@pytest.mark.parametrize(
    ("counts", "at_least", "size"), [((43, 21, 20), 21, 22), ((43, 21, 21), 21, 22), ((61, 30, 31), 31, 31)]
)
def test_the_group_size_that_pads_least(counts: tuple[int, ...], at_least: int, size: int) -> None:
    assert least_padding(counts, at_least=at_least) == size


# ---- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "version", "tokens", "blocks"),
    [
        (PLAIN, "0.33.0", 32768, 2048),
        (PLAIN, "0.33.0", 32769, 2049),
        (of((32, SLIDING)), "0.25.1", 32768, 193),  # (1023 + 2048) / 16, and one for where the window begins
        (of((32, SLIDING)), "0.26.0", 32768, 321),  # two steps under way
        (of((32, SLIDING)), "0.33.0", 1024, 65),
        (LLAMA_4, "0.25.1", 32768, 2048 + 3 * 640),
        (LLAMA_4, "0.33.0", 32768, 2048 + 3 * 768),
        (QWEN3_NEXT, "0.27.1", 32768, 61 + 3 * 1),
        (QWEN3_NEXT, "0.28.0", 32768, 61 + 3 * 2),  # prefixes are cached
        (QWEN3_NEXT, "0.33.0", 32768, 57 + 3 * 3),  # and a checkpoint kept
        (HYBRID_MAMBA2, "0.31.0", 32768, 63 + 7 * 2),
        (HYBRID_MAMBA2, "0.32.0", 32768, 63 + 7 * 3),
        (of((64, MAMBA2), class_name="Mamba2ForCausalLM", attention_heads=0), "0.33.0", 32768, 1),
    ],
)
def test_blocks_that_a_request_is_admitted_with(model: Architecture, version: str, tokens: int, blocks: int) -> None:
    assert layout(model, engine_version=version).blocks_of_request(tokens) == blocks


def test_whisper_sets_its_encoder_aside() -> None:
    heads = PagedAttention(heads=20, kv_heads=20, key_dim=64, value_dim=64)
    both = (heads, dataclasses.replace(heads, span=Span.CROSS))
    runs = (LayerRun(count=32, mixers=both, feed_forward=MLP),)
    whisper = dataclasses.replace(LLAMA_8B, runs=runs, encoder_tokens=1500)
    found = layout(whisper, context_length=448)
    assert found.blocks_of_request(448) == 448 // 16 + 2048 // 16
    assert found.resident_blocks(448) == 448 // 16 + 94
    assert [group.pools for group in found.groups] == [1, 1]


@pytest.mark.parametrize(
    ("model", "tokens", "resident", "held"),
    [
        (PLAIN, 4001, 251, 251),
        (of((32, SLIDING)), 1001, 63, 63),
        (of((32, SLIDING)), 4001, 65, 65),
        (of((32, SLIDING)), 4000, 64, 65),  # the window ends with a block
        (LLAMA_4, 16001, 1001 + 3 * 489, 1001 + 3 * 513),
        (LLAMA_4, 16385, 1025 + 3 * 1, 1025 + 3 * 513),  # a chunk has just begun
        (QWEN3_NEXT, 16001, 28 + 3, 28 + 3),
    ],
)
def test_blocks_that_a_request_holds_after_a_step(model: Architecture, tokens: int, resident: int, held: int) -> None:
    found = layout(model)
    assert (found.resident_blocks(tokens), found.held_blocks(tokens)) == (resident, held)


# ---- the pool ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "tokens", "concurrency"),
    [
        ("0.20.0", 1000 // 7 * 16, 1000 / (2048 + 6 * 193)),
        ("0.20.1", int(1000 / (2048 + 6 * 193) * 32768), 1000 / (2048 + 6 * 193)),
        ("0.33.0", int(1000 / (2048 + 6 * 321) * 32768), 1000 / (2048 + 6 * 321)),
        ("", int(1000 / (2048 + 6 * 321) * 32768), 1000 / (2048 + 6 * 321)),
        ("1.4.0", int(1000 / (2048 + 6 * 321) * 32768), 1000 / (2048 + 6 * 321)),
    ],
)
def test_what_the_engine_prints_of_a_thousand_blocks(version: str, tokens: int, concurrency: float) -> None:
    found = layout(GEMMA_3_27B, engine_version=version)
    said = printed(found, 1000 * found.bytes_per_block + 1, 32768)
    assert (said.num_blocks, said.tokens, said.max_concurrency) == (1000, tokens, concurrency)


@pytest.mark.parametrize(("version", "null_block"), [("0.20.0", 0), ("0.28.0", 0), ("0.29.0", 1), ("0.33.0", 1)])
def test_the_smallest_pool_that_starts(version: str, null_block: int) -> None:
    found = layout(PLAIN, engine_version=version)
    assert found.minimum_bytes(32768) == (2048 + null_block) * found.bytes_per_block


@pytest.mark.parametrize("version", ["0.8.5", "0.9.0"])
def test_before_mixed_groups_layers_with_a_window_keep_everything(version: str) -> None:
    [group] = layout(GEMMA_3_27B, engine_version=version).groups
    assert (group.block_size, group.bytes) == (16, 62 * 16 * 16 * 2 * 256)
    assert layout(of((32, SLIDING)), engine_version=version).held_blocks(16384) == 65  # all alike: windows stay


def test_chunks_had_no_groups_of_their_own_before_0_20_and_have_none_beside_layers_that_draft() -> None:
    assert [len(layout(LLAMA_4, engine_version=version).groups) for version in ("0.12.0", "0.20.0")] == [1, 2]
    assert len(layout(LLAMA_4, speculation="eagle3", speculative_tokens=3).groups) == 1


@pytest.mark.parametrize(
    ("version", "sliding", "pools", "layers"),
    [
        ("0.9.1", 12, [1, 2], 12),
        ("0.12.0", 12, [1, 1], 13),
        ("0.12.0", 10, [1, 2], 10),  # 13 is not less than 1.25 times 10
        ("0.20.0", 10, [1, 1], 13),  # but less than 1.5 times
    ],
)
def test_how_alike_layer_counts_must_be(version: str, sliding: int, pools: list[int], layers: int) -> None:
    found = layout(of((sliding, SLIDING), (13, FULL)), engine_version=version)
    assert [group.pools for group in found.groups] == pools
    assert found.bytes_per_block == layers * 16 * 4096


def test_states_of_two_sizes_have_groups_of_their_own() -> None:
    other = dataclasses.replace(MAMBA2, value_heads=64)
    found = layout(of((14, MAMBA2), (14, other), (14, FULL)))
    assert [group.pools for group in found.groups] == [1, 1, 1]


def test_without_mixed_groups_layers_with_a_window_keep_everything_too() -> None:
    without, full = layout(GEMMA_3_27B, hybrid_cache=False), layout(of((62, dataclasses.replace(FULL, kv_heads=16))))
    assert (without.groups[0].bytes, without.held_blocks(16384)) == (full.groups[0].bytes, full.held_blocks(16384))


# ---- the claim -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changes", "blocks", "why"),
    [
        (PLAIN, {}, 8 * 1024 + 1, "8 sequences of 16384 tokens"),
        (PLAIN, {"concurrency": 1}, 2048 + 1, "one request of 32768 tokens"),
        (
            GEMMA_3_27B,
            {},
            8 * (1024 + 6 * 65) + 6 * (321 - 65) + 1,  # the window of one request that is admitted
            "8 sequences of 16384 tokens",
        ),
        (QWEN3_NEXT, {}, 8 * (29 + 3) + 3 * (3 - 1) + 1, "8 sequences of 16384 tokens"),
        (
            of((64, MAMBA2), class_name="Mamba2ForCausalLM"),
            {"concurrency": 200},
            201,
            "200 sequences",
        ),
    ],
)
def test_the_claim(model: Architecture, changes: dict[str, Any], blocks: int, why: str) -> None:
    workload = load(**changes)
    found = kv_layout(model, workload)
    need = claim(found, workload)
    assert (need.blocks, need.bytes) == (blocks, blocks * found.bytes_per_block)
    assert why in need.why


def test_a_claim_of_latents_holds_on_gpus_whose_blocks_are_larger() -> None:
    """Blackwell reads them in pages of 32 tokens: a request of 100 tokens takes 4 of these, and the pool keeps one."""
    workload = load(context_length=100, concurrency=1, tokens_per_sequence=100)
    found = kv_layout(of((61, LATENT)), workload)
    assert claim(found, workload).bytes == (4 + 1) * 32 * 61 * 1152
    assert claim(found, workload).least == (4 + 1) * 2
    quantized = load(context_length=100, concurrency=1, tokens_per_sequence=100, kv_cache_precision="fp8")
    assert claim(kv_layout(of((61, LATENT)), quantized), quantized).bytes == (2 + 1) * 64 * 61 * 576


MODELS = st.sampled_from(
    [PLAIN, GEMMA_3_27B, GPT_OSS, LLAMA_4, QWEN3_NEXT, HYBRID_MAMBA2, of((30, SPARSE)), of((30, LATENT))]
)
VERSIONS = st.sampled_from(["", "0.20.0", "0.25.1", "0.27.1", "0.28.0", "0.29.0", "0.33.0"])


@given(
    MODELS, VERSIONS, st.integers(1, 300), st.integers(1, 40000), st.integers(1, 40000), st.sampled_from([512, 8192])
)
def test_an_engine_that_is_handed_the_claim_starts_and_no_sequence_waits_forever(
    model: Architecture, version: str, concurrency: int, length: int, expected: int, batched: int
) -> None:
    workload = load(
        context_length=length,
        concurrency=concurrency,
        tokens_per_sequence=min(expected, length),
        max_batched_tokens=batched,
        engine_version=version,
    )
    found = kv_layout(model, workload)
    need = claim(found, workload)
    assert need.bytes >= found.minimum_bytes(length)
    said = printed(found, need.bytes, length)
    assert said.num_blocks == need.blocks
    assert said.max_concurrency >= 1
    usable = need.blocks - 1
    held = found.held_blocks(workload.tokens_per_sequence)
    assert usable >= found.blocks_of_request(length)  # the longest request that is allowed, alone
    assert usable >= (concurrency - 1) * held + found.blocks_of_request(workload.tokens_per_sequence)
    assert not found.has_states or said.num_blocks >= concurrency


LOADS = {
    "concurrency": (1, 500),
    "tokens_per_sequence": (1, 16384),
    "context_length": (16384, 131072),
    "max_batched_tokens": (512, 16384),
}


@given(MODELS, VERSIONS, st.sampled_from(sorted(LOADS)), st.data())
def test_a_larger_load_never_claims_less(model: Architecture, version: str, field: str, data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.tuples(*[st.integers(*LOADS[field])] * 2)))
    less, more = (load(engine_version=version, **{field: value}) for value in (low, high))
    assert claim(kv_layout(model, less), less).bytes <= claim(kv_layout(model, more), more).bytes


@given(MODELS, st.sampled_from([1, 2, 4]), st.integers(1, 100), st.integers(1, 16384))
def test_more_ranks_never_hold_more_than_a_block_of_padding_each(
    model: Architecture, tensor: int, concurrency: int, tokens: int
) -> None:
    few, many = (
        load(tensor=ranks, concurrency=concurrency, tokens_per_sequence=tokens) for ranks in (tensor, 2 * tensor)
    )
    layouts = [kv_layout(model, workload) for workload in (few, many)]
    padding = (concurrency + 4) * sum(group.pools for group in layouts[0].groups) * layouts[0].bytes_per_block
    assert claim(layouts[1], many).bytes <= claim(layouts[0], few).bytes + padding


@given(MODELS, st.sampled_from([1, 2, 3, 4]))
def test_a_stage_never_holds_more_than_the_whole(model: Architecture, pipeline: int) -> None:
    workload = load(pipeline=pipeline)
    assert kv_layout(model, workload).bytes_per_block <= kv_layout(model, load()).bytes_per_block


@given(MODELS, VERSIONS, st.integers(2, 40000))
def test_what_a_request_holds_is_never_more_than_what_it_is_said_to_hold(
    model: Architecture, version: str, tokens: int
) -> None:
    found = layout(model, engine_version=version, context_length=40000)
    assert found.resident_blocks(tokens) <= found.held_blocks(tokens)
    assert found.held_blocks(tokens - 1) <= found.held_blocks(tokens)
    assert found.blocks_of_request(tokens - 1) <= found.blocks_of_request(tokens)


# ---- parallelism and speculation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "pipeline", "sizes"),
    [(32, 1, [32]), (32, 4, [8, 8, 8, 8]), (61, 4, [15, 15, 16, 15]), (62, 4, [15, 16, 16, 15]), (3, 2, [2, 1])],
)
def test_layers_of_pipeline_stages(layers: int, pipeline: int, sizes: list[int]) -> None:
    assert [len(stage) for stage in stages(layers, pipeline)] == sizes


def test_a_pipeline_claims_its_widest_stage() -> None:
    whole, half = layout(PLAIN), layout(PLAIN, pipeline=2)
    assert half.bytes_per_block * 2 == whole.bytes_per_block
    uneven = layout(of((33, FULL)), pipeline=2)
    assert uneven.bytes_per_block * 33 == whole.bytes_per_block // 32 * 33 * 17
    with pytest.raises(InvalidInputError, match="at most the model's 33 layers"):
        layout(of((33, FULL)), pipeline=34)


def test_groups_are_dealt_out_so_that_each_stage_has_some_of_each() -> None:
    found = layout(GEMMA_3_27B, pipeline=2)
    assert found.bytes_per_block == 5 * layout(GEMMA_3_27B).bytes_per_block // 10


def test_context_parallelism_deals_out_the_tokens() -> None:
    found = layout(of((61, LATENT)), tensor=8, decode_context=8)
    assert found.blocks_of_request(32768) == 32768 // 8 // 16
    assert printed(found, 1000 * found.bytes_per_block, 32768).tokens == 8 * 16 * 1000
    for model, changes in ((GEMMA_3_27B, {"tensor": 8}), (PLAIN, {"tensor": 3})):
        with pytest.raises(InvalidInputError) as refusal:
            layout(model, decode_context=2, **changes)
        assert refusal.value.field == "spec.parallelism.decodeContext"


def test_layers_that_draft_need_cache_too() -> None:
    model = dataclasses.replace(PLAIN, predict_layers=2)
    drafting = {"speculation": "mtp", "speculative_tokens": 3}
    assert layout(model, **drafting).bytes_per_block == layout(of((34, FULL))).bytes_per_block
    assert layout(model, **drafting).held_blocks(4096) == 257  # and the tokens that are drafted
    assert layout(model, speculation="ngram", speculative_tokens=3).bytes_per_block == layout(PLAIN).bytes_per_block
    states = layout(QWEN3_NEXT, speculation="ngram", speculative_tokens=3)
    assert states.blocks_of_request(32768) - layout(QWEN3_NEXT).blocks_of_request(32768) == 3 * 3
    with pytest.raises(UnsupportedModelError, match="draft"):
        layout(model, speculation="draft", speculative_tokens=3)


# ---- types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "token"),
    [
        ({}, 32 * 8 * 2 * 256),
        ({"kv_cache_dtype": "fp8"}, 32 * 8 * 2 * 128),
        ({"dtype": "float32"}, 32 * 8 * 2 * 256),  # served in 16 bit
        ({"dtype": "float16"}, 32 * 8 * 2 * 256),
    ],
)
def test_auto_is_what_the_checkpoint_makes_of_it(changes: dict[str, Any], token: int) -> None:
    model = dataclasses.replace(PLAIN, **changes)
    assert layout(model, kv_cache_precision="auto").bytes_per_token == token


def test_classes_that_did_not_hear_the_precision() -> None:
    mimo = dataclasses.replace(PLAIN, class_name="MiMoV2FlashForCausalLM")
    sizes = [
        layout(mimo, kv_cache_precision="fp8", engine_version=version).bytes_per_token
        for version in ("0.31.0", "0.32.0")
    ]
    assert sizes[0] == 2 * sizes[1]


@pytest.mark.parametrize(
    ("model", "changes", "field"),
    [
        (PLAIN, {"kv_cache_precision": "q8_0"}, "spec.precision.kvCache"),
        (of((4, LATENT)), {"kv_cache_precision": "nvfp4"}, "spec.precision.kvCache"),
        (of((4, dataclasses.replace(FULL, key_dim=1))), {"kv_cache_precision": "nvfp4"}, "spec.precision.kvCache"),
        (of((4, dataclasses.replace(FULL, value_dim=100))), {"kv_cache_precision": "nvfp4"}, "spec.precision.kvCache"),
        (PLAIN, {"engine_version": "latest"}, "spec.engine.version"),
        (HYBRID_MAMBA2, {"engine_version": "0.27.1", "prefix_caching": True}, "spec.engine.prefixCaching"),
        (QWEN3_NEXT, {"hybrid_cache": False}, "spec.engine.args"),
        (QWEN3_NEXT, {"engine_version": "0.9.0"}, "spec.engine.version"),
    ],
)
def test_refused_with_the_field(model: Architecture, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        layout(model, **changes)
    assert refusal.value.field == field


def test_latents_that_fit_no_common_page_are_refused() -> None:
    other = dataclasses.replace(SLIDING, key_dim=80, value_dim=80)
    with pytest.raises(UnsupportedModelError, match="no padded pages"):
        layout(of((10, LATENT), (10, other)))
