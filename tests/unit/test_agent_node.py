"""The agent of one node from pass to pass: over the stand-in driver, against an API server made of dictionaries."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vrampack.agent.driver import Driver, Sight
from vrampack.agent.memorylimits import MemoryLimits
from vrampack.agent.node import AgentSettings, NodeAgent
from vrampack.agent.nvml import NVML
from vrampack.agent.processes import ProcessTable
from vrampack.agent.reading import Silence
from vrampack.agent.report import LeaseTerms
from vrampack.api import names
from vrampack.errors import StaleLibraryError, UnavailableError
from vrampack.localcluster.standin.driver import StandinDriver
from vrampack.localcluster.standin.proc import RUNTIMES, HostProc, HostProcess
from vrampack.localcluster.standin.state import GPU, Event, Process
from vrampack.localcluster.standin.state import Driver as Shown
from vrampack.units import GIB, parse_bytes

UID = "3f0c2b1a-9d8e-4c7b-a6f5-0123456789ab"
SETTINGS = AgentSettings(
    node="n", namespace="system", poll=0.01, patience=0.1, lease=LeaseTerms(renew=0.05, duration=1)
)


class Api:
    """One Node, its pods and its GPUNode; watches say once that something changed, and again when they are told to."""

    def __init__(self) -> None:
        self.node: dict[str, Any] = {
            "metadata": {"name": "n", "uid": "node-1", "resourceVersion": "1", "labels": {}},
            "status": {"allocatable": {"cpu": "8", "memory": "64Gi", "pods": "110"}},
        }
        self.pods: list[dict[str, Any]] = []
        self.gpu_node: dict[str, Any] = {}
        self.leases = 0
        self.adopted = 0
        self.writes = 0
        self.away = False
        self._changed = asyncio.Event()
        self._watchers: list[asyncio.Event] = []

    def change(self) -> None:
        for event in self._watchers:
            event.set()

    async def list_raw(self, path: str, **_: object) -> bytes:
        self._answer()
        items = {"nodes": [self.node], "pods": self.pods, "gpunodes": [self.gpu_node] if self.gpu_node else []}
        return msgspec.json.encode({"items": items[path.rpartition("/")[2]]})

    async def watch_changes(self, _: str, **__: object) -> AsyncGenerator[None]:
        event = asyncio.Event()
        self._watchers.append(event)
        yield
        while True:
            await event.wait()
            event.clear()
            yield

    async def apply(self, path: str, body: dict[str, Any], *, field_manager: str) -> dict[str, Any]:
        self._answer()
        assert field_manager == names.AGENT_MANAGER
        if "/leases/" in path:
            self.leases += 1
        elif path.endswith("/status"):
            self.writes += 1
            self.gpu_node["status"] = body["status"]
        else:
            self.adopted += 1
            self.gpu_node.setdefault("metadata", {"uid": f"gpunode-{self.adopted}"}).update(body["metadata"])
            self.change()
        return self.gpu_node

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.gpu_node.get("status", {})
        return found

    def condition(self, type_: str) -> str:
        return next((each["reason"] for each in self.status.get("conditions", ()) if each["type"] == type_), "")

    def _answer(self) -> None:
        if self.away:
            raise UnavailableError("away")


def replica() -> dict[str, Any]:
    return {
        "metadata": {
            "name": "llama-0",
            "namespace": "serving",
            "uid": UID,
            "resourceVersion": "1",
            "labels": {names.MODEL_DEPLOYMENT: "llama"},
            "annotations": {names.GPUS: "GPU-0", names.CLAIM: "20Gi"},
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


class World:
    """What is around the agent."""

    def __init__(self, standin: StandinDriver, folder: Path) -> None:
        self.api = Api()
        self.standin = standin
        self.proc = HostProc(folder / "proc", runtime=next(iter(RUNTIMES)), booted=0)
        self.shown = Shown(gpus=[GPU(product="H100-80", uuid=f"GPU-{index}") for index in range(2)])
        self.standin.show(self.shown)

    def use(self, bytes_: int | None, *, gpu: int = 0) -> None:
        """A process of the replica, or none."""
        self.shown.gpus[gpu].processes = [] if bytes_ is None else [Process(pid=42, bytes=bytes_)]
        self.proc.show([HostProcess(pid=42, name="python3", pod_uid=UID)] if bytes_ is not None else [])
        self.standin.show(self.shown)

    @asynccontextmanager
    async def agent(self, driver: Any = None, limits: MemoryLimits | None = None) -> AsyncIterator[asyncio.Task[None]]:
        stop = asyncio.Event()
        agent = NodeAgent(
            kube=self.api,
            settings=SETTINGS,
            driver=driver or Driver(NVML(), patience=1, limits=limits),
            processes=ProcessTable(proc=self.proc.folder),
            limits=limits,
        )
        task = asyncio.create_task(agent.run(stop))
        try:
            yield task
        finally:
            stop.set()
            await asyncio.wait({task})

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - it depends on threads and files as well
                await asyncio.sleep(0.01)


@pytest.fixture
def world(standin: StandinDriver, tmp_path: Path) -> World:
    return World(standin, tmp_path)


def process(api: Api, gpu: int = 0) -> int:
    uses = [each for each in api.status["gpus"][gpu]["processes"] if each["podUID"] == UID]
    return sum(parse_bytes(each["bytes"]) for each in uses)


async def test_it_reports_renews_and_goes_quiet(world: World) -> None:
    async with world.agent():
        await world.until(lambda: len(world.api.status.get("gpus", ())) == 2)
        assert world.api.condition("Reporting") == "AgentReporting"
        # Once the watch has shown it the GPUNode, only the Lease is written.
        quiet = [-1, 0]
        while len(set(quiet)) > 1:
            before, leases = (world.api.writes, world.api.adopted), world.api.leases
            await world.until(lambda at=leases: world.api.leases > at + 3)  # type: ignore[misc]
            quiet = [sum(before), world.api.writes + world.api.adopted]


async def test_what_can_be_seen_of_the_nodes_software_is_reported(world: World) -> None:
    api = world.api
    api.node["status"]["nodeInfo"] = {"containerRuntimeVersion": "containerd://2.1.4", "bootID": "boot-1"}
    async with world.agent():
        await world.until(lambda: api.condition("ToolkitKnown") == "PartOfHost")
        assert (api.status["containerRuntime"], api.status["bootId"]) == ("containerd://2.1.4", "boot-1")
        assert "containerToolkit" not in api.status
        head = {"name": "t", "namespace": "gpu", "uid": "t", "resourceVersion": "1"}
        labels = {"app": "nvidia-container-toolkit-daemonset"}
        image = "nvcr.io/nvidia/k8s/container-toolkit:v1.18.1-ubi9"
        api.pods.append(
            {"metadata": head | {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
        )
        api.change()
        await world.until(lambda: api.condition("ToolkitKnown") == "PodOfOperator")
        assert api.status["containerToolkit"] == "1.18.1"


async def test_a_gpunode_that_was_deleted_is_made_again(world: World) -> None:
    async with world.agent():
        await world.until(lambda: world.api.status.get("gpus"))
        world.api.gpu_node = {}
        world.api.change()
        await world.until(lambda: world.api.status.get("gpus"))


async def test_a_pods_process_is_seen_at_once_and_its_end_as_well(world: World) -> None:
    world.api.pods = [replica()]
    async with world.agent():
        await world.until(lambda: world.api.status.get("gpus"))
        world.use(15 * GIB)
        await world.until(lambda: process(world.api) == 15 * GIB)
        world.use(None)
        await world.until(lambda: process(world.api) == 0)


async def test_the_driver_keeps_a_pod_to_its_claim_where_it_can(world: World, tmp_path: Path) -> None:
    world.api.pods = [replica()]
    async with world.agent(limits=MemoryLimits(folder=tmp_path / "cgroup")):
        await world.until(lambda: world.api.condition("MemoryLimited") == "AllLimited")
        world.use(15 * GIB)
        await world.until(lambda: world.api.condition("MemoryLimited") == "LimitNotSet")
        (said,) = (each["message"] for each in world.api.status["conditions"] if each["type"] == "MemoryLimited")
        assert "pod serving/llama-0 on GPU 0 (no control group" in said
        world.use(None)
        await world.until(lambda: world.api.condition("MemoryLimited") == "AllLimited")
    async with world.agent():
        await world.until(lambda: not world.api.condition("MemoryLimited"))


async def test_a_process_of_a_pod_that_is_gone_is_still_that_pods(world: World) -> None:
    world.api.pods = [replica()]
    world.use(15 * GIB)
    async with world.agent():
        await world.until(lambda: world.api.status.get("gpus") and process(world.api))
        world.api.pods = []
        world.api.change()
        world.api.node["status"]["allocatable"]["cpu"] = "9"  # so that something is written afterwards
        await world.until(lambda: world.api.status["node"]["cpu"] == "9")
        assert process(world.api) == 15 * GIB
        assert world.api.status["gpus"][0]["foreign"] == []


async def test_another_agent_knows_what_the_one_before_it_knew(world: World) -> None:
    """Whose a process was, when its pod is gone; which GPU had failed; the most that a pod has used."""
    world.api.pods = [replica()]
    world.use(15 * GIB)
    async with world.agent():
        await world.until(lambda: world.api.status.get("gpus") and process(world.api))
        world.shown.events.append(Event(gpu=1, xid=48))
        world.standin.show(world.shown)
        await world.until(lambda: world.api.condition("Healthy") == "GPUFailed")
    gpus = world.api.status["gpus"]
    gpus[0]["claims"] = [{"namespace": "serving", "pod": "llama-0", "uid": UID, "bytes": "20Gi"}]
    world.api.pods = []
    world.use(5 * GIB)
    async with world.agent():
        await world.until(lambda: process(world.api) == 5 * GIB)
        assert world.api.status["gpus"][0]["processes"][0]["peak"] == "15Gi"
        assert world.api.status["gpus"][1]["xid"] == 48
        assert world.api.condition("Healthy") == "GPUFailed"


async def test_letting_go_of_the_driver_and_taking_it_again_ends_what_was_wrong(world: World) -> None:
    async with world.agent():
        await world.until(lambda: world.api.status.get("gpus"))
        world.shown.events.append(Event(gpu=1, xid=48))
        world.standin.show(world.shown)
        await world.until(lambda: world.api.condition("Healthy") == "GPUFailed")
        world.api.node["metadata"]["labels"]["nvidia.com/mig.config.state"] = "pending"
        world.api.change()
        await world.until(lambda: world.api.condition("Reporting") == "DriverReleased")
        world.api.node["metadata"]["labels"]["nvidia.com/mig.config.state"] = "success"
        world.api.change()
        await world.until(lambda: world.api.condition("Reporting") == "AgentReporting")
        await world.until(lambda: world.api.condition("Healthy") == "GPUsHealthy")


@pytest.mark.parametrize(
    "labels",
    [
        {"nvidia.com/mig.config.state": "rebooting"},
        {"nvidia.com/gpu.deploy.device-plugin": "paused-for-driver-upgrade"},
    ],
)
async def test_nvidias_operators_are_understood(world: World, labels: dict[str, str]) -> None:
    world.api.node["metadata"]["labels"] = labels
    async with world.agent():
        await world.until(lambda: world.api.condition("Reporting") == "DriverReleased")


async def test_so_is_the_admin(world: World) -> None:
    world.api.gpu_node = {"metadata": {"uid": "gpunode-1"}, "spec": {"releaseDriver": True}}
    async with world.agent():
        await world.until(lambda: world.api.condition("Reporting") == "DriverReleased")


async def test_an_api_server_that_is_away_is_waited_out(world: World) -> None:
    async with world.agent():
        await world.until(lambda: world.api.status.get("gpus"))
        world.api.away = True
        world.shown.gpus[0].usable = 70 * GIB
        world.standin.show(world.shown)
        leases = world.api.leases
        world.api.away = False
        await world.until(lambda: world.api.leases > leases)


class Hanging:
    """A driver that does not come back until it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()

    def see(self, *, now: float, release: bool) -> Sight:
        self.let.wait()
        return Sight(silence=Silence(reason="Back", message=""))

    def close(self) -> None:
        self.let.set()


async def test_a_driver_that_hangs_holds_up_nothing_else(world: World) -> None:
    driver = Hanging()
    async with world.agent(driver):
        await world.until(lambda: world.api.condition("Reporting") == "DriverHangs")
        leases = world.api.leases
        await world.until(lambda: world.api.leases > leases)
        driver.let.set()
        await world.until(lambda: world.api.condition("Reporting") == "Back")


async def test_a_library_of_another_driver_ends_the_process(world: World) -> None:
    world.standin.show(Shown(errors={"nvmlInitWithFlags": 18}))
    async with world.agent() as task:
        await asyncio.wait({task}, timeout=10)
        assert isinstance(task.exception(), StaleLibraryError)
