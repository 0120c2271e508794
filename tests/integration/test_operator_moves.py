"""Moves by eviction: GPUs are emptied and room is made, and no model ever has a replica less for it."""

import pytest

from tests.integration.harness import Recorder, World
from tests.integration.looks import gpus_of, lone, uids
from tests.integration.manifests import Manifest, group, model
from vrampack.api import names

pytestmark = pytest.mark.cluster


def pool(world: World, *, mode: str = "Evict", **spec: object) -> Manifest:
    """A pool of this world's nodes alone."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GPUPool",
        "metadata": {"name": world.namespace},
        "spec": {"nodeSelector": {"world": world.namespace}, "moves": {"mode": mode, **spec}},
    }


def own(world: World, name: str, claim: str, **spec: object) -> Manifest:
    return model(name, claim=claim, placement={"pool": world.namespace, "spread": "Ignore"}, **spec)


async def moves(world: World, outcome: str, count: int = 1) -> list[Manifest]:
    """The moves in the pool's status, once so many of them have ended so."""
    listed = (await world.get("GPUPool", world.namespace)).get("status", {}).get("moves", [])
    assert sum(each["outcome"] == outcome for each in listed) >= count, listed
    return [each for each in listed if each["outcome"] == outcome]


async def scattered(world: World, *, mode: str = "Evict", **models: int) -> None:
    """Two GPUs: one with ``x`` of 10 GiB, one with ``y`` of 20, of which either has room for both."""
    await world.apply(pool(world, mode="Never"))
    labels = {"world": world.namespace}
    await world.fleet(group("a", labels=labels), group("b", labels=labels))
    await world.apply(own(world, "x", "10Gi"), own(world, "w", "25Gi"))
    await world.ready("x", "w")
    await world.apply(own(world, "y", "20Gi"))
    await world.ready("y")
    await world.delete("ModelDeployment", "w")
    assert gpus_of(lone(await world.pods("x"))) != gpus_of(lone(await world.pods("y")))

    async def gone() -> None:
        assert not await world.pods("w", all_of_them=True)

    await world.eventually(gone)
    if mode != "Never":
        await world.patch("GPUPool", world.namespace, {"spec": {"moves": {"mode": mode}}})


async def test_a_gpu_is_emptied_under_a_disruption_budget_and_nobody_is_without_a_replica(world: World) -> None:
    await scattered(world, mode="Never")
    before = {name: lone(await world.pods(name)) for name in "xy"}
    async with Recorder(world, "x") as x, Recorder(world, "y") as y:
        await world.patch("GPUPool", world.namespace, {"spec": {"moves": {"mode": "Evict"}}})
        (move,) = await world.eventually(lambda: moves(world, "Done"))
        mover = move["model"]

        async def together() -> None:
            now = {name: lone(await world.pods(name, all_of_them=True)) for name in "xy"}
            assert gpus_of(now["x"]) == gpus_of(now["y"])

        await world.eventually(together)
        await world.ready("x", "y")
    assert (x.fewest, y.fewest) == (1, 1)
    assert mover == "x", "the one with the least to load"
    assert move["uid"] in uids([before[mover]])
    budget = await world.get("PodDisruptionBudget", mover)
    assert budget["spec"]["maxUnavailable"] == 1
    told = [each for each in await world.every("Event") if each.get("reason") == "Moved"]
    assert [each["regarding"]["name"] for each in told] == [before[mover]["metadata"]["name"]]
    assert (await world.get("Deployment", mover))["spec"]["replicas"] == 1


async def test_a_budget_that_allows_nothing_ends_the_move_and_all_stays_as_it_was(world: World) -> None:
    """A second budget on the same pods: then no eviction is ever allowed."""
    await scattered(world, mode="Never")
    before = {name: uids(await world.pods(name)) for name in "xy"}
    for name in "xy":
        await world.apply(
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": {"name": f"{name}-of-the-user"},
                "spec": {"minAvailable": 1, "selector": {"matchLabels": {names.MODEL_DEPLOYMENT: name}}},
            }
        )
    async with Recorder(world, "x") as x, Recorder(world, "y") as y:
        await world.patch("GPUPool", world.namespace, {"spec": {"moves": {"mode": "Evict"}}})
        failed = await world.eventually(lambda: moves(world, "Failed", 1), within=90)
    assert "PodDisruptionBudget" in failed[0]["message"]
    assert (x.fewest, y.fewest) == (1, 1)

    async def as_before() -> None:
        mover = failed[0]["model"]
        assert uids(await world.pods(mover, all_of_them=True)) == before[mover]

    await world.eventually(as_before)


async def test_moves_make_room_for_one_that_fits_nowhere(world: World) -> None:
    await scattered(world, mode="Never")
    await world.apply(own(world, "large", "40Gi"))
    await world.waiting("large", "InsufficientGPUMemory")
    async with Recorder(world, "x") as x, Recorder(world, "y") as y:
        await world.patch("GPUPool", world.namespace, {"spec": {"moves": {"mode": "Evict"}}})
        await world.ready("large", "x", "y")
    (move,) = await world.eventually(lambda: moves(world, "Done"))
    assert move["because"] == f"room for {world.namespace}/{lone(await world.pods('large'))['metadata']['name']}"
    assert (x.fewest, y.fewest) == (1, 1)


async def test_in_mode_suggest_moves_are_only_told(world: World) -> None:
    await scattered(world, mode="Suggest")
    before = {name: uids(await world.pods(name)) for name in "xy"}

    async def told() -> Manifest:
        status = (await world.get("GPUPool", world.namespace))["status"]
        move: Manifest = lone(status.get("suggestedMoves", ()))
        assert status.get("bound", {}).get("distance") == "100.0%"
        return move

    move = await world.eventually(told)
    assert move["pod"] == lone(await world.pods("x"))["metadata"]["name"]
    assert move["cost"] == "10Gi"
    assert {name: uids(await world.pods(name)) for name in "xy"} == before
