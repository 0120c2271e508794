"""The simulated agent on a real API server, signed in as the chart's agent: what it reports, and when."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.claims import CLAIM, GATE_GONE, annotations, lease, plain, replica
from tests.integration.kubectl import Kubectl, until
from vrampack.agent.fleet import gpu_uuid, kwok_nodes, parse_fleet
from vrampack.agent.report import LeaseTerms
from vrampack.agent.simulated import SimulationSettings, run_simulated
from vrampack.api import names
from vrampack.errors import ClusterError, NotFoundError, UnavailableError
from vrampack.kube.client import Kube
from vrampack.localcluster.cluster import LocalCluster
from vrampack.localcluster.nodes import NodeSpec
from vrampack.units import GIB, parse_bytes

pytestmark = pytest.mark.cluster

SYSTEM = "vrampack-system"
GPU_NODES = f"/apis/{names.GROUP}/{names.VERSION}/gpunodes"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"
PATIENCE_SECONDS = 20.0
SETTINGS = SimulationSettings(poll=0.1, lease=LeaseTerms(renew=0.3, duration=1))


@pytest.fixture(scope="module")
async def agent_kubeconfig(cluster: LocalCluster, repo_root: Path) -> Path:
    """The chart is in force without an operator; its agent's ServiceAccount signs in."""
    settings = ("--set=operator.replicas=0", "--set=agent.enabled=false", "--set=agent.bindToNode=false")
    chart = ("vrampack", str(repo_root / "charts/vrampack"), f"--namespace={SYSTEM}", "--create-namespace")
    await cluster.helm("upgrade", "--install", *chart, *settings, "--wait")
    return await cluster.token_for("vrampack-agent", SYSTEM)


@pytest.fixture(scope="module")
async def admin(cluster: LocalCluster, agent_kubeconfig: Path) -> AsyncIterator[Kube]:
    kube = await Kube.connect(str(cluster.kubeconfig))
    yield kube
    await kube.close()


