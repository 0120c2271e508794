"""An auditor that watches a cluster all through a test and fails it on the first broken invariant.

It has a connection of its own, so what the operator believes has no part in it. Every kind is watched by itself; the
resourceVersions of one etcd are one sequence, so the watches are merged by them and replayed as they happened.

::

    async with Auditor(cluster.kubeconfig) as auditor:
        ...
        await auditor.settle()
        auditor.check()
"""

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import msgspec
from kubernetes.aio import client, config

from tests.integration.audit_ledger import Change, Kind, Ledger
from vrampack.api import names

_GROUP: Final = f"/apis/{names.GROUP}/{names.VERSION}"
_PATHS: Final[Mapping[Kind, str]] = {
    Kind.POD: "/api/v1/pods",
    Kind.NODE: "/api/v1/nodes",
    Kind.LEASE: "/apis/coordination.k8s.io/v1/leases",
    Kind.GPU_NODE: f"{_GROUP}/gpunodes",
    Kind.GPU_POOL: f"{_GROUP}/gpupools",
    Kind.MODEL_DEPLOYMENT: f"{_GROUP}/modeldeployments",
}
_PATIENCE_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.2
_TICK_SECONDS: Final = 0.05
_BROKEN: Final = (aiohttp.ClientError, TimeoutError, OSError)
_LIST_TIMEOUT: Final = aiohttp.ClientTimeout(total=60)


class Merger:
    """Puts the changes of several watches into one order.

    A change is due when every watch has come at least as far. A watch in which nothing happens says nothing of how far
    it is for up to a minute, so whatever was held for ``hold`` seconds is due too; what then still comes too late is
    counted.
    """

    def __init__(self, kinds: Iterable[Kind], *, hold: float) -> None:
        self.late = 0
        self._progress = dict.fromkeys(kinds, 0)
        self._hold = hold
        self._held: list[tuple[int, int, Change]] = []
        self._number = itertools.count()
        self._released = 0

    def push(self, change: Change) -> None:
        """A change that one watch brought."""
        heapq.heappush(self._held, (change.version, next(self._number), change))
        self.advance(change.kind, change.version)

    def advance(self, kind: Kind, version: int) -> None:
        """One watch has seen everything up to this version."""
        self._progress[kind] = max(self._progress[kind], version)

    def due(self, now: float) -> list[Change]:
        """What can be replayed now, in order."""
        overdue = [version for version, _, change in self._held if now - change.seen >= self._hold]
        reached = max(min(self._progress.values()), *overdue, 0)
        changes = []
        while self._held and self._held[0][0] <= reached:
            version, _, change = heapq.heappop(self._held)
            self.late += version < self._released and change.blind_since is None
            self._released = max(self._released, version)
            changes.append(change)
        return changes


