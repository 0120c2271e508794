"""Real agents over stand-in drivers, and the operator: what the GPUs say is what is packed."""

import time
from collections.abc import AsyncIterator
from datetime import datetime

import msgspec
import pytest

from tests.integration.agents import AgentMachinery, gpu_of
from tests.integration.claims import RELEASE, install
from tests.integration.conftest import TOKENS, machinery_of
from tests.integration.harness import World
from tests.integration.looks import condition, gpus_of, lone
from tests.integration.manifests import Manifest, group, model
from vrampack.agent.pods import decode_pods
from vrampack.api import names
from vrampack.errors import ClusterError
from vrampack.kube.client import Kube
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
    await install(installed, TOKENS, "agent.bindToNode=true")
    try:
        async with machinery_of(AgentMachinery, installed, request, tmp_path_factory) as machinery:
            yield machinery
    finally:
        await install(installed, TOKENS)  # other modules have one simulated agent for all nodes


@pytest.fixture(autouse=True)
async def agents_end(world: World, machinery: AgentMachinery) -> AsyncIterator[None]:
    yield
    await machinery.end_agents()


def of_gpu(node: Manifest, uuid: str) -> Manifest:
    return next((each for each in node["status"]["gpus"] if each["uuid"] == uuid), {})


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
        assert len(found["processes"]) == 1
        (process,) = found["processes"]
        assert process["podUID"] == pod["metadata"]["uid"]
        assert 0.9 * 20 * GIB < parse_bytes(process["bytes"]) < 20 * GIB
        assert process["pids"]

    await world.eventually(seen)
    await world.condition("ModelDeployment", "m", "WithinBudget", "True")


async def test_what_an_admin_sees(world: World) -> None:
    await world.fleet(group("a", product="H100-80", gpus=2, foreign=[{"gpu": 1, "memory": "5Gi"}]))
    name = world.node("a")
    await world.condition("GPUNode", name, "AllocationsKnown", "True", "KubeletAnswers")
    columns, values = (await world.kubectl("get", "gpunode", name)).splitlines()
    assert columns.split() == ["NAME", "GPUS", "PRODUCT", "MEMORY", "CLAIMED", "USED", "HEALTHY", "AGE"]
    for word in ("NVIDIA-H100-80GB-HBM3", "158.36 GiB", "5.00 GiB", "2/2"):
        assert word in values
    described = await world.kubectl("describe", "gpunode", name)
    for line in (
        "Driver:  580.126.09",
        "Compute Mode:  Default",
        "Name:   foreign",
        "Nvlink:",
        "2 of 2 GPUs work",
        "no process has outlived its pod on a GPU",
    ):
        assert " ".join(line.split()) in " ".join(described.split()), described


async def test_foreign_use_on_a_full_gpu_stops_new_claims(world: World, machinery: AgentMachinery) -> None:
    await world.fleet(group("a", product="L40S"))
    await world.apply(model("m", claim="10Gi"))
    await world.ready("m")
    began = time.monotonic()
    world.edit("a", foreign=[{"gpu": 0, "memory": "20Gi"}])

    async def reported() -> None:
        gpu = gpu_of(await world.get("GPUNode", world.node("a")))
        assert [parse_bytes(each["bytes"]) for each in gpu["foreign"]] == [20 * GIB]
        assert gpu["foreign"][0]["name"] == "foreign"
        assert gpu["foreign"][0]["pid"]
        # What the operator offers from now on.
        assert parse_bytes(gpu["free"]) < 15 * GIB

    await world.eventually(reported, within=10)
    assert time.monotonic() - began < 10
    await world.apply(model("late", claim="15Gi"))
    waiting = await world.waiting("late", "InsufficientGPUMemory")
    assert waiting["rejected"] == {"InsufficientGPUMemory": 1}


async def test_a_pod_that_uses_more_than_it_claims_is_told_with_both_figures(
    world: World, machinery: AgentMachinery
) -> None:
    assert machinery.drivers is not None
    await world.fleet(group("a", product="L40S"))
    await world.apply(model("m", claim="10Gi"))
    await world.ready("m")
    began = time.monotonic()
    machinery.drivers.use = lambda _, __: 11 * GIB
    try:
        found = await world.condition("ModelDeployment", "m", "WithinBudget", "False", "UseExceedsClaim", within=15)
    finally:
        machinery.drivers.use = lambda _, held: held
    assert time.monotonic() - began < 15
    assert "uses 11.00 GiB and claims 10.00 GiB" in condition(found, "WithinBudget")["message"]

    async def told() -> None:
        assert [each for each in await world.every("Event") if each.get("reason") == "UseExceedsClaim"]

    await world.eventually(told)


