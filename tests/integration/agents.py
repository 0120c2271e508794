"""Real agents, one process for each node, over stand-in drivers: what the simulated agent is replaced by."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.integration.claims import RELEASE
from tests.integration.machinery import Machinery, Process
from vrampack.cli.standinfleet import StandinFleet


@dataclass(kw_only=True)
class AgentMachinery(Machinery):
    """Each node of the fleet has an agent of its own, which signs in as a pod on that node does."""

    agents: dict[str, Process] = field(default_factory=dict)
    drivers: StandinFleet | None = None
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
        )
        process = self._start(f"agent-{node}", "agent", *flags, environment=self.drivers.environment(node))
        self.agents[node] = process
        return process

    async def end_agents(self) -> None:
        """Of the nodes of a world that is over."""
        await asyncio.gather(*(process.stop() for process in self.agents.values()))
        self.agents.clear()

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
