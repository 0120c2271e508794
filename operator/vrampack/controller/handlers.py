"""kopf watches, and its handlers poke: they decide nothing, write nothing and return nothing.

kopf has an event loop and a thread of its own: when it ends, by itself or on request, it cancels every task of its
loop that is younger than it is, and in the main thread it takes over the process's signals.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import kopf
from kopf._cogs.structs.references import Insights  # the public operator() takes it; it says which kinds were found

from vrampack.api import names
from vrampack.controller.backoff import Backoff
from vrampack.controller.signin import sign_in

_LOG: Final = logging.getLogger(__name__)
_LOGIN_WAIT: Final = 1.0
_HEALTHY_SECONDS: Final = 60.0
_LONGEST_API_WAIT: Final = 5.0
_CONNECT_SECONDS: Final = 10.0
_CHUNK: Final = 500
_STARTING: Final = "kopf._core.reactor"
_CHATTY: Final = ("kopf._cogs.clients.watching", "kopf._cogs.clients.fetching")
_SELDOM_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A kind by its full name, so that a broken API group of someone else stops nothing."""

    group: str
    version: str
    plural: str


_OURS: Final = ("modeldeployments", "modelprofiles", "gpunodes", "gpupools")
NODES: Final = Watched(group="", version="v1", plural="nodes")
POKING: Final = tuple(Watched(group=names.GROUP, version=names.VERSION, plural=plural) for plural in _OURS)
"""Kinds of which every event pokes."""


def register(registry: kopf.OperatorRegistry, poke: Callable[[], None]) -> None:
    """Handlers for the kinds that people and agents write. Pods and Deployments are `vrampack.controller.pulse`'s."""
    changes = NodeChanges()

    async def changed(**_: Any) -> None:
        poke()

    async def node_changed(event: kopf.RawEvent, **_: Any) -> None:
        if changes.matter(event):
            poke()

    for kind in POKING:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(changed)
    kopf.on.event(NODES.group, NODES.version, NODES.plural, registry=registry)(node_changed)


class NodeChanges:
    """Tells a node's changes from its heartbeats, which come all the time."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, ...]] = {}

    def matter(self, event: kopf.RawEvent) -> bool:
        """Whether a pass could decide something else after this event."""
        node: Any = event["object"]
        name = node["metadata"]["name"]
        if event["type"] == "DELETED":
            self._seen.pop(name, None)
            return True
        read = _read_of(node)
        if self._seen.get(name) == read:
            return False
        self._seen[name] = read
        return True


def _read_of(node: Any) -> tuple[object, ...]:
    """What a pass reads of a node."""
    metadata, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
    ready = [condition.get("status") for condition in status.get("conditions", ()) if condition.get("type") == "Ready"]
    return (
        metadata.get("uid"),
        metadata.get("labels"),
        spec.get("unschedulable"),
        spec.get("taints"),
        status.get("allocatable"),
        ready,
    )


async def run_kopf(
    *,
    kubeconfig: str | None,
    poke: Callable[[], None],
    stop: asyncio.Event,
    ready: asyncio.Event,
    renew: asyncio.Event,
) -> None:
    """Watches until ``stop`` is set. ``ready`` is set while all these kinds are watched.

    An API server that is away is waited out. Should kopf end by itself, it is started again, a little later each time.
    So it is whenever ``renew`` is set: each of its watches goes on from the version it knows, and would be deaf until a
    store that was restored from a backup has come that far again. ``poke`` and the events belong to the caller's loop.
    """
    home = asyncio.get_running_loop()
    away = type(home)()
    watches = _Watches(
        kubeconfig=kubeconfig,
        poke=lambda: _tell(home, poke),
        set_ready=lambda value: _tell(home, ready.set if value else ready.clear),
    )
    with _less_said(), ThreadPoolExecutor(max_workers=1, thread_name_prefix="kopf") as threads:
        ended: asyncio.Future[Any] = asyncio.wrap_future(threads.submit(_run, away, watches))
        stopped: asyncio.Future[Any] = asyncio.create_task(stop.wait())
        renewed: asyncio.Future[Any] = asyncio.create_task(_each(renew, lambda: _tell(away, watches.renew.set)))
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            renewed.cancel()
            away.call_soon_threadsafe(watches.stop.set)
            await asyncio.shield(ended)


async def _each(event: asyncio.Event, act: Callable[[], None]) -> None:
    """Acts whenever it is set."""
    while True:
        await event.wait()
        event.clear()
        act()


@contextmanager
def _less_said() -> Iterator[None]:
    """kopf tells of every try of every watch while the API server is away."""
    seldom = _Seldom()
    chatty = [logging.getLogger(name) for name in _CHATTY]
    logging.getLogger(_STARTING).setLevel(logging.ERROR)  # warns of the thread, and of kinds that we name ourselves
    for logger in chatty:
        logger.addFilter(seldom)
    try:
        yield
    finally:
        for logger in chatty:
            logger.removeFilter(seldom)


class _Seldom(logging.Filter):
    """One record a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created < self._next:
            return False
        self._next = record.created + _SELDOM_SECONDS
        return True


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
        loop.call_soon_threadsafe(call)


