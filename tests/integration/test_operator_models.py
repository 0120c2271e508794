"""What was promised of a model holds: its precision, the commit that is served, and what was measured of it."""

import asyncio
from math import ceil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.integration.harness import World
from tests.integration.looks import condition, uids
from tests.integration.manifests import Manifest, group, model, profile
from vrampack.api import names
from vrampack.cli.main import app
from vrampack.models.enginelogs import gib
from vrampack.units import MIB, parse_bytes, round_up

pytestmark = pytest.mark.cluster

SMALL = "Qwen/Qwen3-0.6B"
COUNTED = "Qwen/Qwen3-1.7B"
L40S = "NVIDIA-L40S"
STABLE = {"source": f"hf://{SMALL}", "revision": "stable"}


async def test_another_precision_than_was_asked_for_is_stalled_and_says_both(world: World) -> None:
    await world.fleet(group("a"))
    asked = {"weights": "fp8"}
    await world.apply(model("m", claim=None, source=f"hf://{SMALL}", precision=asked))
    found = await world.condition("ModelDeployment", "m", "Stalled", "True", "PrecisionMismatch")
    for type_ in ("Stalled", "PrecisionVerified"):
        message = condition(found, type_)["message"]
        assert "spec.precision.weights asks for fp8" in message
        assert f"hf://{SMALL} is bf16 (1.40 GiB BF16)" in message
    assert not await world.every("Deployment")
    lenient = model("m", claim=None, source=f"hf://{SMALL}", precision=asked | {"onMismatch": "Warn"})
    await world.apply(lenient)
    (found,) = await world.ready("m")
    assert condition(found, "PrecisionVerified")["status"] == "False"
    assert "asks for fp8" in condition(found, "PrecisionVerified")["message"]
    assert found["status"]["model"]["precision"] == "bf16"
    await world.apply(model("m", claim=None, source=f"hf://{SMALL}", precision={"weights": "bf16"}))
    (found,) = await world.ready("m")
    said = condition(found, "PrecisionVerified")
    assert (said["status"], said["message"]) == (
        "True",
        "spec.precision.weights asks for bf16, and the checkpoint is bf16 (1.40 GiB BF16)",
    )


async def test_a_branch_that_moves_restarts_nothing_until_the_user_asks(world: World) -> None:
    await world.fleet(group("a", gpus=2))
    hub = world.machinery.hub
    served = hub.move_branch(SMALL, "stable")
    await world.apply(model("m", claim=None, model=STABLE, replicas=2))
    (found,) = await world.ready("m")
    pods = uids(await world.pods("m"))
    assert (found["status"]["model"]["revision"], len(pods)) == (served, 2)
    assert condition(found, "ModelUnchanged")["reason"] == "Pinned"
    moved = hub.move_branch(SMALL, "stable")
    found = await world.condition("ModelDeployment", "m", "ModelUnchanged", "False", "RevisionMoved")
    message = condition(found, "ModelUnchanged")["message"]
    assert f"stable is at commit {moved} now, with other weights; commit {served} stays in service" in message

    async def told() -> None:
        events = [each for each in await world.every("Event") if each["reason"] == "RevisionMoved"]
        assert [(each["type"], each["regarding"]["name"]) for each in events] == [("Warning", "m")]

    await world.eventually(told)
    await asyncio.sleep(6)  # another look: nothing to await, nothing may happen
    assert uids(await world.pods("m")) == pods
    (found,) = await world.ready("m")
    assert found["status"]["model"]["revision"] == served
    (template,) = (each["spec"]["template"] for each in await world.every("Deployment"))
    assert f"--revision={served}" in template["spec"]["containers"][0]["args"]
    await told()
    await world.patch("ModelDeployment", "m", {"metadata": {"annotations": {names.REFRESH: "1"}}})

    async def adopted() -> None:
        now = await world.get("ModelDeployment", "m")
        assert now["status"]["model"]["revision"] == moved
        assert condition(now, "ModelUnchanged")["reason"] == "Pinned"
        args = [pod["spec"]["containers"][0]["args"] for pod in await world.pods("m")]
        assert len(args) == 2
        assert all(f"--revision={moved}" in each for each in args)

    await world.eventually(adopted)


