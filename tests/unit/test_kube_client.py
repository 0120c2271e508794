"""The client where the API server, or what stands before it, behaves badly; its watches; and how it signs in."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from vrampack.errors import ClusterError, DisruptionError, InvalidInputError, NotFoundError, UnavailableError
from vrampack.kube import client
from vrampack.kube.client import Kube

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Answer], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Answers every request by a function; gives the address."""
    runners = []

    async def start(answer: Answer) -> str:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return "http://{}:{}".format(*runner.addresses[0])

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, NotFoundError),
        (403, ClusterError),
        (429, UnavailableError),
        (502, UnavailableError),
    ],
)
async def test_what_a_proxy_says_is_in_the_message(serve: Serve, status: int, kind: type[ClusterError]) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text="<html>no")

    kube = Kube(Configuration(host=await serve(answer)))
    with pytest.raises(ClusterError, match=f"GET /version: {status} <html>no") as refused:
        await kube.get("/version")
    await kube.close()
    assert type(refused.value) is kind
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("status", "says", "kind"),
    [
        (429, "Cannot evict pod as it would violate the pod's disruption budget.", DisruptionError),
        (
            500,
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            DisruptionError,
        ),
        (429, "too many requests, please try again later", UnavailableError),
        (404, 'pods "a" not found', NotFoundError),
    ],
    ids=["one too many", "two budgets", "a busy API server", "gone"],
)
async def test_a_budget_that_holds_a_pod_is_no_outage(
    serve: Serve, status: int, says: str, kind: type[ClusterError]
) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, await request.json()))
        return web.json_response({"message": says}, status=status)

    kube = Kube(Configuration(host=await serve(answer)))
    with pytest.raises(kind) as refused:
        await kube.evict("/api/v1/namespaces/serving/pods/a", uid="uid-a", dry_run=True)
    await kube.close()
    assert type(refused.value) is kind
    [(path, body)] = asked
    assert path == "/api/v1/namespaces/serving/pods/a/eviction"
    assert body["metadata"] == {"name": "a", "namespace": "serving"}
    assert body["deleteOptions"] == {"preconditions": {"uid": "uid-a"}, "dryRun": ["All"]}


@pytest.mark.parametrize(
    ("status", "says", "kind"),
    [
        (500, 'Internal error occurred: failed calling webhook "x.example.com": no endpoints available', ClusterError),
        (500, "Internal error occurred: failed to allocate a serviceIP: range is full", ClusterError),
        (500, "etcdserver: request is too large", ClusterError),
        (500, "etcdserver: request timed out", UnavailableError),
        (503, "the webhook of this API service is starting", UnavailableError),
    ],
    ids=["a webhook is down", "no address is left", "too large", "etcd is away", "nobody serves"],
)
async def test_an_internal_error_may_be_one_objects_own(
    serve: Serve, status: int, says: str, kind: type[ClusterError]
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"message": says}, status=status)

    kube = Kube(Configuration(host=await serve(answer)))
    with pytest.raises(kind) as refused:
        await kube.create("/api/v1/namespaces/serving/services/webhook", {})
    await kube.close()
    assert type(refused.value) is kind
    assert refused.value.status == status


async def test_a_field_that_an_older_definition_lacks_is_one_objects_own_and_says_what_to_do(serve: Serve) -> None:
    said = "failed to create typed patch object (/a; vrampack.dev/v1alpha1, Kind=GPUPool): .status.new: field not "

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"message": f"{said}declared in schema"}, status=500)

    kube = Kube(Configuration(host=await serve(answer)))
    with pytest.raises(ClusterError, match=r"\.status\.new.*apply those of this version") as refused:
        await kube.apply("/apis/vrampack.dev/v1alpha1/gpupools/a/status", {}, field_manager="test")
    await kube.close()
    assert type(refused.value) is ClusterError


async def test_no_answer_in_time_is_unavailable(serve: Serve) -> None:
    over = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    kube = Kube(Configuration(host=await serve(answer)), timeout=0.05)
    with pytest.raises(UnavailableError, match="GET /version: no answer in time"):
        await kube.get("/version")
    over.set()
    await kube.close()


async def test_an_api_server_that_is_away_is_unavailable() -> None:
    kube = Kube(Configuration(host="https://127.0.0.1:1"))
    with pytest.raises(UnavailableError, match="GET /version: Cannot connect"):
        await kube.get("/version")
    await kube.close()


@pytest.mark.parametrize("expiries", [0, 1, 2, 100])
async def test_a_list_that_expires_between_its_pages_starts_again(serve: Serve, expiries: int) -> None:
    left = expiries

    async def answer(request: web.Request) -> web.Response:
        nonlocal left
        following = request.query.get("continue")
        if following and left:
            left -= 1
            return web.json_response({"message": "too old"}, status=410)
        items = [{"n": n} for n in ((0, 1) if "limit" not in request.query else (1,) if following else (0,))]
        more = {} if following or len(items) == 2 else {"continue": "a+b/c="}
        assert following in (None, "a+b/c=")
        return web.json_response({"metadata": more, "items": items})

    kube = Kube(Configuration(host=await serve(answer)))
    assert await kube.list("/api/v1/pods") == [{"n": 0}, {"n": 1}]
    await kube.close()


