"""What a pool's policies and the start gate make of what real agents see, and what is learned of it."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from tests.integration.agents import AgentMachinery, gpu_of
from tests.integration.claims import RELEASE, install
from tests.integration.conftest import TOKENS, machinery_of
from tests.integration.harness import World
from tests.integration.looks import claim_of, condition, gpus_of, lone, uids
from tests.integration.manifests import Manifest, group, model, profile
from vrampack.agent.pods import Pod
from vrampack.api import names
from vrampack.engines import startgate
from vrampack.localcluster.cluster import LocalCluster
from vrampack.localcluster.ports import free_ports
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
    machinery.flags = ()
    if machinery.drivers is not None:
        machinery.drivers.use = lambda _, held: held


def pool(world: World, **spec: Any) -> Manifest:
    """A pool of this world's nodes alone."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GPUPool",
        "metadata": {"name": world.namespace},
        "spec": {"nodeSelector": {"world": world.namespace}, **spec},
    }


def own(world: World, name: str, **spec: Any) -> Manifest:
    return model(name, placement={"pool": world.namespace}, **spec)


# --- what is learned -------------------------------------------------------------------------------------------------


async def test_what_a_replica_really_took_is_in_the_next_estimate(world: World, machinery: AgentMachinery) -> None:
    assert machinery.drivers is not None
    machinery.drivers.use = lambda pod, held: pod.claim  # all of its claim, headroom and allowance too
    await world.fleet(group("a", product="L40S", gpus=2))
    name = f"learned-{world.namespace}"
    await world.apply(profile(name))
    await world.apply(model("first", claim=None, source=f"profile://{name}"))
    (found,) = await world.ready("first")
    computed = found["status"]["estimate"]
    assert computed["method"] == "Computed"
    pod = lone(await world.pods("first"))

    async def recorded() -> Manifest:
        status = (await world.get("ModelProfile", name))["status"]
        measurements: list[Manifest] = status.get("measurements", [])
        assert len(measurements) == 1
        return measurements[0]

    record = await world.eventually(recorded)
    taken = claim_of(pod) - parse_bytes(computed["kvCache"])
    assert parse_bytes(record["besidesCache"]) == pytest.approx(taken, abs=2 * 1024**2)
    assert (record["engine"], record["version"], record["gpuProduct"]) == ("vllm", "0.33.0", "NVIDIA-L40S")
    assert (record["maxSequences"], record["contextLength"], record["samples"]) == (4, 1024, 1)

    async def waits() -> None:
        status = (await world.get("ModelDeployment", "first"))["status"]["estimate"]
        assert status.get("pending", {}).get("because") == "CalibrationChanged"
        assert status["method"] == "Computed"

    await world.eventually(waits)
    await world.apply(model("next", claim=None, source=f"profile://{name}"))
    (found,) = await world.ready("next")
    estimate = found["status"]["estimate"]
    assert estimate["method"] == "Measured"
    assert "allowance (measured)" in estimate["explanation"]
    terms = ("weights", "activations", "cudaGraphs", "communication", "runtimeContext", "allowance")
    assert sum(parse_bytes(estimate[term]) for term in terms) >= parse_bytes(record["besidesCache"])
    assert uids(await world.pods("first")) == {pod["metadata"]["uid"]}


# --- policies --------------------------------------------------------------------------------------------------------


async def test_the_offender_is_evicted_and_never_its_neighbour(world: World, machinery: AgentMachinery) -> None:
    assert machinery.drivers is not None
    await world.apply(pool(world, overuse={"policy": "Evict", "tolerance": "5%", "seconds": 4}))
    await world.fleet(group("a", product="L40S", labels={"world": world.namespace}))
    await world.apply(own(world, "greedy"), own(world, "modest"))
    await world.ready("greedy", "modest")
    offender, neighbour = lone(await world.pods("greedy")), lone(await world.pods("modest"))
    assert gpus_of(offender) == gpus_of(neighbour)

    def use(pod: Pod, held: int) -> int:
        if pod.metadata.uid == offender["metadata"]["uid"]:
            return 11 * GIB
        return int(10.4 * GIB)  # more than its claim, within the tolerance

    began = time.monotonic()
    machinery.drivers.use = use
    await world.condition("ModelDeployment", "greedy", "WithinBudget", "False", "UseExceedsClaim")

    async def gone() -> None:
        assert offender["metadata"]["uid"] not in uids(await world.pods("greedy"))

    await world.eventually(gone)
    assert time.monotonic() - began >= 4, "not before it has lasted"
    await world.ready("greedy", "modest")
    assert uids(await world.pods("modest")) == {neighbour["metadata"]["uid"]}

    async def told() -> None:
        events = [each for each in await world.every("Event") if each.get("reason") == "OverBudget"]
        assert {each["regarding"]["kind"] for each in events} == {"Pod", "ModelDeployment"}
        assert all("uses 11.00 GiB and claims 10.00 GiB" in each["note"] for each in events)

    await world.eventually(told)
    await world.condition("ModelDeployment", "greedy", "WithinBudget", "True")


