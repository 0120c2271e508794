"""The five processes on ports of their own: started in order, watched, stopped in the opposite order."""

import asyncio
import logging
import shutil
import signal
import subprocess
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from vrampack.errors import LocalClusterError, NotFoundError
from vrampack.localcluster import components, credentials
from vrampack.localcluster.adminclient import AdminClient, until
from vrampack.localcluster.assets import Assets
from vrampack.localcluster.components import Layout
from vrampack.localcluster.process import Child, Guard, run

logger = logging.getLogger(__name__)

T = TypeVar("T")

_COMMANDS = {
    "etcd": components.etcd,
    "kube-apiserver": components.kube_apiserver,
    "kube-controller-manager": components.kube_controller_manager,
    "kube-scheduler": components.kube_scheduler,
    "kwok": components.kwok,
}
_RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "nvidia"},
    "handler": "nvidia",
}
_READY_SECONDS = 120.0
_PATIENCE_SECONDS = 2.0  # an API server with clients would take a minute to say goodbye


class ControlPlane:
    """One control plane. Its processes die with this one, however that dies; a ``temporary`` folder goes with them."""

    def __init__(self, assets: Assets, layout: Layout, *, temporary: bool) -> None:
        self._assets = assets
        self._temporary = temporary
        self._children: dict[str, Child] = {}
        self._obituaries: list[str] = []
        self._death = asyncio.Event()
        self.layout = layout
        credentials.prepare(layout)
        self.client = AdminClient(
            url=layout.server_url,
            authority=layout.pki("ca.crt"),
            certificate=layout.pki("admin.crt"),
            key=layout.pki("admin.key"),
        )
        self._guard = Guard(folder=layout.folder if temporary else None)

    async def start(self) -> None:
        """Returns when the API server is ready and the controllers work.

        Raises LocalClusterError as soon as a process dies; ``stop`` must be called then too.
        """
        self._spawn("etcd")
        await self.start_process("kube-apiserver")  # it waits for etcd by itself
        for name in ("kube-controller-manager", "kube-scheduler", "kwok"):
            self._spawn(name)
        await self.client.create("/apis/node.k8s.io/v1/runtimeclasses", _RUNTIME_CLASS, existing_is_fine=True)
        await self.unless_dead(until("kube-controller-manager works", self._controllers_work, timeout=_READY_SECONDS))

    async def stop(self) -> None:
        """Stops what runs: kwok first, etcd last, so that none misses one that is gone. Removes a temporary folder."""
        await self.client.close()
        for name in reversed(_COMMANDS):
            if name in self._children:
                await self.stop_process(name)
        self._guard.close()
        if self._temporary:
            shutil.rmtree(self.layout.folder, ignore_errors=True)

    async def start_process(self, name: str) -> None:
        """Starts one process again, on its old port; the API server is ready on return."""
        self._spawn(name)
        if name == "kube-apiserver":
            await self.unless_dead(until(f"{name} is ready", self.client.ready, timeout=_READY_SECONDS))

    async def stop_process(self, name: str) -> None:
        """Stops one process, in order."""
        await self._children[name].stop(patience=_PATIENCE_SECONDS)

    def pause_process(self, name: str) -> None:
        """Freezes one process; it stands still on return."""
        self._children[name].pause()

    def resume_process(self, name: str) -> None:
        """Lets a frozen process go on."""
        self._children[name].signal(signal.SIGCONT)

    async def back_up(self, copy: Path) -> None:
        """Copies the store; the API server is away meanwhile."""
        for name in ("kube-apiserver", "etcd"):
            await self.stop_process(name)
        shutil.copytree(self.layout.store, copy)
        for name in ("etcd", "kube-apiserver"):
            await self.start_process(name)

    async def restore(self, copy: Path) -> None:
        """Makes the store what it was. Every process is started anew: each remembers versions of a later one."""
        for name in reversed(_COMMANDS):
            await self.stop_process(name)
        shutil.rmtree(self.layout.store)
        shutil.copytree(copy, self.layout.store)
        for name in _COMMANDS:
            await self.start_process(name)

    def pids(self) -> Mapping[str, int]:
        """The process ids by name."""
        return {name: child.pid for name, child in self._children.items()}

    async def supervise(self) -> NoReturn:
        """Waits until a process dies by itself, and raises LocalClusterError with its last log lines."""
        await self._death.wait()
        raise LocalClusterError("\n".join(self._obituaries))

    async def unless_dead(self, work: Coroutine[Any, Any, T]) -> T:
        """Does ``work``, but raises LocalClusterError as soon as a process dies."""
        task = asyncio.ensure_future(work)
        death = asyncio.ensure_future(self.supervise())
        try:
            await asyncio.wait((task, death), return_when=asyncio.FIRST_COMPLETED)
            return await (death if death.done() else task)
        finally:
            task.cancel()
            death.cancel()
            await asyncio.gather(task, death, return_exceptions=True)

    async def run(
        self, command: Sequence[str], *, stdin: str | None, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Runs a tool to its end, among the processes that die with this one."""
        return await run(command, stdin=stdin, environment=environment, group=self._guard.group)

    def _spawn(self, name: str) -> None:
        log = self.layout.log(name)
        log.parent.mkdir(exist_ok=True)
        self._children[name] = Child(
            name=name,
            command=_COMMANDS[name](self._assets, self.layout),
            log=log,
            group=self._guard.group,
            on_death=self._on_death,
        )

    def _on_death(self, child: Child) -> None:
        obituary = child.obituary()
        logger.error("%s", obituary)
        self._obituaries.append(obituary)
        self._death.set()

    async def _controllers_work(self) -> bool:
        """A namespace has its ServiceAccount as soon as controllers run."""
        try:
            await self.client.get("/api/v1/namespaces/default/serviceaccounts/default")
        except NotFoundError:
            return False
        return True
