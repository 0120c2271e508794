"""What a GPUPool says of its GPUs, as the packer is told it: how many replicas each may hold, and what each costs."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.planning_world import (
    H100,
    NOW,
    STARTED,
    children,
    condition,
    decide,
    gpu,
    gpu_node,
    gpus,
    model,
    placed,
    pod,
    pool,
    status_of,
    waiting,
    where,
    world,
)
from vrampack.api.gpunode import GPUStatus
from vrampack.api.gpupool import GPUPoolSpec
from vrampack.planning.links import link_domains
from vrampack.planning.seeking import find, further
from vrampack.planning.snapshot import Memory, PoolView, Snapshot

L4 = "NVIDIA-L4"
FLEET = (gpu_node("n1", gpu("GPU-1")), gpu_node("n2", gpu("GPU-2", product=L4, memory="24Gi")))
"""One GPU of 80 GiB, and one of 24."""


def crowded(most: int | None, **fields: Any) -> PoolView:
    return pool(startup="Parallel", **({} if most is None else {"maxReplicasPerGPU": most}), **fields)


@pytest.mark.parametrize(("most", "expected"), [(None, [4]), (8, [4]), (3, [1, 3]), (2, [2, 2]), (1, [1, 1])])
def test_a_gpu_takes_no_more_replicas_than_the_pool_says(most: int | None, expected: list[int]) -> None:
    wanted = [pod(f"llama-{number}", need="10Gi") for number in range(4)]
    snapshot = world(
        model(replicas=4, per_gpu="10Gi"), pods=wanted, pools=[crowded(most)], gpu_nodes=[gpu_node("n1", *gpus(2))]
    )
    found = decide(snapshot)
    taken = list(where(found).values())
    assert sorted(taken.count(each) for each in set(taken)) == expected
    late = 4 - len(taken)
    if late:
        said = waiting(decide(replace(snapshot, pods=_run(snapshot, found))))
        assert (said["reason"], said["count"]) == ("TooManyReplicasOnGPU", late)


def _run(snapshot: Snapshot, found: Any) -> tuple[Any, ...]:
    claims = {each.pod.name: each for each in found.placements}
    return tuple(
        placed(each.name, on=claims[each.name].gpus[0], claim="10Gi") if each.name in claims else each
        for each in snapshot.pods
    )


def test_those_that_are_more_already_stay_and_none_is_added() -> None:
    running = [placed(f"llama-{number}", claim="10Gi") for number in range(3)]
    snapshot = world(
        model(replicas=4, per_gpu="10Gi"), pods=[*running, pod("llama-3", need="10Gi")], pools=[crowded(2)]
    )
    found = decide(snapshot)
    assert found.placements == ()
    assert (found.deletions, found.evictions) == ((), ())
    assert waiting(found)["rejected"] == {"TooManyReplicasOnGPU": 1}


def test_a_rollout_in_place_gets_the_place_of_the_replica_that_leaves() -> None:
    """The limit is of replicas, and the one that goes is none any more once it is gone."""
    llama = model()
    made = children(llama, pools=[crowded(1)], rolling=True)
    leaving = placed("llama-old", deleting=True)
    found = decide(world(llama, pods=[leaving, pod("llama-new")], pools=[crowded(1)], made=made))
    assert waiting(found)["reason"] == "RoomBeingFreed"
    assert where(decide(world(llama, pods=[pod("llama-new")], pools=[crowded(1)], made=made))) == {
        "llama-new": ("GPU-1",)
    }


PRICES = [{"product": H100, "price": "3.50"}, {"product": L4, "price": "0.7"}]


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        pytest.param([], "GPU-2", id="by memory the small one"),
        pytest.param(PRICES, "GPU-2", id="the small one costs less"),
        pytest.param([PRICES[0], {"product": L4, "price": 70}], "GPU-1", id="the small one costs more"),
        pytest.param([{"product": L4, "price": 70}], "GPU-2", id="not all have a price, so memory counts"),
    ],
)
def test_where_gpus_have_prices_the_cheapest_one_is_opened(prices: list[dict[str, Any]], expected: str) -> None:
    snapshot = world(model(), pods=[pod()], pools=[pool(prices=prices)], gpu_nodes=FLEET)
    assert where(decide(snapshot)) == {"llama-0": (expected,)}


def test_the_highest_price_of_many_gpus_is_still_counted() -> None:
    nodes = [gpu_node(f"n{number}", *gpus(8, first=f"GPU-{number}")) for number in range(3)]
    dear = pool(prices=[{"product": H100, "price": "100M"}])
    pods = [pod(f"llama-{number:02}", need="60Gi") for number in range(24)]
    found = decide(world(model(replicas=24, per_gpu="60Gi"), pods=pods, pools=[dear], gpu_nodes=nodes))
    assert len(where(found)) == 24
    with pytest.raises(ValidationError, match="from 0 to 100M"):
        pool(prices=[{"product": H100, "price": "1E"}])


def test_a_reserve_larger_than_any_gpu_leaves_nothing() -> None:
    found = decide(world(model(), pods=[pod()], pools=[pool(reservePerGPU="1e30")]))
    assert waiting(found)["reason"] == "InsufficientGPUMemory"


def test_the_bound_is_of_what_counts() -> None:
    running = [
        placed("llama-0", on="GPU-1", created=STARTED),
    ]
    snapshot = world(model(), pods=running, pools=[pool(prices=PRICES)], gpu_nodes=FLEET, now=NOW)
    ((question, _),) = decide(snapshot).questions.values()
    answer = further(find(question))
    told = replace(snapshot, memory=Memory(started=STARTED, findings={"default": answer}))
    bound = status_of(decide(told), "default", kind="GPUPool")["bound"]
    assert (bound["leastPrice"], bound["usedPrice"], bound["distance"]) == ("0.7", "3.5", "400.0%")
    assert "leastMemory" not in bound
    assert bound["explanation"].startswith("1 GPU at a price of 3.5, within 400.0% of the least")
    # What a move gains is memory still: a GPU of 80 GiB is empty then, and one of 24 in use.
    (move,) = status_of(decide(told), "default", kind="GPUPool")["suggestedMoves"]
    assert (move["toGpus"], move["gain"]) == (["GPU-2"], "56Gi")


def test_a_product_without_a_price_is_named() -> None:
    def said(*prices: dict[str, Any]) -> tuple[str, str, str]:
        found = decide(world(pools=[pool(prices=prices)], gpu_nodes=FLEET))
        each = condition(status_of(found, "default", kind="GPUPool"), "Priced")
        return each["status"], each["reason"], each["message"]

    assert said(*PRICES)[:2] == ("True", "AllProductsPriced")
    assert said(PRICES[0]) == (
        "False",
        "ProductWithoutPrice",
        f"memory counts instead: spec.prices has no price of {L4}",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"maxReplicasPerGPU": 0},
        {"maxReplicasPerGPU": 65},
        {"prices": [{"product": L4, "price": "-1"}]},
        {"prices": [{"product": L4, "price": "cheap"}]},
        {"prices": [{"product": "no product", "price": "1"}]},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GPUPoolSpec.model_validate(wrong)


def test_a_replica_over_two_gpus_gets_those_that_nvlink_joins() -> None:
    joined = {1: ["GPU-3"], 2: [], 3: ["GPU-1"], 4: None}
    fleet = gpu_node(
        "n1", *(gpu(f"GPU-{n}", index=n, **({} if by is None else {"nvlink": by})) for n, by in joined.items())
    )
    found = where(decide(world(model(gpus=2), pods=[pod(tensor=2)], gpu_nodes=[fleet])))
    assert found == {"llama-0": ("GPU-1", "GPU-3")}
    bare = gpu_node("n1", *(gpu(f"GPU-{n}", index=n) for n in joined))
    assert where(decide(world(model(gpus=2), pods=[pod(tensor=2)], gpu_nodes=[bare]))) == {
        "llama-0": ("GPU-1", "GPU-2")
    }


@pytest.mark.parametrize(
    ("links", "domains"),
    [
        pytest.param({"a": [], "b": []}, {}, id="none"),
        pytest.param(
            {"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c"]}, {"a": "a", "b": "a", "c": "c", "d": "c"}, id="pairs"
        ),
        pytest.param({"a": ["b"], "b": ["a", "c"], "c": ["b"]}, {"a": "a", "b": "a", "c": "a"}, id="a chain is one"),
        pytest.param({"a": ["gone"]}, {"a": "a"}, id="of one that is not there nothing is said"),
    ],
)
def test_domains_of_links(links: dict[str, list[str]], domains: dict[str, str]) -> None:
    assert link_domains([GPUStatus(uuid=uuid, nvlink=tuple(some)) for uuid, some in links.items()]) == domains
