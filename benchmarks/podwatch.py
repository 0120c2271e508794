"""A watch of pods with a connection of its own: when each pod was first seen, ungated, bound and ready."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from kubernetes.aio import client, config

from vrampack.api import names

_PATIENCE_SECONDS = 300.0


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    """Fields that are not named here are skipped."""


class _Metadata(_Object, frozen=True):
    uid: str
    resource_version: str


class _Gate(_Object, frozen=True):
    name: str


class _Spec(_Object, frozen=True):
    node_name: str = ""
    scheduling_gates: tuple[_Gate, ...] = ()


class _Condition(_Object, frozen=True):
    type: str
    status: str


class _Status(_Object, frozen=True):
    conditions: tuple[_Condition, ...] = ()


class _Pod(_Object, frozen=True):
    metadata: _Metadata
    spec: _Spec
    status: _Status = _Status()


class _Event(_Object, frozen=True):
    type: str
    object: msgspec.Raw


class PodWatch:
    """The pods of one namespace, from now on. Times are those of ``time.monotonic``, by the UID of the pod.

    Only pods that are there: one that is deleted is forgotten.
    """

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.seen: dict[str, float] = {}
        self.ungated: dict[str, float] = {}
        self.bound: dict[str, float] = {}
        self.ready: dict[str, float] = {}
        self._kubeconfig = kubeconfig
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        configuration = client.Configuration()
        await config.load_kube_config(config_file=str(self._kubeconfig), client_configuration=configuration)
        self._session = aiohttp.ClientSession(
            base_url=configuration.host,
            connector=aiohttp.TCPConnector(ssl=client.rest.RESTClientObject(configuration).ssl_context),
            timeout=aiohttp.ClientTimeout(total=None, connect=10),
        )
        self._version = ""
        self._task = asyncio.create_task(self._follow(await self._connect()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._session.close()

    async def until(self, what: str, done: Callable[[], bool]) -> None:
        """Waits for pods to be so. Raises SystemExit where they are not in five minutes, or the watch has ended."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not done():
            self._news.clear()
            news = asyncio.create_task(self._news.wait())
            await asyncio.wait(
                {news, self._task}, timeout=max(0, deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
            news.cancel()
            if self._task.done():
                raise SystemExit(f"{what}: the watch of {self._path} has ended: {self._task.exception()}")
            if time.monotonic() > deadline and not done():
                counts = f"{len(self.seen)} seen, {len(self.ungated)} ungated, {len(self.bound)} bound"
                raise SystemExit(f"{what}: not in {_PATIENCE_SECONDS:.0f} s; pods: {counts}, {len(self.ready)} ready")

    async def _connect(self) -> aiohttp.ClientResponse:
        query = {"watch": "true", "timeoutSeconds": "3600", "resourceVersion": self._version}
        stream = await self._session.get(self._path, params=query)
        stream.raise_for_status()
        return stream

    async def _follow(self, stream: aiohttp.ClientResponse) -> None:
        """The API server drops a watch that does not keep up for a moment; it goes on where it was."""
        event_of = msgspec.json.Decoder(_Event)
        pod_of = msgspec.json.Decoder(_Pod)
        while True:
            async for line in stream.content:
                now = time.monotonic()
                event = event_of.decode(line)
                if event.type == "ERROR":
                    raise RuntimeError(bytes(event.object).decode())
                pod = pod_of.decode(event.object)
                self._version = pod.metadata.resource_version
                self._note(event.type, pod, now)
                self._news.set()
            stream = await self._connect()

    def _note(self, kind: str, pod: _Pod, now: float) -> None:
        uid = pod.metadata.uid
        if kind == "DELETED":
            for times in (self.seen, self.ungated, self.bound, self.ready):
                times.pop(uid, None)
            return
        self.seen.setdefault(uid, now)
        if not any(gate.name == names.GATE for gate in pod.spec.scheduling_gates):
            self.ungated.setdefault(uid, now)
        if pod.spec.node_name:
            self.bound.setdefault(uid, now)
        if any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions):
            self.ready.setdefault(uid, now)
