"""Real agents over stand-in drivers, and the operator: what the GPUs say is what is packed."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.agents import AgentMachinery, gpu_of
from tests.integration.conftest import machinery_of
from tests.integration.harness import World
from tests.integration.looks import gpus_of, lone
from tests.integration.manifests import group, model
from vrampack.localcluster.cluster import LocalCluster
from vrampack.localcluster.standin.driver import compiler
from vrampack.units import GIB, parse_bytes

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(compiler() is None, reason="the stand-in driver needs a C compiler"),
]


@pytest.fixture(scope="module")
async def machinery(
    installed: LocalCluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AgentMachinery]:
    async with machinery_of(AgentMachinery, installed, request, tmp_path_factory) as machinery:
        yield machinery


@pytest.fixture(autouse=True)
async def agents_end(world: World, machinery: AgentMachinery) -> AsyncIterator[None]:
    yield
    await machinery.end_agents()


async def test_what_the_drivers_say_is_reported_and_packed(world: World) -> None:
    await world.fleet(group("a", product="H100-80", gpus=2), group("b", product="T4"))
    node = await world.get("GPUNode", world.node("a"))
    gpu = gpu_of(node)
    assert gpu["product"] == "NVIDIA-H100-80GB-HBM3"
    assert parse_bytes(gpu["memory"]) == 85_017_755_648
    assert node["status"]["driver"] == "580.126.09"
    assert node["status"]["cuda"] == "13.0"
    await world.apply(model("m", claim="20Gi"))
    await world.ready("m")
    pod = lone(await world.pods("m"))
    (uuid,) = gpus_of(pod)

    async def seen() -> None:
        name = pod["spec"]["nodeName"]
        (found,) = (each for each in (await world.get("GPUNode", name))["status"]["gpus"] if each["uuid"] == uuid)
        (process,) = found["processes"]
        assert process["podUID"] == pod["metadata"]["uid"]
        assert 0.9 * 20 * GIB < parse_bytes(process["bytes"]) < 20 * GIB
        assert process["pids"]

    await world.eventually(seen)
    await world.condition("ModelDeployment", "m", "WithinBudget", "True")
