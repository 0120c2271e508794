"""Nodes of which nobody knows how they hand out GPUs: probe pods find out, and replicas wait until they have.

The same operator puts the script of the start gate before the engines' commands.
"""

from collections.abc import AsyncIterator

import pytest

from tests.integration.claims import install
from tests.integration.conftest import TOKENS
from tests.integration.harness import World
from tests.integration.looks import condition, gpus_of
from tests.integration.machinery import RELEASE
from tests.integration.manifests import Manifest, group, model, profile
from vrampack.api import names
from vrampack.localcluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

PODS = f"/api/v1/namespaces/{RELEASE}/pods"


@pytest.fixture(scope="module", autouse=True)
async def may_probe(installed: LocalCluster) -> AsyncIterator[None]:
    """Only an operator that probes may make pods. The agents' DaemonSet finds no node here."""
    await install(installed, TOKENS, "agent.enabled=true", "agent.nodeSelector.nowhere=x")
    yield
    await install(installed, TOKENS)


async def probing(world: World) -> None:
    """An operator that probes takes over."""
    old = await world.machinery.leader()
    world.machinery.start_operator("--probe-image=registry.example.com/vrampack:1", "--start-port=9468")
    await old.stop()


async def probe(world: World, style: str) -> Manifest:
    """The probe pod that asks by this style, as soon as it is there."""

    async def there() -> Manifest:
        found = [
            pod
            for pod in await world.kube.list(PODS, labelSelector=names.PROBE)
            if pod["metadata"]["annotations"][names.PROBE_NODE] == world.node("a")
            and pod["metadata"]["annotations"][names.PROBE_STYLE] == style
        ]
        assert len(found) == 1, f"no probe asks by {style}"
        return found[0]

    return await world.eventually(there)


async def ended(world: World, pod: Manifest, *, well: bool, saw: str) -> None:
    """The kubelet's word on a probe: it has ended, and what it saw."""
    name = pod["metadata"]["name"]
    terminated = {"exitCode": 0 if well else 1, "reason": "Completed" if well else "Error", "message": saw}
    status = {
        "phase": "Succeeded" if well else "Failed",
        "containerStatuses": [
            {
                "name": "engine",
                "image": "x",
                "imageID": "x",
                "ready": False,
                "restartCount": 0,
                "state": {"terminated": terminated},
            }
        ],
    }
    await world.kube.merge_patch(f"{PODS}/{name}/status", {"status": status}, field_manager="kubelet")


async def test_a_style_after_the_other_until_one_works_and_replicas_wait_for_it(world: World) -> None:
    await probing(world)
    await world.fleet(group("a", injectionStyle=None))
    await world.apply(profile("facts"))
    engine = {"name": "sglang", "version": "0.5.23"}
    await world.apply(model("m", claim=None, source="profile://facts", engine=engine))
    await world.waiting("m", "InjectionUnknown")
    first = await probe(world, "CDIRuntime")
    (container,) = first["spec"]["containers"]
    said = {each["name"]: each["value"] for each in container["env"]}
    assert said["NVIDIA_VISIBLE_DEVICES"] == f"runtime.nvidia.com/gpu={world.gpu('a')}"
    await ended(world, first, well=False, saw="")
    await ended(world, await probe(world, "Bare"), well=True, saw=world.gpu("a"))

    await world.ready("m")
    (pod,) = await world.pods("m")
    assert pod["metadata"]["annotations"][names.VISIBLE_DEVICES] == gpus_of(pod)[0] == world.gpu("a")
    node = await world.condition("GPUNode", world.node("a"), "InjectionKnown", "True", "Bare")
    assert node["status"]["injection"]["style"] == "Bare"
    assert "driver" in node["status"]["injection"]["setup"]

    async def gone() -> None:
        left = await world.kube.list(PODS, labelSelector=names.PROBE)
        assert not left, [each["metadata"]["name"] for each in left]

    await world.eventually(gone)
    (engine_container,) = pod["spec"]["containers"]
    assert engine_container["command"][:2] == ["/bin/sh", "-c"]
    assert engine_container["command"][3:] == ["vrampack-start", "python3", "-m", "sglang.launch_server"]
    assert "/gate/activate" in engine_container["command"][2]


async def test_where_none_works_the_node_says_so_and_takes_nothing(world: World) -> None:
    await world.fleet(group("a", injectionStyle=None))
    for style in ("CDIRuntime", "Bare", "CDIDevicePlugin", "CDIHost", "NRI"):
        await ended(world, await probe(world, style), well=False, saw="GPU-of-another")
    node = await world.condition("GPUNode", world.node("a"), "InjectionKnown", "False", "Unsupported")
    message = condition(node, "InjectionKnown")["message"]
    assert "volume mounts" in message
    assert "Bare: saw GPU-of-another" in message
    await world.apply(model("m"))
    await world.waiting("m", "InjectionUnknown")
    spec = {"nodeSelector": {"world": world.namespace}, "injectionStyle": "Bare"}
    pool = {"apiVersion": names.API_VERSION, "kind": "GPUPool", "metadata": {"name": world.namespace}, "spec": spec}
    await world.apply(pool)
    labels = {"metadata": {"labels": {"world": world.namespace}}}
    await world.kube.merge_patch(world.path("Node", world.node("a")), labels, field_manager="kubectl")
    await world.apply(model("m", placement={"pool": world.namespace}))
    await world.ready("m")
