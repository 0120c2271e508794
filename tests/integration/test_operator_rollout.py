"""A change of spec: it never takes a lone replica away, and it surges only where there is room."""

import pytest

from tests.integration.harness import Recorder, World
from tests.integration.looks import claim_of, is_ready, uids
from tests.integration.manifests import group, model
from vrampack.units import GIB

pytestmark = pytest.mark.cluster


async def test_a_lone_replica_on_a_full_fleet_serves_on_until_there_is_room(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="30Gi"))
    await world.ready("m")
    before = await world.pods("m")
    async with Recorder(world, "m") as recorder:
        await world.patch("ModelDeployment", "m", {"spec": {"memory": {"perGPU": "31Gi"}}})
        found = await world.condition("ModelDeployment", "m", "Reconciling", "True", "WaitingForRoom")
        assert not is_ready(found)
        assert uids(await world.pods("m")) == uids(before)
        await world.fleet(group("b"))
        await world.ready("m")
    assert recorder.fewest == 1
    (pod,) = await world.pods("m")
    assert claim_of(pod) == 31 * GIB


async def test_a_lone_replica_goes_first_where_the_user_says_so(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="30Gi", rollout="InPlace"))
    await world.ready("m")
    before = await world.pods("m")
    await world.patch("ModelDeployment", "m", {"spec": {"memory": {"perGPU": "31Gi"}}})
    await world.ready("m")
    (pod,) = await world.pods("m")
    assert claim_of(pod) == 31 * GIB
    assert not uids([pod]) & uids(before)


async def test_a_change_surges_where_there_is_room(world: World) -> None:
    await world.fleet(group("a", gpus=2))
    await world.apply(model("m", claim="30Gi"))
    await world.ready("m")
    async with Recorder(world, "m") as recorder:
        await world.patch("ModelDeployment", "m", {"spec": {"serving": {"concurrency": 5}}})
        await world.patch("ModelDeployment", "m", {"spec": {"memory": {"perGPU": "25Gi"}}})
        await world.ready("m")
    assert recorder.fewest == 1
    (pod,) = await world.pods("m")
    assert claim_of(pod) == 25 * GIB
    assert "--max-num-seqs=5" in pod["spec"]["containers"][0]["args"]


async def test_two_replicas_on_a_full_fleet_are_replaced_one_after_the_other(world: World) -> None:
    await world.fleet(group("a", gpus=2))
    await world.apply(model("m", claim="30Gi", replicas=2))
    await world.ready("m")
    async with Recorder(world, "m") as recorder:
        await world.patch("ModelDeployment", "m", {"spec": {"memory": {"perGPU": "32Gi"}}})
        await world.ready("m")
    assert recorder.fewest is not None
    assert recorder.fewest >= 1
    assert [claim_of(pod) for pod in await world.pods("m")] == [32 * GIB, 32 * GIB]


async def test_a_change_that_can_never_fit_leaves_what_runs_alone(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="30Gi", replicas=1))
    await world.ready("m")
    before = await world.pods("m")
    await world.patch("ModelDeployment", "m", {"spec": {"memory": {"perGPU": "60Gi"}}})
    await world.condition("ModelDeployment", "m", "Stalled", "True", "LargerThanAnyGPU")
    assert uids(await world.pods("m")) == uids(before)
    await world.patch("ModelDeployment", "m", {"spec": {"memory": {"perGPU": "30Gi"}}})
    await world.ready("m")
    assert uids(await world.pods("m")) == uids(before)
