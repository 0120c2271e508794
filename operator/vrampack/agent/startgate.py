"""Whose turn it is to start: at most one engine of a GPU between its container's start and its readiness.

The script before an engine's command (`vrampack.engines.startgate`) asks until it may go on. An engine has all of its
GPUs or none, and the one that asked first comes first, so two that share several GPUs can't wait for each other. What
holds others up ends when the engine has started, when its pod is gone, or after a limit. Nothing is kept on disk: an
agent that starts again sees from the pods who is starting, and the scripts ask again within a second.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from aiohttp import web

from vrampack.agent.pods import Pod
from vrampack.api import names

_GONE_SECONDS: Final = 15.0
"""Who has not asked for so long has given up."""
_ROUNDING: Final = 2.0
"""Times of containers are whole seconds."""
_BEHIND: Final = 30.0
"""What is known of a pod is never older: so long after it asked, what is seen is its present container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A pod of this node, as its turn goes. Times are seconds since 1970."""

    uid: str
    name: str
    gpus: frozenset[str]
    running: bool
    """Whether the engine's container runs."""
    started: bool
    """Whether the engine has got through its start."""
    since: float
    """When the container started; 0: not known."""


@dataclass(slots=True)
class _Turn:
    asked: float
    since: float
    seen: float
    granted: float | None = None


@dataclass(kw_only=True)
class StartGate:
    """Turns on the GPUs of one node. ``longest``: seconds for which one engine holds up the others at most."""

    longest: float = 3600.0
    _turns: dict[str, _Turn] = field(default_factory=dict)

    def ask(self, uid: str, *, since: float, tenants: Mapping[str, Tenant], now: float) -> str | None:
        """None: it may start. Else the name of the pod that it waits for. ``since``: when its container started.

        Raises KeyError for a pod that is not here, or not yet.
        """
        tenant = tenants[uid]
        self._forget(tenants, now)
        turn = self._turns.get(uid)
        if turn is None or turn.since != since:
            turn = self._turns[uid] = _Turn(asked=now, since=since, seen=now)
        turn.seen = now
        if turn.granted is not None:
            return None
        for other in sorted(tenants.values(), key=lambda each: each.uid):
            if other.uid != uid and other.gpus & tenant.gpus and self._holds_up(other, turn, now):
                return other.name
        turn.granted = now
        return None

    def _holds_up(self, other: Tenant, turn: _Turn, now: float) -> bool:
        its = self._turns.get(other.uid)
        if its is None:  # it runs without a script, or has not asked yet
            starting = other.running and not other.started
            return starting and now - other.since < self.longest
        if its.granted is not None:
            return now - its.granted < self.longest
        return (its.asked, other.uid) < (turn.asked, "")

    def _forget(self, tenants: Mapping[str, Tenant], now: float) -> None:
        """Turns that are over: of pods that are gone, that have started, or that ask no more."""
        for uid, turn in list(self._turns.items()):
            tenant = tenants.get(uid)
            # A view from before the container's restart says that the one before it had started.
            current = tenant is not None and tenant.since >= turn.since - _ROUNDING
            late = now - turn.asked > _BEHIND  # whatever it said of its own start
            over = tenant is None or (tenant.started and (current or late))
            if over or (turn.granted is None and now - turn.seen > _GONE_SECONDS):
                del self._turns[uid]


def tenants_of(pods: Iterable[Pod]) -> dict[str, Tenant]:
    """The pods that hold GPUs, by UID."""
    return {pod.metadata.uid: _tenant(pod) for pod in pods if pod.managed and pod.gpus}


def _tenant(pod: Pod) -> Tenant:
    engine = next((each for each in pod.status.container_statuses if each.name == names.ENGINE_CONTAINER), None)
    probed = any(each.name == names.ENGINE_CONTAINER and each.startup_probe for each in pod.spec.containers)
    running = engine.state.running if engine is not None else None
    return Tenant(
        uid=pod.metadata.uid,
        name=f"{pod.metadata.namespace}/{pod.metadata.name}",
        gpus=frozenset(pod.gpus),
        running=running is not None,
        # Without a startup probe a container counts as started as soon as it runs.
        started=pod.ready or (probed and engine is not None and engine.started),
        since=_seconds((running or {}).get("startedAt")),
    )


def _seconds(written: object) -> float:
    try:
        return datetime.fromisoformat(str(written)).timestamp()
    except ValueError:
        return 0.0


def application(
    gate: StartGate, *, tenants: Callable[[], Mapping[str, Tenant]], clock: Callable[[], float]
) -> web.Application:
    """The endpoint that the scripts ask. ``tenants``: the pods as they are known now. ``clock``: seconds since 1970."""

    async def start(request: web.Request) -> web.Response:
        try:
            since = float(request.query.get("since", "0"))
        except ValueError:
            since = math.nan
        if not math.isfinite(since):
            return web.Response(status=400, text="since: write seconds since 1970\n")
        try:
            waits_for = gate.ask(request.match_info["uid"], since=since, tenants=tenants(), now=clock())
        except KeyError:
            return web.Response(status=404, text="no pod of this node with a claim has this UID\n")
        if waits_for is None:
            return web.Response(text="start\n")
        return web.Response(status=409, text=f"waits until {waits_for} has started\n")

    app = web.Application()
    app.router.add_get("/start/{uid}", start)
    return app