class Auditor:
    """Watches from ``async with`` on; see the module. ``grace`` and ``allowed_annotations`` are those of Ledger.

    ``gaps``: how often a watch had to begin anew from a list, so that changes may have been missed.
    """

    def __init__(
        self,
        kubeconfig: Path,
        *,
        grace: float = 2.0,
        hold: float = 3.0,
        allowed_annotations: frozenset[str] = frozenset(),
    ) -> None:
        self._kubeconfig = kubeconfig
        self.ledger = Ledger(grace=grace, allowed_annotations=allowed_annotations)
        self._merger = Merger(Kind, hold=hold)
        self._news = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def gaps(self) -> int:
        return sum(watch.gaps for watch in self._watches)

    @property
    def late(self) -> int:
        """Changes that came too late to be replayed in their place."""
        return self._merger.late

    async def __aenter__(self) -> Self:
        self._session = await _session(self._kubeconfig)
        self._watches = [_Watch(kind, self._session, self._merger, self._news) for kind in Kind]
        try:
            async with self._patience(_PATIENCE_SECONDS, self._watches):
                for watch in self._watches:
                    watch.start(await watch.read_patiently())
        except BaseException:
            await self._session.close()
            raise
        self._tasks = [asyncio.create_task(watch.run()) for watch in self._watches]
        self._tasks.append(asyncio.create_task(self._replay()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    async def settle(self, *, patience: float = _PATIENCE_SECONDS) -> None:
        """Waits until everything that has happened so far is replayed.

        Raises TimeoutError after ``patience`` seconds, saying which watch is behind and why.
        """
        behind = list(self._watches)
        async with self._patience(patience, behind):
            while behind:
                watch = behind[0]
                listed = await watch.read_patiently()
                async with self._news:
                    await self._news.wait_for(lambda: watch.reached(listed))  # noqa: B023 (awaited at once)
                self._merger.advance(watch.kind, listed.version)
                behind.remove(watch)
        for change in self._merger.due(now=float("inf")):
            self.ledger.apply(change)

    def check(self) -> None:
        """Raises AssertionError with the first violation and its history, or whatever ended the audit itself."""
        for task in self._tasks:
            if task.done():
                task.result()
        self.ledger.check()

    @contextlib.asynccontextmanager
    async def _patience(self, seconds: float, behind: Iterable["_Watch"]) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            late = [f"{watch.kind}: {watch.problem or 'no error'}" for watch in behind]
            raise TimeoutError(f"the auditor's watches did not catch up in {seconds} s: {'; '.join(late)}") from None

    async def _replay(self) -> None:
        while True:
            for change in self._merger.due(now=time.time()):
                self.ledger.apply(change)
            await asyncio.sleep(_TICK_SECONDS)  # what is held becomes due by itself


class _GoneError(Exception):
    """The API server no longer knows what happened since the version that was asked for."""


class _List(msgspec.Struct, frozen=True):
    """A list at one version: the version of each object by its UID."""

    version: int
    objects: dict[str, dict[str, Any]]


class _Watch:
    """One kind, watched for as long as it takes: a broken connection goes on where it ended, or from a new list."""

    def __init__(self, kind: Kind, session: aiohttp.ClientSession, merger: Merger, news: asyncio.Condition) -> None:
        self.kind = kind
        self.gaps = 0
        self.problem = ""
        self._session = session
        self._merger = merger
        self._news = news
        self._version = 0
        self._heard = 0.0
        self._objects: dict[str, dict[str, Any]] = {}
        self._deleted: set[str] = set()

    async def read(self) -> _List:
        """The objects as they are now."""
        async with self._session.get(_PATHS[self.kind], timeout=_LIST_TIMEOUT) as response:
            if response.status >= 400:
                raise aiohttp.ClientError(f"{response.status} {await response.text()}")
            body = msgspec.json.decode(await response.read())
        objects = {item["metadata"]["uid"]: item for item in body["items"]}
        return _List(version=int(body["metadata"]["resourceVersion"]), objects=objects)

    async def read_patiently(self) -> _List:
        """The objects as they are as soon as the API server says so."""
        while True:
            try:
                return await self.read()
            except _BROKEN as error:
                self.problem = repr(error)
                await asyncio.sleep(_RETRY_SECONDS)

    def start(self, listed: _List) -> None:
        """Begins with what is there."""
        for item in listed.objects.values():
            self._push(item, _version(item), listed=True)
        self._reach(listed.version)

    def start_over(self, listed: _List) -> None:
        """Goes on after changes were missed: what is there now, and what has gone."""
        self.gaps += 1
        blind = self._heard
        for uid in self._objects.keys() - listed.objects.keys():
            # It went at some time since the watch broke. Whoever took its place did so after that: so at once.
            self._push(self._objects[uid], self._version, deleted=True, blind_since=blind)
        for uid, item in listed.objects.items():
            if _version(item) != _version(self._objects.get(uid, {})):
                self._push(item, _version(item), listed=True, blind_since=blind)
        self._reach(listed.version)

    async def run(self) -> None:
        """Watches until it is cancelled."""
        while True:
            try:
                async for event in self._events():
                    self._take(event)
                    async with self._news:
                        self._news.notify_all()
            except _GoneError:
                self.start_over(await self.read_patiently())
            except _BROKEN as error:
                self.problem = repr(error)
                await asyncio.sleep(_RETRY_SECONDS)

    def reached(self, listed: _List) -> bool:
        """Whether the watch has brought everything that led to this list."""
        if self._version >= listed.version:
            return True
        brought = all(
            uid in self._deleted or _version(self._objects.get(uid, {})) >= _version(item)
            for uid, item in listed.objects.items()
        )
        return brought and all(
            uid in listed.objects or _version(item) > listed.version for uid, item in self._objects.items()
        )

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        query = {"watch": "1", "resourceVersion": str(self._version), "allowWatchBookmarks": "true"}
        async with self._session.get(_PATHS[self.kind], params=query) as response:
            if response.status == 410:
                raise _GoneError
            if response.status >= 400:
                raise aiohttp.ClientError(f"{response.status} {await response.text()}")
            self.problem = ""
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield msgspec.json.decode(line)

    def _take(self, event: Mapping[str, Any]) -> None:
        item = event["object"]
        match event["type"]:
            case "BOOKMARK":
                self._reach(_version(item))
            case "ERROR" if item.get("code") == 410:
                raise _GoneError
            case "ERROR":
                raise aiohttp.ClientError(f"watch of {self.kind}: {item.get('message')}")
            case kind:
                self._push(item, _version(item), deleted=kind == "DELETED")
                self._reach(_version(item))

    def _push(self, item: dict[str, Any], version: int, **how: Any) -> None:
        uid = item["metadata"]["uid"]
        if how.get("deleted"):
            self._objects.pop(uid, None)
            self._deleted.add(uid)
        else:
            self._objects[uid] = item
        self._merger.push(Change(kind=self.kind, version=version, object=item, seen=time.time(), **how))

    def _reach(self, version: int) -> None:
        self._version = max(self._version, version)
        self._heard = time.time()
        self._merger.advance(self.kind, version)


def _version(item: Mapping[str, Any]) -> int:
    return int(item.get("metadata", {}).get("resourceVersion", 0))


async def _session(kubeconfig: Path) -> aiohttp.ClientSession:
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    rest = client.rest.RESTClientObject(configuration)
    return aiohttp.ClientSession(
        base_url=configuration.host,
        connector=aiohttp.TCPConnector(ssl=rest.ssl_context, limit=0),
        timeout=aiohttp.ClientTimeout(total=None, connect=10),
    )