async def test_a_gpu_that_a_reservation_holds_is_used_and_no_other(world: World, machinery: AgentMachinery) -> None:
    await world.apply(pool(world, fencing="Reservation"))
    await world.fleet(group("a", product="L40S", gpus=2, labels={"world": world.namespace}))
    node, kubelet = world.node("a"), machinery.kubelets[world.node("a")]
    held, loose = world.gpu("a", 0), world.gpu("a", 1)
    kubelet.offers = {"nvidia.com/gpu": [held, loose]}

    async def offered() -> None:
        gpus = (await world.get("GPUNode", node))["status"]["gpus"]
        assert [each.get("offered") for each in gpus] == [True, True]

    await world.eventually(offered)
    await world.apply(own(world, "m"))
    assert (await world.waiting("m", "GPUNotFenced"))["rejected"] == {"GPUNotFenced": 2}
    found = await world.condition("GPUPool", world.namespace, "Fenced", "False", "GPUsNotFenced")
    assert "no reservation pod" in condition(found, "Fenced")["message"]

    holder = f"holder-{world.namespace}"
    pods = f"/api/v1/namespaces/{RELEASE}/pods"
    spec = {
        "nodeName": node,
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "holder", "image": "x", "resources": {"limits": {"cpu": "1m", "memory": "16Mi"}}}],
    }
    head = {"name": holder, "labels": {names.RESERVATION: "all"}}
    await world.kube.create(pods, {"apiVersion": "v1", "kind": "Pod", "metadata": head, "spec": spec})
    try:
        kubelet.pods = {f"{RELEASE}/{holder}": {"holder": {"plugin": {"nvidia.com/gpu": [held]}}}}
        await world.ready("m")
        pod = lone(await world.pods("m"))
        assert gpus_of(pod) == [held]
        (allocation,) = gpu_of(await world.get("GPUNode", node))["allocations"]
        assert (allocation["pod"], allocation["reservation"]) == (holder, True)
        await world.condition("GPUPool", world.namespace, "Fenced", "False", "GPUsNotFenced")  # the other one is loose
        await world.apply(own(world, "big", claim="40Gi"))
        waiting = await world.waiting("big", "InsufficientGPUMemory")
        assert waiting["rejected"] == {"InsufficientGPUMemory": 1, "GPUNotFenced": 1}
        # Held by somebody else it is not used, whatever its name is.
        kubelet.pods = {**kubelet.pods, f"{world.namespace}/{holder}": {"x": {"plugin": {"nvidia.com/gpu": [loose]}}}}

        async def given() -> None:
            rejected = (await world.waiting("big", "InsufficientGPUMemory"))["rejected"]
            assert rejected == {"InsufficientGPUMemory": 1, "GPUAllocated": 1}

        await world.eventually(given)
    finally:
        await world.kube.delete(f"{pods}/{holder}", grace_seconds=0)
    # Without its holder the GPU takes no more, and what is there stays.
    kubelet.pods = {}

    async def closed() -> None:
        rejected = (await world.waiting("big", "GPUNotFenced"))["rejected"]
        assert rejected == {"GPUNotFenced": 2}

    await world.eventually(closed)
    assert uids(await world.pods("m")) == {pod["metadata"]["uid"]}


# --- whose turn it is to start ---------------------------------------------------------------------------------------


LOADS_FOR_EVER = {"metadata": {"annotations": {"sim.vrampack.dev/load-seconds": "3600"}}}


