"""What is looked for beside the passes: asked, answered in chunks, dropped where the question has changed."""

import asyncio
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

from tests.unit.packing_builders import gpu, host, item
from vrampack.controller.refiner import Refiner
from vrampack.packing.problem import Objective, Packing, Placement, Resident
from vrampack.planning.findings import Question
from vrampack.planning.whole import Whole


def question(size: int = 20) -> Question:
    """Two replicas on two GPUs that would fit on one."""
    items = tuple(item(f"ns/{name}", size) for name in "ab")
    empty = tuple(host(name, gpu("g0", 48)) for name in ("n0", "n1"))
    placed = tuple(Placement(item=each, host=f"n{number}", devices=("g0",)) for number, each in enumerate(items))
    return Question(
        hosts=tuple(
            host(f"n{n}", gpu("g0", 48 - size, tenants={items[n].group}), tenants={items[n].group}) for n in (0, 1)
        ),
        residents=tuple(Resident(item=each.item, host=each.host, devices=each.devices) for each in placed),
        blocked=(),
        moves=True,
        limit=4,
        per_placement=2,
        whole=Whole(hosts=empty, items=items, packing=Packing(placed=placed, unplaced=())),
        objective=Objective.FEWEST_GPUS,
    )


class Poked:
    """Counts pokes, and lets a test wait for one."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._event.set()

    async def wait(self) -> None:
        async with asyncio.timeout(30):
            await self._event.wait()
        self._event.clear()


async def settled(refiner: Refiner) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(*refiner._tasks.values())


async def test_moves_come_first_and_then_what_is_proven() -> None:
    poked = Poked()
    refiner = Refiner(poke=poked, workers=lambda: ThreadPoolExecutor(1), quiet=0)
    asked = question()
    refiner.ask({"default": (asked, 3)})
    await poked.wait()
    first = refiner.findings()["default"]
    assert first.question is asked
    assert [move.gain for move in first.closing] == [48]
    await settled(refiner)
    found = refiner.findings()["default"]
    assert found.bound is not None
    assert (found.bound.opened, found.bound.optimal, found.chunks) == (48, True, 1), "proven: the rest is not needed"
    await refiner.close()


async def test_at_rest_nothing_is_looked_for_until_something_is_asked_again() -> None:
    poked = Poked()
    refiner = Refiner(poke=poked, workers=lambda: ThreadPoolExecutor(1), quiet=0)
    refiner.ask({"default": (question(), 3)})
    refiner.rest()
    await settled(refiner)
    assert (refiner.findings(), poked.count) == ({}, 0)
    asked = question()
    refiner.ask({"default": (asked, 3)})
    await poked.wait()
    assert refiner.findings()["default"].question is asked
    await refiner.close()


async def test_the_same_question_is_asked_once() -> None:
    poked = Poked()
    refiner = Refiner(poke=poked, workers=lambda: ThreadPoolExecutor(1), quiet=0)
    refiner.ask({"default": (question(), 1)})
    await settled(refiner)
    count = poked.count
    refiner.ask({"default": (question(), 1)})
    refiner.ask({})
    await settled(refiner)
    assert poked.count == count
    assert refiner.findings()["default"].question == question()
    await refiner.close()


class Held(Executor):
    """Runs what it is given only when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any, Any]] = []

    def submit(self, work: Any, /, *arguments: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, work, arguments))
        return future

    async def asked(self) -> None:
        async with asyncio.timeout(30):
            while not self.waiting:  # noqa: ASYNC110  # the loop hands work over in its own time
                await asyncio.sleep(0)

    async def next(self) -> None:
        await self.asked()
        future, work, arguments = self.waiting.pop(0)
        future.set_result(work(*arguments))


async def test_what_was_found_for_a_question_of_before_is_dropped() -> None:
    poked, held = Poked(), Held()
    refiner = Refiner(poke=poked, workers=lambda: held, quiet=0)
    refiner.ask({"default": (question(), 1)})
    await held.asked()
    newer = question(22)
    refiner.ask({"default": (newer, 1)})
    await held.next()  # of the first question
    assert refiner.findings() == {}
    await held.next()
    await poked.wait()
    assert refiner.findings()["default"].question is newer
    await held.next()
    await refiner.close()


async def test_a_question_that_does_not_stand_is_not_looked_into() -> None:
    poked, held = Poked(), Held()
    refiner = Refiner(poke=poked, workers=lambda: held, quiet=0.05)
    for size in (20, 21, 22):
        refiner.ask({"default": (newest := question(size), 1)})
        await asyncio.sleep(0)
    await held.next()
    await poked.wait()
    assert refiner.findings()["default"].question is newest
    await refiner.close()


async def test_who_leads_no_more_looks_for_nothing() -> None:
    poked, held = Poked(), Held()
    refiner = Refiner(poke=poked, workers=lambda: held, quiet=0)
    refiner.ask({"default": (question(), 1)})
    await asyncio.sleep(0)
    refiner.forget()
    await asyncio.sleep(0)
    assert refiner.findings() == {}
    assert poked.count == 0
    await refiner.close()


class Dying(Executor):
    def submit(self, work: Any, /, *arguments: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("killed"))
        return future


async def test_a_process_that_dies_is_started_again_for_the_next_question() -> None:
    made: list[Executor] = []

    def workers() -> Executor:
        made.append(ThreadPoolExecutor(1) if made else Dying())
        return made[-1]

    refiner = Refiner(poke=Poked(), workers=workers, quiet=0)
    refiner.ask({"default": (question(), 1)})
    await settled(refiner)
    assert refiner.findings() == {}
    newer = replace(question(), limit=3)
    refiner.ask({"default": (newer, 1)})
    await settled(refiner)
    assert refiner.findings()["default"].question is newer
    assert len(made) == 2
    await refiner.close()


async def test_a_process_of_its_own_gives_the_same_answer_and_ends_with_it() -> None:
    poked = Poked()
    refiner = Refiner(poke=poked, quiet=0)
    refiner.ask({"default": (question(), 1)})
    await settled(refiner)
    found = refiner.findings()["default"]
    assert found.bound is not None
    assert found.bound.opened == 48
    (process,) = refiner._workers._processes.values()  # type: ignore[union-attr]
    await refiner.close()
    async with asyncio.timeout(30):
        await asyncio.get_running_loop().run_in_executor(None, process.join)
    assert not process.is_alive()
