"""What the loop tells the probes, in passes that take no time."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.unit.planning_world import children, deployment, model, of_kind, placed, pod, world
from tests.unit.virtualtime import in_virtual_time
from vrampack.controller.loop import Loop
from vrampack.controller.metrics import Metrics
from vrampack.controller.probes import Heartbeat
from vrampack.controller.recollection import Recollection
from vrampack.controller.trigger import Trigger
from vrampack.errors import ClusterError, UnavailableError
from vrampack.kube.outcome import Outcome
from vrampack.planning.actions import CreateChild, DeletePod, Plan
from vrampack.planning.snapshot import Snapshot
from vrampack.planning.verdict import Settings

AFTER_THE_STALL = 60.0
TRUSTED = 30.0


def test_pods_are_asked_for_until_a_pass_ended_well_and_then_from_time_to_time() -> None:
    recollection = Recollection(refusal_seconds=30, now=0.0)
    assert recollection.new_enough(0.0) is None
    recollection.trust(41)
    assert recollection.new_enough(1.0) == 41
    assert recollection.new_enough(2.0) is None  # the pass that read them did not end well
    recollection.trust(42)
    assert recollection.new_enough(2.0 + TRUSTED) == 42
    recollection.trust(43)
    assert recollection.new_enough(2.1 + TRUSTED) is None


def test_what_is_refused_is_asked_again_a_little_later_each_time() -> None:
    recollection = Recollection(refusal_seconds=30, now=0.0)
    refused = Outcome(refused={"uid-1": "a webhook is down"})
    pauses, now = [], 0.0
    for _ in range(2000):
        assert recollection.did(refused, now=now, complete=True), "the status has to say so"
        held = recollection.memory().unclaimed["uid-1"]
        assert held.message == "a webhook is down"
        pauses.append(held.until - now)
        now = held.until
    assert pauses == pytest.approx([2, 4, 8, 16, 32, *[60] * 1995])
    assert not recollection.did(Outcome(), now=now, complete=True)
    here = replace(pod(), uid="uid-1")
    recollection.saw(world(pods=[here], now=now + 3600), over=frozenset())
    assert recollection.memory().unclaimed.keys() == {"uid-1"}, "who was refused evicts nobody, as long as it is there"
    recollection.saw(world(now=now + 3601), over=frozenset())
    assert not recollection.memory().unclaimed


def test_a_node_that_refuses_for_weeks_is_left_alone_for_ten_minutes_each_time() -> None:
    recollection = Recollection(refusal_seconds=30, now=0.0)
    gone = DeletePod(pod=pod(), model="serving/llama", node="n1", reason="PlacementRefused", message="no CPU")
    now = 0.0
    for _ in range(2000):
        recollection.did(Outcome(deleted=(gone,)), now=now, complete=True)
        until = recollection.memory().refusals["serving/llama", "n1"]
        assert until - now <= 600
        now = until + 300


def test_a_refused_child_is_looked_at_again_at_once_only_where_it_is_news() -> None:
    recollection = Recollection(refusal_seconds=30, now=0.0)
    assert recollection.did(Outcome(child_errors={"serving/a": "read on port 4711"}), now=0.0, complete=True)
    assert not recollection.did(Outcome(child_errors={"serving/a": "read on port 4712"}), now=1.0, complete=True)
    assert recollection.memory().child_errors == {"serving/a": "read on port 4712"}
    assert recollection.did(Outcome(child_errors={"serving/b": "quota"}), now=2.0, complete=True)


class Observer:
    """Never gets as far as a snapshot."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def observe(self, **_: Any) -> Any:
        raise self._error


class Resolver:
    def request(self, _: Any) -> None: ...

    def results(self) -> dict[Any, Any]:
        return {}


class Refiner:
    def ask(self, _: Any) -> None: ...

    def rest(self) -> None: ...

    def forget(self) -> None: ...

    def findings(self) -> dict[Any, Any]:
        return {}


class Watch:
    def watch(self, _: Any) -> None: ...

    def looks(self) -> dict[Any, Any]:
        return {}


