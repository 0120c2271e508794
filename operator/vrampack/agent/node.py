"""The agent of one node: looks at its driver, its processes, its kubelet and its pods, and reports what it sees."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

from vrampack.agent.attribution import People, gpu_reading
from vrampack.agent.complaint import Complaint
from vrampack.agent.driver import Driver, Sight
from vrampack.agent.engines import EngineReports
from vrampack.agent.health import Errors, standing_errors
from vrampack.agent.kubelet import Kubelet
from vrampack.agent.memorylimits import MemoryLimits
from vrampack.agent.metrics import AgentMetrics
from vrampack.agent.mps import Attachments
from vrampack.agent.nodewatch import NodeWatch, Reader
from vrampack.agent.pods import Pod, free_for_vrampack, toolkit_of
from vrampack.agent.processes import ProcessTable
from vrampack.agent.reading import GPUReading, NodeReading, Silence
from vrampack.agent.report import Applier, LeaseTerms, Reporter
from vrampack.agent.tenants import Tenants
from vrampack.agent.writer import worth_writing
from vrampack.errors import ClusterError, StaleLibraryError

_log = logging.getLogger(__name__)

_HANGS: Final = Silence(reason="DriverHangs", message="the NVIDIA driver does not answer in time; it is waited for")


class Cluster(Applier, Reader, Protocol):
    """The part of the API server's client that the agent uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """``poll``: seconds between two looks at the driver. ``patience``: seconds until one that does not end hangs."""

    node: str
    namespace: str
    poll: float = 1.0
    patience: float = 10.0
    lease: LeaseTerms = field(default_factory=LeaseTerms)


