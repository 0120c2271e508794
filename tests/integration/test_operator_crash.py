"""Operators that die, stop and come back, and an API server that is away: the end is the same."""

import asyncio
import json
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest

from tests.integration.claims import placement
from tests.integration.harness import World
from tests.integration.looks import gpus_of, lone, uids
from tests.integration.machinery import LEADER, PATIENCE_SECONDS, Process
from tests.integration.manifests import Manifest, group, model
from vrampack.api import names

pytestmark = pytest.mark.cluster

MODELS = [f"m-{number}" for number in range(100)]


async def hundred(world: World, *, startup: str) -> None:
    """A fleet for a hundred models, and the models, all at once."""
    await nodes(world)
    await models(world, startup=startup)


async def nodes(world: World, *, a: int = 8, b: int = 7) -> None:
    """Seven models of 10 GiB on each of 15 GPUs: none stays empty."""
    labels = {"world": world.namespace}
    sizes = {"a": a, "b": b}
    await world.fleet(*(group(name, product="H100-80", gpus=gpus, labels=labels) for name, gpus in sizes.items()))


async def models(world: World, *, startup: str, **fields: Any) -> None:
    """``startup``: Parallel places them in one go."""
    pool, spec = f"pool-{world.namespace}", {"nodeSelector": {"world": world.namespace}, "startup": startup}
    await world.apply({"apiVersion": names.API_VERSION, "kind": "GPUPool", "metadata": {"name": pool}, "spec": spec})
    await world.apply(*(model(name, placement={"pool": pool}, **fields) for name in MODELS))


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
    replicas = 2 * len(MODELS)  # more than a leader claims at once
    await models(world, startup="Parallel", claim="6500Mi", replicas=2)

    async def all_wait() -> None:
        assert sum(map(seen_gated, await world.every("Pod"))) == replicas

    await world.eventually(all_wait)
    stopped = asyncio.create_task(stop_in_the_middle(world, old))
    await nodes(world, a=9, b=8)  # CPU for 204 and, twelve on a GPU, memory for as many
    await stopped
    before = (await world.kube.get(LEADER))["spec"]
    assert before["holderIdentity"] == old.identity
    epoch = int(before["leaseTransitions"])
    # Its patches were under way: what had left it has landed, the rest has not, and nobody else may claim now.
    placed = await claimed(world)
    assert 0 < len(placed) < replicas
    assert of_epoch(epoch, placed) == placed

    async def taken_over() -> None:
        lease = (await world.kube.get(LEADER))["spec"]
        assert (lease["holderIdentity"], lease["leaseTransitions"]) == (new.identity, epoch + 1)

    await world.eventually(taken_over)
    landed = uids(of_epoch(epoch, await claimed(world)))
    old.resume()  # at once: the new one has yet to wait, and each patch of the old one would still find its pod gated
    await world.eventually(lambda: answers(old))
    await world.ready(*MODELS, within=150)
    after = await claimed(world)
    assert len(after) == replicas
    assert uids(of_epoch(epoch, after)) == landed

    # A patch that the old leader had on its way, seen by the API server only now: the same one of the new is taken.
    present = (await world.kube.get(LEADER))["spec"]["leaseTransitions"]
    await world.apply(model("waits", claim="75Gi", placement={"pool": f"pool-{world.namespace}"}))
    await world.waiting("waits", "InsufficientGPUMemory")
    pod = lone(await world.pods("waits"))["metadata"]
    operator = world.kubectl.signed_in(world.machinery.operator_kubeconfig)
    late = ("patch", "pod", pod["name"], "--type=json", "--dry-run=server", "-p")
    version = {"uid": pod["uid"], "resourceVersion": pod["resourceVersion"]}
    said = await operator.refused(*late, json.dumps(placement(epoch, **version)))
    assert f"of epoch '{epoch}', and epoch {present} is in force" in said
    await operator(*late, json.dumps(placement(present, **version)))


def seen_gated(pod: Manifest) -> bool:
    """Whether the scheduler has said so too: nothing but a claim changes this pod then."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(condition.get("reason") == "SchedulingGated" for condition in conditions)


async def stop_in_the_middle(world: World, leader: Process) -> None:
    """SIGSTOP at the first claim. All of them are written in half a second: no time to read the pods."""
    path = world.path("Pod")
    version = (await world.kube.get(path))["metadata"]["resourceVersion"]
    watch = world.kube.watch_changes(path, resourceVersion=version, allowWatchBookmarks=False)
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(watch) as changes:
        await anext(changes)  # it is there
        await anext(changes)
        leader.pause()


async def answers(operator: Process) -> None:
    async with aiohttp.ClientSession(operator.probes) as session, session.get("/healthz") as response:
        assert response.status == 200, await response.text()


def of_epoch(epoch: int, pods: list[Manifest]) -> list[Manifest]:
    return [pod for pod in pods if pod["metadata"]["annotations"][names.EPOCH] == str(epoch)]


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
