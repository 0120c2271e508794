"""``vrampack agent``: what reports the GPUs of a node, or of a whole fleet that exists only on paper."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrampack.cli.logs import LogFormat, LogLevel, configure
from vrampack.errors import InvalidInputError, VrampackError

if TYPE_CHECKING:
    from aiohttp.web import AppRunner

    from vrampack.agent.node import NodeAgent
    from vrampack.kube.client import Kube

Simulate = Annotated[
    Path | None,
    typer.Option(
        metavar="FLEET.yaml",
        help="Report the nodes of this file, for nodes without GPUs. An edit of the file takes effect at once.",
    ),
]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="How to reach the cluster. Without it: in-cluster credentials, or as kubectl does.")
]
Namespace = Annotated[str, typer.Option(help="Where the operator runs: the Leases of the agents are there.")]
Poll = Annotated[float, typer.Option(help="Seconds between two looks at GPUs, or at pods and file.", min=0.1, max=60)]
Node = Annotated[str, typer.Option(envvar="NODE_NAME", help="The Node whose GPUs are reported.")]
Proc = Annotated[
    Path, typer.Option(envvar="VRAMPACK_PROC", help="The host's /proc: NVML names processes by the host's ids.")
]
PodResourcesSocket = Annotated[
    Path, typer.Option(envvar="VRAMPACK_POD_RESOURCES", help="The kubelet's socket for what it has handed out.")
]
StartPort = Annotated[
    int, typer.Option(help="Where engines of this node ask whose turn it is to start; 0: nowhere.", min=0, max=65535)
]
LeaseSeconds = Annotated[
    int, typer.Option(help="An agent that has not renewed its Lease for so long counts as gone.", min=3, max=600)
]
MpsFolder = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Run an MPS server for each GPU, with its pipes in a folder of its own here."),
]
LimitsFolder = Annotated[
    Path | None,
    typer.Option(
        "--memory-limits",
        metavar="FOLDER",
        help="Have the driver (615 or newer) keep each pod to its claim. The host's control groups are in this folder.",
    ),
]
MetricsPort = Annotated[int, typer.Option(help="/metrics of a real agent; 0: none.", min=0, max=65535)]


def agent(
    simulate: Simulate = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = "vrampack-system",
    poll: Poll = 1.0,
    node: Node = "",
    proc: Proc = Path("/proc"),
    pod_resources: PodResourcesSocket = Path("/var/lib/kubelet/pod-resources/kubelet.sock"),
    metrics_port: MetricsPort = 9469,
    lease_seconds: LeaseSeconds = 60,
    start_port: StartPort = 0,
    mps_folder: MpsFolder = None,
    memory_limits: LimitsFolder = None,
) -> None:
    """Report the GPUs of this node, and what uses them, to the operator."""
    if simulate is None and not node:
        raise typer.BadParameter("which Node is this? Give --node NAME, or set NODE_NAME", param_hint="--node")
    configure(level=LogLevel.INFO, form=LogFormat.TEXT)
    if simulate is None:
        check_installed()
        asyncio.run(
            _agent(
                node,
                kubeconfig=kubeconfig,
                namespace=namespace,
                poll=poll,
                proc=proc,
                pod_resources=pod_resources,
                metrics_port=metrics_port,
                start_port=start_port,
                mps_folder=mps_folder,
                memory_limits=memory_limits,
                lease_seconds=lease_seconds,
            )
        )
        return
    from vrampack.agent.fleet import FleetFile

    try:
        FleetFile(simulate).read()
    except (InvalidInputError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--simulate") from error
    asyncio.run(_simulate(simulate, kubeconfig=kubeconfig, namespace=namespace, poll=poll))


def check_installed() -> None:
    """Raises VrampackError where the extra ``agent``, which only real agents need, is missing."""
    missing = [name for name in ("pynvml", "grpclib") if find_spec(name) is None]
    if missing:
        raise VrampackError(f"not installed: {', '.join(missing)}; run: pip install 'vrampack[agent]'")


async def _agent(
    node: str,
    *,
    kubeconfig: Path | None,
    namespace: str,
    poll: float,
    proc: Path,
    pod_resources: Path,
    metrics_port: int,
    start_port: int,
    mps_folder: Path | None,
    memory_limits: Path | None,
    lease_seconds: int,
) -> None:
    from vrampack.agent.driver import Driver
    from vrampack.agent.engines import EngineReports
    from vrampack.agent.kubelet import Kubelet
    from vrampack.agent.memorylimits import MemoryLimits
    from vrampack.agent.metrics import AgentMetrics, serve
    from vrampack.agent.mps import Attachments, MpsServers
    from vrampack.agent.node import AgentSettings, NodeAgent
    from vrampack.agent.nvml import NVML
    from vrampack.agent.podresources import PodResources
    from vrampack.agent.processes import ProcessTable
    from vrampack.agent.report import LeaseTerms

    metrics = AgentMetrics(node=node)
    limits = MemoryLimits(folder=memory_limits) if memory_limits is not None else None
    lease = LeaseTerms(renew=lease_seconds / 3, duration=lease_seconds)
    stop_serving = serve(metrics, port=metrics_port) if metrics_port else None
    async with _connected(kubeconfig) as kube:
        agent = NodeAgent(
            kube=kube,
            settings=AgentSettings(node=node, namespace=namespace, poll=poll, lease=lease),
            driver=Driver(NVML(), limits=limits),
            processes=ProcessTable(proc=proc),
            kubelet=Kubelet(
                resources=PodResources(pod_resources),
                kube=kube,
                node=node,
                namespace=namespace,
                clock=time.monotonic,
            ),
            metrics=metrics,
            engines=EngineReports(),
            limits=limits,
            mps=Attachments(servers=MpsServers(folder=mps_folder)) if mps_folder is not None else None,
        )
        gate = await _gate(agent, start_port) if start_port else None
        try:
            await agent.run(_stopped_by_signals())
        finally:
            if stop_serving is not None:
                stop_serving()
            if gate is not None:
                await gate.cleanup()


async def _gate(agent: "NodeAgent", port: int) -> "AppRunner":
    from aiohttp.web import AppRunner, TCPSite

    from vrampack.agent.startgate import StartGate, application, tenants_of

    runner = AppRunner(application(StartGate(), tenants=lambda: tenants_of(agent.pods), clock=time.time))
    await runner.setup()
    await TCPSite(runner, port=port).start()
    return runner


async def _simulate(fleet: Path, *, kubeconfig: Path | None, namespace: str, poll: float) -> None:
    from vrampack.agent.simulated import SimulationSettings, run_simulated

    async with _connected(kubeconfig) as kube:
        settings = SimulationSettings(poll=poll)
        await run_simulated(
            kube=kube, fleet_path=fleet, namespace=namespace, settings=settings, stop=_stopped_by_signals()
        )


@contextlib.asynccontextmanager
async def _connected(kubeconfig: Path | None) -> "AsyncIterator[Kube]":
    from vrampack.kube.client import Kube

    kube = await Kube.connect(None if kubeconfig is None else str(kubeconfig))
    try:
        yield kube
    finally:
        await kube.close()


def _stopped_by_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
