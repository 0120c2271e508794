"""Probes as the kubelet asks them, over HTTP."""

from collections.abc import Callable

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from vrampack.controller.probes import Heartbeat, listening, metrics_app, probes_app

STALL = 60.0


def started(heartbeat: Heartbeat) -> None:
    heartbeat.pass_started(0)


def ended(heartbeat: Heartbeat) -> None:
    heartbeat.pass_started(-1)
    heartbeat.pass_ended(0)


def away(heartbeat: Heartbeat) -> None:
    heartbeat.pass_started(-1)
    heartbeat.unavailable(0)


def deposed(heartbeat: Heartbeat) -> None:
    heartbeat.pass_ended(-1)
    heartbeat.standby(0)


def failing(heartbeat: Heartbeat) -> None:
    heartbeat.pass_failed(0)
    heartbeat.pass_started(50)
    heartbeat.pass_failed(55)


def failed_once(heartbeat: Heartbeat) -> None:
    heartbeat.pass_failed(0)
    heartbeat.pass_started(50)
    heartbeat.pass_ended(55)


def failed_and_away(heartbeat: Heartbeat) -> None:
    heartbeat.pass_failed(0)
    heartbeat.pass_started(50)
    heartbeat.unavailable(55)
    heartbeat.pass_started(58)


def nothing(heartbeat: Heartbeat) -> None: ...


@pytest.mark.parametrize(
    ("happened", "seconds", "status", "state", "stall"),
    [
        (nothing, 1000, 200, "Standby", None),
        (started, 60, 200, "Passing", None),
        (started, 61, 500, "Passing", "a pass that began 61 s ago has not ended"),
        (ended, 60, 200, "Leading", None),
        (ended, 61, 500, "Leading", "no pass began for 61 s"),
        (away, 1000, 200, "Unavailable", None),
        (failing, 60, 200, "Leading", None),
        (failing, 61, 500, "Leading", "every pass has failed for 61 s; the log says why"),
        (failed_once, 61, 200, "Leading", None),
        (failed_and_away, 61, 200, "Passing", None),
        (deposed, 1000, 200, "Standby", None),
    ],
)
async def test_health(
    happened: Callable[[Heartbeat], None], seconds: float, status: int, state: str, stall: str | None
) -> None:
    heartbeat = Heartbeat(stall_seconds=STALL)
    happened(heartbeat)
    assert await asked(heartbeat, "healthz", now=seconds) == (
        status,
        {"healthy": status == 200, "state": state, "stall": stall},
    )


async def test_ready_when_all_checks_are_true() -> None:
    heartbeat, checks = Heartbeat(stall_seconds=STALL), {"watching": True, "listed": False}
    assert await asked(heartbeat, "readyz", checks=checks) == (503, {"ready": False, "checks": checks})
    checks["listed"] = True
    assert await asked(heartbeat, "readyz", checks=checks) == (200, {"ready": True, "checks": checks})


async def test_prometheus_reads_the_registry() -> None:
    registry = CollectorRegistry()
    Counter("vrampack_passes", "Passes.", registry=registry).inc()
    async with (
        listening(metrics_app(registry), port=0, host="127.0.0.1") as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/plain"
        assert "vrampack_passes_total 1.0" in (await response.text()).splitlines()


async def test_a_port_that_is_taken_is_an_error() -> None:
    app = metrics_app(CollectorRegistry())
    async with listening(app, port=0, host="127.0.0.1") as port:
        with pytest.raises(OSError, match="address already in use"):
            await listening(metrics_app(CollectorRegistry()), port=port, host="127.0.0.1").__aenter__()


async def asked(
    heartbeat: Heartbeat, path: str, *, now: float = 0, checks: dict[str, bool] | None = None
) -> tuple[int, object]:
    named = {name: (lambda value=value: value) for name, value in (checks or {}).items()}
    app = probes_app(heartbeat=heartbeat, checks=named, clock=lambda: now)
    async with (
        listening(app, port=0, host="127.0.0.1") as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/{path}") as response,
    ):
        return response.status, await response.json()
