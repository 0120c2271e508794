"""From apply to Ready and back: what an admin sees of a model that runs, is scaled and is deleted."""

import json

import aiohttp
import pytest

from tests.integration import nextversion
from tests.integration.harness import CHILDREN, World
from tests.integration.looks import claim_of, condition, gpus_of, lone, uids
from tests.integration.manifests import Manifest, group, model, profile
from vrampack.api import names
from vrampack.units import parse_bytes

pytestmark = pytest.mark.cluster

TERMS = (
    "weights",
    "kvCache",
    "activations",
    "cudaGraphs",
    "communication",
    "runtimeContext",
    "allowance",
    "headroom",
)


async def test_a_model_of_the_hub_becomes_ready_and_says_how(world: World) -> None:
    await world.fleet(group("a", product="H100-80"))
    qwen = model("qwen", claim=None, source="hf://Qwen/Qwen3-0.6B", replicas=2)
    await world.kubectl("apply", "-f", "-", stdin=json.dumps(qwen))
    await world.kubectl("wait", "--for=condition=Ready", "mdep/qwen", "--timeout=60s")
    (qwen,) = await world.ready("qwen")
    status = qwen["status"]

    counts = {key: status[key] for key in ("replicas", "readyReplicas", "placedReplicas")}
    assert counts == dict.fromkeys(counts, 2)
    assert status["summary"]["ready"] == "2/2"
    assert status["summary"]["nodes"] == world.node("a")
    assert len(status["model"]["revision"]) == 40
    assert status["model"]["precision"] == "bf16"
    estimate = status["estimate"]
    assert sum(parse_bytes(estimate[term]) for term in TERMS) == parse_bytes(estimate["perGPU"])
    assert estimate["method"] == "Computed"

    for pod, placed in zip(await world.pods("qwen"), by_pod(status), strict=True):
        assert placed["pod"] == pod["metadata"]["name"]
        assert [gpu["uuid"] for gpu in placed["gpus"]] == gpus_of(pod) == [world.gpu("a")]
        assert parse_bytes(placed["gpus"][0]["claim"]) == claim_of(pod) == parse_bytes(estimate["perGPU"])
    (gpu,) = (await world.get("GPUNode", world.node("a")))["status"]["gpus"]
    assert parse_bytes(gpu["claimed"]) == 2 * parse_bytes(estimate["perGPU"])

    said = {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}
    assert said["Ready"] == ("True", "AllReplicasReady")
    assert said["Estimated"][0] == said["Scheduled"][0] == said["PrecisionVerified"][0] == "True"
    assert said.get("Stalled", ("False",))[0] == said.get("Reconciling", ("False",))[0] == "False"
    for kind in CHILDREN:
        child = await world.get(kind, "qwen")
        assert [owner["uid"] for owner in child["metadata"]["ownerReferences"]] == [qwen["metadata"]["uid"]]
    assert "annotations" not in qwen["metadata"] or all(
        names.GROUP not in key for key in qwen["metadata"]["annotations"]
    )
    assert "finalizers" not in qwen["metadata"]
    assert world.machinery.hub.weight_bytes == 0

    header, line = (await world.kubectl("get", "mdep", "qwen")).splitlines()
    assert header.split() == ["NAME", "READY", "MODEL", "PRECISION", "VRAM/GPU", "GPUS", "STATUS", "AGE"]
    assert line.split()[:2] == ["qwen", "2/2"]
    assert "AllReplicasReady" in line

    async def told() -> None:
        events = [each for each in await world.every("Event") if each["regarding"].get("kind") == "ModelDeployment"]
        assert any(each["regarding"]["name"] == "qwen" for each in events)

    await world.eventually(told)
    assert "Events:" in await world.kubectl("describe", "mdep", "qwen")


def by_pod(status: Manifest) -> list[Manifest]:
    return sorted(status["placements"], key=lambda placed: placed["pod"])


async def test_kubectl_scale_up_to_zero_and_back(world: World) -> None:
    await world.fleet(group("a", gpus=2))
    await world.apply(model("m"))
    await world.ready("m")
    first = uids(await world.pods("m"))

    await world.kubectl("scale", "mdep/m", "--replicas=3")
    (deployment,) = await world.ready("m")
    assert deployment["status"]["readyReplicas"] == 3
    assert first < uids(await world.pods("m"))

    await world.kubectl("scale", "mdep/m", "--replicas=0")
    await world.condition("ModelDeployment", "m", "Ready", "True", "ScaledToZero")

    async def free() -> None:
        assert not await world.pods("m", all_of_them=True)
        gpus = (await world.get("GPUNode", world.node("a")))["status"]["gpus"]
        assert all(parse_bytes(gpu.get("claimed", "0")) == 0 for gpu in gpus)

    await world.eventually(free)
    await world.kubectl("scale", "mdep/m", "--replicas=1")
    await world.condition("ModelDeployment", "m", "Ready", "True", "AllReplicasReady")


async def test_a_horizontal_pod_autoscaler_reads_and_writes_the_scale(world: World) -> None:
    await world.fleet(group("a", gpus=2))
    await world.apply(model("m"))
    await world.ready("m")
    await world.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "m"},
            "spec": {
                "scaleTargetRef": {"apiVersion": names.API_VERSION, "kind": "ModelDeployment", "name": "m"},
                "minReplicas": 2,
                "maxReplicas": 3,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                    }
                ],
            },
        }
    )

    async def read() -> None:
        scaler = await world.get("HorizontalPodAutoscaler", "m")
        assert condition(scaler, "AbleToScale").get("status") == "True", scaler
        assert scaler["status"]["currentReplicas"] == 2, scaler
        assert (await world.get("ModelDeployment", "m"))["spec"]["replicas"] == 2

    await world.eventually(read)
    (deployment,) = await world.ready("m")
    assert deployment["status"]["readyReplicas"] == 2


