"""Which GPUs replicas get, and what a replica that gets none is told."""

import pytest

from tests.integration.harness import World
from tests.integration.looks import claim_of, condition, gpus_of, lone
from tests.integration.manifests import Manifest, group, model
from vrampack.units import GIB, MIB, parse_bytes

pytestmark = pytest.mark.cluster


async def test_replicas_share_a_gpu_and_the_one_that_does_not_fit_is_told_why(world: World) -> None:
    await world.fleet(group("a", gpus=2), group("b", product="L4"))
    await world.apply(model("m", claim="20Gi", replicas=6, placement={"gpuProducts": ["NVIDIA-L40S"]}))

    async def settled() -> Manifest:
        status = (await world.get("ModelDeployment", "m"))["status"]
        assert status.get("placedReplicas") == 4
        return lone(status.get("waiting", ()))

    entry = await world.eventually(settled)
    assert (entry["reason"], entry["count"]) == ("InsufficientGPUMemory", 2)
    assert parse_bytes(entry["needed"]) == 20 * GIB
    closest = entry["closest"]
    assert closest["node"] == world.node("a")
    assert parse_bytes(closest["free"]) + parse_bytes(closest["short"]) == 20 * GIB
    assert abs(parse_bytes(closest["free"]) - 4.39 * GIB) < 10 * MIB
    assert entry["rejected"] == {"InsufficientGPUMemory": 2, "ProductMismatch": 1}

    found = await world.condition("ModelDeployment", "m", "Scheduled", "False", "InsufficientGPUMemory")
    assert condition(found, "Ready")["status"] == "False"
    assert condition(found, "Stalled").get("status", "False") == "False"
    placed = [pod for pod in await world.pods("m") if gpus_of(pod)]
    shares = [gpu for pod in placed for gpu in gpus_of(pod)]
    assert sorted(shares) == sorted([world.gpu("a", 0), world.gpu("a", 1)] * 2)
    assert {claim_of(pod) for pod in placed} == {20 * GIB}

    await world.fleet(group("c"))
    await world.ready("m")


async def test_a_replica_that_no_gpu_can_ever_hold_is_a_dead_end(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="50Gi"))
    found = await world.condition("ModelDeployment", "m", "Stalled", "True", "LargerThanAnyGPU")
    assert "50" in condition(found, "Stalled")["message"]
    await world.fleet(group("b", product="H100-80"))
    await world.ready("m")


async def test_an_exclusive_replica_has_its_gpu_for_itself(world: World) -> None:
    await world.fleet(group("a", gpus=2))
    await world.apply(model("alone", placement={"sharing": "Exclusive"}))
    await world.ready("alone")
    await world.apply(model("shared", replicas=2))
    await world.ready("shared")
    (alone,) = await world.pods("alone")
    shared = {gpu for pod in await world.pods("shared") for gpu in gpus_of(pod)}
    assert len(shared) == 1
    assert shared.isdisjoint(gpus_of(alone))

    await world.apply(model("another", placement={"sharing": "Exclusive"}))
    await world.condition("ModelDeployment", "another", "Scheduled", "False")
    await world.delete("ModelDeployment", "shared")
    await world.ready("another")


async def test_a_tensor_parallel_replica_is_on_one_node(world: World) -> None:
    await world.fleet(group("a"), group("b"), group("c", gpus=2))
    await world.apply(model("m", claim="30Gi", parallelism={"tensor": 2}))
    (deployment,) = await world.ready("m")
    (pod,) = await world.pods("m")
    assert sorted(gpus_of(pod)) == sorted([world.gpu("c", 0), world.gpu("c", 1)])
    assert pod["spec"]["nodeName"] == world.node("c")
    assert deployment["status"]["estimate"]["gpusPerReplica"] == 2
    gpus = (await world.get("GPUNode", world.node("c")))["status"]["gpus"]
    assert [parse_bytes(gpu["claimed"]) for gpu in gpus] == [30 * GIB, 30 * GIB]


async def test_replicas_that_must_spread_do(world: World) -> None:
    await world.fleet(group("a", gpus=2), group("b"))
    await world.apply(model("m", claim="5Gi", replicas=3, placement={"spread": "Require"}))

    async def spread() -> None:
        placed = [pod for pod in await world.pods("m") if gpus_of(pod)]
        assert {pod["spec"].get("nodeName") for pod in placed} == {world.node("a"), world.node("b")}
        assert len(placed) == 2

    await world.eventually(spread)
    await world.fleet(group("c"))
    await world.ready("m")


async def test_a_small_model_is_placed_while_a_large_one_waits(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("first", claim="30Gi"))
    await world.ready("first")
    await world.apply(model("large", claim="40Gi"), model("small", claim="10Gi"))
    await world.ready("small")
    await world.waiting("large", "InsufficientGPUMemory")
    await world.delete("ModelDeployment", "first")
    await world.delete("ModelDeployment", "small")
    await world.ready("large")
