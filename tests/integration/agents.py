"""Real agents, one process for each node, over stand-in drivers: what the simulated agent is replaced by."""

import asyncio
import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.claims import RELEASE
from tests.integration.machinery import Machinery, Process
from tests.unit.kubelet_double import KubeletDouble
from vrampack.cli.standinfleet import StandinFleet


@dataclass(kw_only=True)
class AgentMachinery(Machinery):
    """Each node of the fleet has an agent of its own, which signs in as a pod on that node does."""

    agents: dict[str, Process] = field(default_factory=dict)
    kubelets: dict[str, KubeletDouble] = field(default_factory=dict)
    drivers: StandinFleet | None = None
    flags: tuple[str, ...] = ()
    """More of the agents' command line."""
    _showing: asyncio.Task[None] | None = None

    async def start_agent(self) -> None:
        """The drivers; the agents come with the nodes."""
        if self.drivers is None:
            self.drivers = StandinFleet(fleet=self.fleet_file, folder=self.folder / "hosts")
            self._showing = asyncio.create_task(self.drivers.run(self.kube))

    async def tend(self, nodes: Sequence[str]) -> None:
        for node in nodes:
            await self.start_node_agent(node)

    async def start_node_agent(self, node: str) -> Process:
        assert self.drivers is not None
        kubeconfig = await self.cluster.token_for("vrampack-agent", RELEASE, node=node)
        flags = (
            f"--kubeconfig={kubeconfig}",
            f"--namespace={RELEASE}",
            "--poll=0.5",
            "--metrics-port=0",
            "--lease-seconds=6",
            *self.flags,
        )
        if node not in self.kubelets:
            # Under /tmp: the path of a socket may have 107 characters.
            self.kubelets[node] = KubeletDouble(Path(tempfile.mkdtemp(prefix="kubelet")) / "kubelet.sock")
            self.kubelets[node].start()
        environment = {**self.drivers.environment(node), "VRAMPACK_POD_RESOURCES": str(self.kubelets[node].socket)}
        process = self._start(f"agent-{node}", "agent", *flags, environment=environment)
        self.agents[node] = process
        return process

    def agent_logs(self) -> Mapping[str, str]:
        return {node: process.log.read_text(errors="replace")[-2000:] for node, process in self.agents.items()}

    async def end_agents(self) -> None:
        """Of the nodes of a world that is over."""
        await asyncio.gather(*(process.stop() for process in self.agents.values()))
        for kubelet in self.kubelets.values():
            kubelet.stop()
            kubelet.socket.parent.rmdir()
        self.agents.clear()
        self.kubelets.clear()

    def check_alive(self) -> None:
        for process in self.agents.values():
            if process.died:
                process.died = False
                raise RuntimeError(process.child.obituary())
        if self._showing is not None and self._showing.done():
            self._showing.result()
        super().check_alive()

    async def stop(self) -> None:
        if self._showing is not None:
            self._showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._showing
        await self.end_agents()
        await super().stop()


def gpu_of(node: dict[str, Any], index: int = 0) -> dict[str, Any]:
    """One GPU of a GPUNode's status; empty where it is not there."""
    found = [each for each in node.get("status", {}).get("gpus", ()) if each.get("index") == index]
    return found[0] if found else {}
