"""How fast the operator places 1,000 waiting replicas, beside kube-scheduler's rate for as many plain pods.

    python -m benchmarks.control_loop
    python -m benchmarks.control_loop -o json

A real API server with the chart's policies in force, 100 kwok nodes with 8 GPUs each, the GPUNodes of the simulated
agent, and a GPUPool with ``startup: Parallel``. The operator is a process of its own and signs in as the chart's
ServiceAccount. A watch with a connection of its own takes the times. Every pod, plain or not, loads for 20 s before it
is ready, less than an engine takes for its weights: what the simulated kubelets write then is work of a thousand
machines, and none of it may fall into the seconds that are measured. One run does, in this order:

1. 20 Deployments of 50 plain pods each, all at once, while no operator runs. The pods are those of a ModelDeployment
   without the gate and without vrampack's names, so what is written is of the same size.
   ``scheduler_rate``: pods / (last pod bound - first pod seen).
2. 20 ModelDeployments of 50 replicas each, all at once. ``placement_rate``: pods / (last pod ungated - first pod seen).
   ``ungate_*_seconds``: from the moment a pod is seen to the moment it is seen without its gate.
   ``writes_per_pod``: requests that change pods other than their status, as the API server counts them, divided by
   pods. Refused ones count too. None but the operator sends any; a run with plain pods shows it.
3. One more replica, again and again, each as soon as the last one is bound, while the thousand are Ready.
   ``single_p99_seconds``: as above, for these.

``rss_bytes`` is the most memory that the operator ever had resident. Percentiles interpolate between ranks.
``cpu_seconds``: what each process has used in 1 (``plain``) and in 2 (``placed``), from the first request to the moment
when the last pod is seen bound or ungated; the watch that takes the times is ``benchmark``. Where the cores are what is
short, the rates are as the totals, which other work on the machine changes much less.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from benchmarks.cputime import CpuTimes
from benchmarks.llama_profile import LLAMA_PROFILE
from benchmarks.podwatch import PodWatch
from vrampack.agent.fleet import kwok_nodes, parse_fleet
from vrampack.api import names
from vrampack.kube.client import Kube
from vrampack.localcluster.assets import ensure_assets
from vrampack.localcluster.cluster import LocalCluster
from vrampack.localcluster.nodes import NodeSpec
from vrampack.localcluster.process import Child, Guard
from vrampack.localcluster.progress import progress_on

SYSTEM = "vrampack-system"
SETTINGS = ("--set=operator.replicas=0", "--set=agent.enabled=false", "--set=agent.bindToNode=false")
CHART = Path(__file__).parents[1] / "charts" / "vrampack"
VRAMPACK = (sys.executable, "-m", "vrampack")
API = f"/apis/{names.GROUP}/{names.VERSION}"
GOALS = {
    "ratio": ">= 0.9",
    "ungate_p99_seconds": "<= 5",
    "single_p99_seconds": "<= 1",
    "writes_per_pod": "1",
    "rss_bytes": "<= 200 MB",
}
# An engine loads its weights for longer than all of them take to be placed.
LOADING: Mapping[str, str] = {"sim.vrampack.dev/load-seconds": "20"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the run is. ``singles``: how often one more replica is asked for."""

    nodes: int
    models: int
    replicas: int
    singles: int

    @property
    def pods(self) -> int:
        return self.models * self.replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Rates are pods per second."""

    placement_rate: float
    scheduler_rate: float
    ratio: float
    ungate_p50_seconds: float
    ungate_p99_seconds: float
    single_p99_seconds: float
    writes_per_pod: float
    rss_bytes: int
    cpu_seconds: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The cluster, its admin, and how to start the operator in it."""

    cluster: LocalCluster
    admin: Kube
    size: Size
    group: int
    folder: Path

    async def run(self) -> Result:
        async with self._agent() as agent:
            others = {**self.cluster.pids, "agent": agent.pid, "benchmark": os.getpid()}
            await self._reported()
            async with self._operator(), self._pods("warm") as pods:
                await self._serve("warm", "warm", replicas=1)
                await pods.until("the first replica is placed", lambda: len(pods.ungated) == 1)
                template = (await self.admin.get("/apis/apps/v1/namespaces/warm/deployments/warm"))["spec"]["template"]
            scheduler_rate, cpu_seconds = await self._plain_pods(_plain(template), others)
            return await self._replicas(scheduler_rate, cpu_seconds, others)

    async def _plain_pods(
        self, template: Mapping[str, Any], pids: Mapping[str, int]
    ) -> tuple[float, Mapping[str, float]]:
        """kube-scheduler's rate, and what the processes used for it."""
        note(f"{self.size.pods} plain pods, without an operator")
        deployments = [f"plain-{number}" for number in range(self.size.models)]
        before = await self._pod_writes()
        async with self._pods("plain") as pods:
            began = CpuTimes.of(pids)
            await asyncio.gather(*(self._deploy("plain", name, template) for name in deployments))
            await pods.until("all plain pods are bound", lambda: len(pods.bound) == self.size.pods)
            used = CpuTimes.of(pids).since(began)
            rate = self.size.pods / (max(pods.bound.values()) - min(pods.seen.values()))
            if written := await self._pod_writes() - before:
                raise SystemExit(f"something else than the operator has changed pods {written} times")
            await pods.until("all plain pods are ready", lambda: len(pods.ready) == self.size.pods)
            await self.admin.delete("/api/v1/namespaces/plain")
            await pods.until("all plain pods are gone", lambda: not pods.seen)
        return rate, used

    async def _replicas(
        self, scheduler_rate: float, plain_seconds: Mapping[str, float], others: Mapping[str, int]
    ) -> Result:
        """The operator's figures."""
        size = self.size
        async with self._operator() as operator, self._pods("models") as pods, self._pods("warm") as warm:
            await self._scale("warm", "warm", 2)
            await warm.until("the operator leads", lambda: len(warm.ungated) == 2)

            note(f"{size.pods} replicas of {size.models} ModelDeployments")
            before = await self._pod_writes()
            pids = {**others, "operator": operator.pid}
            models = [(f"model-{number}", number) for number in range(size.models)]
            began = CpuTimes.of(pids)
            await asyncio.gather(
                *(self._serve("models", name, replicas=size.replicas, variant=number) for name, number in models)
            )
            await pods.until("all replicas are placed", lambda: len(pods.ungated) == size.pods)
            used = CpuTimes.of(pids).since(began)
            note(f"{len(pods.bound)} of them are bound by then")
            written = await self._pod_writes() - before
            waits = [pods.ungated[uid] - seen for uid, seen in pods.seen.items()]
            rate = size.pods / (max(pods.ungated.values()) - min(pods.seen.values()))
            await pods.until("all replicas are ready", lambda: len(pods.ready) == size.pods)

            note(f"one more replica, {size.singles} times")
            singles = [await self._one_more(pods, size.replicas + count) for count in range(1, size.singles + 1)]
            resident = _peak_resident(operator.pid)
        return Result(
            placement_rate=round(rate, 1),
            scheduler_rate=round(scheduler_rate, 1),
            ratio=round(rate / scheduler_rate, 3),
            ungate_p50_seconds=round(_percentile(waits, 50), 3),
            ungate_p99_seconds=round(_percentile(waits, 99), 3),
            single_p99_seconds=round(_percentile(singles, 99), 3),
            writes_per_pod=round(written / size.pods, 3),
            rss_bytes=resident,
            cpu_seconds={"plain": plain_seconds, "placed": used},
        )

    async def _one_more(self, pods: PodWatch, replicas: int) -> float:
        known = set(pods.seen)
        await self._scale("models", "model-0", replicas)
        await pods.until("one more replica is bound", lambda: len(pods.bound) > len(known))
        (new,) = set(pods.seen) - known
        return pods.ungated[new] - pods.seen[new]

    # What is asked of the API server.

    async def _serve(self, namespace: str, name: str, *, replicas: int, variant: int = 0) -> None:
        spec = {
            "model": {"source": "profile://llama-8b"},
            "serving": {"contextLength": 8192, "concurrency": 2 + variant % 5},
            "replicas": replicas,
            "podTemplate": {"metadata": {"annotations": LOADING}},
        }
        body = {"apiVersion": names.API_VERSION, "kind": "ModelDeployment", "metadata": {"name": name}, "spec": spec}
        await self.admin.create(f"{API}/namespaces/{namespace}/modeldeployments", body)

    async def _scale(self, namespace: str, name: str, replicas: int) -> None:
        path = f"{API}/namespaces/{namespace}/modeldeployments/{name}"
        await self.admin.merge_patch(path, {"spec": {"replicas": replicas}}, field_manager="benchmark")

    async def _deploy(self, namespace: str, name: str, template: Mapping[str, Any]) -> None:
        labels = {"app": name}
        metadata = {**template["metadata"], "labels": labels}
        spec = {
            "replicas": self.size.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": metadata, "spec": template["spec"]},
        }
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        await self.admin.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", body)

    async def _pod_writes(self) -> int:
        """Requests so far that change a pod, and not by a subresource; creation and deletion left out."""
        total = 0.0
        for line in (await self.admin.list_raw("/metrics")).decode().splitlines():
            if line.startswith("apiserver_request_total{"):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
                if (labels["resource"], labels["subresource"]) == ("pods", "") and labels["verb"] in _CHANGES:
                    total += float(line.rpartition(" ")[2])
        return int(total)

    async def _reported(self) -> None:
        """Waits until every node has its GPUs."""
        while True:
            nodes = await self.admin.list(f"{API}/gpunodes")
            if sum(bool(node.get("status", {}).get("gpus")) for node in nodes) == self.size.nodes:
                return
            await asyncio.sleep(0.5)

    # Its processes and watches.

    @contextlib.asynccontextmanager
    async def _pods(self, namespace: str) -> AsyncIterator[PodWatch]:
        async with PodWatch(self.cluster.kubeconfig, namespace) as pods:
            yield pods

    @contextlib.asynccontextmanager
    async def _agent(self) -> AsyncIterator[Child]:
        kubeconfig = await self.cluster.token_for("vrampack-agent", SYSTEM)
        # Every node has an agent of its own in reality: one process that looks at all pods each second would slow
        # down what is measured.
        command = ["agent", f"--simulate={_fleet_file(self.folder)}", f"--kubeconfig={kubeconfig}", "--poll=15"]
        async with self._child("agent", command) as child:
            yield child

    @contextlib.asynccontextmanager
    async def _operator(self) -> AsyncIterator[Child]:
        kubeconfig = await self.cluster.token_for("vrampack", SYSTEM)
        ports = ["--probes-port=0", "--metrics-port=0"]
        async with self._child("operator", ["run", f"--kubeconfig={kubeconfig}", *ports]) as child:
            yield child

    @contextlib.asynccontextmanager
    async def _child(self, name: str, arguments: Sequence[str]) -> AsyncIterator[Child]:
        child = Child(
            name=name,
            command=(*VRAMPACK, *arguments),
            log=self.folder / f"{name}.log",
            group=self.group,
            on_death=_died,
        )
        try:
            yield child
        finally:
            await child.stop(patience=30)


