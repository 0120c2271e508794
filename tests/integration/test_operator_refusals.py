"""What is refused, by whom, and in which words: by the API server, by the policies, by the operator."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.integration.bad_objects import BAD_OBJECTS, BadObject, good_objects
from tests.integration.claims import CLAIM, GATE_GONE, annotations
from tests.integration.harness import GROUP, World
from tests.integration.looks import condition, uids
from tests.integration.manifests import group, model, profile
from vrampack.api import names
from vrampack.errors import ClusterError
from vrampack.localcluster.adminclient import AdminClient
from vrampack.localcluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

PLURALS = {
    "ModelDeployment": "namespaces/default/modeldeployments",
    "ModelProfile": "modelprofiles",
    "GPUNode": "gpunodes",
    "GPUPool": "gpupools",
}


@pytest.fixture(scope="module")
async def answers(installed: LocalCluster) -> Mapping[str, str]:
    """What the API server says of each bad object by its name, and of good ones under GOOD; they are asked at once."""
    pki = installed.folder / "pki"
    client = AdminClient(
        url=installed.server_url, authority=pki / "ca.crt", certificate=pki / "admin.crt", key=pki / "admin.key"
    )

    async def ask(manifest: Mapping[str, Any]) -> str:
        path = f"{GROUP}/{PLURALS[manifest['kind']]}?dryRun=All&fieldValidation=Strict"
        try:
            await client.create(path, manifest)
        except ClusterError as error:
            return str(error)
        return ""

    async with client:
        bad = await asyncio.gather(*(ask(each.manifest()) for each in BAD_OBJECTS))
        good = await asyncio.gather(*map(ask, good_objects()))
    return {"GOOD": "\n".join(filter(None, good)), **dict(zip((each.name for each in BAD_OBJECTS), bad, strict=True))}


def test_good_objects_are_taken(answers: Mapping[str, str]) -> None:
    assert answers["GOOD"] == ""


def test_there_are_many_bad_objects() -> None:
    assert len({bad.name for bad in BAD_OBJECTS}) == len(BAD_OBJECTS) >= 40


@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.name) for bad in BAD_OBJECTS])
def test_a_bad_object_is_refused_with_its_field(answers: Mapping[str, str], bad: BadObject) -> None:
    assert bad.path in answers[bad.name]
    assert bad.says in answers[bad.name]


async def test_a_forged_claim_and_a_removed_gate_are_refused(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="30Gi", replicas=2))
    await world.waiting("m", "InsufficientGPUMemory")
    await world.kubectl("create", "rolebinding", "alice", "--clusterrole=admin", "--user=alice")
    alice = world.kubectl.acting_as("alice")
    placed, gated = sorted(await world.pods("m"), key=lambda pod: "schedulingGates" in pod["spec"])
    names_of = [pod["metadata"]["name"] for pod in (placed, gated)]

    async def refused(pod: str, operations: list[dict[str, Any]]) -> str:
        return await alice.refused("patch", "pod", pod, "--type=json", "-p", json.dumps(operations))

    claim = annotations({**CLAIM, names.GPUS: world.gpu("a"), names.CLAIM: "1"})
    for operations in ([GATE_GONE], claim, [*claim, GATE_GONE]):
        assert "ValidatingAdmissionPolicy 'vrampack-" in await refused(names_of[1], operations)
    assert "vrampack-claims" in await refused(names_of[0], annotations({names.CLAIM: "1"}))
    assert "vrampack-claims" in await alice.refused("label", "pod", names_of[0], f"{names.MODEL_DEPLOYMENT}-")
    assert uids(await world.pods("m")) == uids([placed, gated])


async def test_a_service_of_the_same_name_stays_the_users(world: World) -> None:
    await world.fleet(group("a"))
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }
    await world.apply(service)
    before = await world.get("Service", "web")
    await world.apply(model("web"), model("beside"))
    await world.ready("beside")
    found = await world.condition("ModelDeployment", "web", "Stalled", "True", "NameConflict")
    assert "Service" in condition(found, "Stalled")["message"]
    assert await world.get("Service", "web") == before
    await world.delete("Service", "web")
    await world.ready("web")


async def test_a_missing_priority_class_is_said_in_kubernetes_words(world: World) -> None:
    urgent = f"urgent-{world.namespace}"
    await world.fleet(group("a"))
    await world.apply(model("m", priorityClassName=urgent))
    entry = await world.waiting("m", "PodsRefused")
    assert f"no PriorityClass with name {urgent} was found" in entry["message"]
    await world.apply(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": urgent}, "value": 10}
    )
    await world.ready("m", within=90)


@pytest.mark.parametrize(
    ("group_", "plural", "operation", "reason"),
    [
        pytest.param("apps", "deployments", "CREATE", "ChildRefused", id="children"),
        pytest.param("", "pods", "CREATE", "PodsRefused", id="pods"),
        pytest.param("", "pods", "UPDATE", "ClaimRefused", id="claims"),
    ],
)
async def test_a_webhook_that_is_down_holds_up_only_what_it_is_asked_about(
    world: World, group_: str, plural: str, operation: str, reason: str
) -> None:
    name = f"down-{world.namespace}"
    await world.fleet(group("a"))
    await world.kubectl.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [
                {
                    "name": "down.example.com",
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                    "matchConditions": [{"name": "bad", "expression": "object.metadata.name.startsWith('bad')"}],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
                    "clientConfig": {"service": {"name": "nobody", "namespace": world.namespace}},
                    "rules": [
                        {
                            "apiGroups": [group_],
                            "apiVersions": ["v1"],
                            "operations": [operation],
                            "resources": [plural],
                        }
                    ],
                }
            ],
        }
    )
    try:
        await world.apply(model("bad"))
        found = await world.condition("ModelDeployment", "bad", "Reconciling", "True", reason)
        assert "failed calling webhook" in condition(found, "Reconciling")["message"]
        await world.apply(model("good"))
        await world.ready("good")
        (pod,) = await world.pods("good")

        async def shown() -> None:
            (gpu,) = (await world.get("GPUNode", world.node("a")))["status"]["gpus"]
            assert [claim["pod"] for claim in gpu["claims"]] == [pod["metadata"]["name"]]

        await world.eventually(shown)
    finally:
        await world.kubectl("delete", "validatingwebhookconfiguration", name)
    await world.ready("bad", within=90)


STALLED = {
    "UnsupportedArchitecture": model("m", claim=None, source="hf://RWKV/rwkv-5-world-3b"),
    "HubUnauthorized": model("m", claim=None, source="hf://Qwen/Qwen-none"),  # as the hub answers who has no token
    "RevisionNotFound": model("m", model={"source": "hf://Qwen/Qwen3-0.6B", "revision": "none"}),
    "PrecisionMismatch": model("m", source="hf://Qwen/Qwen3-0.6B", precision={"weights": "fp8"}),
    "PoolNotFound": model("m", placement={"pool": "none"}),
    "InvalidSpec": model("m", serving={"contextLength": 8192, "concurrency": 4}),  # it is made for 4096
    "LargerThanAnyGPU": model("m", claim="200Gi"),
}


async def test_dead_ends_are_stalled_and_stop_nobody_else(world: World) -> None:
    await world.fleet(group("a"))
    stalled = {reason.lower(): reason for reason in STALLED}
    manifests = [{**STALLED[reason], "metadata": {"name": name}} for name, reason in stalled.items()]
    await world.apply(*manifests, model("good"))
    await world.ready("good")
    for name, reason in stalled.items():
        found = await world.condition("ModelDeployment", name, "Stalled", "True", reason)
        assert condition(found, "Stalled")["message"]
        assert condition(found, "Ready")["status"] == "False"
        assert not await world.pods(name) or reason == "LargerThanAnyGPU"


async def test_a_dead_end_ends_when_its_cause_does(world: World) -> None:
    facts = f"facts-{world.namespace}"
    await world.fleet(group("a"))
    await world.apply(model("m", source=f"profile://{facts}"))
    await world.condition("ModelDeployment", "m", "Stalled", "True", "ProfileNotFound")
    await world.apply(profile(facts))
    await world.ready("m")
