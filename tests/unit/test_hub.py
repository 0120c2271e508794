"""The real hub client against the hub double: facts, refusals, retries, and no weights."""

import dataclasses
import gzip
import json
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.unit.known_models import LLAMA_8B, LLAMA_8B_WEIGHTS, LLAMA_70B, QWEN3_8B
from vrampack.api.modelprofile import ModelProfileSpec
from vrampack.errors import InvalidInputError, ModelSourceError, UnsupportedModelError
from vrampack.localcluster.hubcatalogue import CatalogueModel, catalogue
from vrampack.localcluster.hubdouble import Fault, HubDouble
from vrampack.memory.architecture import Weights
from vrampack.models.config import architecture_of
from vrampack.models.facts import ModelFacts
from vrampack.models.hub import Patience, read_facts, resolve_commit
from vrampack.models.profile import profile_manifest
from vrampack.models.readcache import ReadCache
from vrampack.planning.facts import architecture_and_weights
from vrampack.units import GIB

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
QWEN = "Qwen/Qwen3-0.6B"
PRIVATE = "team/private"
TOKEN = "hf_granted"
OTHER_TOKEN = "hf_without_consent"
QUICK = Patience(attempts=3, first_wait=0.01, longest_wait=0.5, timeout=0.5)


@pytest.fixture
async def hub() -> AsyncIterator[HubDouble]:
    models = {model.repository: model for model in catalogue()}
    small = models[QWEN]
    private = CatalogueModel(repository=PRIVATE, config=small.config, tensors=small.tensors, private=True)
    gated = [model.repository for model in models.values() if model.gated]
    tokens = {TOKEN: [*gated, PRIVATE], OTHER_TOKEN: []}
    async with HubDouble(models=[*models.values(), private], tokens=tokens) as double:
        yield double


async def facts(
    hub: HubDouble,
    repository: str = QWEN,
    *,
    revision: str | None = None,
    token: str | None = None,
    patience: Patience = QUICK,
) -> ModelFacts:
    return await read_facts(
        source=f"hf://{repository}", revision=revision, token=token, endpoint=hub.url, patience=patience
    )


# ---- facts --------------------------------------------------------------------------------------------------------


async def test_facts_of_a_sharded_model(hub: HubDouble) -> None:
    found = await facts(hub, LLAMA, token=TOKEN)
    assert found.architecture == LLAMA_8B
    assert figures(found.weights) == LLAMA_8B_WEIGHTS
    assert found.commit == hub.commit(LLAMA)
    assert found.by_dtype == {"BF16": 16_060_522_496}
    assert found.max_context == 131072
    assert len(found.files) == 4  # and not original/consolidated.00.pth
    assert {request.token for request in hub.requests} == {TOKEN}


@pytest.mark.parametrize(
    ("repository", "parameters", "precision", "gib"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248, "bf16", 14.96),
        ("meta-llama/Llama-3.3-70B-Instruct", 70_553_706_496, "bf16", 131.42),
        ("Qwen/Qwen3-0.6B", 596_049_920, "bf16", 1.11),
        ("Qwen/Qwen3-1.7B", 1_720_574_976, "bf16", 3.2),
        ("Qwen/Qwen3-4B", 4_022_468_096, "bf16", 7.49),
        ("Qwen/Qwen3-8B", 8_190_735_360, "bf16", 15.26),
        ("Qwen/Qwen3-32B", 32_762_123_264, "bf16", 61.02),
        ("Qwen/Qwen3-8B-FP8", 8_190_735_360, "fp8", 8.79),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512, "bf16", 14.19),
        ("mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552, "bf16", 13.5),
        ("microsoft/phi-4", 14_659_507_200, "bf16", 27.31),
    ],
)
async def test_published_figures(hub: HubDouble, repository: str, parameters: int, precision: str, gib: float) -> None:
    weights = (await facts(hub, repository, token=TOKEN)).weights
    assert (weights.parameters, weights.precision, round(weights.total / GIB, 2)) == (parameters, precision, gib)


async def test_a_tied_head_in_the_file_is_seen_but_not_loaded(hub: HubDouble) -> None:
    found = await facts(hub)
    assert sum(found.by_dtype.values()) == 1_503_264_768
    assert found.weights.total == 2 * 596_049_920


async def test_no_weight_leaves_the_hub(hub: HubDouble) -> None:
    await facts(hub, "meta-llama/Llama-3.3-70B-Instruct", token=TOKEN)
    assert hub.weight_bytes == 0
    ranges = [request.range for request in hub.requests if "/storage/" in request.path]
    assert len(ranges) == 2 * 30
    assert all(ranges)