async def test_a_draft_that_moves_is_said_and_restarts_nothing(world: World) -> None:
    await world.fleet(group("a"))
    hub = world.machinery.hub
    served = hub.commit(SMALL)
    drafting = {"method": "draft", "draftModel": f"hf://{SMALL}", "tokens": 2}
    await world.apply(model("m", claim=None, source=f"hf://{COUNTED}", speculation=drafting))
    (found,) = await world.ready("m")
    pods = uids(await world.pods("m"))
    assert served in condition(found, "ModelUnchanged")["message"]
    moved = hub.move_branch(SMALL)
    found = await world.condition("ModelDeployment", "m", "ModelUnchanged", "False", "RevisionMoved")
    message = condition(found, "ModelUnchanged")["message"]
    assert f"spec.speculation.draftModel hf://{SMALL}: the default branch is at commit {moved} now" in message

    async def told() -> None:
        events = [each for each in await world.every("Event") if each["reason"] == "RevisionMoved"]
        assert [(each["type"], each["regarding"]["name"]) for each in events] == [("Warning", "m")]

    await world.eventually(told)
    assert uids(await world.pods("m")) == pods
    (template,) = (each["spec"]["template"] for each in await world.every("Deployment"))
    assert any(served in each for each in template["spec"]["containers"][0]["args"])


async def test_a_profile_with_another_digest_is_an_alarm_and_no_update(world: World) -> None:
    await world.fleet(group("a"))
    world.machinery.hub.move_branch(SMALL, "signed")
    await world.apply(model("m", claim=None, model={"source": f"hf://{SMALL}", "revision": "signed"}))
    (found,) = await world.ready("m")
    pods, name = uids(await world.pods("m")), found["status"]["model"]["profile"]
    digest = (await world.get("ModelProfile", name))["spec"]["weightsDigest"]
    assert found["status"]["model"]["weightsDigest"] == digest
    await world.patch("ModelProfile", name, {"spec": {"weightsDigest": f"sha256:{'0' * 64}"}})
    found = await world.condition("ModelDeployment", "m", "ModelUnchanged", "False", "ProfileDigestChanged")
    assert f"were started with {digest[:19]}; nothing is restarted" in condition(found, "ModelUnchanged")["message"]
    await asyncio.sleep(2)  # nothing to await: nothing may happen
    assert uids(await world.pods("m")) == pods
    await world.patch("ModelProfile", name, {"spec": {"weightsDigest": digest}})
    await world.condition("ModelDeployment", "m", "ModelUnchanged", "True", "Pinned")
    assert uids(await world.pods("m")) == pods


def measured(**terms: str) -> Manifest:
    """What a start of `model` on an L40S was seen to use."""
    return {
        "engine": "vllm",
        "version": "0.33.0",
        "gpuProduct": L40S,
        "parallelism": {},
        "kvCache": "bf16",
        "maxSequences": 4,
        "maxBatchedTokens": 8192,
        "contextLength": 1024,
        "cudaGraphs": "Auto",
        "samples": 3,
        "observedAt": "2027-01-01T00:00:00Z",
        **terms,
    }


LOG = """\
INFO 08-14 14:07:20 [core.py:109] Initializing a V1 LLM engine (v0.33.0) with config: model='tiny', max_seq_len=1024, \
tensor_parallel_size=1, enforce_eager=False, kv_cache_dtype=auto, dtype=torch.bfloat16
INFO 08-14 14:07:21 [model_runner.py:295] Model loading took 0.06 GiB memory and 32.9 seconds
INFO 08-14 14:07:22 [gpu_worker.py:789] Free memory on device cuda:0 (44.0/44.39 GiB) on startup. Desired GPU memory \
utilization is (0.92, 40.8 GiB). Actual usage is 0.2 GiB for consumed memory (weights + non-torch), 3.0 GiB for peak \
activation, and 0.13 GiB for CUDAGraph memory. Replace gpu_memory_utilization config.
"""


