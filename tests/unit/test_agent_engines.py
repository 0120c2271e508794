"""What engines say of their own memory: asked once a start, beside the passes, and believed no further than numbers."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from vrampack.agent.engines import EngineReport, EngineReports, fetch, read
from vrampack.agent.pods import Pod, decode_pods
from vrampack.agent.reading import GPUReading, PodUse
from vrampack.api import names
from vrampack.models.enginelogs import gib
from vrampack.units import GIB

OF_0_5_10 = {"weight": 14.99, "kvcache": 8.0, "token_capacity": 65536, "graph": 0.5}
OF_0_5_23 = OF_0_5_10 | {"graph": {"decode": 0.375, "draft_decode": 0.125}}


def answer(*usages: Any, **beside: Any) -> bytes:
    return msgspec.json.encode({"internal_states": [{"memory_usage": each} for each in usages], **beside})


def pod(*, ready: bool = True, restarts: int = 0, port: int = 8000, ip: str = "127.0.0.1", **container: Any) -> Pod:
    usual = {
        "name": "engine",
        "command": ["/bin/sh", "-c", "…", "vrampack-start", "python3", "-m", "sglang.launch_server"],
        "ports": [{"containerPort": 9}, {"name": "http", "containerPort": port}],
    }
    body = {
        "metadata": {
            "name": "m-0",
            "namespace": "serving",
            "uid": "uid-m",
            "resourceVersion": "1",
            "labels": {names.MODEL_DEPLOYMENT: "m"},
        },
        "spec": {"containers": [{"name": "sidecar", "restartCount": 7}, usual | container]},
        "status": {
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "engine", "restartCount": restarts}],
        },
    }
    (found,) = decode_pods(msgspec.json.encode({"items": [body]}))
    return found


@pytest.mark.parametrize("usage", [OF_0_5_10, OF_0_5_23])
def test_weights_and_graphs_of_either_form(usage: dict[str, Any]) -> None:
    found = read(answer(usage, api_key="secret"))
    assert found.weights == gib("14.990")
    assert found.graphs == pytest.approx(GIB // 2, abs=2 * 1024**2)
    assert found.graphs >= GIB // 2, "what rounding took is given back"


def test_of_several_data_parallel_ranks_the_most_counts() -> None:
    assert read(answer(OF_0_5_10, OF_0_5_10 | {"weight": 16.0})).weights == gib("16.000")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"internal_states": []}', answer(None), answer([1]), b"[" * 10**6]
)
def test_what_is_no_such_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whose words do not matter
        read(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(JSON, JSON)
def test_no_answer_is_a_crash_or_a_negative_size(weight: Any, graph: Any) -> None:
    try:
        found = read(answer({"weight": weight, "graph": graph}))
    except ValueError:
        return
    assert found.weights >= 0
    assert found.graphs >= 0


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "http://127.0.0.1:8000/server_info"),
        ({"ip": "fd00::7"}, "http://[fd00::7]:8000/server_info"),
        ({"ip": ""}, ""),
        ({"command": ["vllm", "serve"]}, ""),
        ({"ports": []}, ""),
        ({"name": "other"}, ""),
    ],
)
def test_which_engines_have_an_endpoint(changes: dict[str, Any], url: str) -> None:
    assert pod(**changes).server_info == url


async def until_told(reports: EngineReports, found: Pod) -> PodUse:
    reading = GPUReading(
        uuid="GPU-0",
        index=0,
        product="L4",
        memory=24 * GIB,
        reserved=0,
        processes=(PodUse(uid="uid-m", bytes=GIB),),
        foreign=(),
    )
    async with asyncio.timeout(10):
        while True:
            reports.look([found])
            (use,) = reports.told([reading])[0].processes
            if use.weights:
                return use
            await asyncio.sleep(0.01)


async def test_a_ready_engine_is_asked_once_a_start_over_http() -> None:
    asked = 0

    async def server_info(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(body=answer(OF_0_5_23), content_type="application/json")

    app = web.Application()
    app.router.add_get("/server_info", server_info)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    reports = EngineReports(fetch)
    try:
        reports.look([pod(port=port, ready=False)])
        assert asked == 0
        first = await until_told(reports, pod(port=port))
        assert EngineReport(weights=first.weights, graphs=first.graphs) == read(answer(OF_0_5_23))
        await until_told(reports, pod(port=port))
        assert asked == 1
        await until_told(reports, pod(port=port, restarts=1))
        assert asked == 2, "another start"
    finally:
        await reports.close()
        await runner.cleanup()


@contextlib.asynccontextmanager
async def serving(answers: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """The URL of an engine that answers everything so."""
    app = web.Application()
    app.router.add_get("/{path:.*}", answers)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/server_info"
    finally:
        await runner.cleanup()


async def test_no_engine_sends_the_agent_elsewhere() -> None:
    asked = []

    async def redirect(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "/latest/meta-data"})

    async with serving(redirect) as url:
        with pytest.raises(ValueError, match="302"):
            await fetch(url)
    assert asked == ["/server_info"]


@pytest.mark.parametrize("packed", [True, False])
async def test_no_answer_fills_the_memory_of_the_agent(packed: bool) -> None:
    whole = b" " * (64 * 1024**2)
    body = gzip.compress(whole) if packed else whole

    async def much(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers={"Content-Encoding": "gzip"} if packed else {})

    async with serving(much) as url:
        if packed:
            assert await fetch(url) == body, "left as it is, and no JSON"
            return
        with pytest.raises(ValueError, match="more than"):
            await fetch(url)


async def test_an_answer_that_nobody_thought_of_ends_no_pass() -> None:
    async def nested(_: str) -> bytes:
        return b"[" * 10**6

    reports = EngineReports(nested)
    for _ in range(20):
        reports.look([pod()])
        await asyncio.sleep(0)
    await reports.close()


async def test_one_that_does_not_answer_is_left_alone() -> None:
    asked = 0

    async def refused(_: str) -> bytes:
        nonlocal asked
        asked += 1
        raise OSError("connection refused")

    reports = EngineReports(refused)
    for _ in range(20):
        reports.look([pod()])
        await asyncio.sleep(0)
    assert asked == 3
    reports.look([])
    await reports.close()
