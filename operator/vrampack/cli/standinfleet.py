"""A fleet file as stand-in drivers: one for each node, on which the real agent reads what kwok's pods seem to use."""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from vrampack.agent.fleet import Fleet, FleetFile, SimulatedGPU, SimulatedNode
from vrampack.agent.pods import PODS_ON_NODES, Pod, decode_pods
from vrampack.agent.products import PRODUCTS
from vrampack.agent.simulated import use_of
from vrampack.errors import ClusterError
from vrampack.kube.client import Kube
from vrampack.localcluster.standin.driver import StandinDriver, build
from vrampack.localcluster.standin.proc import RUNTIMES, HostProc, HostProcess
from vrampack.localcluster.standin.state import GPU, Driver, Event, Process

_POLL_SECONDS: Final = 0.25
_FIRST_PID: Final = 2000
_FOREIGN_PIDS: Final = 900
_LOST: Final = 15  # NVML_ERROR_GPU_IS_LOST
_FELL_OFF: Final = 79


@dataclass(kw_only=True)
class _Host:
    """One node's doubles. ``known``: errors that its driver has told already, by GPU."""

    driver: StandinDriver
    proc: HostProc
    events: list[Event] = field(default_factory=list)
    known: dict[int, int] = field(default_factory=dict)
    shown: Driver | None = None


class StandinFleet:
    """The drivers and process tables of a whole fleet, kept in step with its file and with the pods of the cluster."""

    def __init__(self, *, fleet: Path, folder: Path) -> None:
        """``fleet``: a fleet file. ``folder``: where the doubles live. Raises LocalClusterError without a compiler."""
        self._file = FleetFile(fleet)
        self._folder = folder
        self._library = build(folder)
        self._hosts: dict[str, _Host] = {}
        self._pids: dict[str, int] = {}
        self.use: Callable[[Pod, int], int] = lambda _, held: held
        """What a pod's process holds on each GPU, by what it would hold as a rule."""
        self.place: Callable[[Pod], Sequence[str]] = lambda pod: pod.gpus
        """UUIDs of the GPUs that a pod's processes are on."""
        self.lingering: dict[str, tuple[Pod, int]] = {}
        """Pods, by UID, whose process stays with so many bytes whatever becomes of them."""

    def node_folder(self, name: str) -> Path:
        """Where the doubles of one node are."""
        return self._folder / name

    def environment(self, name: str) -> Mapping[str, str]:
        """What the agent of a node needs to see its doubles."""
        host = self._host(name)
        return {**host.driver.environment, "VRAMPACK_PROC": str(host.proc.folder), "NODE_NAME": name}

    def names(self) -> list[str]:
        """Nodes of the fleet whose agent is not silent."""
        return [node.name for node in self._file.read().expand() if not node.silent]

    async def run(self, kube: Kube) -> None:
        """Shows what there is until it is cancelled. ``kube``: as somebody who may list pods."""
        while True:
            with contextlib.suppress(ClusterError):  # the API server is away: everything stays as it is
                await self.show(kube)
            await asyncio.sleep(_POLL_SECONDS)

    async def show(self, kube: Kube) -> None:
        """Shows what there is now. Raises ClusterError."""
        fleet = self._file.read()
        pods: dict[str, list[Pod]] = defaultdict(list)
        for pod in decode_pods(await kube.list_raw("/api/v1/pods", fieldSelector=PODS_ON_NODES)):
            pods[pod.spec.node_name].append(pod)
        for node in fleet.expand():
            self._show(fleet, node, pods[node.name])

    def _show(self, fleet: Fleet, node: SimulatedNode, pods: Sequence[Pod]) -> None:
        host = self._host(node.name)
        on: dict[str, list[Process]] = defaultdict(list)
        table = []
        now = datetime.now(UTC)
        uses = {pod.metadata.uid: (pod, use_of(pod, loading_seconds=fleet.loading.seconds, now=now)) for pod in pods}
        uses = {uid: (pod, self.use(pod, held)) for uid, (pod, held) in uses.items() if held}
        uses |= {uid: each for uid, each in self.lingering.items() if each[0].spec.node_name == node.name}
        for uid, (pod, held) in sorted(uses.items()):
            pid = self._pids.setdefault(uid, _FIRST_PID + len(self._pids))
            table.append(HostProcess(pid=pid, name="python3", pod_uid=uid))
            for uuid in self.place(pod):
                on[uuid].append(Process(pid=pid, bytes=held))
        for gpu in node.gpus:
            if gpu.foreign:
                table.append(HostProcess(pid=_FOREIGN_PIDS + gpu.index, name="foreign"))
                on[gpu.uuid].append(Process(pid=_FOREIGN_PIDS + gpu.index, bytes=gpu.foreign))
        host.proc.show(table)
        self._errors(host, node)
        driver = Driver(
            version=fleet.driver,
            gpus=[_gpu(node, gpu, on[gpu.uuid]) for gpu in node.gpus],
            events=list(host.events),
        )
        if driver != host.shown:
            host.driver.show(driver)
            host.shown = driver

    def _errors(self, host: _Host, node: SimulatedNode) -> None:
        """A GPU that fails tells its error once."""
        failed = {at: gpu.xid for at, gpu in enumerate(node.gpus) if gpu.xid is not None}
        host.events += [Event(gpu=at, xid=xid) for at, xid in failed.items() if host.known.get(at) != xid]
        host.known = failed

    def _host(self, name: str) -> _Host:
        if name not in self._hosts:
            folder = self.node_folder(name)
            folder.mkdir(parents=True, exist_ok=True)
            runtime = list(RUNTIMES)[len(self._hosts) % len(RUNTIMES)]
            self._hosts[name] = _Host(
                driver=StandinDriver(library=self._library, state=folder / "driver"),
                proc=HostProc(folder / "proc", runtime=runtime, booted=int(time.time())),
            )
        return self._hosts[name]


def _gpu(node: SimulatedNode, gpu: SimulatedGPU, processes: list[Process]) -> GPU:
    short = next(short for short, product in PRODUCTS.items() if product is node.product)
    linked = short.startswith(("A100", "H100", "H200", "B200"))
    return GPU(
        product=short,
        uuid=gpu.uuid,
        usable=gpu.usable,
        processes=processes,
        numa=gpu.index * 2 // max(1, node.devices),
        nvlink=[at for at in range(len(node.gpus)) if linked and node.gpus[at] is not gpu],
        error=_LOST if gpu.xid == _FELL_OFF else None,
    )