_CHANGES = frozenset({"PATCH", "APPLY", "PUT"})


def _died(child: Child) -> NoReturn:
    note(child.obituary())
    os._exit(1)  # the cluster and the other processes go with this one


def _plain(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same pod for kube-scheduler alone."""
    return {
        "metadata": {"annotations": {"note": template["metadata"]["annotations"][names.NEED], **LOADING}},
        "spec": {key: value for key, value in template["spec"].items() if key != "schedulingGates"},
    }


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _peak_resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kib) * 1024


def _fleet_file(folder: Path) -> Path:
    return folder / "fleet.yaml"


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def measure(size: Size, folder: Path) -> Result:
    """Starts the cluster, runs all of it and stops it."""
    text = json.dumps({"nodes": [{"name": "gpu", "count": size.nodes, "product": "H100-80", "gpus": 8}]})
    _fleet_file(folder).write_text(text, encoding="utf-8")
    nodes = [NodeSpec(**fields) for fields in kwok_nodes(parse_fleet(text))]
    assets = ensure_assets(progress=progress_on(Console(stderr=True)))
    note(f"a cluster of {size.nodes} nodes")
    async with LocalCluster(assets, nodes=nodes) as cluster:
        chart = ("vrampack", str(CHART), f"--namespace={SYSTEM}", "--create-namespace", *SETTINGS)
        await cluster.helm("install", *chart, "--wait")
        admin = await Kube.connect(str(cluster.kubeconfig))
        try:
            for name in ("warm", "plain", "models"):
                body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                await admin.create("/api/v1/namespaces", body)
            for kind, name, spec in (
                ("ModelProfile", "llama-8b", LLAMA_PROFILE),
                ("GPUPool", names.DEFAULT_POOL, {"startup": "Parallel"}),
            ):
                body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
                await admin.create(f"{API}/{kind.lower()}s", body)
            with Guard() as guard:
                return await Bench(cluster=cluster, admin=admin, size=size, group=guard.group, folder=folder).run()
        finally:
            await admin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("--nodes", type=int, default=100, help="each with 8 H100 (default 100)")
    parser.add_argument("--models", type=int, default=20, help="ModelDeployments (default 20)")
    parser.add_argument("--replicas", type=int, default=50, help="replicas of each (default 50)")
    parser.add_argument("--singles", type=int, default=30, help="single replicas afterwards (default 30)")
    parser.add_argument("--logs", type=Path, help="folder for the logs of operator and agent")
    arguments = parser.parse_args()
    size = Size(nodes=arguments.nodes, models=arguments.models, replicas=arguments.replicas, singles=arguments.singles)
    with tempfile.TemporaryDirectory(prefix="vrampack-bench-") as temporary:
        folder = arguments.logs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = asdict(asyncio.run(measure(size, folder)))
    if arguments.output == "json":
        print(json.dumps(result, indent=2))
        return
    print(f"{'':<20}{'measured':>14}  goal")
    phases = result.pop("cpu_seconds")
    for key, value in result.items():
        print(f"{key:<20}{value:>14,}  {GOALS.get(key, '')}".rstrip())
    for phase, used in phases.items():
        print(f"cpu_seconds, {phase}:", ", ".join(f"{name} {seconds}" for name, seconds in used.items()))


if __name__ == "__main__":
    main()