async def test_no_weight_is_taken_from_a_server_that_ignores_ranges(hub: HubDouble) -> None:
    hub.set_fault(QWEN, Fault.IGNORES_RANGES)
    assert (await facts(hub)).weights.parameters == 596_049_920
    assert hub.weight_bytes < 32 * 1024**2  # what the sockets' buffers hold, of 1.5 GB


async def test_a_moved_branch_is_another_commit_and_digest(hub: HubDouble) -> None:
    before = await facts(hub)
    moved = hub.move_branch(QWEN)
    after = await facts(hub)
    assert (before.commit == moved, after.commit == moved) == (False, True)
    assert before.weights_digest != after.weights_digest
    assert await facts(hub, revision=before.commit) == before


async def test_a_branch_resolves_to_its_commit_and_a_commit_to_itself(hub: HubDouble) -> None:
    commit = hub.move_branch(QWEN, "refs/pr/1")
    ask = {"source": f"hf://{QWEN}", "token": None, "endpoint": hub.url, "patience": QUICK}
    assert await resolve_commit(revision="refs/pr/1", **ask) == commit
    assert await resolve_commit(revision=None, **ask) == hub.commit(QWEN)
    hub.requests.clear()
    assert await resolve_commit(revision="a" * 40, **ask) == "a" * 40
    assert hub.requests == []


async def test_the_endpoint_is_read_when_it_is_needed(hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_machine")
    found = await read_facts(source=f"hf://{QWEN}", revision=None, token=None, endpoint=None, patience=QUICK)
    assert found.commit == hub.commit(QWEN)
    assert {request.token for request in hub.requests} == {None}


def figures(weights: Weights) -> Weights:
    """Without the tensors one by one."""
    return dataclasses.replace(weights, layers=(), census=(), before=(), towers=(), after=())


async def test_the_profile_says_the_same_as_the_facts(hub: HubDouble) -> None:
    found = await facts(hub, "Qwen/Qwen3-8B")
    manifest = profile_manifest(found)
    assert manifest["metadata"]["name"].startswith("qwen-qwen3-8b-")
    spec = ModelProfileSpec.model_validate(manifest["spec"])
    assert (spec.source, spec.revision) == ("hf://Qwen/Qwen3-8B", found.commit)
    assert architecture_and_weights(spec) == (QWEN3_8B, found.weights)


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repository", "token", "status", "reason", "says"),
    [
        (LLAMA, None, 401, "HubUnauthorized", f"accept its terms at http://.*/{LLAMA}, write a token"),
        (LLAMA, OTHER_TOKEN, 403, "HubForbidden", f"accept its terms at http://.*/{LLAMA}"),
        (LLAMA, "hf_expired", 401, "HubUnauthorized", "does not accept the token"),
        (PRIVATE, None, 401, "HubUnauthorized", "no public repository"),
        (PRIVATE, OTHER_TOKEN, 404, "ModelNotFound", "or it is private"),
        ("team/absent", None, 401, "HubUnauthorized", "no public repository"),
        ("team/absent", TOKEN, 404, "ModelNotFound", "no repository"),
        ("team/ab--sent", TOKEN, None, "ModelNotFound", "no name of a repository"),
    ],
)
async def test_refused(
    hub: HubDouble, repository: str, token: str | None, status: int | None, reason: str, says: str
) -> None:
    with pytest.raises(ModelSourceError, match=says) as refusal:
        await facts(hub, repository, token=token)
    assert (refusal.value.reason, refusal.value.retriable) == (reason, False)
    assert [request.status for request in hub.requests[-1:]] == [status] * (status is not None)
    assert len(hub.requests) <= 2  # nothing that can't pass is tried again


async def test_a_revision_that_is_not_there(hub: HubDouble) -> None:
    with pytest.raises(ModelSourceError, match="no revision v9") as refusal:
        await facts(hub, revision="v9")
    assert refusal.value.reason == "RevisionNotFound"


