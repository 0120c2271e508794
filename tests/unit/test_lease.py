"""Who leads, with contenders on one Lease, in virtual time. An answer takes 10 ms."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.virtualtime import in_virtual_time
from vrampack.controller.lease import Leadership
from vrampack.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError

ANSWER_SECONDS = 0.01


@dataclass
class Server:
    """Holds one Lease and refuses stale writes, as the API server does."""

    lease: dict[str, Any] | None = None
    version: int = 0
    leaders: list[tuple[str, int]] = field(default_factory=list)

    def write(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        self.version += 1
        before = self.lease["spec"] if self.lease else {}
        self.lease = {"metadata": {"resourceVersion": str(self.version)}, "spec": {**before, **spec}}
        found = (self.lease["spec"].get("holderIdentity", ""), self.lease["spec"].get("leaseTransitions", 0))
        if found[0] and (not self.leaders or self.leaders[-1] != found):
            self.leaders.append(found)
        return self.lease


class Line:
    """One contender's connection: ``up``, ``refused``, ``hangs`` or ``mute`` (writes arrive, answers do not).

    ``late``: writes arrive, and answers as soon as the state is another, as for a process that was stopped.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.state = "up"

    async def get(self, path: str) -> dict[str, Any]:
        await self._goes()
        if self.server.lease is None:
            raise NotFoundError(path, status=404)
        return await self._comes(self.server.lease)

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        await self._goes()
        if self.server.lease is not None:
            raise ConflictError(path, status=409)
        return await self._comes(self.server.write(body["spec"]))

    async def merge_patch(self, path: str, body: Mapping[str, Any], *, field_manager: str) -> dict[str, Any]:
        await self._goes()
        if self.server.lease is None:
            raise NotFoundError(path, status=404)
        if body["metadata"]["resourceVersion"] != str(self.server.version):
            raise ConflictError(path, status=409)
        return await self._comes(self.server.write(body["spec"]))

    async def _goes(self) -> None:
        if self.state == "refused":
            raise UnavailableError("connection refused")
        await asyncio.sleep(ANSWER_SECONDS / 2)
        if self.state == "hangs":
            await asyncio.sleep(3600)

    async def _comes(self, answer: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(3600 if self.state == "mute" else ANSWER_SECONDS / 2)
        while self.state == "late":  # noqa: ASYNC110 - a state of the test, in virtual time
            await asyncio.sleep(0.1)
        return answer


class Contender:
    """A process that campaigns; its clock can jump, as the clock of a process that was stopped does."""

    def __init__(self, server: Server, identity: str) -> None:
        loop = asyncio.get_running_loop()
        self.line = Line(server)
        self.slept = 0.0
        self.changes: list[tuple[int | None, bool]] = []
        self.leadership = Leadership(
            self.line,
            namespace="vrampack-system",
            identity=identity,
            on_change=lambda: self.changes.append((self.epoch, self.leadership.settled)),
            clock=lambda: loop.time() + self.slept,
        )
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.leadership.run(self.stop))

    @property
    def epoch(self) -> int | None:
        return self.leadership.epoch

    async def end(self) -> None:
        self.stop.set()
        await self.task

    async def crash(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


def scenario(play: Callable[[Server], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        in_virtual_time(play(Server()))

    return test


async def leads(contender: Contender, *, within: float) -> float:
    """Waits until a contender leads; the seconds that it took."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while contender.epoch is None:
        assert loop.time() - begun < within, f"no leader within {within} s"
        await asyncio.sleep(0.01)
    return loop.time() - begun


@scenario
async def test_the_first_leads_at_once_and_settles_a_second_later(server: Server) -> None:
    contender = Contender(server, "a")
    await leads(contender, within=0.1)
    assert not contender.leadership.settled
    await asyncio.sleep(1.1)
    assert contender.leadership.settled
    assert contender.changes == [(1, False), (1, True)]
    await asyncio.sleep(3600)
    assert contender.changes[2:] == []
    spec = server.lease["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("a", 15, 1)
    assert server.version == pytest.approx(3600 / 2, rel=0.05)
    await contender.end()


@scenario
async def test_a_lease_given_back_is_taken_at_the_next_look(server: Server) -> None:
    first = Contender(server, "a")
    await leads(first, within=0.1)
    second = Contender(server, "b")
    await asyncio.sleep(100)
    assert second.epoch is None
    await first.end()
    assert first.epoch is None
    assert first.changes[-1] == (None, False)
    assert server.lease["spec"]["holderIdentity"] == ""
    await leads(second, within=2.1)
    assert second.epoch == 2
    await second.end()


@pytest.mark.parametrize("state", ["refused", "hangs", "mute"])
def test_a_leader_that_is_cut_off_gives_up_before_another_takes_over(state: str) -> None:
    async def play(server: Server) -> None:
        first = Contender(server, "a")
        await leads(first, within=0.1)
        second = Contender(server, "b")
        await asyncio.sleep(7)
        first.line.state = state
        while first.epoch is not None:
            assert second.epoch is None
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.02)
        assert first.changes[-1] == (None, False)
        assert 4 < await leads(second, within=12) < 12
        first.line.state = "up"
        await asyncio.sleep(100)
        assert (first.epoch, second.epoch) == (None, 2)
        await first.end()
        await second.end()

    in_virtual_time(play(Server()))


@scenario
async def test_a_stopped_process_is_no_leader_when_it_wakes_up(server: Server) -> None:
    contender = Contender(server, "a")
    await leads(contender, within=0.1)
    contender.slept = 10.1
    assert contender.epoch is None
    assert not contender.leadership.settled
    await leads(contender, within=2.1)
    assert contender.epoch == 2
    await contender.end()


@scenario
async def test_a_restart_under_the_same_name_acquires_anew(server: Server) -> None:
    before = Contender(server, "a")
    await leads(before, within=0.1)
    await before.crash()
    after = Contender(server, "a")
    assert await leads(after, within=15.1) > 14.9
    assert after.epoch == 2
    await after.end()
    again = Contender(server, "a")
    await leads(again, within=0.1)
    assert again.epoch == 3
    await again.end()


@scenario
async def test_an_acquisition_whose_answer_was_lost_is_not_waited_for(server: Server) -> None:
    contender = Contender(server, "a")
    await asyncio.sleep(0.008)
    contender.line.state = "mute"
    await asyncio.sleep(4)
    contender.line.state = "up"
    await leads(contender, within=5)
    assert server.leaders == [("a", 1), ("a", 2)]
    await contender.end()


@scenario
async def test_a_lease_that_was_deleted_is_made_again_by_its_leader(server: Server) -> None:
    first = Contender(server, "a")
    await leads(first, within=0.1)
    second = Contender(server, "b")
    await asyncio.sleep(10)
    server.lease = None
    await asyncio.sleep(5)
    assert (first.epoch, second.epoch) == (2, None)
    await first.crash()
    server.lease = None
    assert await leads(second, within=17.1) > 14
    assert second.epoch == 3
    await second.end()


@scenario
async def test_a_lease_taken_by_hand_is_given_up(server: Server) -> None:
    contender = Contender(server, "a")
    await leads(contender, within=0.1)
    server.write({"holderIdentity": "someone", "leaseTransitions": 41, "leaseDurationSeconds": 3})
    await asyncio.sleep(2.1)
    assert contender.epoch is None
    await leads(contender, within=3.1)
    assert contender.epoch == 42
    await contender.end()


@scenario
async def test_an_api_server_that_is_away_at_the_start_is_waited_out(server: Server) -> None:
    contender = Contender(server, "a")
    contender.line.state = "refused"
    await asyncio.sleep(600)
    contender.line.state = "up"
    await leads(contender, within=2.1)
    await contender.end()


TROUBLE = st.tuples(
    st.sampled_from("ab"), st.sampled_from(["up", "up", "refused", "hangs", "mute", "late"]), st.floats(0.1, 20)
)


@settings(max_examples=30, deadline=None)
@given(troubles=st.lists(TROUBLE, max_size=8))
def test_never_two_leaders_and_epochs_only_rise(troubles: list[tuple[str, str, float]]) -> None:
    async def play(server: Server) -> None:
        contenders = {name: Contender(server, name) for name in "ab"}

        async def watch(seconds: float) -> None:
            end = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < end:
                assert sum(one.epoch is not None for one in contenders.values()) <= 1
                await asyncio.sleep(0.1)

        for name, what, seconds in troubles:
            contenders[name].line.state = what
            await watch(seconds)
        for one in contenders.values():
            one.line.state = "up"
        await watch(30)
        assert sum(one.epoch is not None for one in contenders.values()) == 1
        epochs = [epoch for _, epoch in server.leaders]
        assert epochs == list(range(1, len(epochs) + 1))
        for one in contenders.values():
            await one.end()

    in_virtual_time(play(Server()))


@pytest.mark.parametrize(("identity", "seconds", "field"), [("", 15, "identity"), ("a", 0, "lease-seconds")])
def test_terms_that_cannot_be(identity: str, seconds: int, field: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{field}: "):
        Leadership(None, namespace="n", identity=identity, lease_seconds=seconds, on_change=lambda: None)
