"""The pods as a watch tells of them: what is known, how new it is, and when it is not to be trusted."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from vrampack.api import names
from vrampack.errors import ClusterError, UnavailableError
from vrampack.kube.mirror import Mirror, newest

GONE = {"kind": "Status", "code": 410, "message": "too old resource version: 10 (20)"}


class FakeKube:
    """Answers lists in pages of two at version ``version``, and watches with what is put into ``events``."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = list(pods)
        self.version = 10
        self.asked: list[dict[str, object]] = []
        self.problem: ClusterError | None = None
        self.events: asyncio.Queue[list[bytes]] = asyncio.Queue()

    async def list_raw(self, path: str, **query: object) -> bytes:
        start = int(str(query["continue"] or 0))
        self.asked.append({"list": path, "from": start, "labels": query["labelSelector"]})
        following = str(start + 2) if start + 2 < len(self.pods) else ""
        page = {"metadata": {"continue": following, "resourceVersion": str(self.version)}}
        return json.dumps(page | {"items": self.pods[start : start + 2]}).encode()

    async def watch(self, path: str, **query: object) -> AsyncGenerator[list[bytes]]:
        self.asked.append({"watch": path, "from": query["resourceVersion"], "labels": query["labelSelector"]})
        if self.problem is not None:
            raise self.problem
        yield []
        while True:
            yield await self.events.get()

    def tell(self, *events: tuple[str, dict[str, Any]]) -> None:
        """All at once, as they come where many pods change."""
        self.events.put_nowait([json.dumps({"type": kind, "object": object_}).encode() for kind, object_ in events])


def pod(name: str, version: int, **metadata: Any) -> dict[str, Any]:
    labels = {names.MODEL_DEPLOYMENT: "llama"}
    return {
        "metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": str(version), "labels": labels}
        | metadata
    }


class Session:
    """A mirror that follows its API server."""

    def __init__(self, *pods: dict[str, Any], patience: float = 5.0) -> None:
        self.kube = FakeKube(*pods)
        self.mirror = Mirror(self.kube, patience=patience)  # type: ignore[arg-type]
        self.told = 0

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        live = asyncio.Event()

        async def follow() -> None:
            async for _ in self.mirror.follow():
                self.told += 1
                live.set()

        task = asyncio.create_task(follow())
        async with asyncio.timeout(5):
            await live.wait()
            yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def fails(self) -> ClusterError:
        with pytest.raises(ClusterError) as raised:
            async for _ in self.mirror.follow():
                pass
        return raised.value

    async def names(self, *, since: int = 0) -> list[str] | None:
        pods = await self.mirror.read(since=since)
        return None if pods is None else [each.name for each in pods]


async def test_it_lists_page_by_page_and_watches_from_there() -> None:
    session = Session(pod("c", 3), pod("b", 5), pod("a", 4))

    async with session.following():
        assert await session.names(since=10) == ["a", "b", "c"]

    label = names.MODEL_DEPLOYMENT
    assert session.kube.asked == [
        {"list": "/api/v1/pods", "from": 0, "labels": label},
        {"list": "/api/v1/pods", "from": 2, "labels": label},
        {"watch": "/api/v1/pods", "from": "10", "labels": label},
    ]


async def test_a_reader_waits_for_what_was_written_before() -> None:
    session = Session(pod("a", 4))

    async with session.following():
        reading = asyncio.create_task(session.mirror.read(since=12))
        session.kube.tell(("MODIFIED", pod("a", 11, annotations={names.NEED: "old"})))
        session.kube.tell(
            ("MODIFIED", pod("a", 12, annotations={names.NEED: "new"})),
            ("ADDED", pod("b", 13)),
            ("DELETED", pod("b", 14)),
        )
        pods = await reading

    assert pods is not None
    assert [(each.name, each.resource_version, each.need) for each in pods] == [("a", "12", "new")]
    assert newest(pods) == 12


async def test_a_bookmark_brings_it_as_far_as_a_change_and_is_none() -> None:
    session = Session(pod("a", 4))

    async with session.following():
        told = session.told
        session.kube.tell(("BOOKMARK", {"metadata": {"resourceVersion": "20"}}))
        assert await session.names(since=20) == ["a"]
        assert session.told == told


async def test_what_a_reader_does_not_get_in_time_is_not_known() -> None:
    session = Session(pod("a", 4), patience=0.01)

    async with session.following():
        assert await session.names(since=11) is None
        assert await session.names(since=10) == ["a"]


async def test_without_a_watch_nothing_is_known_and_it_goes_on_where_it_was() -> None:
    session = Session(pod("a", 4))
    assert await session.names() is None
    async with session.following():
        session.kube.tell(("ADDED", pod("b", 11)))
        assert await session.names(since=11) == ["a", "b"]
        waiting = asyncio.create_task(session.names(since=12))
    assert await waiting is None
    assert await session.names() is None

    async with session.following():
        assert await session.names() == ["a", "b"]
    assert [each for each in session.kube.asked if "watch" in each][1]["from"] == "11"


@pytest.mark.parametrize("told", [True, False], ids=["by an event", "by an answer"])
async def test_a_watch_that_is_too_old_begins_anew_with_what_is_there(told: bool) -> None:
    session = Session(pod("a", 4))
    async with session.following():
        pass
    session.kube.pods, session.kube.version = [pod("b", 19)], 20
    if told:
        session.kube.tell(("ERROR", GONE))
    else:
        session.kube.problem = ClusterError("too old", status=410)

    assert (await session.fails()).status == 410
    session.kube.problem = None

    async with session.following():
        assert await session.names(since=20) == ["b"]


async def test_an_api_server_that_is_away_costs_no_list() -> None:
    session = Session(pod("a", 4))
    async with session.following():
        pass
    session.kube.problem = UnavailableError("connection refused")

    assert isinstance(await session.fails(), UnavailableError)
    session.kube.problem = None

    async with session.following():
        assert await session.names() == ["a"]
    assert sum("list" in each for each in session.kube.asked) == 1


async def test_an_answer_that_is_no_watch_is_an_error_of_the_cluster() -> None:
    session = Session()
    session.kube.events.put_nowait([b"<html>"])

    assert "the answer is no watch" in str(await session.fails())


async def test_a_pod_that_can_not_be_read_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    session = Session({"metadata": {"name": 3}}, pod("a", 4, annotations={names.GPUS: "g", names.CLAIM: "5"}))

    async with session.following():
        session.kube.tell(("ADDED", {"metadata": {}}), ("ADDED", pod("b", 11)))
        assert await session.names(since=11) == ["a", "b"]

    assert caplog.text.count("can't be read, so it is left out") == 2