class Gate:
    """The agent's port, and containers of its node: the operator's own script, run by sh in front of a command."""

    def __init__(self, world: World, port: int) -> None:
        self.world = world
        self.port = port

    async def crash(self, pod: Manifest, *, limit: int = 120) -> asyncio.subprocess.Process:
        """Its container has ended and starts again: the kubelet says so, and the script runs."""
        await self.tell(pod, started=False)
        environment = {
            "PATH": os.environ["PATH"],
            startgate.HOST: "127.0.0.1",
            startgate.PORT: str(self.port),
            startgate.POD: pod["metadata"]["uid"],
            startgate.LIMIT: str(limit),
        }
        command = startgate.command(["/bin/sh", "-c", "echo engine runs"])
        out = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(*command, env=environment, stdout=out, stderr=out)

    async def tell(self, pod: Manifest, *, started: bool, ago: float = 0) -> None:
        """The kubelet's word on its engine. ``ago``: seconds since its container started, where it starts now."""
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        path = self.world.path("Pod", name) + "/status"
        status = (await self.world.kube.get(self.world.path("Pod", name)))["status"]
        for each in status["containerStatuses"]:
            each |= {"started": started, "ready": started}
            each["restartCount"] += not started
            if not started or ago:
                at = datetime.now(UTC) - timedelta(seconds=ago)
                each["state"] = {"running": {"startedAt": at.strftime("%Y-%m-%dT%H:%M:%SZ")}}
        for each in status["conditions"]:
            if each["type"] in ("Ready", "ContainersReady"):
                each["status"] = str(started)
        written = await self.world.kube.merge_patch(path, {"status": status}, field_manager="kubelet")
        assert written["metadata"]["uid"] == uid

    async def answer(self, uid: str, since: float) -> tuple[int, str]:
        """What the agent says to one who asks."""
        url = f"http://127.0.0.1:{self.port}/start/{uid}?since={since}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()


async def said(process: asyncio.subprocess.Process, *, within: float = 30) -> str:
    out, err = await asyncio.wait_for(process.communicate(), within)
    return (out + err).decode()


async def starting(world: World, machinery: AgentMachinery, *, gpus: int) -> tuple[Gate, Manifest, Manifest]:
    """Two replicas that share all GPUs of a node, both ready. What their engines do is told by the test alone."""
    (port,) = free_ports(1)
    machinery.flags = (f"--start-port={port}",)
    gate = Gate(world, port)
    await world.fleet(group("a", product="L40S", gpus=gpus))
    ready = []
    for name in ("one", "two"):
        await world.apply(model(name, parallelism={"tensor": gpus}, podTemplate=LOADS_FOR_EVER))

        async def running(of: str = name) -> Manifest:
            pods = await world.pods(of)
            assert len(pods) == 1
            assert pods[0]["status"].get("containerStatuses")
            return pods[0]

        ready.append(await world.eventually(running))
        await gate.tell(ready[-1], started=True, ago=600)  # no engine crashes in the second in which it started
        await world.ready(name)
    one, two = ready
    assert sorted(gpus_of(one)) == sorted(gpus_of(two))
    assert len(gpus_of(one)) == gpus

    async def known() -> None:
        for pod in ready:
            status, _ = await gate.answer(pod["metadata"]["uid"], 1.0)
            assert status == 200  # it has started, as the agent sees it

    await world.eventually(known)
    return gate, one, two


@pytest.mark.parametrize("gpus", [1, 2])
async def test_a_crashed_engine_waits_until_its_neighbour_has_started(
    world: World, machinery: AgentMachinery, gpus: int
) -> None:
    """By the script of the pod template and a real agent; with two GPUs each has both or none."""
    gate, one, two = await starting(world, machinery, gpus=gpus)
    first = await gate.crash(one)
    assert "engine runs" in await said(first)
    second = await gate.crash(two)
    names_of_one = f"{world.namespace}/{one['metadata']['name']}"

    async def waits() -> None:
        status, text = await gate.answer(two["metadata"]["uid"], time.time())
        assert (status, text.strip()) == (409, f"waits until {names_of_one} has started")

    await world.eventually(waits)
    assert second.returncode is None
    await gate.tell(one, started=True)
    assert "engine runs" in await said(second)


async def test_nobody_waits_for_longer_than_the_limit_and_without_an_agent_not_at_all(
    world: World, machinery: AgentMachinery
) -> None:
    gate, one, two = await starting(world, machinery, gpus=1)
    assert "engine runs" in await said(await gate.crash(one))
    began = time.monotonic()
    heard = await said(await gate.crash(two, limit=3))
    assert time.monotonic() - began >= 2  # whole seconds of a clock
    assert "another engine starts for longer than 3 s" in heard
    assert "engine runs" in heard
    await machinery.agents[world.node("a")].kill()
    heard = await said(await gate.crash(two), within=startgate.ALONE_SECONDS + 15)
    assert "no agent answers at 127.0.0.1" in heard
    assert "engine runs" in heard
