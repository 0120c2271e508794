"""When passes begin."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.unit.virtualtime import in_virtual_time
from vrampack.controller.trigger import Trigger


@pytest.mark.parametrize(
    ("pokes", "passes"),
    [
        # a single change: after the idle window
        ([3.0], [(3.1, "change", 3.0)]),
        # changes close together: one pass, the window begins anew with each
        ([3.0, 3.05, 3.12], [(3.22, "change", 3.0)]),
        # changes without end: no later than half a second after the first
        ([3.0 + 0.04 * n for n in range(15)], [(3.5, "change", 3.0), (3.66, "change", 3.52)]),
        # nothing: every 30 s
        ([], [(30.0, "resync", None), (60.0, "resync", None)]),
        # a change puts the next resync off
        ([29.0], [(29.1, "change", 29.0), (59.1, "resync", None)]),
    ],
)
def test_passes(pokes: Sequence[float], passes: Sequence[tuple[float, str, float | None]]) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        trigger = Trigger(clock=loop.time)
        for moment in pokes:
            loop.call_at(moment, trigger.poke)
        for begins, why, oldest in passes:
            assert await trigger.wait() == why
            assert loop.time() == pytest.approx(begins)
            assert trigger.oldest_poke == (oldest if oldest is None else pytest.approx(oldest))

    in_virtual_time(scenario())


def test_changes_during_a_pass_are_answered_by_the_next() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        trigger = Trigger(clock=loop.time)
        trigger.poke()
        await trigger.wait()
        loop.call_at(1.0, trigger.poke)
        await asyncio.sleep(5)
        assert trigger.oldest_poke == 0.0
        before = loop.time()
        assert await trigger.wait() == "change"
        assert loop.time() == before
        assert trigger.oldest_poke == 1.0

    in_virtual_time(scenario())


def test_a_wait_that_is_cancelled_loses_no_change() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        trigger = Trigger(clock=loop.time)
        trigger.poke()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await trigger.wait()
        assert trigger.oldest_poke == 0.0
        assert await trigger.wait() == "change"

    in_virtual_time(scenario())