async def test_a_gpu_that_fails_is_replaced_for_the_next_pod(world: World) -> None:
    await world.fleet(group("a", product="L40S", gpus=2))
    await world.apply(model("m", claim="10Gi"))
    await world.ready("m")
    pod = lone(await world.pods("m"))
    (uuid,) = gpus_of(pod)
    index = next(at for at in (0, 1) if world.gpu("a", at) == uuid)
    world.edit("a", failed=[{"gpu": index, "xid": 79}])
    node = await world.condition("GPUNode", world.node("a"), "Healthy", "False", "GPUFailed")
    assert of_gpu(node, uuid)["xid"] == 79
    assert of_gpu(node, uuid)["memory"]
    await world.kube.delete(world.path("Pod", pod["metadata"]["name"]))

    async def elsewhere() -> None:
        fresh = lone(await world.pods("m"))
        assert fresh["metadata"]["uid"] != pod["metadata"]["uid"]
        assert gpus_of(fresh) == [world.gpu("a", 1 - index)]

    await world.eventually(elsewhere)


async def test_a_claim_ends_with_its_processes_and_not_with_its_pod(world: World, machinery: AgentMachinery) -> None:
    assert machinery.drivers is not None
    await world.fleet(group("a", product="L40S"))
    await world.apply(model("m", claim="30Gi"))
    await world.ready("m")
    pod = lone(await world.pods("m"))
    uid = pod["metadata"]["uid"]
    (decoded,) = decode_pods(msgspec.json.encode({"items": [pod]}))
    machinery.drivers.lingering = {uid: (decoded, 5 * GIB)}
    await world.delete("ModelDeployment", "m")

    async def gone_and_still_held() -> None:
        assert not await world.pods("m", all_of_them=True)
        gpu = gpu_of(await world.get("GPUNode", world.node("a")))
        assert [(each["podUID"], parse_bytes(each["bytes"])) for each in gpu["processes"]] == [(uid, 5 * GIB)]
        assert [each["uid"] for each in gpu["claims"]] == [uid]
        assert parse_bytes(gpu["claimed"]) == 30 * GIB

    await world.eventually(gone_and_still_held)
    await world.apply(model("next", claim="20Gi"))
    await world.waiting("next", "InsufficientGPUMemory")
    machinery.drivers.lingering = {}
    await world.ready("next")


async def test_a_pod_on_the_wrong_gpu_is_deleted_and_two_close_the_node(
    world: World, machinery: AgentMachinery
) -> None:
    assert machinery.drivers is not None
    await world.fleet(group("a", product="L40S", gpus=2))
    everything = [world.gpu("a", 0), world.gpu("a", 1)]
    machinery.drivers.place = lambda _: everything  # a runtime that shows a container all GPUs
    try:
        await world.apply(model("m", claim="10Gi"))
        node = await world.condition("GPUNode", world.node("a"), "InjectionBroken", "True", "PodsWithoutTheirGPUs")
        assert len(node["status"]["injectionFailures"]["pods"]) == 2
        waiting = await world.waiting("m", "InjectionBroken")
        assert waiting["rejected"] == {"InjectionBroken": 2}
    finally:
        machinery.drivers.place = lambda pod: pod.gpus

    async def told() -> None:
        events = [each for each in await world.every("Event") if each.get("reason") == "GPUMismatch"]
        assert len(events) == 2
        assert all("its processes are on" in each["note"] for each in events)

    await world.eventually(told)


async def test_an_agent_that_is_killed_closes_its_node(world: World, machinery: AgentMachinery) -> None:
    await world.fleet(group("a", product="L40S"))
    await machinery.agents[world.node("a")].kill()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{RELEASE}/leases/{names.AGENT_LEASE_PREFIX}{world.node('a')}"

    async def expired() -> None:
        spec = (await world.kube.get(path))["spec"]
        renewed = datetime.fromisoformat(spec["renewTime"]).timestamp()
        assert time.time() > renewed + spec["leaseDurationSeconds"] + 1  # the operator may have seen it later

    await world.eventually(expired)
    await world.apply(model("m", claim="10Gi"))
    waiting = await world.waiting("m", "AgentSilent")
    assert waiting["rejected"] == {"AgentSilent": 1}
    await world.condition("GPUNode", world.node("a"), "AgentAlive", "False", "LeaseExpired")
    await machinery.start_node_agent(world.node("a"))
    await world.ready("m")
    await world.condition("GPUNode", world.node("a"), "AgentAlive", "True", "LeaseRenewed")


