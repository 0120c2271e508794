"""The simulated agent: what the agents of a whole fleet would report, for nodes that have no GPU.

It reads the fleet file and the pods, works out what a driver would show, and reports through the same code as the
real agent. Nothing in it is random: the same pods on the same fleet use the same bytes.
"""

import asyncio
import hashlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from vrampack.agent.complaint import Complaint
from vrampack.agent.fleet import Fleet, FleetFile, SimulatedNode
from vrampack.agent.pods import PODS_ON_NODES, Pod, decode_nodes, decode_pods, free_for_vrampack
from vrampack.agent.reading import ForeignUse, GPUReading, NodeReading, PodUse
from vrampack.agent.report import Applier, LeaseTerms, Reporter
from vrampack.errors import ClusterError
from vrampack.kube.wire import Node

_log = logging.getLogger(__name__)
_STEPS: Final = 4
"""Use of a pod that loads grows in this many steps: each is a write for its node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """``poll``: seconds between two looks at pods and file. ``concurrency``: nodes that are reported at once."""

    poll: float = 1.0
    concurrency: int = 32
    lease: LeaseTerms = field(default_factory=LeaseTerms)


class Cluster(Applier, Protocol):
    """The part of the API server's client that the simulated agent uses."""

    async def list_raw(self, path: str, **query: str) -> bytes:
        """A whole list as the API server sent it."""


async def run_simulated(
    *, kube: Cluster, fleet_path: Path, namespace: str, settings: SimulationSettings, stop: asyncio.Event
) -> None:
    """Reports the nodes of a fleet file until ``stop`` is set.

    ``namespace``: where the Leases are. A node of the file that the cluster does not have is waited for, an API server
    that is away is waited out. Raises InvalidInputError or OSError when the file is no good at the start.
    """
    file = FleetFile(fleet_path)
    file.read()
    work = asyncio.create_task(_Simulation(kube=kube, file=file, namespace=namespace, settings=settings).run())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    # Every write can be repeated, so stopping in the middle of one is safe.
    for task in (work, stopped):
        task.cancel()
    await asyncio.wait({work, stopped})
    if not work.cancelled():
        work.result()


def read_node(*, fleet: Fleet, simulated: SimulatedNode, node: Node, pods: Sequence[Pod], now: datetime) -> NodeReading:
    """What a driver would show on a node that these pods are on."""
    cpu, memory, slots = free_for_vrampack(node, pods)
    use: dict[str, list[PodUse]] = defaultdict(list)
    for pod in sorted(pods, key=lambda pod: pod.metadata.uid):
        held = use_of(pod, loading_seconds=fleet.loading.seconds, now=now)
        for uuid in pod.gpus if held else ():
            use[uuid].append(PodUse(uid=pod.metadata.uid, bytes=held))
    return NodeReading(
        driver=fleet.driver,
        cuda=fleet.cuda,
        injection_style=simulated.injection_style,
        gpus=tuple(
            GPUReading(
                uuid=gpu.uuid,
                index=gpu.index,
                product=simulated.product.label,
                memory=gpu.usable,
                reserved=simulated.product.reserved,
                processes=tuple(use[gpu.uuid]),
                foreign=(ForeignUse(name="foreign", bytes=gpu.foreign),) if gpu.foreign else (),
                xid=gpu.xid,
            )
            for gpu in simulated.gpus
        ),
        cpu=cpu,
        memory=memory,
        pods=slots,
    )


def use_of(pod: Pod, *, loading_seconds: float, now: datetime) -> int:
    """Bytes that a pod uses on each of its GPUs: it fills its share while it loads, then holds 95 to 97 % of it:
    the default headroom is left.

    A pod that vrampack did not place may carry any annotation: nothing was given to it. And where another scheduler
    chose the GPUs, nobody here knows which.
    """
    if not (pod.managed and pod.running) or pod.on_node:
        return 0
    full = int(pod.claim * _fraction(pod.metadata.uid, low=0.95, high=0.97))
    started = pod.status.start_time
    if pod.ready or started is None or loading_seconds == 0:
        return full
    step = 1 + int((now - started).total_seconds() / loading_seconds * _STEPS)
    return full * min(max(step, 1), _STEPS) // _STEPS


def _fraction(name: str, *, low: float, high: float) -> float:
    """A number between the two that only the name decides."""
    return low + (high - low) * int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32


class _Agent:
    """The agent of one node: when it last showed that it is alive, and what keeps it from doing so."""

    def __init__(self, *, reporter: Reporter, renew: float) -> None:
        self.reporter = reporter
        self._renew = renew
        self._due: float | None = None
        self._complaint = Complaint(_log)

    async def step(self, reading: NodeReading) -> None:
        now = asyncio.get_running_loop().time()
        try:
            if self._due is None or now >= self._due:
                await self.reporter.renew()
                # The agents of a fleet start together; they need not renew together ever after.
                self._due = now + self._renew * (
                    _fraction(self.reporter.node, low=0.5, high=1.0) if self._due is None else 1
                )
            await self.reporter.report(reading)
        except ClusterError as error:
            self._complaint.say(f"node {self.reporter.node}: {error}")
        else:
            self._complaint.over()


class _Simulation:
    """All agents of a fleet, one look at the cluster for all of them."""

    def __init__(self, *, kube: Cluster, file: FleetFile, namespace: str, settings: SimulationSettings) -> None:
        self._kube = kube
        self._file = file
        self._namespace = namespace
        self._settings = settings
        self._limit = asyncio.Semaphore(settings.concurrency)
        self._agents: dict[str, _Agent] = {}
        self._complaint = Complaint(_log)

    async def run(self) -> None:
        while True:
            try:
                await self._pass()
            except ClusterError as error:
                self._complaint.say(f"the cluster can't be read: {error}")
            else:
                self._complaint.over()
            await asyncio.sleep(self._settings.poll)

    async def _pass(self) -> None:
        fleet = self._file.read()
        raw_nodes, raw_pods = await asyncio.gather(
            self._kube.list_raw("/api/v1/nodes"),
            self._kube.list_raw("/api/v1/pods", fieldSelector=PODS_ON_NODES),
        )
        nodes = {node.metadata.name: node for node in decode_nodes(raw_nodes)}
        pods: dict[str, list[Pod]] = defaultdict(list)
        for pod in decode_pods(raw_pods):
            pods[pod.spec.node_name].append(pod)
        now = datetime.now(UTC)
        steps = []
        agents = {}
        for simulated in fleet.expand():
            node = nodes.get(simulated.name)
            if node is None or simulated.silent:
                continue  # and whoever comes back starts afresh
            agent = agents[simulated.name] = self._agent(node)
            reading = read_node(fleet=fleet, simulated=simulated, node=node, pods=pods[simulated.name], now=now)
            steps.append(self._bounded(agent.step(reading)))
        self._agents = agents
        await asyncio.gather(*steps)

    def _agent(self, node: Node) -> _Agent:
        """The agent of this very Node: one of an earlier Node of the same name is no use."""
        name, uid = node.metadata.name, node.metadata.uid
        known = self._agents.get(name)
        if known is not None and known.reporter.node_uid == uid:
            return known
        terms = self._settings.lease
        reporter = Reporter(kube=self._kube, node=name, node_uid=uid, namespace=self._namespace, terms=terms)
        return _Agent(reporter=reporter, renew=terms.renew)

    async def _bounded(self, step: Awaitable[None]) -> None:
        async with self._limit:
            await step
