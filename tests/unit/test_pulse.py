"""Watches that poke, and how they wait for an API server."""

import asyncio
import itertools
import logging
import math
from collections.abc import AsyncGenerator, Coroutine
from functools import partial
from typing import Any

import pytest

from tests.unit.virtualtime import in_virtual_time
from vrampack.controller.pulse import Pulse
from vrampack.errors import ClusterError, UnavailableError

PODS = "Pod"
DEPLOYMENTS = "Deployment"
AWAY = UnavailableError("WATCH /api/v1/pods: Connection refused")
REFUSED = ClusterError("WATCH /api/v1/pods: 403 pods is forbidden", status=403)


class FakeKube:
    """An API server that may be away, whose watches last ``lasts`` seconds unless they break."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []
        self.problem: ClusterError | None = None
        self.lasts = math.inf
        self.open: dict[str, asyncio.Queue[ClusterError | None]] = {}

    async def watch(self, kind: str) -> AsyncGenerator[None]:
        now = asyncio.get_running_loop().time
        end = now() + self.lasts
        self.asked.append((now(), kind))
        if self.problem is not None:
            raise self.problem
        changes = self.open[kind] = asyncio.Queue()
        try:
            yield
            while True:
                async with asyncio.timeout(min(end - now(), 1e6)):
                    broken = await changes.get()
                if broken is not None:
                    raise broken
                yield
        except TimeoutError:
            return
        finally:
            del self.open[kind]

    def change(self) -> None:
        self.open[PODS].put_nowait(None)

    def drop(self, problem: ClusterError) -> None:
        """All connections break, and new ones meet the same."""
        self.problem = problem
        for changes in self.open.values():
            changes.put_nowait(problem)

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.asked]


class World:
    """A pulse on a fake API server."""

    def __init__(self, *kinds: str) -> None:
        self.kube = FakeKube()
        self.pokes = 0
        self.pulse = Pulse({kind: partial(self.kube.watch, kind) for kind in kinds}, poke=self._poke)

    def _poke(self) -> None:
        self.pokes += 1

    async def running(self, scenario: Coroutine[Any, Any, None]) -> None:
        """Cancelled, it ends, and no watch stays open."""
        task = asyncio.create_task(self.pulse.run())
        await scenario
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not self.kube.open
        assert not self.pulse.connected()


def test_all_kinds_are_watched() -> None:
    world = World(PODS, DEPLOYMENTS)

    async def scenario() -> None:
        assert not world.pulse.connected()
        await asyncio.sleep(1)
        assert world.pulse.connected()

    in_virtual_time(world.running(scenario()))
    assert world.kube.asked == [(0, PODS), (0, DEPLOYMENTS)]


def test_it_pokes_once_it_watches_and_for_every_change() -> None:
    world = World(PODS)

    async def scenario() -> None:
        for pokes in (1, 2, 3):
            await asyncio.sleep(1)
            assert world.pokes == pokes
            world.kube.change()

    in_virtual_time(world.running(scenario()))


def test_an_api_server_that_is_away_is_waited_out_and_what_was_missed_pokes() -> None:
    world = World(PODS)

    async def scenario() -> None:
        await asyncio.sleep(1)
        world.kube.drop(AWAY)
        await asyncio.sleep(59)
        assert not world.pulse.connected()
        assert world.pokes == 1
        world.kube.problem = None
        await asyncio.sleep(6)
        assert world.pulse.connected()
        assert world.pokes == 2
        world.kube.change()
        await asyncio.sleep(1)
        assert world.pokes == 3

    in_virtual_time(world.running(scenario()))
    tries = world.kube.times[1:]
    waits = [after - before for before, after in itertools.pairwise(tries)]
    assert all(0.5 <= wait <= 5 for wait in waits)
    assert waits[0] < 2.5 <= min(waits[3:])


def test_one_kind_that_is_away_is_enough_to_be_unconnected() -> None:
    world = World(PODS, DEPLOYMENTS)

    async def scenario() -> None:
        await asyncio.sleep(1)
        world.kube.open[DEPLOYMENTS].put_nowait(AWAY)
        await asyncio.sleep(0.1)
        assert not world.pulse.connected()
        assert world.kube.open.keys() == {PODS}

    in_virtual_time(world.running(scenario()))


@pytest.mark.parametrize(
    ("lasts", "least", "most"),
    [(300.0, 3, 3), (0.0, 170, 400)],  # at once, at the end of each; every 2.5 to 5 s
    ids=["as watches do", "at once"],
)
def test_a_watch_that_ends_is_asked_for_again_but_not_in_a_circle(lasts: float, least: int, most: int) -> None:
    world = World(PODS)
    world.kube.lasts = lasts

    async def scenario() -> None:
        await asyncio.sleep(899)

    in_virtual_time(world.running(scenario()))
    assert least <= len(world.kube.asked) <= most
    if lasts:
        assert world.kube.times == pytest.approx([0, lasts, 2 * lasts])


@pytest.mark.parametrize(("problem", "levels"), [(REFUSED, {logging.WARNING}), (AWAY, {logging.DEBUG})])
def test_only_a_refusal_is_worth_a_warning(
    problem: ClusterError, levels: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    world = World(PODS)
    world.kube.problem = problem

    async def scenario() -> None:
        await asyncio.sleep(10)

    with caplog.at_level(logging.DEBUG, logger="vrampack"):
        in_virtual_time(world.running(scenario()))
    assert {record.levelno for record in caplog.records} == levels
    assert all(str(problem) in record.message for record in caplog.records)
