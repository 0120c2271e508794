"""What the kubelet asks, and where Prometheus reads: small HTTP servers on the event loop of the passes.

A loop that hangs answers nothing, which fails the probe too.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

_SHUTDOWN_SECONDS: Final = 1.0


class _State(StrEnum):
    STANDBY = "Standby"
    LEADING = "Leading"
    PASSING = "Passing"
    UNAVAILABLE = "Unavailable"


class Heartbeat:
    """Whether passes come, end and succeed. ``now`` is always of one monotonic clock, in seconds.

    Passes come at least every resync, so a leader without one for ``stall_seconds`` (more than the resync) hangs,
    whatever pokes wait; so does one whose passes all fail for as long. Who stands by makes none; with the API server
    away a restart would help nobody.
    """

    def __init__(self, *, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._state = _State.STANDBY
        self._since = 0.0
        self._failing_since: float | None = None

    def pass_started(self, now: float) -> None:
        self._set(_State.PASSING, now)

    def pass_ended(self, now: float) -> None:
        """Well; or became leader: the next pass is due."""
        self._failing_since = None
        self._set(_State.LEADING, now)

    def pass_failed(self, now: float) -> None:
        """It raised, and not because the API server is away."""
        if self._failing_since is None:
            self._failing_since = now
        self._set(_State.LEADING, now)

    def unavailable(self, now: float) -> None:
        """The API server gives no answer. Until the next pass."""
        self._failing_since = None
        self._set(_State.UNAVAILABLE, now)

    def standby(self, now: float) -> None:
        """Another process leads."""
        self._failing_since = None
        self._set(_State.STANDBY, now)

    @property
    def state(self) -> str:
        """In one word."""
        return self._state.value

    def stall(self, now: float) -> str | None:
        """What hangs, in words; None: nothing does."""
        if self._failing_since is not None and now - self._failing_since > self._stall_seconds:
            return f"every pass has failed for {now - self._failing_since:.0f} s; the log says why"
        seconds = now - self._since
        if seconds <= self._stall_seconds:
            return None
        if self._state is _State.PASSING:
            return f"a pass that began {seconds:.0f} s ago has not ended"
        if self._state is _State.LEADING:
            return f"no pass began for {seconds:.0f} s"
        return None

    def _set(self, state: _State, now: float) -> None:
        self._state = state
        self._since = now


def probes_app(
    *,
    heartbeat: Heartbeat,
    checks: Mapping[str, Callable[[], bool]],
    clock: Callable[[], float] = time.monotonic,
) -> web.Application:
    """``/healthz``: 500 when passes stall or fail. ``/readyz``: 503 until all ``checks`` are true, each by its name."""

    async def healthz(_: web.Request) -> web.Response:
        stall = heartbeat.stall(clock())
        return web.json_response(
            {"healthy": stall is None, "state": heartbeat.state, "stall": stall}, status=500 if stall else 200
        )

    async def readyz(_: web.Request) -> web.Response:
        found = {name: check() for name, check in checks.items()}
        ready = all(found.values())
        return web.json_response({"ready": ready, "checks": found}, status=200 if ready else 503)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


def metrics_app(registry: CollectorRegistry) -> web.Application:
    """``/metrics`` in the format that the reader accepts."""
    app = web.Application()
    app.router.add_get("/metrics", make_aiohttp_handler(registry))
    return app


@asynccontextmanager
async def listening(app: web.Application, *, port: int, host: str | None = None) -> AsyncIterator[int]:
    """Serves ``app`` inside the block, and gives its port (0: a free one). ``host`` None: on all addresses.

    Raises OSError where the port is taken.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
