"""Ways to the hub and around it: proxies, its cache on this machine; and where a branch is now."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session

from tests.unit.ggufbytes import gguf
from tests.unit.test_gguf import MINIMAL, TENSORS
from vrampack.errors import ModelSourceError
from vrampack.localcluster.hubcatalogue import catalogue
from vrampack.localcluster.hubdouble import HubDouble
from vrampack.localcluster.hubfiles import files_of
from vrampack.models.hub import Patience, look, read_facts, resolve_commit
from vrampack.models.hubcache import CachedFiles, cache_folder

QWEN = "Qwen/Qwen3-0.6B"
COMMIT = "c" * 40
QUICK = Patience(attempts=1, timeout=2.0)


# The hub's cache.


def download(cache: Path, hub: HubDouble, repository: str = QWEN) -> Path:
    """What `hf download` leaves: blobs named by digest, a snapshot of links to them, and where the branch was."""
    model = next(each for each in catalogue() if each.repository == repository)
    folder = cache / f"models--{repository.replace('/', '--')}"
    commit = hub.commit(repository)
    snapshot = folder / "snapshots" / commit
    for part in (snapshot, folder / "blobs", folder / "refs"):
        part.mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    for file in files_of(model).values():
        digest = file.digest(commit)
        blob = folder / "blobs" / (digest if file.large else digest[:40])
        with blob.open("wb") as out:
            out.write(file.head)
            out.truncate(file.size)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


async def test_offline_the_cache_says_the_same_as_the_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with HubDouble() as hub:
        download(cache, hub)
        offline = await read_facts(source=f"hf://{QWEN}", revision=None, token=None, endpoint=hub.url)
        commit = hub.commit(QWEN)
        ask: dict[str, Any] = {"source": f"hf://{QWEN}", "token": None, "endpoint": hub.url, "patience": QUICK}
        assert await resolve_commit(revision="main", **ask) == commit
        seen = await look(revision="", commit=commit, **ask)
        assert (seen.head, seen.pinned_digest) == (commit, offline.weights_digest)
        assert hub.requests == []
        monkeypatch.delenv("HF_HUB_OFFLINE")
        assert await read_facts(revision=None, **ask) == offline


async def test_a_repository_of_gguf_files_is_read_by_their_headers(cache: Path) -> None:
    async with HubDouble() as hub:
        snapshot = download(cache, hub)
    (snapshot / "model.safetensors").unlink()
    for name in ("m-Q4_K_M.gguf", "m-Q8_0.gguf"):
        (snapshot / name).write_bytes(gguf(dict[str, Any](MINIMAL), TENSORS))
    ask: dict[str, Any] = {"source": f"hf://{QWEN}", "revision": None, "token": None, "endpoint": None}
    found = await read_facts(**ask, file="*Q8_0*")
    assert (found.weights.precision, [file.name for file in found.files]) == ("gguf", ["m-Q8_0.gguf"])
    with pytest.raises(ModelSourceError, match=r"m-Q4_K_M\.gguf"):
        await read_facts(**ask)
    (snapshot / "m-Q4_K_M.gguf").unlink()
    assert await read_facts(**ask) == found


@pytest.mark.parametrize("revision", [None, "v1", COMMIT, "../../main", "/etc/hostname"])
async def test_offline_what_is_not_in_the_cache_is_said(cache: Path, revision: str | None) -> None:
    with pytest.raises(ModelSourceError, match=f"run `hf download {QWEN}") as refusal:
        await read_facts(source=f"hf://{QWEN}", revision=revision, token=None, endpoint=None)
    assert (refusal.value.reason, refusal.value.retriable) == ("ModelNotCached", False)


@pytest.mark.parametrize("odd", ["circle", "pipe", "device", "nowhere"])
async def test_a_cache_with_what_is_no_file_has_no_weights(cache: Path, odd: str) -> None:
    async with HubDouble() as hub:
        weights = download(cache, hub) / "model.safetensors"
    weights.unlink()
    if odd == "pipe":
        os.mkfifo(weights)
    else:
        weights.symlink_to({"circle": weights, "device": Path("/dev/zero"), "nowhere": cache / "absent"}[odd])
    with pytest.raises(ModelSourceError, match=r"has no model\.safetensors\.index\.json or model\.safetensors"):
        await read_facts(source=f"hf://{QWEN}", revision=None, token=None, endpoint=None)


def test_a_copy_instead_of_a_link_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"weights")
    (tmp_path / "link").symlink_to(f"blobs/{COMMIT}")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / COMMIT).write_bytes(b"other")
    files = CachedFiles(folder=tmp_path, source=f"hf://{QWEN}", commit=COMMIT)
    assert {name: listed.digest for name, listed in files.listing.items()} == {"copy": None, "link": COMMIT}
    assert files.digest("copy") == hashlib.sha256(b"weights").hexdigest()


def test_the_cache_is_where_the_hub_s_own_tools_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path("~/.cache/huggingface/hub").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/y")
    assert cache_folder() == Path("/y/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/z")
    assert cache_folder() == Path("/z")


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with HubDouble() as hub:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, hub.url)
        close_session()  # the library's own: it reads the environment once
        try:
            found = await read_facts(
                source=f"hf://{QWEN}", revision=None, token=None, endpoint="http://hub.invalid", patience=QUICK
            )
        finally:
            close_session()
        assert found.commit == hub.commit(QWEN)
        assert hub.requests


# Where a branch is now.


async def test_a_look_says_where_a_branch_is_and_what_its_weights_are() -> None:
    async with HubDouble() as hub:
        before = await read_facts(source=f"hf://{QWEN}", revision=None, token=None, endpoint=hub.url, patience=QUICK)
        ask: dict[str, Any] = {"source": f"hf://{QWEN}", "token": None, "endpoint": hub.url, "patience": QUICK}
        hub.requests.clear()
        same = await look(revision="", commit=before.commit, **ask)
        assert (same.head, same.digest) == (before.commit, before.weights_digest)
        assert same.pinned_digest == before.weights_digest
        assert len(hub.requests) == 1
        moved = hub.move_branch(QWEN)
        after = await look(revision="main", commit=before.commit, **ask)
        assert (after.head, after.pinned_digest) == (moved, before.weights_digest)
        assert after.digest != before.weights_digest
        gone = await look(revision="v9", commit=before.commit, **ask)
        assert (gone.head, gone.digest, gone.pinned_digest) == ("", "", before.weights_digest)
        assert hub.weight_bytes == 0
