"""What would make a waiting replica fit: each change is sized, and none is smaller than it must be."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.packing_builders import host
from tests.unit.planning_world import (
    H100,
    Json,
    decide,
    estimated,
    gpu_node,
    model,
    node,
    placed,
    pod,
    pool,
    profile,
    waiting,
    where,
    world,
)
from tests.unit.planning_world import gpus as world_gpus
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.packing.firstfit import pack
from vrampack.packing.problem import Device, Host, Item
from vrampack.packing.room import Rooms
from vrampack.planning.sizing import size
from vrampack.planning.snapshot import ModelView, PoolView
from vrampack.planning.suggestions import MOST_ASKED
from vrampack.planning.verdict import Blocked, Settings, Sized
from vrampack.planning.whatif import Question, would_fit_if
from vrampack.units import GIB, MIB

SERVING = {"contextLength": 8192, "concurrency": 16}
PROFILES = {"llama-8b": profile()}


def sized_as(view: ModelView, spec: ModelDeploymentSpec | None = None) -> Sized | Blocked:
    return size(
        replace(view, spec=spec or view.spec),
        pool=pool(generation=0),
        profiles=PROFILES,
        resolutions={},
        commit="",
        settings=Settings(),
    )


def asked(view: ModelView) -> Question:
    sized = sized_as(view)
    assert isinstance(sized, Sized)
    assert view.spec is not None
    products = frozenset(view.spec.placement.gpu_products) or None
    waits = Item(key="x", group="ns/x", gpus=sized.need.gpus, memory=sized.need.bytes, products=products)
    return Question(spec=view.spec, sized=sized, item=waits)


def suggestions(view: ModelView, *hosts: Host) -> list[str]:
    return list(would_fit_if(asked(view), rooms=Rooms(hosts), resize=lambda spec: sized_as(view, spec)))


def gpus(*free: float, product: str = H100, **fields: Any) -> Host:
    devices = [
        Device(id=str(index), product=product, capacity=80 * GIB, free=int(size * GIB))
        for index, size in enumerate(free)
    ]
    return host(fields.pop("name", "n1"), *devices, **fields)


def need_of(view: ModelView, **changes: Json) -> int:
    assert view.spec is not None
    raw = view.raw_spec | {key: view.raw_spec.get(key, {}) | value for key, value in changes.items()}
    sized = sized_as(view, ModelDeploymentSpec.model_validate(raw))
    assert isinstance(sized, Sized)
    return sized.need.bytes


LLAMA = estimated(serving=SERVING)


def test_less_load_a_smaller_cache_or_more_gpus() -> None:
    free = 24.0
    found = suggestions(LLAMA, gpus(free, free))
    words = dict(each.split(" ≤ ") for each in found if " ≤ " in each)
    fewer, shorter = int(words["concurrency"]), int(words["contextLength"])
    assert (
        need_of(LLAMA, serving={"concurrency": fewer})
        <= free * GIB
        < need_of(LLAMA, serving={"concurrency": fewer + 1})
    )
    assert (
        need_of(LLAMA, serving={"contextLength": shorter})
        <= free * GIB
        < need_of(LLAMA, serving={"contextLength": shorter + 1})
    )
    assert "parallelism.tensor: 2" in found
    # Steps of the least tokens would save too little here, and nothing is said of the weights.
    assert "maxBatchedTokens" not in words
    assert not any("weights" in each for each in found)


def test_a_little_too_much_is_helped_by_smaller_steps() -> None:
    needed = need_of(LLAMA)
    found = suggestions(LLAMA, gpus((needed - MIB) / GIB))
    words = dict(each.split(" ≤ ") for each in found if " ≤ " in each)
    assert int(words["concurrency"]) == 15
    batched = int(words["maxBatchedTokens"])
    assert need_of(LLAMA, engine={"maxBatchedTokens": batched}) < needed
    assert need_of(LLAMA, engine={"maxBatchedTokens": batched + 1}) >= needed


def test_another_kv_cache() -> None:
    half = need_of(LLAMA, precision={"kvCache": "fp8"})
    assert "kvCache: fp8" in suggestions(LLAMA, gpus(half / GIB))
    assert "kvCache: fp8" not in suggestions(LLAMA, gpus((half - MIB) / GIB))
    already = estimated(serving=SERVING, precision={"kvCache": "fp8"})
    assert not any("kvCache" in each for each in suggestions(already, gpus((half - MIB) / GIB)))


def test_fewer_gpus_where_no_node_has_as_many() -> None:
    four = estimated(serving=SERVING, parallelism={"tensor": 4})
    found = suggestions(four, gpus(60, 60, name="n1"), gpus(60, 60, name="n2"))
    assert found == ["parallelism.tensor: 2"]


def test_a_split_must_divide_the_heads() -> None:
    # Three GPUs are free, and 32 heads can't be split over three.
    assert "parallelism.tensor: 2" in suggestions(LLAMA, gpus(24, 24, 24))
    assert not any("tensor: 3" in each for each in suggestions(LLAMA, gpus(15, 15, 15)))


def test_a_split_counts_the_stages_of_a_pipeline() -> None:
    staged = estimated(serving=SERVING, parallelism={"pipeline": 2})
    assert asked(staged).item.gpus == 2
    free = [(need_of(staged) - MIB) / GIB] * 4
    assert "parallelism.tensor: 2" in suggestions(staged, gpus(*free))
    assert "parallelism.tensor: 2" not in suggestions(staged, gpus(*free[:3]))


def test_products_that_the_fleet_has_and_the_user_left_out() -> None:
    picky = estimated(serving=SERVING, placement={"gpuProducts": ["NVIDIA-L40S"]})
    fleet = [
        gpus(80, product=H100, name="a"),
        gpus(60, product="NVIDIA-A100-SXM4-80GB", name="b"),
        gpus(20, product="NVIDIA-L4", name="c"),
    ]
    assert suggestions(picky, *fleet) == [
        "gpuProducts: NVIDIA-A100-SXM4-80GB",
        "gpuProducts: NVIDIA-H100-80GB-HBM3",
    ]


def test_expected_tokens_shrink_with_the_context() -> None:
    expecting = estimated(serving=SERVING | {"tokensPerSequence": 8000})
    found = suggestions(expecting, gpus(24))
    assert any(each.startswith("contextLength and tokensPerSequence ≤ ") for each in found)


def test_two_changes_where_one_is_not_enough() -> None:
    single = estimated(serving={"contextLength": 16384, "concurrency": 1})
    alone = need_of(single, precision={"kvCache": "fp8"})
    found = suggestions(single, gpus((alone - 64 * MIB) / GIB))
    assert found
    for each in found:
        assert each.count(" and ") <= 1


def test_nothing_helps_a_model_that_is_too_large() -> None:
    assert suggestions(LLAMA, gpus(8)) == []
    assert suggestions(LLAMA) == []


def test_a_claim_that_was_declared_stands_in_the_way_of_the_estimate() -> None:
    declared = estimated(serving=SERVING, memory={"perGPU": "60Gi"})
    assert suggestions(declared, gpus(50)) == ["memory.perGPU left out"]
    assert suggestions(declared, gpus(20)) == []


def test_of_a_custom_engine_only_the_products_are_known() -> None:
    custom = model(per_gpu="30Gi", placement={"gpuProducts": ["NVIDIA-L4"]})
    assert suggestions(custom, gpus(40)) == [f"gpuProducts: {H100}"]
    assert suggestions(model(per_gpu="30Gi"), gpus(20)) == []


@pytest.mark.parametrize("cpu", [1000, 2000])
def test_a_split_needs_more_of_the_host_too(cpu: int) -> None:
    """One GPU needs two cores, and two of them three."""
    question = asked(LLAMA)
    question = replace(question, item=replace(question.item, cpu=2000))
    fleet = gpus(24, 24, cpu=2000 + cpu - 1)
    found = would_fit_if(question, rooms=Rooms([fleet]), resize=lambda spec: sized_as(LLAMA, spec))
    assert ("parallelism.tensor: 2" in found) is (cpu == 2000)


@given(
    frees=st.lists(st.integers(0, 80), min_size=1, max_size=4),
    concurrency=st.integers(1, 64),
    context=st.sampled_from([2048, 8192, 32768]),
)
@settings(max_examples=40)
def test_every_suggestion_fits(frees: Sequence[int], concurrency: int, context: int) -> None:
    view = estimated(serving={"contextLength": context, "concurrency": concurrency})
    assert view.spec is not None
    question, hosts = asked(view), [gpus(*frees)]
    for words in would_fit_if(question, rooms=Rooms(hosts), resize=lambda spec: sized_as(view, spec)):
        raw = dict(view.raw_spec)
        for change in words.split(" and "):
            raw = _with(raw, change)
        sized = sized_as(view, ModelDeploymentSpec.model_validate(raw))
        assert isinstance(sized, Sized)
        changed = replace(question.item, gpus=sized.need.gpus, memory=sized.need.bytes)
        assert pack(hosts=hosts, items=[changed]).placed, words


def _with(raw: Json, change: str) -> Json:
    name, _, value = change.replace(" ≤ ", ": ").partition(": ")
    part, field = {
        "concurrency": ("serving", "concurrency"),
        "contextLength": ("serving", "contextLength"),
        "maxBatchedTokens": ("engine", "maxBatchedTokens"),
        "kvCache": ("precision", "kvCache"),
        "parallelism.tensor": ("parallelism", "tensor"),
    }[name]
    return raw | {part: raw.get(part, {}) | {field: int(value) if value.isdigit() else value}}


# ---- in the plan ---------------------------------------------------------------------------------------------------


def test_the_status_of_a_waiting_model_says_what_would_help() -> None:
    pods = [pod(f"llama-{index}", need=str(need_of(LLAMA))) for index in range(3)]
    fleet = [gpu_node("n1", *world_gpus(2, memory="24Gi"))]
    three = estimated(serving=SERVING, replicas=3)
    found = decide(world(three, pods=pods, gpu_nodes=fleet, profiles=tuple(PROFILES.values())))
    lines = waiting(found)["wouldFitIf"]
    assert waiting(found)["count"] == 3
    assert lines == suggestions(LLAMA, gpus(24, 24))
    assert lines
    # The same snapshot, the same words.
    again = decide(world(three, pods=pods, gpu_nodes=fleet, profiles=tuple(PROFILES.values())))
    assert again == found


def test_what_others_hold_and_what_is_placed_now_is_not_free() -> None:
    other = model("other", per_gpu="55Gi")
    pods = [pod("llama-0", need=str(need_of(LLAMA))), placed("other-0", of="other", claim="55Gi")]
    found = decide(world(LLAMA, other, pods=pods, profiles=tuple(PROFILES.values())))
    assert waiting(found)["wouldFitIf"] == suggestions(LLAMA, gpus(25))


def test_while_others_are_placed_it_keeps_what_it_was_told() -> None:
    told_before = {"waiting": [{"reason": "InsufficientGPUMemory", "count": 1, "wouldFitIf": ["concurrency ≤ 3"]}]}
    view = replace(LLAMA, status=told_before)
    other = model("other", per_gpu="55Gi")
    pods = [pod("llama-0", need=str(90 * GIB)), pod("other-0", of="other", need="55Gi")]
    found = decide(world(view, other, pods=pods, profiles=tuple(PROFILES.values())))
    assert where(found) == {"other-0": ("GPU-1",)}
    assert waiting(found)["wouldFitIf"] == ["concurrency ≤ 3"]


@pytest.mark.parametrize(
    "former", [{"waiting": 7}, {"waiting": [7]}, {"waiting": [{"reason": "x"}]}, {"waiting": None}]
)
def test_a_former_status_of_any_shape_is_no_obstacle(former: Json) -> None:
    pods = [pod("llama-0", need=str(90 * GIB)), pod("other-0", of="other", need="20Gi")]
    view = replace(LLAMA, status=former)
    found = decide(world(view, model("other"), pods=pods, profiles=tuple(PROFILES.values())))
    assert waiting(found)["wouldFitIf"] == []


class TestOtherPools:
    SMALL = gpu_node("n1", *world_gpus(1, memory="15Gi"))
    LARGE = gpu_node("n2", *world_gpus(1, first="LARGE", memory="80Gi"))
    NODES = (node("n1"), node("n2", labels={"large": "yes"}))

    def lines(self, *pools: PoolView, **fields: Any) -> list[str]:
        pods = [pod("llama-0", need=str(need_of(LLAMA)), **fields)]
        found = decide(
            world(
                LLAMA,
                pods=pods,
                gpu_nodes=[self.SMALL, self.LARGE],
                nodes=self.NODES,
                pools=pools,
                profiles=tuple(PROFILES.values()),
            )
        )
        return [line for line in waiting(found)["wouldFitIf"] if "pool" in line]

    def test_one_with_room(self) -> None:
        assert self.lines(pool("big", node_selector={"large": "yes"})) == ["placement.pool: big"]

    def test_one_whose_headroom_leaves_none(self) -> None:
        assert self.lines(pool("big", node_selector={"large": "yes"}, headroom="90%", reserve_per_gpu="30Gi")) == []

    def test_one_whose_nodes_the_pod_may_not_use(self) -> None:
        assert self.lines(pool("big", node_selector={"large": "yes"}), node_selector={"zone": "b"}) == []

    def test_one_that_can_t_be_read_or_is_empty(self) -> None:
        assert self.lines(replace(pool("big", node_selector={"large": "yes"}), problem="spec: no")) == []
        empty = pool("none", node_selector={"large": "no"})
        assert self.lines(pool("big", node_selector={"large": "yes"}), empty) == ["placement.pool: big"]


def test_many_models_are_asked_in_bounded_numbers() -> None:
    views = [estimated(f"m{index:03}", serving=SERVING) for index in range(MOST_ASKED + 3)]
    pods = [pod(f"{view.name}-0", of=view.name, need=str(need_of(LLAMA))) for view in views]
    fleet = [gpu_node("n1", *world_gpus(1, memory="24Gi"))]
    found = decide(world(*views, pods=pods, gpu_nodes=fleet, profiles=tuple(PROFILES.values())))
    answered = [view.name for view in views if waiting(found, view.name)["wouldFitIf"]]
    assert answered == [view.name for view in views[:MOST_ASKED]]
