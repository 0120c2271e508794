"""Which events poke, and how the watches wait for an API server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kopf
import pytest
from aiohttp import web

from tests.unit.kubeconfig import write_kubeconfig
from vrampack.controller.handlers import NODES, POKING, NodeChanges, register, run_kopf
from vrampack.controller.probes import listening


def node(**changes: Any) -> dict[str, Any]:
    metadata = {"name": "gpu-0", "uid": changes.get("uid", "a"), "labels": changes.get("labels", {"rack": "1"})}
    ready = {"type": "Ready", "status": changes.get("ready", "True"), "lastHeartbeatTime": changes.get("time", "10:00")}
    pressure = {"type": "MemoryPressure", "status": changes.get("pressure", "False")}
    return {
        "metadata": metadata | {"resourceVersion": changes.get("version", "1")},
        "spec": {key: changes[key] for key in ("unschedulable", "taints") if key in changes},
        "status": {"allocatable": {"cpu": changes.get("cpu", "8")}, "conditions": [pressure, ready]},
    }


def event(kind: str | None, **changes: Any) -> kopf.RawEvent:
    return {"type": kind, "object": node(**changes)}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({"time": "10:05", "version": "2"}, False),
        ({"pressure": "True"}, False),
        ({"uid": "b"}, True),
        ({"labels": {"rack": "2"}}, True),
        ({"unschedulable": True}, True),
        ({"taints": [{"key": "maintenance", "effect": "NoSchedule"}]}, True),
        ({"ready": "Unknown"}, True),
        ({"cpu": "4"}, True),
    ],
)
def test_a_heartbeat_of_a_node_is_no_change(change: dict[str, Any], matters: bool) -> None:
    changes = NodeChanges()
    assert changes.matter(event(None))
    assert changes.matter(event("MODIFIED", **change)) is matters
    assert not changes.matter(event("MODIFIED", **change))


def test_a_node_that_goes_and_comes_back_matters_twice() -> None:
    changes = NodeChanges()
    assert [changes.matter(event(kind)) for kind in ("ADDED", "DELETED", "ADDED")] == [True, True, True]


def test_a_node_without_a_status_yet() -> None:
    assert NodeChanges().matter({"type": "ADDED", "object": {"metadata": {"name": "gpu-0"}}})  # type: ignore[typeddict-item]


def test_every_kind_is_watched_by_its_full_name_and_only_watched() -> None:
    registry = kopf.OperatorRegistry()
    register(registry, lambda: None)
    selectors = {(found.group, found.version, found.any_name) for found in registry._watching.get_all_selectors()}
    assert selectors == {(kind.group, kind.version, kind.plural) for kind in (*POKING, NODES)}
    assert not registry._changing.get_all_handlers()  # these would write annotations and finalizers
    assert not registry._spawning.get_all_handlers()


@asynccontextmanager
async def watching(kubeconfig: Path, *, renew: asyncio.Event | None = None) -> AsyncIterator[None]:
    """Ends at once when it is told to, whatever the API server does."""
    stop, renew = asyncio.Event(), renew or asyncio.Event()
    task = asyncio.create_task(
        run_kopf(kubeconfig=str(kubeconfig), poke=lambda: None, stop=stop, ready=asyncio.Event(), renew=renew)
    )
    yield
    stop.set()
    async with asyncio.timeout(5):
        await task


async def test_kopf_that_ends_by_itself_starts_again_with_the_credentials_of_now(tmp_path: Path) -> None:
    tokens: asyncio.Queue[str] = asyncio.Queue()

    async def refuse(request: web.Request) -> web.Response:
        tokens.put_nowait(request.headers["Authorization"])
        return web.json_response({"kind": "Status", "code": 401}, status=401)

    app = web.Application()
    app.router.add_get("/{path:.*}", refuse)
    async with listening(app, port=0, host="127.0.0.1") as port:
        kubeconfig = write_kubeconfig(tmp_path, f"http://127.0.0.1:{port}", token="old")
        async with watching(kubeconfig), asyncio.timeout(20):
            assert await tokens.get() == "Bearer old"
            write_kubeconfig(tmp_path, f"http://127.0.0.1:{port}", token="new")
            while await tokens.get() != "Bearer new":
                pass


async def test_kopf_begins_anew_when_it_is_told_to(tmp_path: Path) -> None:
    connections: asyncio.Queue[None] = asyncio.Queue()

    async def hang(request: web.Request) -> web.Response:
        connections.put_nowait(None)
        return await asyncio.Future()

    app, renew = web.Application(), asyncio.Event()
    app.router.add_get("/{path:.*}", hang)
    async with listening(app, port=0, host="127.0.0.1") as port:
        kubeconfig = write_kubeconfig(tmp_path, f"http://127.0.0.1:{port}", token="any")
        async with watching(kubeconfig, renew=renew), asyncio.timeout(20):
            await connections.get()
            while not connections.empty():
                connections.get_nowait()
            renew.set()
            await connections.get()
    assert not renew.is_set()


async def test_without_credentials_kopf_waits_and_still_stops(tmp_path: Path) -> None:
    async with watching(tmp_path / "absent"):
        pass