async def test_deleted_means_gone(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", replicas=2))
    await world.ready("m")
    await world.kubectl("delete", "mdep", "m")

    async def gone() -> None:
        for kind in (*CHILDREN, "ReplicaSet", "Pod"):
            left = [each["metadata"]["name"] for each in await world.every(kind)]
            assert not left, f"{kind}: {left}"
        (gpu,) = (await world.get("GPUNode", world.node("a")))["status"]["gpus"]
        assert parse_bytes(gpu.get("claimed", "0")) == 0

    await world.eventually(gone)


async def test_a_disruption_budget_counts_replicas_without_a_gpu(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="30Gi", replicas=3))
    await world.waiting("m", "InsufficientGPUMemory")

    async def counted() -> None:
        budget = (await world.get("PodDisruptionBudget", "m"))["spec"]
        assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (3, "AlwaysAllow")

    await world.eventually(counted)
    await world.fleet(group("b", gpus=2))
    await world.ready("m")

    async def counted_again() -> None:
        assert (await world.get("PodDisruptionBudget", "m"))["spec"]["maxUnavailable"] == 1

    await world.eventually(counted_again)


async def test_an_operator_with_another_estimate_restarts_nothing_until_the_user_asks(world: World) -> None:
    large = f"large-{world.namespace}"
    computed = ("hub", "small", "wide", "waits")
    running = ("hub", "small", "wide", "declared", "custom")
    await world.fleet(group("a", product="H100-80", gpus=2))
    await world.apply(
        profile(large, weights="70Gi"),
        model("hub", claim=None, source="hf://Qwen/Qwen3-0.6B", replicas=2),
        model("small", claim=None),
        model("wide", claim=None, parallelism={"tensor": 2}),
        model("declared", claim="70Gi"),
        model("custom", engine={"name": "custom", "image": "engine:1"}),
    )
    before = {each["metadata"]["name"]: each for each in await world.ready(*running)}
    await world.apply(model("waits", claim=None, source=f"profile://{large}"))
    await world.waiting("waits", "InsufficientGPUMemory")
    children = {kind: await world.every(kind) for kind in ("Pod", "ReplicaSet", "Deployment")}

    for operator in world.machinery.operators:
        await operator.stop()
    newer = world.machinery.start_operator(program=(nextversion.__file__,))
    try:

        async def drifted() -> dict[str, Manifest]:
            found = {name: (await world.get("ModelDeployment", name))["status"] for name in computed}
            estimates = {name: status.get("estimate", {}) for name, status in found.items()}
            assert all("pending" in estimate for estimate in estimates.values()), estimates
            return estimates

        for estimate in (await world.eventually(drifted)).values():
            assert estimate["pending"]["because"] == "EstimateChanged"
            more = parse_bytes(estimate["pending"]["perGPU"]) - parse_bytes(estimate["perGPU"])
            assert nextversion.MORE <= more <= 1.1 * nextversion.MORE
        # A model that is new is sized by the new version, so this one is at work and had reason to touch the others.
        await world.apply(model("after", claim=None))
        (after,) = await world.ready("after")
        small = (await world.get("ModelDeployment", "small"))["status"]["estimate"]
        assert after["status"]["estimate"]["perGPU"] == small["pending"]["perGPU"]

        for now in await world.ready(*running):
            was = before[now["metadata"]["name"]]
            assert now["metadata"]["generation"] == was["metadata"]["generation"]
            assert now["status"]["estimate"]["perGPU"] == was["status"]["estimate"]["perGPU"]
            assert condition(now, "Reconciling").get("status", "False") == "False"
            assert ("pending" in now["status"]["estimate"]) == (now["metadata"]["name"] in computed)
        for kind, old in children.items():
            kept = [each for each in await world.every(kind) if not each["metadata"]["name"].startswith("after")]
            assert uids(kept) == uids(old), kind
        for old in children["Deployment"]:
            live = await world.get("Deployment", old["metadata"]["name"])
            assert live["metadata"]["generation"] == old["metadata"]["generation"]

        # More replicas are of the revision that serves; the new estimate is for whoever asks for it.
        await world.kubectl("scale", "mdep/hub", "--replicas=3")
        await world.ready("hub")
        pods = await world.pods("hub")
        assert len(pods) == 3
        assert uids(pods) > uids(
            [pod for pod in children["Pod"] if pod["metadata"]["labels"][names.MODEL_DEPLOYMENT] == "hub"]
        )
        assert {claim_of(pod) for pod in pods} == {parse_bytes(before["hub"]["status"]["estimate"]["perGPU"])}

        await world.patch("ModelDeployment", "small", {"metadata": {"annotations": {names.REFRESH: "now"}}})

        async def adopted() -> None:
            assert claim_of(lone(await world.pods("small"))) == parse_bytes(small["pending"]["perGPU"])

        await world.eventually(adopted)
        (adopter,) = await world.ready("small")
        assert "pending" not in adopter["status"]["estimate"]
    finally:
        await newer.stop()


async def test_the_probes_answer(world: World) -> None:
    leader = await world.machinery.leader()

    async def answers() -> None:
        async with aiohttp.ClientSession(leader.probes) as session:
            for path in ("/healthz", "/readyz"):
                async with session.get(path) as response:
                    assert response.status == 200, await response.text()

    await world.eventually(answers)
    await world.cluster.stop_apiserver()
    try:
        async with aiohttp.ClientSession(leader.probes) as session, session.get("/healthz") as response:
            assert response.status == 200, await response.text()
    finally:
        await world.cluster.start_apiserver()
    await world.eventually(answers)
