"""Looks at models that are served: few, spread, patient, and without consequences but what they say."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from vrampack.controller.modelwatch import ModelWatch
from vrampack.errors import NotFoundError, UnavailableError
from vrampack.localcluster.hubcatalogue import CatalogueModel, catalogue
from vrampack.localcluster.hubdouble import Fault, HubDouble
from vrampack.models.hub import Patience
from vrampack.planning.resolution import Look, Token, Watch

SMALL = "Qwen/Qwen3-0.6B"
GATED = "meta-llama/Llama-3.1-8B-Instruct"
GGUF = "team/tiny-GGUF"
QUANTIZED = {"tiny-Q4_K_M.gguf": 4000, "tiny-Q8_0.gguf": 8000}
TOKEN = "hf_granted"
QUICK = Patience(attempts=1, timeout=2.0)
INTERVAL = 0.05


@dataclass
class Secrets:
    """An API server with Secrets by namespace."""

    tokens: dict[str, str] = field(default_factory=dict)
    away: bool = False

    async def get(self, path: str) -> dict[str, Any]:
        if self.away:
            raise UnavailableError("away")
        namespace = path.split("/")[4]
        if namespace not in self.tokens:
            raise NotFoundError(path, status=404)
        return {"data": {"token": base64.b64encode(self.tokens[namespace].encode()).decode()}}


@dataclass
class World:
    hub: HubDouble
    kube: Secrets
    watch: ModelWatch
    pokes: asyncio.Queue[None]

    def watched(self, repository: str = SMALL, revision: str = "") -> Watch:
        return Watch(source=f"hf://{repository}", revision=revision, commit=self.hub.commit(repository))

    async def seen(self, watch: Watch, fits: Callable[[Look], bool] = lambda _: True) -> Look:
        """The next look that fits. Each change comes with a poke."""
        async with asyncio.timeout(10):
            while True:
                found = self.watch.looks().get(watch)
                if found is not None and fits(found):
                    return found
                await self.pokes.get()

    def infos(self, repository: str = SMALL) -> int:
        return sum(request.path.startswith(f"/api/models/{repository}") for request in self.hub.requests)

    async def asked(self, times: int) -> None:
        """Until the hub was asked so often."""
        for _ in range(200):
            if self.infos() >= times:
                return
            await asyncio.sleep(INTERVAL)
        raise AssertionError(f"the hub was asked {self.infos()} times, not {times}")


def secret(namespace: str) -> Token:
    return (namespace, "hub", "token")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    kube, pokes = Secrets(), asyncio.Queue[None]()
    models = {model.repository: model for model in catalogue()}
    small = models[SMALL]
    files = CatalogueModel(repository=GGUF, config=small.config, tensors=small.tensors, copies=QUANTIZED)
    async with HubDouble(models=[*models.values(), files], tokens={TOKEN: [GATED], "hf_stranger": []}) as hub:
        watch = ModelWatch(
            kube=kube,
            endpoint=hub.url,
            poke=lambda: pokes.put_nowait(None),
            interval=INTERVAL,
            patience=QUICK,
            chance=lambda low, _: low,
            spacing=0,
        )
        yield World(hub=hub, kube=kube, watch=watch, pokes=pokes)
        await watch.close()


async def test_a_branch_that_moves_is_seen(world: World) -> None:
    main = world.watched()
    world.watch.watch({main: (None,)})
    before = await world.seen(main)
    assert before.head == main.commit
    assert before.digest == before.pinned_digest
    moved = world.hub.move_branch(SMALL)
    after = await world.seen(main, lambda look: look.head != before.head)
    assert (after.head, after.pinned_digest) == (moved, before.digest)
    assert after.digest != before.digest
    assert world.hub.weight_bytes == 0


async def test_of_a_gguf_file_only_that_file_is_looked_at(world: World) -> None:
    """By its name or a pattern; a repository with many has no digest of all of them."""
    served = {
        name: Watch(source=f"hf://{GGUF}", revision="main", commit=world.hub.commit(GGUF), file=name)
        for name in ("tiny-Q4_K_M.gguf", "*Q8_0.gguf")
    }
    world.watch.watch(dict.fromkeys(served.values(), (None,)))
    before = {name: await world.seen(watch) for name, watch in served.items()}
    assert all(look.head == world.hub.commit(GGUF) and look.digest == look.pinned_digest for look in before.values())
    assert len({look.digest for look in before.values()}) == 2
    moved = world.hub.move_branch(GGUF)
    for name, watch in served.items():
        after = await world.seen(watch, lambda look: look.head == moved)
        assert after.pinned_digest == before[name].digest != after.digest
    assert world.hub.weight_bytes == 0


async def test_a_newer_commit_without_the_file_is_a_move(world: World) -> None:
    commit = world.hub.commit(GGUF)
    later = world.hub.move_branch(GGUF, "other", without=["tiny-Q8_0.gguf"])
    other = Watch(source=f"hf://{GGUF}", revision="other", commit=commit, file="*Q8_0.gguf")
    world.watch.watch({other: (None,)})
    seen = await world.seen(other)
    assert (seen.head, seen.digest, seen.reason) == (later, "", "")
    assert seen.pinned_digest


async def test_what_stays_the_same_pokes_nobody(world: World) -> None:
    main = world.watched()
    world.watch.watch({main: (None,)})
    await world.seen(main)
    looks = world.infos()
    await world.asked(looks + 3)
    assert world.pokes.empty()


async def test_a_hundred_models_are_one_look(world: World) -> None:
    for _ in range(100):
        world.watch.watch({world.watched(): (None,)})
    await world.seen(world.watched())
    assert world.infos() == 1


async def test_the_first_looks_are_spread_over_the_interval(world: World) -> None:
    asked: list[tuple[float, float]] = []

    def chance(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    watch = ModelWatch(
        kube=world.kube, endpoint=world.hub.url, poke=lambda: None, interval=3600, patience=QUICK, chance=chance
    )
    watch.watch({world.watched(): (None,), world.watched(GATED): (None,)})
    await asyncio.sleep(INTERVAL)  # nothing to await: nothing may happen
    assert asked == [(0, 3600), (0, 3600)]
    assert world.hub.requests == []
    await watch.close()


async def test_the_more_models_the_longer_between_two_looks(world: World) -> None:
    asked: list[float] = []

    def chance(_: float, high: float) -> float:
        asked.append(high)
        return 3600

    watch = ModelWatch(kube=world.kube, endpoint=world.hub.url, poke=lambda: None, interval=60, chance=chance)
    for count, longest in ((1, 60), (12, 60), (100, 500)):
        watch.watch({Watch(source=f"hf://org/m{each}", revision="", commit="c"): (None,) for each in range(count)})
        await asyncio.sleep(INTERVAL)  # nothing to await: nothing may happen
        assert asked[-1] == longest
    assert world.hub.requests == []
    await watch.close()


async def test_what_is_not_served_any_more_is_forgotten_and_0_is_never(world: World) -> None:
    world.watch.watch({world.watched(): (None,)})
    await world.seen(world.watched())
    world.watch.watch({})
    assert world.watch.looks() == {}
    never = ModelWatch(kube=world.kube, endpoint=world.hub.url, poke=lambda: None, interval=0)
    never.watch({world.watched(): (None,)})
    assert never.looks() == {}
    await never.close()


async def test_offline_nothing_is_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    world.watch.watch({world.watched(): (None,)})
    await asyncio.sleep(2 * INTERVAL)  # nothing to await: nothing may happen
    assert world.watch.looks() == {}


async def test_a_hub_that_is_away_changes_nothing_of_what_was_seen(world: World) -> None:
    main = world.watched()
    world.watch.watch({main: (None,)})
    before = await world.seen(main)
    world.hub.set_fault(SMALL, Fault.UNAVAILABLE)
    asked = world.infos()
    await world.asked(asked + 2)
    assert world.watch.looks() == {main: before}
    world.hub.set_fault(SMALL, None)
    moved = world.hub.move_branch(SMALL)
    await world.seen(main, lambda look: look.head == moved)


async def test_failures_are_longer_and_longer_apart(world: World) -> None:
    waits: list[float] = []
    done = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > 8:
            done.set()
            await asyncio.Event().wait()

    world.hub.set_fault(SMALL, Fault.UNAVAILABLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vrampack.controller.modelwatch.asyncio.sleep", sleep)
        watch = ModelWatch(
            kube=world.kube,
            endpoint=world.hub.url,
            poke=lambda: None,
            interval=10,
            patience=QUICK,
            chance=lambda _, high: high,
        )
        watch.watch({world.watched(): (None,)})
        await done.wait()
        await watch.close()
    assert waits == pytest.approx([10, 11, 22, 44, 88, 176, 176, 176, 176])


async def test_the_hub_says_for_how_long_it_wants_peace(world: World) -> None:
    world.hub.set_fault(SMALL, Fault.RATE_LIMITED, retry_after=3600)
    main = world.watched()
    world.watch.watch({main: (None,)})
    await world.asked(1)
    await asyncio.sleep(4 * INTERVAL)  # nothing to await: nothing may happen
    assert world.infos() == 1
    assert world.watch.looks() == {}


async def test_of_several_readers_one_with_access_is_enough(world: World) -> None:
    gated = Watch(source=f"hf://{GATED}", revision="main", commit=world.hub.commit(GATED))
    world.kube.tokens = {"b": "hf_expired", "c": TOKEN}
    world.watch.watch({gated: (secret("a"), secret("b"), secret("c"))})
    assert (await world.seen(gated)).head == gated.commit
    used = [request.token for request in world.hub.requests if "/api/models/" in request.path]
    assert used[:2] == ["hf_expired", TOKEN]


async def test_a_model_that_nobody_may_look_at_any_more_says_why(world: World) -> None:
    gated = Watch(source=f"hf://{GATED}", revision="main", commit=world.hub.commit(GATED))
    world.kube.tokens = {"b": "hf_expired"}
    world.watch.watch({gated: (secret("b"),)})
    seen = await world.seen(gated)
    assert (seen.head, seen.reason) == ("", "HubUnauthorized")
    assert "does not accept the token" in seen.message
    world.kube.tokens["b"] = TOKEN
    assert (await world.seen(gated, lambda look: not look.reason)).head == gated.commit


async def test_an_api_server_that_is_away_is_no_news(world: World) -> None:
    gated = Watch(source=f"hf://{GATED}", revision="main", commit=world.hub.commit(GATED))
    world.kube.tokens, world.kube.away = {"b": TOKEN}, True
    world.watch.watch({gated: (secret("b"),)})
    await asyncio.sleep(2 * INTERVAL)  # nothing to await: nothing may happen
    assert world.watch.looks() == {}
    world.kube.away = False
    assert (await world.seen(gated)).head == gated.commit