class NodeAgent:
    """One pass looks and reports; the Lease is renewed by itself, and only while looks succeed."""

    def __init__(
        self,
        *,
        kube: Cluster,
        settings: AgentSettings,
        driver: Driver,
        processes: ProcessTable,
        kubelet: Kubelet | None = None,
        metrics: AgentMetrics | None = None,
        mps: Attachments | None = None,
        engines: EngineReports | None = None,
        limits: MemoryLimits | None = None,
    ) -> None:
        """``limits``: the ones that the driver keeps."""
        self._limits = limits
        self._engines = engines
        self._mps = mps
        self._kube = kube
        self._settings = settings
        self._driver = driver
        self._processes = processes
        self._kubelet = kubelet
        self._metrics = metrics
        self._watch = NodeWatch(kube, node=settings.node)
        self._errors = Errors()
        self._tenants = Tenants()
        self._reporter: Reporter | None = None
        self._renew_at = 0.0
        self._opened = False
        self._sight = Sight()
        self._looking: asyncio.Future[Sight] | None = None
        self._complaint = Complaint(_log)

    @property
    def pods(self) -> Sequence[Pod]:
        """The pods of the node, as they were last read."""
        return self._watch.pods

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. Raises StaleLibraryError where only a new container can reach the driver."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="driver") as thread:
            watching = asyncio.create_task(self._watch.run())
            try:
                while not stop.is_set():
                    await self._pass_safely(thread)
                    if watching.done():
                        watching.result()  # it ends only by a mistake of ours
                    if self._metrics is not None:
                        self._metrics.passed()
                    await _pause(stop, self._settings.poll)
            finally:
                watching.cancel()
                await asyncio.wait({watching})
                if self._mps is not None:
                    await self._mps.servers.close()
                if self._engines is not None:
                    await self._engines.close()
                if self._kubelet is not None:
                    self._kubelet.close()
                thread.submit(self._driver.close)

    async def _pass_safely(self, thread: ThreadPoolExecutor) -> None:
        """One object that nobody expected must not end the reports of all others."""
        try:
            await self._pass(thread)
        except StaleLibraryError:
            raise
        except Exception:
            _log.exception("a pass failed; the next one starts afresh")

    async def _pass(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        sight = await self._look(thread)
        if not self._watch.complete or self._watch.node is None:
            return  # a node that the API server does not have can't be reported
        try:
            reporter = await self._introduced()
            reading = await self._read(sight, now=loop.time())
            if self._metrics is not None:
                self._metrics.show(reading, self._errors, self._claims())
            await self._report(reporter, reading, now=loop.time())
        except ClusterError as error:
            self._complaint.say(f"the API server can't be told: {error}")
        else:
            self._complaint.over()

    async def _look(self, thread: ThreadPoolExecutor) -> Sight:
        """What the driver shows; or, where it hangs, what it showed last."""
        loop = asyncio.get_running_loop()
        if self._looking is None:
            look: Callable[[], Sight] = lambda: self._driver.see(now=loop.time(), release=self._watch.release)  # noqa: E731
            self._looking = loop.run_in_executor(thread, look)
        await asyncio.wait({self._looking}, timeout=self._settings.patience)
        if not self._looking.done():
            return Sight(devices=self._sight.devices, versions=self._sight.versions, silence=_HANGS)
        self._sight = self._looking.result()
        self._looking = None
        return self._sight

    async def _read(self, sight: Sight, *, now: float) -> NodeReading:
        node, pods = self._watch.node, self._watch.pods
        assert node is not None
        if sight.fresh and self._opened:
            self._errors.forget()
        self._opened |= sight.fresh
        self._errors.note(sight.xids, (device.identity.uuid for device in sight.devices))
        pids = {process.pid for device in sight.devices for process in device.processes}
        owners = self._processes.owners(pids)
        self._tenants.update(pods, seen={owner.pod_uid for owner in owners.values()}, now=now)
        people = People(owners=owners, pods={pod.cgroup_uid: pod for pod in pods}, ours=self._tenants.names)
        held = None
        if self._kubelet is not None:
            held = await self._kubelet.held(devices=sight.devices, pods=people.pods, node=node)
        gpus = self._tenants.remembered(
            [
                gpu_reading(
                    device,
                    people=people,
                    verdict=self._errors.verdict(device),
                    offered=None if held is None else device.identity.uuid in held.offered,
                    allocations=None
                    if held is None or held.trouble
                    else held.allocations.get(device.identity.uuid, ()),
                )
                for device in sight.devices
            ]
        )
        if self._engines is not None:
            self._engines.look(pods)
            gpus = self._engines.told(gpus)
        if self._limits is not None:
            self._limits.wanted = {(use.uid, gpu.uuid): use.claim for gpu in gpus for use in gpu.processes if use.claim}
        cpu, memory, slots = free_for_vrampack(node, pods)
        return NodeReading(
            driver=sight.versions.driver,
            cuda=sight.versions.cuda,
            injection_style=None,
            gpus=gpus,
            cpu=cpu,
            memory=memory,
            pods=slots,
            container_runtime=node.status.node_info.container_runtime_version or None,
            container_toolkit=toolkit_of(pods),
            boot_id=node.status.node_info.boot_id or None,
            silence=sight.silence,
            kubelet="" if held is None else held.trouble,
            unattached=None if self._mps is None else await self._mps.look(gpus, self._limited(), now=now),
            unlimited=self._unlimited(sight, gpus),
            stuck=self._tenants.stuck(gpus, now=now),
            mismatches=self._tenants.mismatches(pods, gpus, sighted=sight.silence is None, now=now),
        )

    def _limited(self) -> dict[str, str]:
        """Pods that an MPS server is to keep to their bytes."""
        return {pod.metadata.uid: pod.name for pod in self._watch.pods if pod.limited_by_mps}

    def _unlimited(self, sight: Sight, gpus: Sequence[GPUReading]) -> tuple[str, ...] | None:
        """Pods without the limit that they are to have."""
        if sight.unlimited is None:
            return None
        index = {gpu.uuid: gpu.index for gpu in gpus}
        return tuple(
            f"pod {self._tenants.names.get(uid, uid)} on GPU {index.get(uuid, uuid)} ({why})"
            for (uid, uuid), why in sorted(sight.unlimited.items())
        )

    def _claims(self) -> dict[str, tuple[str, int]]:
        """Who claims how much on each of its GPUs; of pods that are gone only the names are known."""
        claims = {pod.metadata.uid: pod.claim for pod in self._watch.pods}
        return {uid: (name, claims.get(uid, 0)) for uid, name in self._tenants.names.items()}

    async def _report(self, reporter: Reporter, reading: NodeReading, *, now: float) -> None:
        if now >= self._renew_at:
            await reporter.renew(there=self._watch.reported and reporter.wrote(self._watch.observed_at))
            self._renew_at = now + self._settings.lease.renew
        await reporter.report(reading)

    async def _introduced(self) -> Reporter:
        """The reporter for this very Node; its first act is to learn what the agent before this one knew."""
        node = self._watch.node
        assert node is not None
        if self._reporter is not None and self._reporter.node_uid == node.metadata.uid:
            return self._reporter
        reporter = Reporter(
            kube=self._kube,
            node=self._settings.node,
            node_uid=node.metadata.uid,
            namespace=self._settings.namespace,
            terms=self._settings.lease,
            worth=worth_writing,
        )
        former = await reporter.adopt()
        booted = self._processes.booted_at()
        self._errors.adopt(standing_errors(former, booted=booted))
        self._tenants.adopt(former)
        self._reporter, self._renew_at = reporter, 0.0
        return reporter


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
