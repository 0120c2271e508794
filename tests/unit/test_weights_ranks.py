"""What one rank holds of the weights, for every way of splitting a replica."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.known_models import LLAMA_8B, LLAMA_8B_WEIGHTS, QWEN3_30B_A3B
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import (
    Architecture,
    LayerWeights,
    LoadedTensor,
    Split,
    WeightPart,
    Weights,
    WeightsMethod,
)
from vrampack.memory.constants import WEIGHT_BITS
from vrampack.memory.layers import FeedForward, LatentAttention, LayerRun
from vrampack.memory.loading import claimed_bytes, loading_peak_bytes, quantized_online
from vrampack.memory.tensorlayout import model_shapes, weights_from_architecture
from vrampack.memory.weights import laid_out, loaded_bytes, reserved_bytes, stage_bytes
from vrampack.memory.workload import Workload
from vrampack.models.config import architecture_of
from vrampack.models.tensorfacts import tensor_facts_of
from vrampack.units import GIB, MIB

SMALL = Architecture(
    model_type="llama",
    layers=4,
    hidden_size=64,
    intermediate_size=256,
    vocab_size=100,
    attention_heads=8,
    kv_heads=2,
    head_dim=8,
    dtype="bfloat16",
)
"""Too small for the allocator to round anything up."""


def workload(**changes: Any) -> Workload:
    fields = {"context_length": 8, "concurrency": 1, "tokens_per_sequence": 8, "max_batched_tokens": 8}
    return Workload(**fields | changes)


def one(split: Split, size: int, units: int = 0, **changes: int) -> Weights:
    """A model with one layer of one tensor."""
    part = WeightPart(bytes=size, split=split, units=units, **changes)
    layer = LayerWeights(count=1, tensors=(LoadedTensor(parts=(part,)),))
    return Weights(total=size, parameters=size, precision="bf16", layers=(layer,))


@pytest.mark.parametrize(
    ("split", "units", "changes", "share"),
    [
        (Split.WHOLE, 0, {"tensor": 8}, 96),
        (Split.TENSOR, 0, {"tensor": 8}, 12),
        (Split.TENSOR, 0, {"tensor": 2, "data": 4}, 48),  # data parallelism copies everything but experts
        (Split.HEADS, 8, {"tensor": 4}, 24),
        (Split.HEADS, 2, {"tensor": 2}, 48),
        (Split.HEADS, 2, {"tensor": 8}, 48),  # four ranks share a head: each has all of it
        (Split.HEADS, 1, {"tensor": 8}, 96),
        (Split.VOCABULARY, 64, {"tensor": 4}, 24),
        (Split.VOCABULARY, 48, {"tensor": 1}, 128),  # 48 rows become 64
        (Split.VOCABULARY, 48, {"tensor": 2}, 64),
        (Split.SHARED, 0, {"tensor": 4}, 24),
        (Split.SHARED, 0, {"tensor": 4, "expert": True}, 24),
        (Split.SHARED, 0, {"tensor": 4, "data": 2}, 24),
        (Split.SHARED, 0, {"tensor": 4, "data": 2, "expert": True}, 96),  # each rank has tokens of its own
        (Split.EXPERT, 6, {"tensor": 4}, 24),
        (Split.EXPERT, 6, {"tensor": 2, "data": 4}, 12),  # experts are split over data ranks as well
        (Split.EXPERT, 6, {"tensor": 4, "expert": True}, 32),  # two of six experts on the fullest rank
        (Split.EXPERT, 6, {"tensor": 2, "data": 4, "expert": True}, 16),  # one expert on six of eight ranks
    ],
)
def test_share_of_the_fullest_rank(split: Split, units: int, changes: dict[str, Any], share: int) -> None:
    weights = one(split, 96, units)
    assert loaded_bytes(SMALL, weights, workload(**changes)) == share


@pytest.mark.parametrize(("tensor", "width"), [(1, 384), (2, 256), (4, 128), (8, 128)])
def test_a_kernel_that_wants_a_width_gets_it_on_each_rank(tensor: int, width: int) -> None:
    """gpt-oss: an inner width of 360, in shares of multiples of 128."""
    weights = one(Split.EXPERT, 360, 1, width=360, align=128)
    assert loaded_bytes(SMALL, weights, workload(tensor=tensor)) == width


def test_pipeline_stages_hold_their_layers_and_the_ends() -> None:
    weights = weights_from_architecture(SMALL, precision="bf16")
    layer = 2 * (64 * (64 + 16 + 16) + 64 * 64 + 3 * 64 * 256 + 2 * 64)
    table = 2 * 128 * 64  # 100 rows become 128
    assert stage_bytes(SMALL, weights, workload(pipeline=2)) == (2 * layer + table, 2 * layer + table + 2 * 64)
    assert stage_bytes(SMALL, weights, workload(pipeline=3)) == (layer + table, 2 * layer, layer + table + 2 * 64)
    tied = dataclasses.replace(SMALL, tied_embeddings=True)
    stages = stage_bytes(tied, weights_from_architecture(tied, precision="bf16"), workload(pipeline=4))
    assert stages == (layer + table, layer, layer, layer + table + 2 * 64)  # the last stage has a copy of the table
    with pytest.raises(InvalidInputError, match="at most the model's 4 layers"):
        stage_bytes(SMALL, weights, workload(pipeline=5))


def test_towers_are_left_out_where_only_text_is_served() -> None:
    weights = dataclasses.replace(one(Split.TENSOR, 100), total=180, tower=80)
    assert loaded_bytes(SMALL, weights, workload()) == 180
    assert loaded_bytes(SMALL, weights, workload(text_only=True)) == 100
    assert stage_bytes(SMALL, dataclasses.replace(weights, layers=weights.layers * 2), workload(pipeline=2)) == (
        180,
        100,
    )


def test_prediction_layers_are_loaded_for_their_speculation_alone() -> None:
    weights = dataclasses.replace(one(Split.TENSOR, 100), predict=40)
    assert loaded_bytes(SMALL, weights, workload()) == 100
    assert loaded_bytes(SMALL, weights, workload(speculation="ngram", speculative_tokens=2)) == 100
    assert loaded_bytes(SMALL, weights, workload(speculation="mtp", speculative_tokens=2)) == 140


def test_the_way_down_of_latent_attention_is_whole_and_the_way_up_of_a_quantized_one_is_copied() -> None:
    mixer = LatentAttention(heads=16, rank=512, rope_dim=64, query_rank=1536, nope_dim=128, value_dim=128)
    run = LayerRun(count=1, mixers=(mixer,), feed_forward=FeedForward(width=1024))
    architecture = dataclasses.replace(
        SMALL, model_type="deepseek_v3", layers=1, hidden_size=1024, attention_heads=16, kv_heads=16, runs=(run,)
    )
    plain = weights_from_architecture(architecture, precision="bf16")
    down = 2 * 1024 * (1536 + 512 + 64)
    norms = 2 * (1536 + 512 + 3 * 1024)
    assert plain.replicated == down + norms
    quantized = weights_from_architecture(architecture, precision="fp8")
    up = 16 * (128 + 128) * 512
    parts = [part for run in quantized.layers for tensor in run.tensors for part in tensor.parts]
    assert sum(part.bytes for part in parts if part.bytes == 2 * up) == 2 * up  # in the computation type
    assert quantized.total < plain.total / 1.9


def test_a_profile_without_tensors_is_split_by_the_shapes() -> None:
    layout = laid_out(LLAMA_8B, LLAMA_8B_WEIGHTS)
    assert layout == laid_out(LLAMA_8B, layout)
    shapes = weights_from_architecture(LLAMA_8B, precision="bf16")
    for tensor in (1, 2, 4, 8, 16):
        served = workload(tensor=tensor)
        assert loaded_bytes(LLAMA_8B, LLAMA_8B_WEIGHTS, served) == loaded_bytes(LLAMA_8B, shapes, served)


@given(
    total=st.integers(2**20, 2**42),
    embedding=st.integers(0, 2**34),
    replicated=st.integers(0, 2**30),
    tensor=st.sampled_from((1, 2, 4, 8)),
)
def test_whatever_a_profile_claims_is_split_without_loss(
    total: int, embedding: int, replicated: int, tensor: int
) -> None:
    """The ranks together have at least what the files have, and one rank never more than all of it and its padding."""
    embedding, replicated = min(embedding, total // 4), min(replicated, total // 4)
    weights = Weights(total=total, parameters=total // 2, precision="bf16", embedding=embedding, replicated=replicated)
    served = workload(tensor=tensor)
    loaded = loaded_bytes(LLAMA_8B, weights, served)
    assert 0 < loaded <= reserved_bytes(LLAMA_8B, weights, served)
    rotary = 131072 * 128 * 2
    assert tensor * loaded >= 0.98 * (total + rotary)


ARCHITECTURES = (LLAMA_8B, QWEN3_30B_A3B, SMALL)


@given(st.sampled_from(ARCHITECTURES), st.sampled_from(sorted(WEIGHT_BITS)), st.booleans(), st.booleans())
def test_more_ranks_never_hold_more_each(architecture: Architecture, precision: str, expert: bool, whole: bool) -> None:
    """But for padding: rows of the vocabulary and rests of segments, of which there are fewer than tensors."""
    weights = weights_from_architecture(architecture, precision=precision)
    measure = reserved_bytes if whole else loaded_bytes
    sizes = [measure(architecture, weights, workload(tensor=tensor, expert=expert)) for tensor in (1, 2, 4, 8)]
    tensors = sum(count for count, tensor in weights.census if not tensor.small) + 3
    for fewer, more in itertools.pairwise(sizes):
        assert 0 < more <= fewer + tensors * 2 * MIB


@given(st.sampled_from(ARCHITECTURES), st.sampled_from((1, 2, 4)))
def test_fewer_bits_never_weigh_more(architecture: Architecture, tensor: int) -> None:
    ladder = ("fp32", "bf16", "int8", "int4")
    served = workload(tensor=tensor)
    sizes = [
        loaded_bytes(
            architecture,
            weights_from_architecture(
                dataclasses.replace(architecture, dtype="float32" if precision == "fp32" else "bfloat16"),
                precision=precision,
            ),
            served,
        )
        for precision in ladder
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_the_method_says_where_the_bytes_come_from() -> None:
    assert weights_from_architecture(SMALL, precision="bf16").method is WeightsMethod.SHAPES
    assert LLAMA_8B_WEIGHTS.method is WeightsMethod.TENSORS


# ---- loading ------------------------------------------------------------------------------------------------------


def qwen15_moe(shared_data: Path) -> Architecture:
    """Qwen1.5-MoE-A2.7B, with which vLLM's developers measured the conversion to fp8."""
    return architecture_of(json.loads((shared_data / "model-configs" / "mlc--qwen2moe.json").read_text()))