def _run(loop: asyncio.AbstractEventLoop, watches: "_Watches") -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(watches.run())


class _Watches:
    """kopf, again and again. Lives in the loop of its thread."""

    def __init__(self, *, kubeconfig: str | None, poke: Callable[[], None], set_ready: Callable[[bool], None]) -> None:
        self.stop = asyncio.Event()
        self.renew = asyncio.Event()
        self._kubeconfig = kubeconfig
        self._poke = poke
        self._set_ready = set_ready

    async def run(self) -> None:
        """Until ``stop``."""
        waits = iter(Backoff())
        clock = asyncio.get_running_loop().time
        while not self.stop.is_set():
            began = clock()
            try:
                await self._watch()
            except Exception:
                _LOG.exception("kopf ended by itself")
            if self.stop.is_set():
                return
            if clock() - began > _HEALTHY_SECONDS:
                waits = iter(Backoff())
            self._poke()  # whatever was missed meanwhile
            wait = next(waits)
            _LOG.warning("The watches start again in %.1f s", wait)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), wait)

    async def _watch(self) -> None:
        """One life of kopf."""
        registry = kopf.OperatorRegistry()
        register(registry, self._poke)
        kopf.on.login(registry=registry, backoff=_LOGIN_WAIT)(self._sign_in)
        insights = Insights()
        self.renew.clear()
        over = asyncio.create_task(_any(self.stop, self.renew))
        found = asyncio.create_task(insights.ready_resources.wait())
        life = asyncio.create_task(
            kopf.operator(registry=registry, settings=_settings(), insights=insights, standalone=True, clusterwide=True)
        )
        try:
            await asyncio.wait({life, over, found}, return_when=asyncio.FIRST_COMPLETED)
            if found.done():
                if missing := _missing(insights):
                    _LOG.error("The API server does not serve %s: apply the CRDs of this version", ", ".join(missing))
                    return
                self._set_ready(True)
                await asyncio.wait({life, over}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                life.result()
        finally:
            self._set_ready(False)
            for task in (over, found, life):
                task.cancel()
            await asyncio.gather(over, found, life, return_exceptions=True)

    async def _sign_in(self, **_: Any) -> kopf.ConnectionInfo:
        return await sign_in(self._kubeconfig)


async def _any(*events: asyncio.Event) -> None:
    """Returns when one of them is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()


def _missing(insights: Insights) -> list[str]:
    """kopf only warns of them, and never looks again."""
    found = {(resource.group, resource.version, resource.plural) for resource in insights.watched_resources}
    return [kind.plural for kind in (*POKING, NODES) if (kind.group, kind.version, kind.plural) not in found]


class _NoEssence(kopf.AnnotationsDiffBaseStorage):
    """kopf copies and compares every object of every event, for handlers of changes. There are none here, and in a
    fleet whose GPUNodes tell of their use all the time, that would be most of what this thread does."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NoEssence()
    settings.scanning.disabled = True  # needs no permission to read CRDs and namespaces
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = None  # it would kill this process
    settings.networking.connect_timeout = _CONNECT_SECONDS
    settings.networking.error_backoffs = Backoff(longest=_LONGEST_API_WAIT)
    settings.watching.chunk_size = _CHUNK
    return settings
