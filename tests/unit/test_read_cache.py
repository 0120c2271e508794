"""What was read of a commit before is not asked for again, and a cache in any state is no obstacle."""

import os
from pathlib import Path
from typing import Any

import pytest

from vrampack.localcluster.hubdouble import HubDouble
from vrampack.models.facts import ModelFacts
from vrampack.models.hub import Patience, read_facts
from vrampack.models.readcache import ReadCache, default_cache

QWEN = "Qwen/Qwen3-0.6B"


async def facts(hub: HubDouble, cache: ReadCache | None, **changes: Any) -> ModelFacts:
    ask: dict[str, Any] = {"source": f"hf://{QWEN}", "revision": None, "token": None, "endpoint": hub.url}
    return await read_facts(**(ask | changes), patience=Patience(attempts=1, timeout=2.0), cache=cache)


async def test_a_branch_costs_one_request_and_a_commit_none(tmp_path: Path) -> None:
    cache = ReadCache(folder=tmp_path / "hub")
    async with HubDouble() as hub:
        first = await facts(hub, cache)
        assert first == await facts(hub, None)
        hub.requests.clear()
        assert await facts(hub, cache) == first
        assert [request.path for request in hub.requests] == [f"/api/models/{QWEN}"]
        hub.requests.clear()
        assert await facts(hub, cache, revision=first.commit) == first
        assert hub.requests == []
        moved = hub.move_branch(QWEN)
        assert (await facts(hub, cache)).commit == moved
    assert (cache.folder.stat().st_mode & 0o777) == 0o700


async def test_a_cache_that_somebody_spoiled_or_nobody_may_write_is_no_obstacle(tmp_path: Path) -> None:
    cache = ReadCache(folder=tmp_path / "hub")
    async with HubDouble() as hub:
        first = await facts(hub, cache)
        listing = cache.get(hub.url, QWEN, first.commit)
        assert listing is not None
        for spoiled in (b"", b"[]", b"\xff", b'{"a": 7}', b'{"a": [[], 1]}', b"[" * 100_000):
            cache.put(spoiled, hub.url, QWEN, first.commit)
            assert await facts(hub, cache, revision=first.commit) == first
        (tmp_path / "file").write_text("")
        assert await facts(hub, ReadCache(folder=tmp_path / "file" / "hub")) == first


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path: Path) -> None:
    cache = ReadCache(folder=tmp_path, most_bytes=1000)
    for number in range(4):
        cache.put(bytes(240), "part", number)
    for age, number in enumerate((1, 2, 3, 0)):
        path = cache._path(("part", number))
        os.utime(path, (1000 + age, 1000 + age))
    cache.put(bytes(100), "new")
    assert [cache.get("part", number) is not None for number in range(4)] == [True, False, False, True]
    assert cache.get("new") == bytes(100)
    cache.put(bytes(2000), "too large")
    assert cache.get("too large") is None


def test_the_folder_is_the_user_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VRAMPACK_HUB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_cache() == ReadCache(folder=Path("/x/vrampack/hub"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == ReadCache(folder=Path("~/.cache/vrampack/hub").expanduser())
    monkeypatch.setenv("VRAMPACK_HUB_CACHE", "/y")
    assert default_cache() == ReadCache(folder=Path("/y"))
    monkeypatch.setenv("VRAMPACK_HUB_CACHE", "")
    assert default_cache() is None
