"""What one agent costs: CPU and memory of its process, and its requests to the API server, from which those of a fleet.

The agent is the real one, over the stand-in driver with 8 GPUs and 40 processes, a kubelet double on a Unix socket and
an API server double that counts. What is not in these figures is the time that a real driver takes to answer.

    python -m benchmarks.agent_cost [--seconds 60] [-o json]
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from tests.unit.kubelet_double import KubeletDouble
from vrampack.agent.fleet import gpu_uuid
from vrampack.api import names
from vrampack.localcluster.standin.driver import StandinDriver, build
from vrampack.localcluster.standin.proc import RUNTIMES, HostProc, HostProcess
from vrampack.localcluster.standin.state import GPU, Driver, Process
from vrampack.units import GIB, MIB

GPUS: Final = 8
PODS_PER_GPU: Final = 5
NODE: Final = "gpu-1"
WARM_SECONDS: Final = 5.0
FLEET: Final = 1000
SEED: Final = 20260101
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """``cpu_percent``: of one core. ``rss``: bytes. The rates are requests in a second: of one agent, and of 1,000."""

    case: str
    seconds: float
    cpu_percent: float
    rss: int
    lease_writes: float
    status_writes: float
    other_requests: float
    fleet_writes: float


class ApiDouble:
    """Answers an agent, and counts what it asks for."""

    def __init__(self, pods: list[dict[str, Any]]) -> None:
        self.pods = pods
        self.counted: Counter[str] = Counter()
        self.reported = asyncio.Event()
        self.gpu_node: dict[str, Any] = {"metadata": {"name": NODE, "uid": "gpunode"}}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "true":
            self.counted["watch"] += 1
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.Event().wait()  # nothing changes
        if request.method == "PATCH":
            kind = "lease" if "/leases/" in request.path else "status" if request.path.endswith("/status") else "adopt"
            self.counted[kind] += 1
            body = await request.json()
            if kind == "adopt":
                self.gpu_node["metadata"] |= body["metadata"]
            if kind == "status":
                self.gpu_node["status"] = body["status"]
                self.reported.set()
            return web.json_response(self.gpu_node)
        self.counted["list"] += 1
        node = {
            "metadata": {"name": NODE, "uid": "node", "resourceVersion": "1"},
            "status": {"allocatable": {"cpu": "192", "memory": "2Ti", "pods": "110"}},
        }
        known = {"nodes": [node], "pods": self.pods, "gpunodes": [self.gpu_node]}
        items = known.get(request.path.rpartition("/")[2], [])
        return web.json_response({"items": items})


def pod(gpu: int, number: int) -> dict[str, Any]:
    uid = f"3f0c2b1a-9d8e-4c7b-a6f5-{gpu:06}{number:06}"
    return {
        "metadata": {
            "name": f"model-{gpu}-{number}",
            "namespace": "serving",
            "uid": uid,
            "resourceVersion": "1",
            "labels": {names.MODEL_DEPLOYMENT: "model"},
            "annotations": {names.GPUS: gpu_uuid(NODE, gpu), names.CLAIM: "15Gi"},
        },
        "spec": {"nodeName": NODE, "containers": [{"name": "engine"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


@dataclass(kw_only=True)
class Host:
    """The doubles of one node."""

    driver: StandinDriver
    folder: Path
    pods: list[dict[str, Any]]
    numbers: random.Random

    def show(self, *, spread: float) -> None:
        """All processes; each holds 14 GiB, more or less by ``spread``."""
        gpus = []
        for gpu in range(GPUS):
            held = [
                Process(pid=1000 + gpu * PODS_PER_GPU + number, bytes=int(14 * GIB * (1 + self._moved(spread))))
                for number in range(PODS_PER_GPU)
            ]
            gpus.append(GPU(product="H100-80", uuid=gpu_uuid(NODE, gpu), processes=held))
        self.driver.show(Driver(gpus=gpus))

    def _moved(self, spread: float) -> float:
        return self.numbers.uniform(-spread, spread)


async def measure(host: Host, port: int, double: ApiDouble, *, case: str, spread: float, seconds: float) -> Cost:
    """One agent for ``seconds``, after it has warmed up. ``spread``: how far memory moves each second."""
    kubeconfig = host.folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    host.show(spread=0)
    environment = {
        **os.environ,
        **host.driver.environment,
        "NODE_NAME": NODE,
        "VRAMPACK_PROC": str(host.folder / "proc"),
        "VRAMPACK_POD_RESOURCES": str(host.folder / "kubelet.sock"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vrampack", "agent", f"--kubeconfig={kubeconfig}", "--metrics-port=0"),
        env=environment,
    )
    try:
        async with asyncio.timeout(60):
            await double.reported.wait()
        await asyncio.sleep(WARM_SECONDS)
        double.counted.clear()
        began, used = time.monotonic(), _cpu(process.pid)
        while time.monotonic() - began < seconds:
            await asyncio.sleep(1)
            if spread:
                host.show(spread=spread)
        lasted = time.monotonic() - began
        cost = _cpu(process.pid) - used
        counted = double.counted
        return Cost(
            case=case,
            seconds=round(lasted, 1),
            cpu_percent=round(100 * cost / lasted, 2),
            rss=_rss(process.pid),
            lease_writes=round(counted["lease"] / lasted, 3),
            status_writes=round(counted["status"] / lasted, 3),
            other_requests=round((counted["adopt"] + counted["list"] + counted["watch"]) / lasted, 3),
            fleet_writes=round(FLEET * (counted["lease"] + counted["status"]) / lasted, 1),
        )
    finally:
        process.terminate()
        await process.wait()
        double.reported.clear()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


@asynccontextmanager
async def around(folder: Path) -> AsyncIterator[tuple[Host, int, ApiDouble]]:
    """The doubles, and the port of the API server's."""
    pods = [pod(gpu, number) for gpu in range(GPUS) for number in range(PODS_PER_GPU)]
    proc = HostProc(folder / "proc", runtime=next(iter(RUNTIMES)), booted=0)
    uids = [each["metadata"]["uid"] for each in pods]
    proc.show(HostProcess(pid=1000 + number, name="python3", pod_uid=uid) for number, uid in enumerate(uids))
    host = Host(
        driver=StandinDriver(library=build(folder / "lib"), state=folder / "driver"),
        folder=folder,
        pods=pods,
        numbers=random.Random(SEED),
    )
    kubelet = KubeletDouble(folder / "kubelet.sock")
    kubelet.start()
    double = ApiDouble(pods)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", double.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield host, runner.addresses[0][1], double
    finally:
        await runner.cleanup()
        kubelet.stop()


async def run(seconds: float) -> list[Cost]:
    with tempfile.TemporaryDirectory() as folder:
        async with around(Path(folder)) as (host, port, double):
            return [
                await measure(host, port, double, case=case, spread=spread, seconds=seconds)
                for case, spread in (("memory stands still", 0.0), ("memory moves by 0.4 %", 0.004), ("by 2 %", 0.02))
            ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each case")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    given = parser.parse_args()
    costs = asyncio.run(run(given.seconds))
    if given.output == "json":
        print(json.dumps([asdict(cost) for cost in costs], indent=2))
        return
    for cost in costs:
        print(
            f"{cost.case}: {cost.cpu_percent} % of a core, RSS {cost.rss / MIB:.1f} MiB; in a second "
            f"{cost.lease_writes} Lease writes, {cost.status_writes} status writes, {cost.other_requests} others; "
            f"{FLEET} such agents: {cost.fleet_writes} writes a second"
        )


if __name__ == "__main__":
    main()