async def test_an_agent_can_not_speak_for_another_node(world: World, machinery: AgentMachinery) -> None:
    await world.fleet(group("a", product="L40S"), group("b", product="L40S"))
    kubeconfig = await machinery.cluster.token_for("vrampack-agent", RELEASE, node=world.node("a"))
    kube = await Kube.connect(str(kubeconfig))
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"{names.AGENT_LEASE_PREFIX}{world.node('b')}"},
        "spec": {"leaseDurationSeconds": 600},
    }
    head = {"apiVersion": names.API_VERSION, "kind": "GPUNode", "metadata": {"name": world.node("b")}}
    empty = {**head, "status": {"gpus": []}}
    cordoned = {**head, "metadata": {"name": world.node("a")}, "spec": {"gpus": [{"uuid": world.gpu("a")}]}}
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{RELEASE}/leases"
    try:
        for path, body, says in (
            (world.path("GPUNode", world.node("b")) + "/status", empty, "may write only"),
            (world.path("GPUNode", world.node("b")), head, "may write only"),
            (f"{leases}/{lease['metadata']['name']}", lease, "may write only"),  # type: ignore[index]
            (f"{leases}/{names.LEADER_LEASE}", lease | {"metadata": {"name": names.LEADER_LEASE}}, "may write only"),
            (world.path("GPUNode", world.node("a")), cordoned, "never changes the spec"),
        ):
            with pytest.raises(ClusterError) as refused:
                await kube.apply(path, body, field_manager=names.AGENT_MANAGER)
            assert refused.value.status == 403
            assert says in str(refused.value)
    finally:
        await kube.close()


async def test_what_the_kubelet_may_hand_out_is_left_alone(world: World, machinery: AgentMachinery) -> None:
    await world.fleet(group("a", product="L40S"))
    kubelet, uuid = machinery.kubelets[world.node("a")], world.gpu("a")

    async def said(field: str, value: object) -> None:
        async def so() -> None:
            assert of_gpu(await world.get("GPUNode", world.node("a")), uuid).get(field) == value

        await world.eventually(so)

    await said("offered", False)
    kubelet.offers = {"nvidia.com/gpu": [uuid]}
    await said("offered", True)
    await world.apply(model("m", claim="10Gi"))
    assert (await world.waiting("m", "GPUNotFenced"))["rejected"] == {"GPUNotFenced": 1}
    kubelet.pods = {"default/notebook": {"main": {"plugin": {"nvidia.com/gpu": [uuid]}}}}
    assert (await world.waiting("m", "GPUAllocated"))["rejected"] == {"GPUAllocated": 1}
    kubelet.pods, kubelet.offers = {}, {}  # the plugin is taken off the node
    await world.ready("m")


async def test_an_agent_without_a_driver_says_so_and_lets_go_when_told(world: World, machinery: AgentMachinery) -> None:
    await world.fleet(group("a", product="L40S"))
    name = world.node("a")
    await world.patch("GPUNode", name, {"spec": {"releaseDriver": True}})
    node = await world.condition("GPUNode", name, "Reporting", "False", "DriverReleased")
    assert gpu_of(node)["memory"], "what it saw last stays"
    await world.apply(model("m", claim="10Gi"))
    await world.waiting("m", "DriverSilent")
    await world.patch("GPUNode", name, {"spec": {"releaseDriver": False}})
    await world.ready("m")


async def test_eight_nodes(world: World) -> None:
    """Placement by what eight drivers report, with the auditor on."""
    await world.fleet(*(group(f"n{number}", product="L4", gpus=2) for number in range(8)))
    await world.apply(model("m", claim="15Gi", replicas=16))
    (found,) = await world.ready("m")
    assert found["status"]["summary"]["gpus"] == 16
    await world.condition("ModelDeployment", "m", "WithinBudget", "True")
