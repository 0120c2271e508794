"""etcd is restored from a backup under an operator that runs on: it forgets what it knew of the lost time."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.integration.conftest import prepare
from tests.integration.harness import World
from tests.integration.looks import uids
from tests.integration.machinery import Machinery
from tests.integration.manifests import TINY, group, model, profile
from vrampack.kube.client import Kube
from vrampack.localcluster.assets import Assets
from vrampack.localcluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

LOST_WRITES = 3000
"""So many that nothing else brings the store as far again while the test runs."""


@pytest.fixture(scope="module")
async def installed(assets: Assets) -> AsyncIterator[LocalCluster]:
    """A cluster of this module alone: all that watches another one would be left behind."""
    async with LocalCluster(assets) as cluster:
        await prepare(cluster)
        yield cluster


@pytest.fixture
async def world(machinery: Machinery) -> World:
    """Without an auditor, which has seen what then never was. The operator is not woken by the clock."""
    world = World(machinery=machinery, namespace="restored")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": world.namespace}}
    await world.kube.create("/api/v1/namespaces", namespace)
    await world.kube.apply(world.path("ModelProfile", TINY), profile(TINY), field_manager="kubectl")
    await machinery.start_agent()
    machinery.start_operator("--resync-seconds=600")
    await machinery.leader()
    return world


async def write_much(kube: Kube, namespace: str) -> None:
    """Raises the store's version without anything of ours."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"

    async def write(name: str) -> None:
        await kube.create(path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
        for number in range(LOST_WRITES // 20):
            await kube.merge_patch(f"{path}/{name}", {"data": {"n": str(number)}}, field_manager="tests")

    await asyncio.gather(*(write(f"busy-{each}") for each in range(20)))


async def test_an_operator_that_runs_on_needs_no_restart(world: World, machinery: Machinery) -> None:
    await world.fleet(group("a"))
    await world.apply(model("kept", claim="20Gi"))
    await world.ready("kept")
    kept = uids(await world.pods("kept"))
    backup = await machinery.cluster.back_up()
    await world.apply(model("lost", claim="20Gi"))
    await world.ready("lost")
    await write_much(world.kube, world.namespace)

    await machinery.cluster.restore(backup)

    await world.ready("kept")
    assert uids(await world.pods("kept")) == kept
    await world.apply(model("next", claim="20Gi"))
    await world.ready("next")
    await world.patch("ModelDeployment", "next", {"spec": {"replicas": 2}})
    await world.waiting("next", "InsufficientGPUMemory")
    await world.delete("ModelDeployment", "kept")
    await world.ready("next")
    assert "restored from a backup" in world.operator_log()
    assert len(machinery.operators) == 1
