"""The demo's world: a control plane, a simulated fleet, a model hub on this machine, the agent and the operator."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeVar

from vrampack.agent.fleet import kwok_nodes, parse_fleet
from vrampack.cli.agent import check_installed
from vrampack.cli.standinfleet import StandinFleet
from vrampack.errors import LocalClusterError
from vrampack.kube.client import Kube
from vrampack.localcluster import bundle
from vrampack.localcluster.assets import Assets
from vrampack.localcluster.cluster import LocalCluster
from vrampack.localcluster.hubdouble import HubDouble
from vrampack.localcluster.nodes import NodeSpec
from vrampack.localcluster.ports import free_ports
from vrampack.localcluster.process import Child, Guard

T = TypeVar("T")

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

NAMESPACE: Final = "vrampack-system"
_PATIENCE_SECONDS: Final = 5.0  # the operator gives its Lease back


@dataclass(kw_only=True)
class World:
    """What runs. ``fleet`` is a copy of the example that may be edited."""

    cluster: LocalCluster
    kube: Kube
    """As admin."""
    fleet: Path
    metrics_port: int
    drivers: asyncio.Task[None] | None = None
    """What keeps the stand-in drivers in step with the cluster."""
    children: list[Child] = field(default_factory=list)
    death: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def operator_log(self) -> Path:
        return self.cluster.folder / "run.log"

    async def supervise(self) -> NoReturn:
        """Waits until a process dies by itself, and raises LocalClusterError with its last log lines."""
        await self.death.wait()
        if self.drivers is not None and self.drivers.done():
            self.drivers.result()
        raise LocalClusterError("\n".join(child.obituary() for child in self.children if not child.running))

    async def unless_dead(self, work: Coroutine[Any, Any, T]) -> T:
        """Does ``work``, but raises LocalClusterError as soon as any process of this world dies."""
        tasks = [asyncio.ensure_future(part) for part in (work, self.supervise(), self.cluster.supervise())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return await next(task for task in reversed(tasks) if task in done)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def demo_world(assets: Assets, *, agents: bool = False, say: Callable[[str], None]) -> AsyncIterator[World]:
    """Starts it all; leaving the context ends it all, and so does the death of this process, however it dies.

    ``agents``: a real agent for each node over a stand-in driver, instead of a simulated one for all; that needs a C
    compiler. ``say`` hears of each step as it is finished. Raises LocalClusterError, ClusterError.
    """
    _keep_proxies_out_of_the_way()
    example = bundle.examples() / "fleet" / "fleet.yaml"
    nodes = [NodeSpec(**fields) for fields in kwok_nodes(parse_fleet(example.read_text(encoding="utf-8")))]
    async with (
        LocalCluster(assets, nodes=nodes) as cluster,
        HubDouble(open_terms=True) as hub,
    ):
        say(f"a Kubernetes control plane with {len(nodes)} simulated nodes")
        absent = "operator.replicas=0,agent.enabled=false"  # they are processes here
        settings = ("--namespace", NAMESPACE, "--create-namespace", "--set", absent, "--wait")
        bound = f"agent.bindToNode={str(agents).lower()}"  # a simulated agent stands for many nodes
        await cluster.helm("install", "vrampack", str(bundle.chart()), *settings, "--set", bound)
        say("the chart, installed by helm: resource kinds, roles, admission policies")
        kube = await Kube.connect(str(cluster.kubeconfig))
        metrics_port, probes_port = free_ports(2)
        world = World(cluster=cluster, kube=kube, fleet=cluster.folder / "fleet.yaml", metrics_port=metrics_port)
        shutil.copyfile(example, world.fleet)
        with Guard() as guard:
            try:
                if agents:
                    await _start_agents(world, guard)
                else:
                    agent = await cluster.token_for("vrampack-agent", NAMESPACE)
                    _start(world, guard, "agent", f"--simulate={world.fleet}", f"--kubeconfig={agent}")
                operator = await cluster.token_for("vrampack", NAMESPACE)
                ports = (f"--probes-port={probes_port}", f"--metrics-port={metrics_port}")
                _start(world, guard, "run", f"--kubeconfig={operator}", f"--hub-endpoint={hub.url}", *ports)
                who = f"{len(nodes)} agents over stand-in drivers" if agents else "the simulated agent"
                say(f"the operator and {who}, signed in as the chart's ServiceAccounts")
                yield world
            finally:
                if world.drivers is not None:
                    world.drivers.cancel()
                await kube.close()
                await asyncio.gather(*(child.stop(patience=_PATIENCE_SECONDS) for child in world.children))


async def _start_agents(world: World, guard: Guard) -> None:
    """A stand-in driver and an agent for each node; its token names the node, as that of a pod there does."""
    check_installed()
    fleet = StandinFleet(fleet=world.fleet, folder=world.cluster.folder / "hosts")
    await fleet.show(world.kube)
    world.drivers = asyncio.create_task(fleet.run(world.kube))
    world.drivers.add_done_callback(lambda _: world.death.set())
    for node in fleet.names():
        token = await world.cluster.token_for("vrampack-agent", NAMESPACE, node=node)
        environment = fleet.environment(node)
        flags = (f"--kubeconfig={token}", "--metrics-port=0")
        _start(world, guard, "agent", *flags, log=f"agent-{node}", environment=environment)


def _start(
    world: World, guard: Guard, command: str, *arguments: str, log: str = "", environment: Mapping[str, str] = _NOTHING
) -> None:
    variables = ["env", *(f"{key}={value}" for key, value in environment.items())] if environment else []
    world.children.append(
        Child(
            name=f"vrampack {command}",
            command=[*variables, sys.executable, "-m", "vrampack", command, *arguments, f"--namespace={NAMESPACE}"],
            log=world.cluster.folder / f"{log or command}.log",
            group=guard.group,
            on_death=lambda _: world.death.set(),
        )
    )


def _keep_proxies_out_of_the_way() -> None:
    """All that the demo talks to is on this machine, where a proxy of the environment can't reach it."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))