@pytest.mark.parametrize(
    ("error", "epoch", "healthy"),
    [
        (AssertionError("a plan that no one foresaw"), 1, False),
        (ClusterError("pods is forbidden", status=403), 1, False),
        (UnavailableError("no answer"), 1, True),
        (AssertionError("stands by, and makes no pass"), None, True),
    ],
    ids=["broken", "forbidden", "API server away", "standby"],
)
def test_passes_that_all_fail_are_no_good_health(error: Exception, epoch: int | None, healthy: bool) -> None:
    async def scenario() -> None:
        time = asyncio.get_running_loop().time
        heartbeat = Heartbeat(stall_seconds=120)
        parts: Any = {
            "observer": Observer(error),
            "actor": None,
            "resolver": Resolver(),
            "watch": Watch(),
            "refiner": Refiner(),
        }
        parts["leadership"] = SimpleNamespace(epoch=epoch, settled=True)
        loop = Loop(
            **parts,
            trigger=Trigger(clock=time),
            metrics=Metrics(CollectorRegistry()),
            heartbeat=heartbeat,
            settings=Settings(),
            clock=time,
            monotonic=time,
        )
        passes = asyncio.create_task(loop.run())
        await asyncio.sleep(100)
        assert heartbeat.stall(time()) is None
        await asyncio.sleep(AFTER_THE_STALL)
        assert (heartbeat.stall(time()) is None) == healthy
        passes.cancel()

    in_virtual_time(scenario())


class Fleet:
    """What each pass sees, and what it was to do about it, by the time at which it began. An act takes 0.4 s."""

    def __init__(self, *snapshots: Snapshot) -> None:
        self._snapshots = snapshots
        self._began = 0.0
        self.acted: list[tuple[float, Plan]] = []

    async def observe(self, **_: Any) -> Snapshot:
        self._began = asyncio.get_running_loop().time()
        return self._snapshots[min(len(self.acted), len(self._snapshots) - 1)]

    async def act(self, plan: Plan) -> Outcome:
        self.acted.append((self._began, plan))
        await asyncio.sleep(0.4)
        return Outcome(placed=plan.placements)


def passes(*snapshots: Snapshot, seconds: float) -> list[tuple[float, Plan]]:
    """The passes of so many seconds, of which somebody tells once, at their beginning. The last snapshot stays."""
    fleet = Fleet(*snapshots)

    async def scenario() -> None:
        time = asyncio.get_running_loop().time
        trigger = Trigger(clock=time)
        parts: Any = {"observer": fleet, "actor": fleet, "resolver": Resolver(), "watch": Watch(), "refiner": Refiner()}
        loop = Loop(
            **parts,
            leadership=SimpleNamespace(epoch=1, settled=True),  # type: ignore[arg-type]
            trigger=trigger,
            metrics=Metrics(CollectorRegistry()),
            heartbeat=Heartbeat(stall_seconds=120),
            settings=Settings(),
            clock=time,
            monotonic=time,
        )
        trigger.poke()
        running = asyncio.create_task(loop.run())
        await asyncio.sleep(seconds)
        running.cancel()

    in_virtual_time(scenario())
    return fleet.acted


DEPLOYMENT = [deployment(children(model()))]
WAITING = world(model(), pods=[pod()], made=DEPLOYMENT)
PLACED = world(model(), pods=[placed()], made=DEPLOYMENT)


def test_what_a_pass_tells_waits_for_replicas_that_come_meanwhile() -> None:
    (_, first), (_, second), (_, last) = passes(WAITING, WAITING, PLACED, seconds=2)
    for hurried in (first, second):
        assert hurried.placements
        assert (hurried.children, hurried.statuses, hurried.events) == ((), (), ())
    assert not last.placements
    assert {each.kind for each in last.statuses} == {"ModelDeployment", "GPUNode"}
    assert {each.manifest["kind"] for each in of_kind(last, CreateChild)} == {"PodDisruptionBudget", "Service"}


def test_it_does_not_wait_for_ever() -> None:
    (told,) = [began for began, done in passes(WAITING, seconds=15) if done.statuses]
    assert 10 <= told < 11
