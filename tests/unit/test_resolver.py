"""The resolver against the hub double and a small API server of dictionaries."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from vrampack.api.names import STATUS_MANAGER
from vrampack.api.source import profile_name
from vrampack.controller.resolver import Pace, Resolver
from vrampack.errors import ClusterError, ConflictError, NotFoundError, UnavailableError
from vrampack.localcluster.hubcatalogue import catalogue
from vrampack.localcluster.hubdouble import Fault, HubDouble
from vrampack.models.hub import Patience
from vrampack.planning.resolution import Resolution, ResolveRequest

SMALL = "Qwen/Qwen3-0.6B"
UNKNOWN = "RWKV/rwkv-5-world-3b"
GATED = "meta-llama/Llama-3.1-8B-Instruct"
TOKEN = "hf_granted"
PROFILES = "/apis/vrampack.dev/v1alpha1/modelprofiles"
SECRET = "/api/v1/namespaces/serving/secrets/hf"
QUICK = Patience(attempts=1, timeout=2.0)
PACE = Pace(first=0.02, longest=0.1, recheck=0.05)


@dataclass
class FakeKube:
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    refusals: dict[str, Exception] = field(default_factory=dict)
    applied: list[tuple[str, Mapping[str, Any], str]] = field(default_factory=list)
    created: asyncio.Queue[Mapping[str, Any]] = field(default_factory=asyncio.Queue)

    async def get(self, path: str) -> dict[str, Any]:
        if path in self.refusals:
            raise self.refusals[path]
        if path not in self.objects:
            raise NotFoundError(path, status=404)
        return self.objects[path]

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if path in self.refusals:
            raise self.refusals[path]
        own = f"{path}/{body['metadata']['name']}"
        if own in self.objects:
            raise ConflictError(own, status=409)
        self.objects[own] = {**body, "metadata": {**body["metadata"], "generation": 1}}
        self.created.put_nowait(self.objects[own])
        return self.objects[own]

    async def apply(self, path: str, body: Mapping[str, Any], *, field_manager: str) -> dict[str, Any]:
        self.applied.append((path, body, field_manager))
        own = self.objects[path.removesuffix("/status")]
        own["status"] = body["status"]
        return own


@dataclass
class World:
    hub: HubDouble
    kube: FakeKube
    resolver: Resolver
    pokes: asyncio.Queue[None]

    async def answer(self, request: ResolveRequest, fits: Callable[[Resolution], bool] = lambda _: True) -> Resolution:
        """The next answer that fits. Each change of an answer comes with a poke."""
        async with asyncio.timeout(10):
            while True:
                found = self.resolver.results().get(request)
                if found is not None and fits(found):
                    return found
                await self.pokes.get()

    def profile(self, repository: str) -> str:
        return f"{PROFILES}/{profile_name(f'hf://{repository}', self.hub.commit(repository))}"

    def infos(self) -> int:
        """Requests for the small model but for files."""
        return sum(request.path.startswith(f"/api/models/{SMALL}") for request in self.hub.requests)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    kube, pokes = FakeKube(), asyncio.Queue[None]()
    gated = [model.repository for model in catalogue() if model.gated]
    async with HubDouble(tokens={TOKEN: gated}) as hub:
        resolver = Resolver(kube, endpoint=hub.url, poke=lambda: pokes.put_nowait(None), patience=QUICK, pace=PACE)
        yield World(hub=hub, kube=kube, resolver=resolver, pokes=pokes)
        await resolver.close()


def ask(repository: str = SMALL, revision: str = "", *, secret: bool = False) -> ResolveRequest:
    token_secret = ("serving", "hf", "token") if secret else None
    return ResolveRequest(source=f"hf://{repository}", revision=revision, token_secret=token_secret)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_a_model_becomes_a_profile_with_words_for_its_columns(world: World) -> None:
    world.resolver.request([ask()])
    assert world.resolver.results() == {}
    assert await world.answer(ask()) == Resolution(commit=world.hub.commit(SMALL))
    assert world.kube.objects[world.profile(SMALL)]["spec"]["source"] == f"hf://{SMALL}"
    [(path, body, manager)] = world.kube.applied
    assert (path, manager) == (f"{world.profile(SMALL)}/status", STATUS_MANAGER)
    assert body["status"] == {
        "observedGeneration": 1,
        "summary": {"parameters": "596.05M", "weights": "1.11 GiB", "kvPerToken": "112 KiB"},
    }
    assert world.hub.weight_bytes == 0


async def test_a_hundred_models_of_one_source_ask_the_hub_once(world: World) -> None:
    for _ in range(3):
        world.resolver.request(ask() for _ in range(100))
    await world.answer(ask())
    assert world.infos() == 2  # where the branch is, and the files of that commit


async def test_readers_with_tokens_of_their_own_read_the_files_once(world: World) -> None:
    requests = [
        ResolveRequest(source=f"hf://{GATED}", revision="main", token_secret=(f"team-{each}", "hf", "token"))
        for each in range(6)
    ]
    for each in range(6):
        path = SECRET.replace("serving", f"team-{each}")
        world.kube.objects[path] = {"data": {"token": encoded(TOKEN)}}
    world.resolver.request(requests)
    for request in requests:
        assert (await world.answer(request)).commit == world.hub.commit(GATED)
    paths = [request.path for request in world.hub.requests]
    assert sum(path.endswith("/config.json") for path in paths) == 1
    assert len(world.kube.applied) == 1


async def test_a_profile_that_exists_is_not_read_again(world: World) -> None:
    commit = world.hub.commit(SMALL)
    world.kube.objects[world.profile(SMALL)] = {"status": {"summary": {"parameters": "1"}}}
    world.resolver.request([ask(), ask(revision=commit)])
    assert await world.answer(ask()) == await world.answer(ask(revision=commit)) == Resolution(commit=commit)
    assert world.infos() == 1  # of the branch: a commit costs no request
    assert not world.kube.applied


async def test_a_profile_that_somebody_deleted_comes_back(world: World) -> None:
    world.resolver.request([ask()])
    await world.answer(ask())
    await world.kube.created.get()
    served = world.profile(SMALL)
    world.hub.move_branch(SMALL)
    deleted = world.kube.objects.pop(served)
    assert (await world.kube.created.get())["spec"] == deleted["spec"]


async def test_what_is_not_asked_for_any_more_is_forgotten(world: World) -> None:
    world.hub.set_fault(SMALL, Fault.HANGS)
    world.resolver.request([ask(), ask(GATED)])
    await world.answer(ask(GATED))
    world.resolver.request([])
    assert world.resolver.results() == {}


async def test_a_copy_of_the_answers_does_not_change(world: World) -> None:
    before = world.resolver.results()
    world.resolver.request([ask()])
    await world.answer(ask())
    assert before == {}


async def test_a_hub_that_comes_back_is_asked_again(world: World) -> None:
    await world.hub.offline()
    world.resolver.request([ask()])
    failed = await world.answer(ask())
    assert (failed.reason, failed.retriable) == ("HubUnreachable", True)
    await world.hub.online()
    assert (await world.answer(ask(), lambda found: found.commit is not None)).commit == world.hub.commit(SMALL)


async def test_the_hub_says_for_how_long_it_wants_peace(world: World) -> None:
    world.hub.set_fault(SMALL, Fault.RATE_LIMITED, retry_after=3600)
    world.resolver.request([ask()])
    assert (await world.answer(ask())).reason == "HubRateLimited"
    world.hub.set_fault(SMALL, None)
    await asyncio.sleep(3 * PACE.longest)  # nothing to await: nothing may happen
    assert world.infos() == 1
    assert world.resolver.results()[ask()].reason == "HubRateLimited"


async def test_a_gated_model_waits_for_its_secret_and_says_what_is_wrong_with_it(world: World) -> None:
    request = ask(GATED, secret=True)
    steps: list[tuple[str, str, Callable[[], object]]] = [
        ("SecretForbidden", "hubTokens.namespaces", lambda: None),
        ("SecretNotFound", "no Secret serving/hf", world.kube.refusals.clear),
        ("SecretKeyNotFound", "no key token (its keys: other)", lambda: secret(other=encoded("x"))),
        ("HubUnauthorized", "does not accept the token", lambda: secret(token=encoded("hf_unknown"))),
    ]

    def secret(**data: str) -> None:
        world.kube.objects[SECRET] = {"data": data}

    world.kube.refusals[SECRET] = ClusterError("forbidden", status=403)
    world.resolver.request([request])
    for reason, words, change in steps:
        change()
        found = await world.answer(request, lambda found, reason=reason: found.reason == reason)
        assert words in (found.message or "")
        assert not found.retriable
    secret(token=encoded(f"{TOKEN}\n"))
    assert (await world.answer(request, lambda found: found.commit is not None)).commit == world.hub.commit(GATED)


async def test_secrets_of_other_namespaces_are_not_even_asked_for(world: World) -> None:
    def poke() -> None:
        world.pokes.put_nowait(None)

    resolver = Resolver(world.kube, endpoint=world.hub.url, poke=poke, token_namespaces={"batch"}, pace=PACE)
    outsider = World(hub=world.hub, kube=world.kube, resolver=resolver, pokes=world.pokes)
    world.kube.objects[SECRET] = {"data": {"token": encoded(TOKEN)}}
    resolver.request([ask(GATED, secret=True)])
    assert (await outsider.answer(ask(GATED, secret=True))).reason == "SecretForbidden"
    await resolver.close()


async def test_an_api_server_that_is_away_is_no_fault_of_the_model(world: World) -> None:
    world.kube.refusals[world.profile(SMALL)] = UnavailableError("away")
    world.resolver.request([ask(), ask(GATED)])
    await world.answer(ask(GATED))
    assert ask() not in world.resolver.results()
    world.kube.refusals.clear()
    assert (await world.answer(ask())).commit is not None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ClusterError("POST modelprofiles: 403", status=403), "ProfileRefused"),
        (ZeroDivisionError("of ours"), "InternalError"),
    ],
)
async def test_a_refusal_and_an_error_of_ours_are_answers_too(world: World, error: Exception, reason: str) -> None:
    world.kube.refusals[PROFILES] = error
    world.resolver.request([ask()])
    found = await world.answer(ask())
    assert (found.reason, found.retriable) == (reason, True)
    world.kube.refusals.clear()
    await world.answer(ask(), lambda found: found.commit is not None)


async def test_an_architecture_that_is_not_known_is_named(world: World) -> None:
    world.resolver.request([ask(UNKNOWN)])
    found = await world.answer(ask(UNKNOWN))
    assert (found.reason, found.retriable) == ("UnsupportedArchitecture", False)
    assert "rwkv-5-world-3b can't be estimated: num_attention_heads" in (found.message or "")