async def test_a_watch_tells_of_its_beginning_and_of_changes_and_ends(serve: Serve) -> None:
    asked: list[web.Request] = []
    change = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        response = web.StreamResponse()
        await response.prepare(request)
        await change.wait()
        await response.write(b"k8s\x00 an event")
        return response

    kube = Kube(Configuration(host=await serve(answer)))
    changes = kube.watch_changes("/api/v1/pods", labelSelector="app=a,b")
    await anext(changes)
    assert not change.is_set()
    change.set()
    async with asyncio.timeout(5):
        await anext(changes)
        with pytest.raises(StopAsyncIteration):
            await anext(changes)
    await kube.close()
    (request,) = asked
    query = dict(request.query)
    assert 300 <= int(query.pop("timeoutSeconds")) <= 600
    assert (request.method, request.path) == ("GET", "/api/v1/pods")
    assert query == {"watch": "true", "allowWatchBookmarks": "true", "labelSelector": "app=a,b"}
    assert request.headers["Accept"] == "application/vnd.kubernetes.protobuf, application/json"


async def test_a_watch_gives_its_events_whole_however_they_come(serve: Serve) -> None:
    asked: list[web.Request] = []
    read = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        response = web.StreamResponse()
        await response.prepare(request)
        for part in (b'{"type":"ADD', b'ED"}\n{"type":"MODIFIED"}\n{', b"}\n"):
            await response.write(part)
            await read.wait()
        return response

    kube = Kube(Configuration(host=await serve(answer)))
    async with asyncio.timeout(5):
        events = kube.watch("/api/v1/pods", resourceVersion="7")
        assert await anext(events) == []
        read.set()
        told = [each async for batch in events for each in batch]
    await kube.close()
    assert told == [b'{"type":"ADDED"}', b'{"type":"MODIFIED"}', b"{}"]
    (request,) = asked
    assert request.headers["Accept"] == "application/json"
    assert (request.query["watch"], request.query["resourceVersion"]) == ("true", "7")


@pytest.mark.parametrize(("status", "kind"), [(403, ClusterError), (410, ClusterError), (503, UnavailableError)])
async def test_a_watch_that_is_refused_says_so(serve: Serve, status: int, kind: type[ClusterError]) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"message": "pods is forbidden"}, status=status)

    kube = Kube(Configuration(host=await serve(answer)))
    with pytest.raises(ClusterError, match=f"WATCH /api/v1/pods: {status} pods is forbidden") as refused:
        await anext(kube.watch_changes("/api/v1/pods"))
    await kube.close()
    assert type(refused.value) is kind
    assert refused.value.status == status


async def test_a_watch_whose_connection_breaks_is_unavailable(serve: Serve) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        assert request.transport is not None
        request.transport.abort()
        return response

    kube = Kube(Configuration(host=await serve(answer)))
    with pytest.raises(UnavailableError, match="WATCH /api/v1/pods: "):
        [None async for _ in kube.watch_changes("/api/v1/pods")]
    await kube.close()


async def test_a_watch_that_is_silent_for_too_long_is_unavailable(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await over.wait()
        return response

    monkeypatch.setattr(client, "_STREAM", aiohttp.ClientTimeout(sock_read=0.05))
    kube = Kube(Configuration(host=await serve(answer)), timeout=0.01)
    with pytest.raises(UnavailableError, match="WATCH /api/v1/pods: "):
        [None async for _ in kube.watch_changes("/api/v1/pods")]
    over.set()
    await kube.close()


async def test_a_watch_that_is_left_gives_its_connection_back(serve: Serve) -> None:
    left = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"{}\n")
                await asyncio.sleep(0.01)
        finally:
            left.set()

    kube = Kube(Configuration(host=await serve(answer)))
    async with asyncio.timeout(5):
        async with aclosing(kube.watch_changes("/api/v1/pods")) as changes:
            await anext(changes)
        await left.wait()
    await kube.close()


@pytest.mark.parametrize(("exempt", "away"), [("", False), ("api.invalid", True)])
async def test_a_proxy_of_the_environment_is_used_unless_it_is_told_not_to(
    serve: Serve, exempt: str, away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def proxy(request: web.Request) -> web.Response:
        return web.json_response({"asked": request.headers["Host"]})

    monkeypatch.setenv("http_proxy", await serve(proxy))
    monkeypatch.setenv("no_proxy", exempt)
    kube = Kube(Configuration(host="http://api.invalid"))
    if away:
        with pytest.raises(UnavailableError):
            await kube.get("/")
    else:
        assert await kube.get("/") == {"asked": "api.invalid"}
    await kube.close()


async def test_a_token_file_is_read_again(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"said": request.headers["Authorization"]})

    token = tmp_path / "token"
    token.write_text("first")
    config = {
        "clusters": [{"name": "c", "cluster": {"server": await serve(answer)}}],
        "users": [{"name": "u", "user": {"tokenFile": str(token)}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setattr(client, "_REREAD_SECONDS", 0.0)
    kube = await Kube.connect(str(path), context="x")
    assert await kube.get("/") == {"said": "Bearer first"}
    token.write_text("second")
    assert await kube.get("/") == {"said": "Bearer second"}
    await kube.close()


@pytest.mark.parametrize("text", [None, "", "{", "{clusters: [], contexts: [], users: []}", "- a"])
async def test_a_kubeconfig_that_is_none_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidInputError, match=f"kubeconfig: '{path}' is not allowed"):
        await Kube.connect(str(path))
