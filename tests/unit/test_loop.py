"""What the loop tells the probes, in passes that take no time."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.unit.virtualtime import in_virtual_time
from vrampack.controller.loop import Loop, Recollection
from vrampack.controller.metrics import Metrics
from vrampack.controller.probes import Heartbeat
from vrampack.controller.trigger import Trigger
from vrampack.errors import ClusterError, UnavailableError
from vrampack.kube.outcome import Outcome
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
    for _ in range(7):
        assert recollection.did(refused, now=now, complete=True), "the status has to say so"
        held = recollection.memory().unclaimed["uid-1"]
        assert held.message == "a webhook is down"
        pauses.append(held.until - now)
        now = held.until
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    assert not recollection.did(Outcome(), now=now, complete=True)
    recollection.did(Outcome(), now=now + 60, complete=True)
    assert not recollection.memory().unclaimed, "forgotten"


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

    def forget(self) -> None: ...

    def findings(self) -> dict[Any, Any]:
        return {}


class Watch:
    def watch(self, _: Any) -> None: ...


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
