"""An MPS server for each shared GPU of a node, kept running by the agent, and who is really connected to it.

Each has a folder of its own, by the GPU's UUID, for its pipes and its log; a pod of that GPU sees only that folder. A
client that has the wrong folder runs without MPS, unlimited and without an error: so the server is asked for its
clients, and a process on the GPU that is not among them is told of. The servers share one /dev/shm with the pods.
"""

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vrampack.agent.complaint import Complaint
from vrampack.agent.reading import GPUReading

_log = logging.getLogger(__name__)

CONTROL: Final = "nvidia-cuda-mps-control"
_ASK_SECONDS: Final = 5.0
_NUMBERS: Final = re.compile(r"^\s*(\d+)\s*$", re.MULTILINE)
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0


@dataclass(slots=True, kw_only=True)
class _Server:
    process: asyncio.subprocess.Process
    started: float


@dataclass(kw_only=True)
class MpsServers:
    """The servers of one node. ``folder``: where each GPU has its own. ``control``: the program; it needs no root where
    the GPUs are in the default compute mode and its clients have the same user."""

    folder: Path
    control: str = CONTROL
    _servers: dict[str, _Server] = field(default_factory=dict)
    _pauses: dict[str, float] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)
    _complaint: Complaint = field(default_factory=lambda: Complaint(_log))

    def pipes(self, uuid: str) -> Path:
        """The folder that a client of this GPU names."""
        return self.folder / uuid / "pipe"

    async def keep(self, uuids: Iterable[str]) -> None:
        """Starts a server for each of these GPUs that has none, after a pause where the last one ended soon; and ends
        those of others."""
        wanted = set(uuids)
        for uuid in [uuid for uuid in self._servers if uuid not in wanted]:
            await self._end(uuid)
        now = asyncio.get_running_loop().time()
        for uuid in sorted(wanted):
            server = self._servers.get(uuid)
            if server is not None and server.process.returncode is None:
                if now - server.started > _LONGEST_PAUSE:
                    self._pauses.pop(uuid, None)
                continue
            if server is not None:
                self._ended(uuid, server, now)
            if now >= self._not_before.get(uuid, 0.0):
                await self._start(uuid, now)

    async def clients(self, uuid: str) -> frozenset[int]:
        """PIDs of the processes that are connected to the GPU's server; none where it does not answer."""
        servers = _NUMBERS.findall(await self._ask(uuid, "get_server_list"))
        lists = [await self._ask(uuid, f"get_client_list {server}") for server in servers]
        return frozenset(int(each) for said in lists for each in _NUMBERS.findall(said))

    async def close(self) -> None:
        """Ends all of them. Their clients end with them."""
        for uuid in list(self._servers):
            await self._end(uuid)

    async def _start(self, uuid: str, now: float) -> None:
        try:
            for name in ("pipe", "log"):
                (self.folder / uuid / name).mkdir(parents=True, exist_ok=True)
            (self.folder / "shm").mkdir(exist_ok=True)
            process = await asyncio.create_subprocess_exec(
                self.control,
                "-f",
                env=self._environment(uuid),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._complaint.say(f"no MPS server can be started: {error}")
            self._not_before[uuid] = now + self._longer(uuid)
            return
        self._complaint.over()
        self._servers[uuid] = _Server(process=process, started=now)

    def _ended(self, uuid: str, server: _Server, now: float) -> None:
        del self._servers[uuid]
        _log.warning(
            "the MPS server of GPU %s ended with %s; its log is in %s",
            uuid,
            server.process.returncode,
            self.folder / uuid / "log",
        )
        self._not_before[uuid] = now + self._longer(uuid)

    def _longer(self, uuid: str) -> float:
        pause = self._pauses.get(uuid, _FIRST_PAUSE)
        self._pauses[uuid] = min(2 * pause, _LONGEST_PAUSE)
        return pause

    async def _end(self, uuid: str) -> None:
        server = self._servers.pop(uuid)
        await self._ask(uuid, "quit")
        try:
            await asyncio.wait_for(server.process.wait(), _ASK_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                server.process.kill()
            await server.process.wait()

    async def _ask(self, uuid: str, question: str) -> str:
        """One question to the control of this GPU; empty where it has no answer."""
        try:
            process = await asyncio.create_subprocess_exec(
                self.control,
                env=self._environment(uuid),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            return ""
        try:
            said, _ = await asyncio.wait_for(process.communicate(f"{question}\n".encode()), _ASK_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            return ""
        return said.decode(errors="replace")

    def _environment(self, uuid: str) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", ""),
            "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
            "CUDA_VISIBLE_DEVICES": uuid,
            "CUDA_MPS_PIPE_DIRECTORY": str(self.pipes(uuid)),
            "CUDA_MPS_LOG_DIRECTORY": str(self.folder / uuid / "log"),
        }


@dataclass(kw_only=True)
class Attachments:
    """Asks the servers from time to time who is connected: each question is a process."""

    servers: MpsServers
    every: float = 15.0
    _asked_at: float | None = None
    _found: tuple[str, ...] = ()

    async def look(self, gpus: Sequence[GPUReading], pods: Mapping[str, str], *, now: float) -> tuple[str, ...]:
        """Keeps a server for each GPU, and says which processes are beside theirs. ``pods``: names of those that are
        to be connected, by UID."""
        await self.servers.keep(gpu.uuid for gpu in gpus)
        if self._asked_at is None or now - self._asked_at >= self.every:
            self._asked_at = now
            self._found = tuple([words async for words in self._beside(gpus, pods)])
        return self._found

    async def _beside(self, gpus: Sequence[GPUReading], pods: Mapping[str, str]) -> AsyncIterator[str]:
        for gpu in gpus:
            processes = {use.uid: use.pids for use in gpu.processes if use.uid in pods}
            if processes:
                for uid, pids in unattached(processes, await self.servers.clients(gpu.uuid)).items():
                    yield f"pod {pods[uid]} on GPU {gpu.index} (PID {', '.join(map(str, pids))})"


def unattached(processes: Mapping[str, Iterable[int]], clients: Iterable[int]) -> dict[str, tuple[int, ...]]:
    """Processes of pods on a GPU that are no clients of its server, and so under no limit; by pod UID.

    ``processes``: of the host, by pod UID. The engine's own launcher may be none, but then it holds nothing on the GPU.
    """
    known = frozenset(clients)
    found = {uid: tuple(sorted(set(pids) - known)) for uid, pids in processes.items()}
    return {uid: pids for uid, pids in found.items() if pids}