@pytest.mark.parametrize(
    ("fault", "status", "reason", "retriable"),
    [
        (Fault.RATE_LIMITED, 429, "HubRateLimited", True),
        (Fault.UNAVAILABLE, 503, "HubUnreachable", True),
        (Fault.NO_HUB, 200, "HubUnreachable", True),
        (Fault.FORBIDDEN, 403, "HubForbidden", False),
        (Fault.DISABLED, 403, "HubForbidden", False),
        (Fault.NO_CONFIG, 200, "ModelFilesMissing", False),
        (Fault.NO_WEIGHTS, 206, "ModelFilesMissing", False),
        (Fault.BROKEN_HEADER, 206, "ModelFilesInvalid", False),
    ],
)
async def test_faults(hub: HubDouble, fault: Fault, status: int, reason: str, retriable: bool) -> None:
    hub.set_fault(QWEN, fault, retry_after=0)
    with pytest.raises(ModelSourceError) as refusal:
        await facts(hub)
    assert (refusal.value.reason, refusal.value.retriable) == (reason, retriable)
    assert hub.requests[-1].status == status


async def test_a_hub_that_hangs_is_left_after_the_timeout(hub: HubDouble) -> None:
    hub.set_fault(QWEN, Fault.HANGS)
    with pytest.raises(ModelSourceError, match="gives no answer") as refusal:
        await facts(hub, patience=Patience(attempts=2, first_wait=0.01, timeout=0.1))
    assert (refusal.value.reason, refusal.value.retriable) == ("HubUnreachable", True)


async def test_a_hub_that_is_off_and_comes_back(hub: HubDouble) -> None:
    await hub.offline()
    with pytest.raises(ModelSourceError, match="check network policies") as refusal:
        await facts(hub)
    assert (refusal.value.reason, refusal.value.retriable) == ("HubUnreachable", True)
    await hub.online()
    assert (await facts(hub)).commit == hub.commit(QWEN)


async def test_a_model_that_is_not_known_is_refused_before_its_weights_are_asked_for(hub: HubDouble) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        await facts(hub, "RWKV/rwkv-5-world-3b")
    assert refusal.value.unknown == "num_attention_heads"
    assert not [request for request in hub.requests if "safetensors" in request.path]


async def test_a_source_that_is_none_is_refused_without_a_request(hub: HubDouble) -> None:
    with pytest.raises(InvalidInputError):
        await facts(hub, "team/../secret")
    assert hub.requests == []


@pytest.mark.parametrize("endpoint", ["hub", "ftp://hub", "http://", "http://a b", "http://hub/\n"])
async def test_an_endpoint_that_is_no_address(endpoint: str) -> None:
    with pytest.raises(ModelSourceError, match="HF_ENDPOINT is") as refusal:
        await read_facts(source=f"hf://{QWEN}", revision=None, token=None, endpoint=endpoint)
    assert (refusal.value.reason, refusal.value.retriable) == ("HubUnreachable", False)


async def test_a_token_is_taken_without_the_line_feed_after_it(hub: HubDouble) -> None:
    assert (await facts(hub, LLAMA, token=f"{TOKEN}\n")).commit == hub.commit(LLAMA)
    with pytest.raises(ModelSourceError, match="is no token") as refusal:
        await facts(hub, LLAMA, token="hf_one\nhf_two")
    assert refusal.value.reason == "HubUnauthorized"


# ---- answers that are none -----------------------------------------------------------------------------------------


@dataclasses.dataclass(kw_only=True)
class Between(HubDouble):
    """A hub with something between it and us: what is sent for a file is ``changed``, as often as ``times``."""

    changed: Callable[[web.Request], web.Response]
    times: int = 1
    """So often; then it is out of the way."""

    async def _send(self, request: web.Request, *rest: Any) -> web.StreamResponse:
        if self.times:
            self.times -= 1
            return self.changed(request)
        return await super()._send(request, *rest)


def page(_: web.Request) -> web.Response:
    return web.Response(text="<html>Sign in to the network</html>", content_type="text/html")


def empty(_: web.Request) -> web.Response:
    return web.Response(status=206)


def elsewhere(_: web.Request) -> web.Response:
    return web.Response(status=206, body=b"{}", headers={"Content-Range": "bytes 500-501/502"})


def packed(_: web.Request) -> web.Response:
    content = gzip.compress(b'{"model_type": "other"}' + bytes(50_000_000))
    return web.Response(body=content, headers={"Content-Encoding": "gzip"})


def broken(_: web.Request) -> web.Response:
    return web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"})