async def test_a_calibrated_profile_changes_the_next_estimate_and_its_method(world: World, tmp_path: Path) -> None:
    await world.fleet(group("a", gpus=2))
    name = f"measured-{world.namespace}"
    await world.apply(profile(name))
    await world.apply(model("before", claim=None, source=f"profile://{name}"))
    (found,) = await world.ready("before")
    computed, pods = found["status"]["estimate"], uids(await world.pods("before"))
    assert computed["method"] == "Computed"
    other = measured(activations="1Gi", version="0.32.0")
    await world.patch("ModelProfile", name, {"status": {"measurements": [other]}}, subresource="status")
    log = tmp_path / "start.log"
    log.write_text(LOG)
    said = ["--gpu-product", L40S, "--kv-cache", "bf16", "--max-sequences", "4", "--max-batched-tokens", "8192"]
    to = ["--profile", name, "--apply", "--kubeconfig", str(world.cluster.kubeconfig)]
    result = await asyncio.to_thread(CliRunner().invoke, app, ["calibrate", str(log), *said, *to])
    assert result.exit_code == 0, result.output
    assert f"modelprofile/{name}: 2 measurements" in result.output

    async def waits() -> Manifest:
        status: Manifest = (await world.get("ModelDeployment", "before"))["status"]["estimate"]
        assert status.get("pending", {}).get("because") == "CalibrationChanged"
        return status

    pending = await world.eventually(waits)
    assert (pending["method"], pending["perGPU"]) == ("Computed", computed["perGPU"])
    await world.apply(model("after", claim=None, source=f"profile://{name}"))
    (found,) = await world.ready("after")
    estimate = found["status"]["estimate"]
    assert estimate["method"] == "Measured"
    assert parse_bytes(estimate["activations"]) == round_up(ceil(1.02 * gib("3.0")), MIB)
    assert parse_bytes(estimate["runtimeContext"]) < parse_bytes("1Gi")
    assert estimate["perGPU"] == pending["pending"]["perGPU"] != computed["perGPU"]
    assert uids(await world.pods("before")) == pods
    await world.patch("ModelDeployment", "before", {"metadata": {"annotations": {names.REFRESH: "1"}}})

    async def adopted() -> None:
        now = (await world.get("ModelDeployment", "before"))["status"]["estimate"]
        assert (now["method"], now["perGPU"]) == ("Measured", estimate["perGPU"])
        assert "pending" not in now

    await world.eventually(adopted)
    await world.ready("before")


async def test_a_hundred_models_of_one_branch_ask_the_hub_once(world: World) -> None:
    await world.fleet(group("a"))
    hub = world.machinery.hub
    commit = hub.move_branch(COUNTED, "counted")
    source = {"source": f"hf://{COUNTED}", "revision": "counted"}
    await world.apply(*(model(f"m{each}", claim=None, model=source, replicas=0) for each in range(100)))
    began = asyncio.get_running_loop().time()
    found = await world.ready(*(f"m{each}" for each in range(100)))
    assert {each["status"]["model"]["revision"] for each in found} == {commit}
    asked = [request.path for request in hub.requests if f"/{COUNTED}/" in request.path]
    assert asked.count(f"/{COUNTED}/resolve/{commit}/config.json") == 1
    branch = asked.count(f"/api/models/{COUNTED}/revision/counted")
    looks = (asyncio.get_running_loop().time() - began) / 1.8 + 1
    assert 1 <= branch <= 1 + looks
    assert hub.weight_bytes == 0