def test_a_checkpoint_that_is_converted_weighs_what_the_engine_printed(shared_data: Path) -> None:
    architecture = qwen15_moe(shared_data)
    weights = weights_from_architecture(architecture, precision="bf16")
    assert loaded_bytes(architecture, weights, workload()) / GIB == pytest.approx(26.67, abs=0.01)
    online = quantized_online(architecture, weights)
    assert loaded_bytes(architecture, online, workload()) / GIB == pytest.approx(13.94, rel=0.005)
    before = loading_peak_bytes(architecture, online, workload(engine_version="0.12.0"))
    assert before / GIB == pytest.approx(26.73, rel=0.02)
    assert before > loading_peak_bytes(architecture, online, workload(engine_version="0.15.0")) > 13.94 * GIB


@pytest.mark.parametrize(
    ("precision", "more"), [("bf16", False), ("bitsandbytes", False), ("awq", True), ("mxfp4", True)]
)
def test_laying_out_tensors_anew_needs_the_largest_twice(precision: str, more: bool) -> None:
    weights = weights_from_architecture(QWEN3_30B_A3B, precision=precision)
    served = workload(tensor=2)
    peak, reserved = loading_peak_bytes(QWEN3_30B_A3B, weights, served), reserved_bytes(QWEN3_30B_A3B, weights, served)
    assert (peak > reserved) is more
    assert peak - reserved < reserved / 10