def round_and_round(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": str(request.url)})


@pytest.mark.parametrize("changed", [page, empty, elsewhere, packed, broken, round_and_round])
async def test_what_comes_from_something_between_is_no_file(changed: Any, tmp_path: Path) -> None:
    """It is tried again, told for what it is where it lasts, and never kept."""
    cache = ReadCache(folder=tmp_path / "hub")
    async with Between(changed=changed) as hub:
        ask = {"source": f"hf://{QWEN}", "revision": None, "token": None, "endpoint": hub.url, "cache": cache}
        expected = await read_facts(**ask | {"cache": None}, patience=QUICK)
        assert expected.weights.parameters == 596_049_920
        hub.times = 10**6
        with pytest.raises(ModelSourceError) as refusal:
            await read_facts(**ask, patience=QUICK)
        assert (refusal.value.reason, refusal.value.retriable) == ("HubUnreachable", True)
        hub.times = 0
        assert await read_facts(**ask, patience=QUICK) == expected


ODD = [
    b"",
    b"null",
    b"[]",
    b"[" * 100_000,
    b"{}",
    b'{"sha": "../../x"}',
    b'{"sha": 7}',
    b'{"sha": "%s", "siblings": 7}' % (b"a" * 40),
    b'{"sha": "%s", "siblings": [7]}' % (b"a" * 40),
    b'{"sha": "%s", "siblings": [{"size": 1}]}' % (b"a" * 40),
]


@pytest.mark.parametrize("answer", ODD, ids=range(len(ODD)))
async def test_an_answer_about_a_repository_that_is_none(answer: bytes) -> None:
    @dataclasses.dataclass(kw_only=True)
    class Odd(HubDouble):
        async def _info(self, request: web.Request) -> web.StreamResponse:
            return web.Response(body=answer, content_type="application/json")

    async with Odd() as hub:
        with pytest.raises(ModelSourceError) as refusal:
            await facts(hub)
    assert (refusal.value.reason, refusal.value.retriable) == ("HubUnreachable", True)


async def test_impossible_sizes_and_digests_count_as_not_told() -> None:
    @dataclasses.dataclass(kw_only=True)
    class Odd(HubDouble):
        async def _info(self, request: web.Request) -> web.StreamResponse:
            said = json.loads((await super()._info(request)).body)  # type: ignore[attr-defined]
            for each in said["siblings"]:
                each["size"], each["lfs"] = -5, {"sha256": ["x"]}
            return web.json_response(said)

    async with Odd() as hub:
        with pytest.raises(ModelSourceError, match="its size and digest are not told") as refusal:
            await facts(hub)
    assert refusal.value.reason == "ModelFilesInvalid"


async def test_an_answer_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("hub", "hublisting"):
        monkeypatch.setattr(f"vrampack.models.{module}.MAX_INFO_BYTES", 1024)
    with pytest.raises(ModelSourceError, match="not as a model hub"):
        async with HubDouble() as hub:
            await facts(hub, LLAMA)


# ---- retries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.RATE_LIMITED, Fault.NO_HUB])
async def test_what_passes_is_tried_again(hub: HubDouble, fault: Fault) -> None:
    hub.set_fault(QWEN, fault, times=2, retry_after=0)
    assert (await facts(hub)).weights.parameters == 596_049_920


async def test_a_short_wait_that_the_hub_asks_for_is_waited(hub: HubDouble) -> None:
    hub.set_fault(QWEN, Fault.RATE_LIMITED, times=1, retry_after=1)
    await facts(hub, patience=Patience(attempts=2, first_wait=0.01, longest_wait=2))
    assert [request.status for request in hub.requests][:2] == [429, 200]


async def test_a_long_wait_is_left_to_the_caller(hub: HubDouble) -> None:
    hub.set_fault(QWEN, Fault.RATE_LIMITED, retry_after=300)
    with pytest.raises(ModelSourceError, match="limits our requests") as refusal:
        await facts(hub)
    assert refusal.value.retry_after == 300
    assert len(hub.requests) == 1


async def test_retries_end(hub: HubDouble) -> None:
    hub.set_fault(QWEN, Fault.UNAVAILABLE)
    with pytest.raises(ModelSourceError):
        await facts(hub)
    assert len(hub.requests) == QUICK.attempts


# ---- the catalogue ------------------------------------------------------------------------------------------------


def test_a_gated_model_of_another_family_has_its_published_size() -> None:
    gemma = next(model for model in catalogue() if model.repository == "google/gemma-2-9b-it")
    assert sum(math.prod(shape) for _, shape in gemma.tensors.values()) == 9_241_705_984


def test_seventy_billion_parameters_have_the_architecture_that_the_estimate_is_tested_with() -> None:
    config = next(model.config for model in catalogue() if model.repository.endswith("70B-Instruct"))
    assert architecture_of(config) == LLAMA_70B
