"""What outlives a test of the operator: the cluster with the chart, the model hub, the agent and the operators.

Operators and agent are child processes that sign in as the chart's ServiceAccounts. They live as long as no test ends
them, and never longer than this process.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import yaml

from tests.integration.claims import RELEASE
from tests.integration.manifests import Manifest
from vrampack.api import names
from vrampack.errors import NotFoundError, UnavailableError
from vrampack.kube.client import Kube
from vrampack.localcluster.cluster import LocalCluster
from vrampack.localcluster.hubdouble import HubDouble
from vrampack.localcluster.ports import free_ports
from vrampack.localcluster.process import Child, Guard

LEADER = f"/apis/coordination.k8s.io/v1/namespaces/{RELEASE}/leases/{names.LEADER_LEASE}"
TOKEN_NAMESPACE = "tokens"
PROGRAM = ("-m", "vrampack")
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.1
LEASE_SECONDS = 6  # a leader gives up after two thirds of it: an API server on a loaded machine takes its time

Found = TypeVar("Found")


async def eventually(check: Callable[[], Awaitable[Found]], *, within: float = PATIENCE_SECONDS) -> Found:
    """What ``check`` returns, as soon as no assertion in it fails and what it asks for is there."""
    deadline = time.monotonic() + within
    while True:
        try:
            return await check()
        except (AssertionError, NotFoundError, UnavailableError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(POLL_SECONDS)


@dataclass(kw_only=True)
class Process:
    """A child process with a log of its own; ``died`` says whether it ended without being asked to."""

    child: Child
    identity: str
    probes: str = ""
    died: bool = False
    expected: bool = False

    @property
    def running(self) -> bool:
        return self.child.running

    @property
    def log(self) -> Path:
        return self.child.log

    async def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.expected = True
        self.child.signal(signal.SIGKILL)
        await eventually(self._ended)

    async def stop(self) -> None:
        self.expected = True
        await self.child.stop(patience=10)

    def pause(self) -> None:
        self.child.pause()

    def resume(self) -> None:
        self.child.signal(signal.SIGCONT)

    async def _ended(self) -> None:
        assert not self.running


@dataclass(kw_only=True)
class Machinery:
    """What outlives a test: the cluster with the chart, the hub, the agent, and an operator."""

    name: str
    cluster: LocalCluster
    kube: Kube
    hub: HubDouble
    folder: Path
    guard: Guard
    operator_kubeconfig: Path
    agent_kubeconfig: Path
    operators: list[Process] = field(default_factory=list)
    agent: Process | None = None
    worlds: int = 0

    @property
    def fleet_file(self) -> Path:
        return self.folder / "fleet.yaml"

    def write_fleet(self, fleet: Manifest) -> None:
        draft = self.fleet_file.with_suffix(".draft")
        draft.write_text(yaml.safe_dump(fleet))
        draft.replace(self.fleet_file)

    async def start_agent(self) -> None:
        if self.agent is None or not self.agent.running:
            flags = (f"--simulate={self.fleet_file}", f"--kubeconfig={self.agent_kubeconfig}", "--poll=0.2")
            self.agent = self._start("agent", "agent", *flags, f"--namespace={RELEASE}")

    def agent_logs(self) -> Mapping[str, str]:
        """The end of what each agent said, by its name."""
        return {} if self.agent is None else {"the agent": self.agent.log.read_text(errors="replace")[-2000:]}

    async def tend(self, nodes: Sequence[str]) -> None:
        """New nodes are there. The one simulated agent sees them in its file."""

    def start_operator(self, *flags: str, program: tuple[str, ...] = PROGRAM) -> Process:
        """One more operator; it leads once nobody else does. ``program``: what Python runs, for another version."""
        (port,) = free_ports(1)
        identity = f"{self.name}-{len(self.operators)}"
        process = self._start(
            identity,
            "run",
            f"--kubeconfig={self.operator_kubeconfig}",
            f"--namespace={RELEASE}",
            f"--identity={identity}",
            f"--hub-token-namespaces={TOKEN_NAMESPACE}",
            f"--lease-seconds={LEASE_SECONDS}",
            "--refusal-seconds=3",
            "--model-check-seconds=2",
            "--deletion-interval-seconds=3",
            "--toleration-seconds=5",
            f"--probes-port={port}",
            "--metrics-port=0",
            "--log-format=text",
            *flags,
            program=program,
        )
        process.probes = f"http://127.0.0.1:{port}"
        self.operators.append(process)
        return process

    async def leader(self) -> Process:
        """The operator that leads, started where none runs."""
        if not any(operator.running for operator in self.operators):
            self.start_operator()
        return await eventually(self._leading)

    async def _leading(self) -> Process:
        self.check_alive()
        spec = (await self.kube.get(LEADER))["spec"]
        found = [each for each in self.operators if each.running and each.identity == spec.get("holderIdentity")]
        assert found, f"nobody leads: {spec}"
        return found[0]

    def check_alive(self) -> None:
        """Fails the test at once where a process has ended by itself."""
        for process in (*self.operators, *((self.agent,) if self.agent else ())):
            if process.died:
                process.died = False
                raise RuntimeError(process.child.obituary())

    def _start(
        self,
        name: str,
        *words: str,
        program: tuple[str, ...] = PROGRAM,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Process:
        def ended(_: Child) -> None:
            process.died = not process.expected

        hub = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder), "HF_HUB_DISABLE_TELEMETRY": "1"}
        variables = [f"{key}={value}" for key, value in {**hub, **environment}.items()]
        child = Child(
            name=name,
            command=("env", *variables, sys.executable, *program, *words),
            log=self.folder / f"{name}.log",
            group=self.guard.group,
            on_death=ended,
        )
        process = Process(child=child, identity=name)
        return process

    async def keep_one_operator(self) -> None:
        """Ends what a test left behind, stopped ones too, but for the newest."""
        for operator in [each for each in self.operators if each.running][:-1]:
            await operator.stop()
        for operator in self.operators:
            operator.resume()

    async def stop(self) -> None:
        for process in (*self.operators, *((self.agent,) if self.agent else ())):
            await process.stop()