def test_what_comes_after_loading_makes_room_for_it() -> None:
    weights = weights_from_architecture(QWEN3_30B_A3B, precision="awq")
    served = workload()
    reserved = reserved_bytes(QWEN3_30B_A3B, weights, served)
    on_top = loading_peak_bytes(QWEN3_30B_A3B, weights, served) - reserved
    for besides, more in ((0, on_top), (on_top // 2, on_top - on_top // 2), (on_top, 0), (2 * on_top, 0)):
        assert claimed_bytes(QWEN3_30B_A3B, weights, served, besides=besides) == reserved + more


def test_every_family_has_shapes(shared_data: Path) -> None:
    """Whatever is read into an architecture has tensors: none without elements, and none twice in a layer."""
    seen = 0
    for path in sorted((shared_data / "model-configs").glob("*.json")):
        try:
            architecture = architecture_of(config := json.loads(path.read_text()), stored_dtype="bfloat16")
        except (UnsupportedModelError, InvalidInputError):  # what is refused has no shapes
            continue
        facts = tensor_facts_of(config, architecture=architecture)
        shapes = model_shapes(architecture, facts=facts)
        assert sum(count for count, _ in shapes.layers) == sum(run.count for run in architecture.layer_runs)
        for _, tensors in shapes.layers:
            assert all(tensor.elements > 0 for tensor in tensors), path.name
            names = [tensor.name for tensor in tensors]
            assert len(names) == len(set(names)), path.name
        seen += 1
    assert seen > 150
