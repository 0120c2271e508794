"""Operators that die, stop and come back, and an API server that is away: the end is the same."""

import asyncio

import pytest

from tests.integration.harness import World
from tests.integration.looks import gpus_of, uids
from tests.integration.machinery import LEADER
from tests.integration.manifests import Manifest, group, model
from vrampack.api import names

pytestmark = pytest.mark.cluster

MODELS = [f"m-{number}" for number in range(100)]


async def hundred(world: World, *, startup: str) -> None:
    """A fleet for a hundred models, and the models, all at once. ``startup``: Parallel places them in one go."""
    pool, labels = f"pool-{world.namespace}", {"world": world.namespace}
    spec = {"nodeSelector": labels, "startup": startup}
    await world.apply({"apiVersion": names.API_VERSION, "kind": "GPUPool", "metadata": {"name": pool}, "spec": spec})
    await world.fleet(*(group(name, product="H100-80", gpus=8, labels=labels) for name in ("a", "b")))
    await world.apply(*(model(name, placement={"pool": pool}) for name in MODELS))


async def claimed(world: World) -> list[Manifest]:
    return [pod for pod in await world.every("Pod") if gpus_of(pod)]


async def until_claimed(world: World, least: int) -> list[Manifest]:
    async def so_many() -> list[Manifest]:
        found = await claimed(world)
        assert len(found) >= least, f"{len(found)} pods have a claim, not {least}"
        return found

    return await world.eventually(so_many)


async def test_a_hundred_models_at_once(world: World) -> None:
    await hundred(world, startup="Parallel")
    await world.ready(*MODELS, within=150)
    pods = await claimed(world)
    assert len(pods) == len(MODELS)
    for node in ("a", "b"):
        gpus = (await world.get("GPUNode", world.node(node)))["status"]["gpus"]
        assert sum(len(gpu.get("claims", ())) for gpu in gpus) == sum(
            pod["spec"].get("nodeName") == world.node(node) for pod in pods
        )


async def test_an_operator_that_is_killed_again_and_again_ends_where_it_would_have(world: World) -> None:
    await hundred(world, startup="Serialized")
    for least in (1, 10, 25, 45, 70):
        await until_claimed(world, least)
        for operator in world.machinery.operators:
            if operator.running:
                await operator.kill()
        world.machinery.start_operator()
    await world.ready(*MODELS, within=150)
    assert len(await claimed(world)) == len(MODELS)


async def test_nothing_of_a_leader_that_was_stopped_lands_after_the_take_over(world: World) -> None:
    old = await world.machinery.leader()
    new = world.machinery.start_operator()
    await hundred(world, startup="Parallel")
    await until_claimed(world, 5)
    old.pause()
    before = (await world.kube.get(LEADER))["spec"]
    assert before["holderIdentity"] == old.identity

    async def taken_over() -> int:
        lease = (await world.kube.get(LEADER))["spec"]
        assert lease["holderIdentity"] == new.identity
        return int(lease["leaseTransitions"])

    epoch = await world.eventually(taken_over)
    await world.apply(model("another", placement={"pool": f"pool-{world.namespace}"}))
    await world.ready("another", within=120)
    old.resume()
    await world.ready(*MODELS, within=150)
    # The auditor has seen the order of all claims: none of an older epoch came after one of a newer.
    epochs = {int(pod["metadata"]["annotations"][names.EPOCH]) for pod in await claimed(world)}
    assert epochs.isdisjoint(range(before["leaseTransitions"] + 1, epoch))
    assert max(epochs) >= epoch


async def test_an_operator_that_ends_hands_over_at_once(world: World) -> None:
    await world.fleet(group("a"))
    old = await world.machinery.leader()
    new = world.machinery.start_operator()
    await world.apply(model("m"))
    await world.ready("m")
    pods = await world.pods("m")
    await old.stop()
    assert old.child.obituary().startswith(f"{old.identity} exited with status 0")
    assert (await world.machinery.leader()).identity == new.identity
    await world.apply(model("after"))
    await world.ready("after", "m")
    assert uids(await world.pods("m")) == uids(pods)


async def test_an_api_server_that_is_away_is_waited_out(world: World) -> None:
    await world.fleet(group("a", gpus=4))
    await world.apply(model("before"))
    await world.ready("before")
    pods = await world.pods("before")
    await world.apply(*(model(name) for name in MODELS[:10]))
    await world.cluster.restart_apiserver()
    await world.ready("before", *MODELS[:10], within=90)
    await world.apply(model("after"))
    await world.ready("after")
    assert uids(await world.pods("before")) == uids(pods)


async def test_a_model_that_is_deleted_while_it_is_placed_leaves_nothing(world: World) -> None:
    await world.fleet(group("a", gpus=4))
    names_ = MODELS[:10]
    await world.apply(*(model(name) for name in names_))
    await until_claimed(world, 1)
    await asyncio.gather(*(world.delete("ModelDeployment", name) for name in names_))

    async def gone() -> None:
        assert not await world.every("Pod")
        gpus = (await world.get("GPUNode", world.node("a")))["status"]["gpus"]
        assert not any(gpu.get("claims") for gpu in gpus)

    await world.eventually(gone)
