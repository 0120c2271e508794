"""The agent's gate: whose turn it is to start on a GPU, and what it answers to those who ask."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import ClientSession, web
from hypothesis import given
from hypothesis import strategies as st

from vrampack.agent.pods import decode_pods
from vrampack.agent.startgate import StartGate, Tenant, application, tenants_of


def tenant(uid: str, *gpus: str, running: bool = True, started: bool = False, since: float = 100.0) -> Tenant:
    return Tenant(
        uid=uid, name=f"ns/{uid}", gpus=frozenset(gpus or ("A",)), running=running, started=started, since=since
    )


@dataclass
class Node:
    """A gate, the pods and a clock."""

    tenants: dict[str, Tenant]
    gate: StartGate = field(default_factory=StartGate)
    now: float = 100.0

    def ask(self, uid: str, *, after: float = 1.0) -> str | None:
        self.now += after
        return self.gate.ask(uid, since=self.tenants[uid].since, tenants=self.tenants, now=self.now)

    def change(self, uid: str, **changes: Any) -> None:
        self.tenants[uid] = replace(self.tenants[uid], **changes)


def node(*tenants: Tenant, **fields: Any) -> Node:
    return Node({each.uid: each for each in tenants}, **fields)


def test_the_first_to_ask_starts_and_the_other_waits_until_it_has_started() -> None:
    found = node(tenant("a"), tenant("b"))
    found.tenants.pop("b")
    assert found.ask("a") is None
    found.tenants["b"] = tenant("b")
    assert found.ask("b") == "ns/a"
    found.change("a", started=True)
    assert found.ask("b") is None


def test_on_another_gpu_nobody_waits() -> None:
    found = node(tenant("a", "A"), tenant("b", "B", running=False))
    assert found.ask("a") is None
    found.change("b", running=True)
    assert found.ask("b") is None


def test_an_engine_that_never_asked_holds_up_the_others_while_it_starts() -> None:
    found = node(tenant("a", since=90.0), tenant("b"))
    assert found.ask("b") == "ns/a"
    found.change("a", started=True)
    assert found.ask("b") is None


def test_both_waiting_the_earlier_one_comes_first() -> None:
    found = node(tenant("old", started=False), tenant("a", running=False), tenant("b", running=False))
    assert found.ask("old") is None
    for uid in ("b", "a"):
        found.change(uid, running=True)
        assert found.ask(uid) is not None
    found.change("old", started=True)
    assert found.ask("a") == "ns/b"
    assert found.ask("b") is None
    assert found.ask("a") == "ns/b"


def test_nobody_holds_up_others_for_longer_by_what_it_says_of_its_own_start() -> None:
    """An engine that serves may say that it is just being started: that may be, before its pod is seen again."""
    found = node(tenant("a", started=True), tenant("b", running=False))
    assert found.gate.ask("a", since=1e9, tenants=found.tenants, now=found.now) is None
    assert found.ask("b") == "ns/a"
    assert found.ask("b", after=28.0) == "ns/a"
    assert found.ask("b", after=2.0) is None


def test_two_that_share_two_gpus_never_wait_for_each_other() -> None:
    found = node(tenant("a", "A", "B", running=False), tenant("b", "B", "A", running=False))
    for uid in ("a", "b"):
        found.change(uid, running=True)
    answers = [found.ask(uid) for uid in ("a", "b", "a", "b")]
    assert answers.count(None) >= 1
    assert not (found.ask("a") is None and found.ask("b") is None)


def test_a_crashed_engine_asks_again_and_its_former_readiness_counts_for_nothing() -> None:
    found = node(tenant("a", started=True), tenant("b", started=True))
    # a's container starts again at 200; the pods are known as they were before
    assert found.gate.ask("a", since=200.0, tenants=found.tenants, now=201.0) is None
    found.change("b", started=False, since=202.0)
    assert found.gate.ask("b", since=202.0, tenants=found.tenants, now=203.0) == "ns/a"
    found.change("a", since=200.0)
    assert found.gate.ask("b", since=202.0, tenants=found.tenants, now=204.0) is None


def test_nobody_holds_up_others_for_ever() -> None:
    found = node(tenant("a"), tenant("b", running=False), gate=StartGate(longest=60.0))
    assert found.ask("a") is None
    found.change("b", running=True)
    assert found.ask("b", after=30) == "ns/a"
    assert found.ask("b", after=31) is None


def test_one_that_is_gone_holds_up_nobody() -> None:
    found = node(tenant("a"), tenant("b", running=False))
    assert found.ask("a") is None
    found.change("b", running=True)
    assert found.ask("b") == "ns/a"
    del found.tenants["a"]
    assert found.ask("b") is None


def test_who_asks_no_more_loses_its_place() -> None:
    found = node(tenant("old"), tenant("a", running=False), tenant("b", running=False))
    assert found.ask("old") is None
    found.change("a", running=True)
    found.ask("a")
    found.change("a", running=False)
    found.change("b", running=True)
    found.ask("b", after=20)
    found.change("old", started=True)
    assert found.ask("b") is None


@given(
    gpus=st.lists(st.sets(st.sampled_from("ABC"), min_size=1), min_size=2, max_size=5),
    steps=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=60),
)
def test_at_most_one_engine_of_a_gpu_starts(gpus: list[set[str]], steps: list[tuple[int, bool]]) -> None:
    found = node(*(tenant(str(index), *each, running=False) for index, each in enumerate(gpus)))
    starting: set[str] = set()
    for index, gets_ready in steps:
        uid = str(index % len(gpus))
        if gets_ready and uid in starting:
            starting.discard(uid)
            found.change(uid, started=True)
        elif not found.tenants[uid].started and uid not in starting:
            found.change(uid, running=True)
            if found.ask(uid) is None:
                starting.add(uid)
        for one in starting:
            for other in starting - {one}:
                assert not found.tenants[one].gpus & found.tenants[other].gpus
    # and nobody waits for nothing: with all that start ready, somebody who waits gets its turn
    for uid in starting:
        found.change(uid, started=True)
    waiting = [uid for uid, each in found.tenants.items() if each.running and not each.started]
    assert not waiting or None in [found.ask(uid) for uid in waiting for _ in range(2)]


def test_pods_as_the_agent_sees_them() -> None:
    pod = {
        "metadata": {
            "name": "p",
            "namespace": "ns",
            "uid": "u",
            "resourceVersion": "1",
            "labels": {"vrampack.dev/model-deployment": "m"},
            "annotations": {"vrampack.dev/gpus": "A,B"},
        },
        "spec": {"containers": [{"name": "engine", "startupProbe": {}}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {"name": "engine", "started": True, "state": {"running": {"startedAt": "2026-11-28T10:00:00Z"}}}
            ],
        },
    }
    raw = web.json_response({"items": [pod]}).body
    assert isinstance(raw, bytes)
    (found,) = tenants_of(decode_pods(raw)).values()
    assert found == Tenant(
        uid="u", name="ns/p", gpus=frozenset({"A", "B"}), running=True, started=True, since=1795860000.0
    )


def test_the_endpoint_speaks_as_the_gate_says() -> None:
    tenants: Mapping[str, Tenant] = {"a": tenant("a"), "b": tenant("b", running=False)}

    async def talk() -> list[tuple[int, str]]:
        app = application(StartGate(), tenants=lambda: tenants, clock=lambda: 105.0)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        answers = []
        async with ClientSession() as session:
            for path in (
                "start/a?since=100",
                "start/b?since=101",
                "start/nobody?since=1",
                "start/a?since=x",
                "start/a?since=nan",
            ):
                async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                    answers.append((answer.status, await answer.text()))
        await runner.cleanup()
        return answers

    statuses = asyncio.run(talk())
    assert [status for status, _ in statuses] == [200, 409, 404, 400, 400]
    assert "ns/a" in statuses[1][1]
