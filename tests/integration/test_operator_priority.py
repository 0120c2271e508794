"""Priority: who is evicted for whom, and who keeps the room that this makes."""

import pytest

from tests.integration.harness import World
from tests.integration.looks import gpus_of, lone, uids
from tests.integration.manifests import Manifest, group, model

LEAVES_SLOWLY = {
    "metadata": {
        "annotations": {"sim.vrampack.dev/load-seconds": "0.3", "sim.vrampack.dev/behaviour": "slow-termination"}
    }
}

pytestmark = pytest.mark.cluster


def priority_class(name: str, value: int, **fields: object) -> Manifest:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": "of a test",
        **fields,
    }


async def told(world: World, reason: str) -> list[str]:
    events = [each for each in await world.every("Event") if each.get("reason") == reason]
    assert events, f"nobody was told of {reason}"
    return [each["note"] for each in events]


async def test_a_replica_of_higher_priority_takes_the_place_of_the_fewest_lower_ones(world: World) -> None:
    await world.apply(priority_class("urgent", 1000))
    await world.fleet(group("a", gpus=2))
    await world.apply(
        model("low", claim="20Gi", replicas=2, podTemplate=LEAVES_SLOWLY, placement={"spread": "Ignore"}),
        model("wide", claim="40Gi", podTemplate=LEAVES_SLOWLY),
    )
    await world.ready("low", "wide")
    low, wide = await world.pods("low"), await world.pods("wide")

    await world.apply(model("high", claim="40Gi", priorityClassName="urgent"))
    await world.ready("high")

    (high,) = await world.pods("high")
    assert gpus_of(high) == gpus_of(lone(wide)), "one large victim is fewer than two small ones"
    assert uids(await world.pods("low")) == uids(low)
    entry = await world.waiting("wide", "InsufficientGPUMemory")
    assert entry["count"] == 1
    assert uids(await world.pods("wide")).isdisjoint(uids(wide))
    (note,) = await world.eventually(lambda: told(world, "Preempting"))
    assert wide[0]["metadata"]["name"] in note
    notes = await world.eventually(lambda: told(world, "Preempted"))
    assert any(high["metadata"]["name"] in each for each in notes)


async def test_nobody_is_evicted_for_an_equal_or_by_one_that_must_not_preempt(world: World) -> None:
    await world.apply(priority_class("polite", 1000, preemptionPolicy="Never"), priority_class("usual", 5))
    await world.fleet(group("a"))
    await world.apply(model("first", claim="40Gi", priorityClassName="usual"))
    await world.ready("first")
    before = await world.pods("first")

    await world.apply(
        model("polite", claim="40Gi", priorityClassName="polite"),
        model("equal", claim="40Gi", priorityClassName="usual"),
    )
    await world.waiting("polite", "InsufficientGPUMemory")
    await world.waiting("equal", "InsufficientGPUMemory")

    # Whoever leaves by itself makes room, and the higher priority is first in turn even if it must not preempt.
    assert uids(await world.pods("first")) == uids(before)
    await world.delete("ModelDeployment", "first")
    await world.ready("polite")
    assert not [gpu for pod in await world.pods("equal") for gpu in gpus_of(pod)]


async def test_the_room_that_is_made_is_kept_from_a_stream_of_small_ones(world: World) -> None:
    """The victims take their time to go, and all the while small replicas come that would fit into what is free."""
    await world.apply(priority_class("urgent", 1000))
    await world.fleet(group("a"))
    await world.apply(model("low", claim="15Gi", replicas=2, podTemplate=LEAVES_SLOWLY, placement={"spread": "Ignore"}))
    await world.ready("low")

    await world.apply(model("high", claim="44Gi", priorityClassName="urgent"))
    await world.waiting("high", "RoomBeingFreed")
    (nomination,) = (await world.get("ModelDeployment", "high"))["status"]["nominations"]
    assert nomination["node"] == world.node("a")
    await world.apply(*(model(f"small-{number}", claim="5Gi") for number in range(3)))

    await world.ready("high")
    (high,) = await world.pods("high")
    assert gpus_of(high) == [world.gpu("a")]
    for number in range(3):
        assert not [gpu for pod in await world.pods(f"small-{number}") for gpu in gpus_of(pod)]
    status = (await world.get("ModelDeployment", "high"))["status"]
    assert not status.get("nominations")


async def test_who_preempts_keeps_the_room_over_a_change_of_leader(world: World) -> None:
    await world.apply(priority_class("urgent", 1000))
    await world.fleet(group("a"))
    await world.apply(model("low", claim="15Gi", replicas=2, podTemplate=LEAVES_SLOWLY, placement={"spread": "Ignore"}))
    await world.ready("low")
    await world.apply(model("high", claim="40Gi", priorityClassName="urgent"))
    await world.waiting("high", "RoomBeingFreed")

    first = await world.machinery.leader()
    world.machinery.start_operator()
    await first.kill()
    await world.apply(model("small", claim="10Gi"))

    await world.ready("high")
    assert not gpus_of(lone(await world.pods("small")))
