"""What is not weights and not cache: activations, graphs, communication, and the pod's own RAM."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.known_models import LLAMA_8B, LLAMA_70B, QWEN3_8B, QWEN3_30B_A3B
from vrampack.memory.activations import activation_bytes
from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import ALLOWANCE
from vrampack.memory.forward import forward_elements, latent_workspace_elements
from vrampack.memory.host import host_bytes, shared_memory_bytes
from vrampack.memory.layers import FeedForward, LatentAttention, LayerRun, PagedAttention, RecurrentState, StateKind
from vrampack.memory.overheads import (
    allowance_bytes,
    captured_sizes,
    communication_bytes,
    cuda_graph_bytes,
    non_torch_bytes,
)
from vrampack.memory.sampler import sampler_bytes, sampler_state_bytes
from vrampack.memory.workload import Workload
from vrampack.units import GIB, MIB

HYBRID = dataclasses.replace(
    QWEN3_30B_A3B,
    runs=(
        LayerRun(
            count=3,
            mixers=(
                RecurrentState(
                    kind=StateKind.GATED_DELTA,
                    conv_kernel=4,
                    key_heads=16,
                    key_dim=128,
                    value_heads=32,
                    value_dim=128,
                ),
            ),
            feed_forward=FeedForward(experts=512, experts_per_token=10, expert_width=512, shared_width=512),
        ),
        LayerRun(
            count=1,
            mixers=(PagedAttention(heads=16, kv_heads=2, key_dim=256, value_dim=256),),
            feed_forward=FeedForward(experts=512, experts_per_token=10, expert_width=512, shared_width=512),
        ),
    ),
)
LATENT = dataclasses.replace(
    LLAMA_8B,
    runs=(
        LayerRun(
            count=61,
            mixers=(LatentAttention(heads=128, rank=512, rope_dim=64, query_rank=1536, nope_dim=128, value_dim=128),),
            feed_forward=FeedForward(experts=256, experts_per_token=8, expert_width=2048, shared_width=2048),
        ),
    ),
)
IMAGES = dataclasses.replace(
    QWEN3_8B, multimodal=True, image_tokens=16384, video_images=7, image_width=20000, image_split_width=34432
)
MODELS = (LLAMA_8B, LLAMA_70B, QWEN3_8B, QWEN3_30B_A3B, HYBRID, LATENT, IMAGES)


def load(**changes: Any) -> Workload:
    usual = {"context_length": 8192, "concurrency": 16, "tokens_per_sequence": 8192, "max_batched_tokens": 8192}
    return Workload(**(usual | changes))


# ---- the sampler: copies of 4 bytes for each sequence and word ----------------------------------------------------


@pytest.mark.parametrize(
    ("version", "sequences", "copies"),
    [
        ("0.6.6", 256, 9.5),  # logits in 16 and in 32 bit, and eight copies that a segmented sort makes
        ("0.10.2", 1024, 9.5),
        ("0.16.0", 256, 9.5),
        ("0.12.0", 64, 12.5),  # fewer rows are sorted all together, which takes three more
        ("0.17.1", 1024, 3.5 + 148 / 1024),  # no sort any more; a row of scratch for each program of the kernel
        ("0.33.0", 1024, 3.5 + 148 / 1024),
        ("", 16, 4.5),
    ],
)
def test_copies_of_the_logits_by_release(version: str, sequences: int, copies: float) -> None:
    found = sampler_bytes(LLAMA_8B, load(engine_version=version, concurrency=sequences))
    assert found == pytest.approx(copies * sequences * LLAMA_8B.vocab_size * 4, rel=1e-6)


def test_logits_are_whole_on_every_rank() -> None:
    assert sampler_bytes(LLAMA_70B, load(tensor=8)) == sampler_bytes(LLAMA_70B, load(tensor=1))


def test_a_model_that_answers_with_vectors_samples_nothing() -> None:
    pooling = dataclasses.replace(LLAMA_8B, pooling=True)
    assert sampler_bytes(pooling, load()) == sampler_state_bytes(pooling, load()) == 0


def test_the_second_model_runner_counts_what_every_sequence_wrote() -> None:
    # 4 bytes a word, and one bit a word of the prompt.
    assert sampler_state_bytes(LLAMA_8B, load(concurrency=256)) == 256 * (128256 * 4 + 128256 // 8)
    assert sampler_state_bytes(LLAMA_8B, load(engine_version="0.22.0")) == 0
    for model in (QWEN3_30B_A3B, HYBRID):  # they came later
        assert sampler_state_bytes(model, load(engine_version="0.28.0")) == 0 < sampler_state_bytes(model, load())


def test_speculation_samples_for_every_token_that_it_guesses() -> None:
    assert sampler_bytes(QWEN3_8B, load(speculative_tokens=3)) > 3 * sampler_bytes(QWEN3_8B, load())


# ---- a forward pass ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changes", "width"),
    [
        (LLAMA_8B, {}, 3 * 4096 + 3 * 14336),  # gate and up, their product, and three hidden states
        (LLAMA_8B, {"tensor": 2}, 3 * 4096 + 3 * 7168),  # hidden states are not split
        (QWEN3_30B_A3B, {}, 3 * 2048 + 8 * (2048 + 768) + 2 * 128 + 2048),  # outputs of eight experts are wider
        (QWEN3_30B_A3B, {"tensor": 2, "expert": True}, 3 * 2048 + 8 * (2048 + 768) + 2 * 128 + 2048),
    ],
)
def test_elements_of_a_token(model: Architecture, changes: dict[str, Any], width: int) -> None:
    assert forward_elements(model, load(**changes)) == 8192 * width


def test_latent_attention_expands_the_past_in_chunks() -> None:
    # 64k tokens: 576 elements compressed, and 128 heads of 256 expanded; eight ranks have 16 heads each.
    assert latent_workspace_elements(LATENT, load()) == 65536 * (576 + 128 * 256)
    assert latent_workspace_elements(LATENT, load(tensor=8)) == 65536 * (576 + 16 * 256)
    assert latent_workspace_elements(LLAMA_8B, load()) == 0


def test_sparse_attention_gathers_five_sequences_and_scores_them() -> None:
    (run,) = LATENT.runs
    (mixer,) = run.mixers
    assert isinstance(mixer, LatentAttention)
    sparse = dataclasses.replace(
        LATENT, runs=(dataclasses.replace(run, mixers=(dataclasses.replace(mixer, index_heads=64, index_dim=128),)),)
    )
    more = latent_workspace_elements(sparse, load()) - latent_workspace_elements(LATENT, load())
    assert more == 5 * 8192 * 576 + 512 * 2**20 // 2


# ---- graphs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "sequences", "sizes"),
    [
        ("0.6.6", 256, 35),  # 1, 2, 4, 8, 16 … 256
        ("0.9.2", 2, 67),  # up to 512 whatever is asked for
        ("0.10.0", 2, 3),
        ("0.10.0", 1024, 67),
        ("0.12.0", 1024, 51),  # every 16th from 256 on
        ("0.33.0", 16, 7),  # 1, 2, 4, 8, 16, 24, 32
        ("", 1, 2),
    ],
)
def test_captured_sizes_by_release(version: str, sequences: int, sizes: int) -> None:
    assert captured_sizes(max_sequences=sequences, max_batched_tokens=8192, version=version) == sizes


def test_no_graph_is_larger_than_a_batch() -> None:
    assert captured_sizes(max_sequences=256, max_batched_tokens=64) == captured_sizes(
        max_sequences=32, max_batched_tokens=8192
    )


def test_graphs_grow_with_what_a_layer_launches() -> None:
    plain = cuda_graph_bytes(QWEN3_8B, load())
    assert cuda_graph_bytes(QWEN3_8B, load(), precision="awq") > plain
    assert cuda_graph_bytes(dataclasses.replace(QWEN3_8B, multimodal=True), load()) > plain
    experts = dataclasses.replace(QWEN3_30B_A3B, layers=QWEN3_8B.layers)
    assert cuda_graph_bytes(experts, load()) > cuda_graph_bytes(QWEN3_8B, load(), precision="awq")
    assert cuda_graph_bytes(QWEN3_8B, load(cuda_graphs=False)) == 0


# ---- the rest ----------------------------------------------------------------------------------------------------


def test_one_gpu_talks_to_none() -> None:
    assert communication_bytes(load()) == 0
    several = [communication_bytes(load(**split)) for split in ({"tensor": 2}, {"pipeline": 4}, {"data": 8})]
    assert len(set(several)) == 1
    assert several[0] > GIB
    assert non_torch_bytes(load(tensor=2)) - non_torch_bytes(load()) == several[0]


def test_a_stage_of_a_pipeline_captures_its_own_layers() -> None:
    base = cuda_graph_bytes(QWEN3_8B, load()) - cuda_graph_bytes(dataclasses.replace(QWEN3_8B, layers=35), load())
    four = cuda_graph_bytes(QWEN3_8B, load(pipeline=4))
    assert cuda_graph_bytes(QWEN3_8B, load()) - four == 27 * base


def test_a_stage_receives_what_the_one_before_it_sends() -> None:
    assert forward_elements(QWEN3_8B, load(pipeline=2)) - forward_elements(QWEN3_8B, load()) == 8192 * 2 * 4096


def test_the_allowance_is_three_tenths() -> None:
    assert allowance_bytes() == ALLOWANCE == int(0.3 * GIB)


def test_ram_of_the_pod() -> None:
    # The API server and the scheduler, a worker each, and 5 bytes for every token that every sequence may have.
    assert host_bytes(LLAMA_8B, load()) == 10 * GIB + 16 * 8192 * 5
    assert host_bytes(LLAMA_8B, load(tensor=2)) == 16 * GIB + 2 * 16 * 8192 * 5
    images = dataclasses.replace(LLAMA_8B, multimodal=True)
    assert host_bytes(images, load()) - host_bytes(LLAMA_8B, load()) == 8 * GIB  # two caches of processed images
    assert host_bytes(images, load(text_only=True)) == host_bytes(LLAMA_8B, load())
    assert shared_memory_bytes(load(tensor=2, pipeline=2)) == 4 * GIB


# ---- whatever is asked -------------------------------------------------------------------------------------------

versions = st.sampled_from(["0.6.6", "0.9.2", "0.10.2", "0.12.0", "0.17.1", "0.27.1", "0.33.0", ""])
loads = st.builds(
    load,
    context_length=st.integers(1, 2**17),
    concurrency=st.integers(1, 2048),
    max_batched_tokens=st.integers(2048, 32768),
    tensor=st.sampled_from([1, 2, 4, 8]),
    data=st.sampled_from([1, 2]),
    expert=st.booleans(),
    speculative_tokens=st.integers(0, 4),
    engine_version=versions,
)


def terms(model: Architecture, workload: Workload) -> dict[str, int]:
    return {
        "activations": activation_bytes(model, workload),
        "graphs": cuda_graph_bytes(model, workload),
        "host": host_bytes(model, workload),
        "shared": shared_memory_bytes(workload),
    }


@given(
    model=st.sampled_from(MODELS),
    workload=loads,
    driver=st.sampled_from(["concurrency", "max_batched_tokens", "context_length"]),
    more=st.integers(1, 4096),
)
def test_more_load_never_takes_less(model: Architecture, workload: Workload, driver: str, more: int) -> None:
    less = terms(model, workload)
    grown = terms(model, dataclasses.replace(workload, **{driver: getattr(workload, driver) + more}))
    for name, size in less.items():
        assert 0 <= size <= grown[name], name


@given(model=st.sampled_from(MODELS), workload=loads)
def test_more_ranks_never_take_more_activations_each(model: Architecture, workload: Workload) -> None:
    one, two = (dataclasses.replace(workload, tensor=tensor, expert=False) for tensor in (4, 8))
    assert activation_bytes(model, two) <= activation_bytes(model, one) + MIB
