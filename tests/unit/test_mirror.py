"""The pods as a watch tells of them: what is known, how new it is, and when it is not to be trusted."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from vrampack.api import names
from vrampack.errors import ClusterError, RestoredError, UnavailableError
from vrampack.kube.history import History
from vrampack.kube.mirror import Mirror, newest
from vrampack.planning.snapshot import Claim

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
        self.version = max(
            [self.version, *(int(each.get("metadata", {}).get("resourceVersion", 0)) for _, each in events)]
        )
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
        self.restored = 0
        self.history = History(on_restore=self.count_restore)
        self.mirror = Mirror(self.kube, history=self.history, patience=patience)  # type: ignore[arg-type]
        self.told = 0

    def count_restore(self) -> None:
        self.restored += 1

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


async def test_without_a_watch_nothing_is_known_and_it_begins_anew_with_a_list() -> None:
    session = Session(pod("a", 4))
    assert await session.names() is None
    async with session.following():
        session.kube.tell(("ADDED", pod("b", 11)))
        assert await session.names(since=11) == ["a", "b"]
        waiting = asyncio.create_task(session.names(since=12))
    assert await waiting is None
    assert await session.names() is None

    session.kube.pods, session.kube.version = [pod("b", 11), pod("c", 12)], 12
    async with session.following():
        assert await session.names() == ["b", "c"]
    assert [each["from"] for each in session.kube.asked if "watch" in each] == ["10", "12"]


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


@pytest.mark.parametrize("come", [7, 30], ids=["the store is not that far again", "it is farther by now"])
async def test_a_store_that_was_restored_while_the_watch_was_away_is_listed_anew(come: int) -> None:
    session = Session(pod("a", 4), pod("b", 9))
    async with session.following():
        session.kube.tell(("DELETED", pod("a", 15)))
        assert await session.names(since=15) == ["b"]
    session.kube.problem = UnavailableError("connection refused")
    session.kube.pods, session.kube.version = [pod("a", 4)], come

    assert isinstance(await session.fails(), RestoredError if come < 15 else UnavailableError)
    assert session.restored == (come < 15)
    session.kube.problem = None

    async with session.following():
        assert await session.names() == ["a"]


@pytest.mark.parametrize(
    "event", [("MODIFIED", pod("a", 7)), ("BOOKMARK", {"metadata": {"resourceVersion": "7"}})], ids=["pod", "bookmark"]
)
async def test_a_watch_that_tells_of_a_lower_version_is_of_another_store(event: tuple[str, dict[str, Any]]) -> None:
    session = Session(pod("a", 4))
    session.kube.tell(event)

    assert isinstance(await session.fails(), RestoredError)
    assert await session.names() is None
    assert session.restored == 1


async def test_what_another_list_says_of_a_restore_counts_for_a_watch_that_hears_nothing() -> None:
    session = Session(pod("a", 4))
    async with session.following():
        assert await session.names() == ["a"]
        session.history.heard("/api/v1/nodes", 12, floor=0)
        with pytest.raises(RestoredError):
            session.history.heard("/api/v1/nodes", 3, floor=12)
        assert await session.names() is None

    async with session.following():
        assert await session.names() == ["a"]


async def test_an_answer_that_was_asked_for_before_is_not_of_another_store() -> None:
    session = Session(pod("a", 4))
    async with session.following():
        floor = session.history.reached("/api/v1/pods")
        session.kube.tell(("MODIFIED", pod("a", 12)))
        assert await session.names(since=12) == ["a"]

        session.history.heard("/api/v1/pods", 11, floor=floor)

        assert session.history.reached("/api/v1/pods") == 12
        assert await session.names(since=12) == ["a"]


async def test_an_answer_that_is_no_watch_is_an_error_of_the_cluster() -> None:
    session = Session()
    session.kube.events.put_nowait([b"<html>"])

    assert "the answer is no watch" in str(await session.fails())


async def test_a_pod_that_can_not_be_read_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    session = Session({"metadata": [3]}, pod("a", 4))

    async with session.following():
        session.kube.events.put_nowait([b'{"type": "ADDED", "object": {"metadata": null}}'])
        session.kube.tell(("ADDED", pod("b", 11)))
        assert await session.names(since=11) == ["a", "b"]

    assert caplog.text.count("can't be read, so it is left out") == 2


CLAIMED = {names.GPUS: "g", names.CLAIM: "5", names.EPOCH: "1"}
DAMAGED = {"creationTimestamp": "yesterday", "ownerReferences": [{"uid": 3}], "annotations": CLAIMED | {"size": 3}}


async def test_a_pod_that_can_not_be_read_in_whole_holds_its_claim_until_it_is_gone() -> None:
    session = Session(pod("a", 4, **DAMAGED))

    async with session.following():
        session.kube.tell(("ADDED", pod("b", 11, **DAMAGED)))
        pods = await session.mirror.read(since=11)
        assert pods is not None
        assert [each.claim for each in pods] == [Claim(gpus=("g",), bytes=5, epoch=1)] * 2

        session.kube.tell(("DELETED", pod("a", 12, **DAMAGED)))
        assert await session.names(since=12) == ["b"]


async def test_the_end_of_a_pod_that_can_not_be_named_begins_anew_with_a_list() -> None:
    session = Session(pod("a", 4))
    session.kube.events.put_nowait([b'{"type": "DELETED", "object": {"metadata": null}}'])

    assert "a pod is gone" in str(await session.fails())
    session.kube.pods = []

    async with session.following():
        assert await session.names() == []