@dataclass
class World:
    """A fleet file, its Nodes, and the agent that reads it."""

    admin: Kube
    cluster: LocalCluster
    kubeconfig: Path
    path: Path
    nodes: set[str] = field(default_factory=set)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def edit(self, text: str) -> None:
        self.path.write_text(text)

    async def start(self, text: str) -> None:
        """Nodes as the file says, and an agent for them."""
        self.edit(text)
        await self.add_nodes()
        self.task = asyncio.create_task(self._run())

    async def add_nodes(self) -> None:
        nodes = [NodeSpec(**fields) for fields in kwok_nodes(parse_fleet(self.path.read_text()))]
        self.nodes |= {node.name for node in nodes}
        await self.cluster.add_nodes(nodes)

    async def _run(self) -> None:
        kube = await Kube.connect(str(self.kubeconfig))
        try:
            await run_simulated(kube=kube, fleet_path=self.path, namespace=SYSTEM, settings=SETTINGS, stop=self.stop)
        finally:
            await kube.close()

    async def reported(self, what: str, said: Callable[[dict[str, Any]], bool], *, node: str = "n") -> dict[str, Any]:
        """The status of a GPUNode as soon as it is so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        status: dict[str, Any] = {}
        while True:
            with contextlib.suppress(NotFoundError, UnavailableError):
                status = (await self.admin.get(f"{GPU_NODES}/{node}")).get("status", {})
                if said(status):
                    return status
            assert self.task is None or not self.task.done(), "the agent has ended"
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_SECONDS} s: {status}"
            await asyncio.sleep(0.05)

    async def lease(self, node: str = "n") -> dict[str, Any]:
        return (await self.admin.get(f"{LEASES}/{names.AGENT_LEASE_PREFIX}{node}"))["spec"]


@pytest.fixture
async def world(admin: Kube, cluster: LocalCluster, agent_kubeconfig: Path, tmp_path: Path) -> AsyncIterator[World]:
    path = tmp_path / "fleet.yaml"
    world = World(admin=admin, cluster=cluster, kubeconfig=agent_kubeconfig, path=path)
    yield world
    world.stop.set()
    if world.task is not None:
        await world.task
    kubectl = Kubectl(cluster=cluster)
    await kubectl("delete", "pods", "ours", "other", "--now", "--ignore-not-found")
    await kubectl("delete", "nodes", *world.nodes)
    # Not left to the garbage collector: it learns of a new kind of object only twice a minute.
    await kubectl("delete", "gpunodes", *world.nodes, "--ignore-not-found")


def gpu(status: dict[str, Any], index: int = 0) -> dict[str, Any]:
    found = [one for one in status.get("gpus", ()) if one.get("index") == index]
    return found[0] if found else {}


def condition(status: dict[str, Any], kind: str) -> str:
    return "".join(one["status"] for one in status.get("conditions", ()) if one["type"] == kind)


async def test_every_node_has_its_gpus_and_a_lease(world: World) -> None:
    await world.start("nodes: [{name: n, count: 3, product: H100-80, gpus: 8}, {name: box, product: RTX-4090}]")
    for name, gpus, product in (("n-2", 8, "NVIDIA-H100-80GB-HBM3"), ("box", 1, "NVIDIA-GeForce-RTX-4090")):
        status = await world.reported("reported", lambda status: condition(status, "Healthy") == "True", node=name)
        assert [one["uuid"] for one in status["gpus"]] == [gpu_uuid(name, index) for index in range(gpus)]
        assert {one["product"] for one in status["gpus"]} == {product}
        assert (await world.lease(name))["holderIdentity"] == name
    node = await world.admin.get("/api/v1/nodes/box")
    assert await owners(world, "box") == [node["metadata"]["uid"]]
    assert parse_bytes(gpu(status)["memory"]) < 24 * GIB


async def test_pods_use_their_claims_for_as_long_as_they_run(world: World) -> None:
    await world.start("nodes: [{name: n, product: L40S, cpu: 8, memory: 64Gi}]\nloading: {seconds: 2}")
    await world.reported("all is free", lambda status: status.get("node", {}).get("cpu") == "8")
    claim = {names.GPUS: gpu_uuid("n", 0), names.CLAIM: "20Gi", "sim.vrampack.dev/load-seconds": "2"}
    for pod in (replica("ours"), plain("other", annotations=claim)):
        pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "n"}
        pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1500m", "memory": "4Gi"}}
        await world.admin.create("/api/v1/namespaces/default/pods", pod)
    await place(world, "ours", claim)
    uid = (await world.admin.get("/api/v1/namespaces/default/pods/ours"))["metadata"]["uid"]

    seen = []

    def full(status: dict[str, Any]) -> bool:
        seen.append(parse_bytes(gpu(status)["used"]) / (20 * GIB))
        return seen[-1] >= 0.95

    status = await world.reported("the pod has filled its share", full)
    assert seen == sorted(seen)
    assert any(0.2 < share < 0.8 for share in seen)
    assert seen[-1] < 0.99
    assert [one["podUID"] for one in gpu(status)["processes"]] == [uid]
    assert status["node"] == {"cpu": "6500m", "memory": "60Gi", "pods": 109}

    await world.admin.delete("/api/v1/namespaces/default/pods/ours")
    await world.reported("the memory is free again", lambda status: gpu(status)["used"] == "0")


async def place(world: World, name: str, claim: dict[str, str]) -> None:
    """Claims as the operator does; nobody else may."""
    kubectl = Kubectl(cluster=world.cluster)
    await kubectl.within(SYSTEM).apply(lease())
    operator = kubectl.signed_in(await world.cluster.token_for("vrampack", SYSTEM))
    change = json.dumps([*annotations(CLAIM | claim), GATE_GONE])

    async def accepted() -> bool:
        try:
            await operator("patch", "pod", name, "--type=json", "-p", change)
        except ClusterError as error:
            if any(unseen in str(error) for unseen in ("no params found", "nobody holds the Lease", "is in force")):
                return False
            raise
        return True

    await until("the policy has seen the Lease", accepted)


async def test_an_edit_of_the_file_takes_effect(world: World) -> None:
    def node(**faults: str) -> str:
        return "nodes: [{name: n, product: H100-80, gpus: 2" + "".join(f", {k}: {v}" for k, v in faults.items()) + "}]"

    await world.start(node())
    before = await world.reported("healthy", lambda status: condition(status, "Healthy") == "True")

    world.edit(node(foreign="[{gpu: 1, memory: 3Gi}]", usable="[{gpu: 0, memory: 70Gi}]"))
    status = await world.reported("shrunk", lambda status: gpu(status)["memory"] == "70Gi")
    assert gpu(status, 1)["used"] == "3Gi"
    assert sum(parse_bytes(one["bytes"]) for one in gpu(status, 1)["foreign"]) == 3 * GIB

    world.edit(node(failed="[{gpu: 1, xid: 48}]"))
    status = await world.reported("failed", lambda status: condition(status, "Healthy") == "False")
    assert (gpu(status, 1)["health"], gpu(status, 1)["xid"]) == ("Unhealthy", 48)
    assert gpu(status)["memory"] == gpu(before)["memory"]

    world.edit(node(gpus="none"))
    world.edit(node(missing="[1]"))
    status = await world.reported("vanished", lambda status: not gpu(status, 1))
    assert condition(status, "Healthy") == "True"
    assert status["summary"]["gpus"] == 1

    world.edit(node())
    await world.reported("back", lambda status: gpu(status, 1).get("health") == "Healthy")


async def test_a_silent_node_neither_reports_nor_renews(world: World) -> None:
    await world.start("nodes: [{name: n, product: L4}, {name: loud, product: L4}]")
    await world.reported("reported", lambda status: bool(gpu(status)))

    async def renewed(node: str) -> str:
        return (await world.lease(node))["renewTime"]

    world.edit("nodes: [{name: n, product: L4, silent: true, failed: [{gpu: 0}]}, {name: loud, product: L4}]")
    await passes(renewed, "loud")
    last = await renewed("n")
    await passes(renewed, "loud")
    assert await renewed("n") == last
    await world.reported("unchanged", lambda status: condition(status, "Healthy") == "True")

    world.edit("nodes: [{name: n, product: L4}, {name: loud, product: L4}]")
    await passes(renewed, "n")


async def passes(renewed: Callable[[str], Any], node: str) -> None:
    """Waits until the Lease of a node was renewed twice: the second time in a pass that began after the call."""
    seen = {await renewed(node)}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(seen) < 3:
            seen.add(await renewed(node))


async def test_what_the_operator_writes_stays(world: World) -> None:
    await world.start("nodes: [{name: n, product: L4, gpus: 2}]")
    await world.reported("reported", lambda status: bool(gpu(status, 1)))
    uuid = gpu_uuid("n", 1)
    claim = {"namespace": "default", "pod": "p", "uid": "u", "bytes": "1Gi"}
    mine = {"gpus": [{"uuid": uuid, "claimed": "1Gi", "claims": [claim]}], "summary": {"claimed": "1 GiB"}}
    body = {"apiVersion": names.API_VERSION, "kind": "GPUNode", "metadata": {"name": "n"}, "status": mine}
    await world.admin.apply(f"{GPU_NODES}/n/status", body, field_manager=names.STATUS_MANAGER)

    world.edit("nodes: [{name: n, product: L4, gpus: 2, missing: [1]}]")
    status = await world.reported("vanished", lambda status: not gpu(status, 1))
    (left,) = (one for one in status["gpus"] if one["uuid"] == uuid)
    assert left == {"uuid": uuid, "claimed": "1Gi", "claims": [claim]}
    assert status["summary"]["claimed"] == "1 GiB"


async def test_a_gpunode_that_was_deleted_comes_back(world: World) -> None:
    await world.start("nodes: [{name: n, product: L4}]")
    await world.reported("reported", lambda status: bool(gpu(status)))
    await world.admin.delete(f"{GPU_NODES}/n")
    await world.reported("reported again", lambda status: bool(gpu(status)))


async def test_a_node_that_comes_back_takes_its_gpunode_over(world: World) -> None:
    await world.start("nodes: [{name: n, product: L4}]")
    await world.reported("reported", lambda status: bool(gpu(status)))
    await Kubectl(cluster=world.cluster)("delete", "node", "n")
    await world.add_nodes()
    node = await world.admin.get("/api/v1/nodes/n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await owners(world, "n") != [node["metadata"]["uid"]]:
            await world.reported("reported again", lambda status: bool(gpu(status)))


async def owners(world: World, node: str) -> list[str]:
    """UIDs of the owners of a GPUNode."""
    found = [one["metadata"] for one in await world.admin.list(GPU_NODES) if one["metadata"]["name"] == node]
    return [owner["uid"] for metadata in found for owner in metadata.get("ownerReferences", ())]


async def test_an_api_server_that_is_away_is_waited_out(world: World) -> None:
    await world.start("nodes: [{name: n, product: L4}]")
    await world.reported("reported", lambda status: bool(gpu(status)))
    await world.cluster.stop_apiserver()
    world.edit("nodes: [{name: n, product: L4, usable: [{gpu: 0, memory: 20Gi}]}]")
    await world.cluster.start_apiserver()
    await world.reported("shrunk", lambda status: gpu(status)["memory"] == "20Gi")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_ends_cleanly(world: World, number: signal.Signals) -> None:
    world.edit("nodes: [{name: n, product: L4}]")
    await world.add_nodes()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import typer; from vrampack.cli.agent import agent; typer.run(agent)"),
        *(f"--simulate={world.path}", f"--kubeconfig={world.kubeconfig}", f"--namespace={SYSTEM}"),
    )
    try:
        reported = asyncio.create_task(world.reported("reported", lambda status: bool(gpu(status))))
        ended = asyncio.create_task(process.wait())
        await asyncio.wait({reported, ended}, return_when=asyncio.FIRST_COMPLETED)
        assert reported.done(), f"it ended by itself: {process.returncode}"
        process.send_signal(number)
        assert await asyncio.wait_for(ended, timeout=10) == 0
    finally:
        if process.returncode is None:
            process.kill()
