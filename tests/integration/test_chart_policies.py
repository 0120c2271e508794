"""The admission policies of the chart, on the real API server: who may claim GPU memory, how, and who is left alone."""

import base64
import json
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import yaml

from tests.integration.claims import (
    CLAIM,
    EPOCH,
    GATE_GONE,
    RELEASE,
    annotations,
    install,
    lease,
    placement,
    plain,
    replica,
)
from tests.integration.kubectl import Kubectl, until
from vrampack.api import names
from vrampack.localcluster.cluster import LocalCluster
from vrampack.sharing.visible_devices import NRI_ANNOTATION

pytestmark = pytest.mark.cluster

NAMESPACE = "policies"
NRI_POD = "nvidia.cdi.k8s.io/pod"


@pytest.fixture(scope="module")
async def leases(cluster: LocalCluster) -> Kubectl:
    """The admin in the release's namespace, with the chart in force and no operator but the one played here."""
    await install(cluster)
    return Kubectl(cluster=cluster).within(RELEASE)


@pytest.fixture(scope="module")
async def admin(leases: Kubectl) -> AsyncIterator[Kubectl]:
    """The cluster's admin, with a namespace and a leader of epoch 7 in place."""
    await leases.apply(lease())
    await leases("create", "namespace", NAMESPACE)
    admin = Kubectl(cluster=leases.cluster).within(NAMESPACE)
    await admin("create", "rolebinding", "alice", "--clusterrole=admin", "--user=alice")
    yield admin
    await admin("delete", "namespace", NAMESPACE, "--wait=false")
    await leases("delete", "lease", names.LEADER_LEASE, "--ignore-not-found")


@pytest.fixture(scope="module")
def alice(admin: Kubectl) -> Kubectl:
    """A user with the role `admin` in the namespace: she may patch any pod there, as far as permissions go."""
    return admin.acting_as("alice")


@pytest.fixture(scope="module")
async def operator(admin: Kubectl, cluster: LocalCluster) -> Kubectl:
    """The operator's ServiceAccount, signed in by a token of its own."""
    return admin.signed_in(await cluster.token_for("vrampack", RELEASE))


@pytest.fixture(scope="module")
async def gated(admin: Kubectl) -> str:
    await admin.apply(replica("gated"))
    return "gated"


@pytest.fixture(scope="module")
async def claimed(admin: Kubectl, operator: Kubectl) -> str:
    await admin.apply(replica("claimed"))
    await operator.patch("claimed", placement())
    return "claimed"


async def test_the_expressions_have_no_type_errors(admin: Kubectl) -> None:
    for policy in ("vrampack-replicas", "vrampack-claims"):
        generation = (await admin.get("validatingadmissionpolicy", policy))["metadata"]["generation"]
        checked = f"--for=jsonpath={{.status.observedGeneration}}={generation}"
        await admin("wait", checked, f"validatingadmissionpolicy/{policy}", "--timeout=30s")
        status = (await admin.get("validatingadmissionpolicy", policy))["status"]
        assert not status["typeChecking"], status


# --- the operator ---------------------------------------------------------------------------------------------------


async def test_the_operators_one_patch_claims(admin: Kubectl, operator: Kubectl) -> None:
    await admin.apply(replica("placed"))
    pod = (await admin.get("pod", "placed"))["metadata"]

    await operator.patch("placed", placement(uid=pod["uid"], resourceVersion=pod["resourceVersion"]))

    after = await admin.get("pod", "placed")
    assert not after["spec"].get("schedulingGates")
    assert CLAIM.items() <= after["metadata"]["annotations"].items()


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        pytest.param(placement(EPOCH - 1), "epoch '6', and epoch 7 is in force, held by operator-a", id="older epoch"),
        pytest.param(placement(EPOCH + 1), "epoch '8', and epoch 7 is in force", id="epoch not yet in force"),
        pytest.param([GATE_GONE], "leaves only in the same update that writes a whole claim", id="gate without claim"),
        pytest.param(annotations(CLAIM), "a claim is written only then", id="claim behind the gate"),
        pytest.param(
            [*annotations({names.CLAIM: "1", names.EPOCH: str(EPOCH)}), GATE_GONE],
            "whole claim",
            id="claim without GPUs",
        ),
        pytest.param([*annotations({names.GPUS: "GPU-1", names.CLAIM: "1"}), GATE_GONE], "whole claim", id="no epoch"),
        pytest.param(annotations({names.NEED: "less"}), "never change", id="need"),
        pytest.param(
            annotations({NRI_ANNOTATION: "GPU-1"}), "a claim is written only then", id="devices without claim"
        ),
    ],
)
async def test_no_other_claim_of_the_operator_lands(
    operator: Kubectl, gated: str, patch: list[dict[str, Any]], why: str
) -> None:
    assert why in await operator.refused("patch", "pod", gated, "--type=json", "-p", json.dumps(patch))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (f"{names.CLAIM}=1", "never change and never go away"),
        (f"{names.GPUS}=GPU-0002", "never change and never go away"),
        (f"{names.EPOCH}=8", "never change and never go away"),
        (f"{names.CLAIM}-", "never change and never go away"),
        (f"{names.EPOCH}-", "never change and never go away"),
        (f"{names.KV_CACHE_BYTES}=1", "a claim is written only then"),
        (f"{NRI_ANNOTATION}=GPU-0002", "never change and never go away"),
    ],
)
async def test_a_claim_never_changes_not_even_by_the_operator(
    operator: Kubectl, claimed: str, change: str, why: str
) -> None:
    assert why in await operator.refused("annotate", "--overwrite", "pod", claimed, change)


async def test_a_deposed_leader_is_fenced_at_once(
    leases: Kubectl, operator: Kubectl, gated: str, record_property: Any
) -> None:
    """The API server learns of the Lease by a watch of its own; a new leader waits a second before it claims."""
    assert operator.kubeconfig
    config = yaml.safe_load(operator.kubeconfig.read_text(encoding="utf-8"))
    server = config["clusters"][0]["cluster"]
    authority = base64.b64decode(server["certificate-authority-data"]).decode()
    token = config["users"][0]["user"]["token"]
    pod_path = f"/api/v1/namespaces/{NAMESPACE}/pods/{gated}?dryRun=All"
    lease_path = f"/apis/coordination.k8s.io/v1/namespaces/{RELEASE}/leases/{names.LEADER_LEASE}"
    delays = []
    async with aiohttp.ClientSession(
        base_url=server["server"],
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=authority)),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json-patch+json"},
    ) as session:

        async def claim(epoch: int) -> int:
            async with session.patch(pod_path, data=json.dumps(placement(epoch))) as response:
                return response.status

        async def take_over(epoch: int) -> None:
            change = [{"op": "replace", "path": "/spec/leaseTransitions", "value": epoch}]
            async with session.patch(lease_path, data=json.dumps(change)) as response:
                assert response.status == 200, await response.text()

        assert await claim(EPOCH) == 200
        for epoch in range(EPOCH + 1, EPOCH + 21):
            await take_over(epoch)
            changed = time.monotonic()
            while await claim(epoch - 1) != 403:
                pass
            delays.append(time.monotonic() - changed)
            assert await claim(epoch) == 200
    await leases.apply(lease())
    record_property("fenced_after_seconds", max(delays))
    assert max(delays) < 0.5


async def test_without_a_leader_nothing_is_claimed_and_nothing_else_stops(
    leases: Kubectl, alice: Kubectl, operator: Kubectl, gated: str
) -> None:
    async def refused_because(why: str) -> bool:
        claim = ("patch", "pod", gated, "--type=json", "--dry-run=server", "-p", json.dumps(placement()))
        return why in await operator.refused(*claim)

    await leases.apply(lease(holder=""))
    await until("an empty Lease is seen", lambda: refused_because("nobody holds the Lease"))
    await leases("delete", "lease", names.LEADER_LEASE)
    try:
        await until("a missing Lease is seen", lambda: refused_because("no params found"))
        assert "no params found" in await alice.refused("annotate", "pod", gated, f"{names.CLAIM}=1")
        await alice.apply(replica("born-without-leader"))
        await alice("delete", "pod", "born-without-leader")
        await alice.apply(plain("plain-without-leader"))
        await alice("label", "pod", "plain-without-leader", "a=b")
    finally:
        await leases.apply(lease())


# --- users ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "admin"])
@pytest.mark.parametrize(
    ("patch", "why"),
    [
        pytest.param(placement(), "only the operator", id="forged claim"),
        pytest.param([GATE_GONE], "only the operator", id="removed gate"),
        pytest.param([{"op": "remove", "path": "/spec/schedulingGates"}], "only the operator", id="removed gates"),
        pytest.param(annotations(CLAIM), "only the operator", id="claim behind the gate"),
        pytest.param(annotations({names.NEED: "more"}), "only the operator", id="need"),
        pytest.param(annotations({f"{names.GROUP}/anything": "x"}), "only the operator", id="annotation of ours"),
        pytest.param([{"op": "remove", "path": "/metadata/annotations"}], "only the operator", id="all annotations"),
        pytest.param(annotations({NRI_ANNOTATION: "GPU-1"}), "only the operator", id="devices by NRI"),
        pytest.param(annotations({NRI_POD: "GPU-1"}), "only the operator", id="devices of all containers"),
    ],
)
async def test_nobody_else_places_a_pod(
    request: pytest.FixtureRequest, gated: str, who: str, patch: list[dict[str, Any]], why: str
) -> None:
    user: Kubectl = request.getfixturevalue(who)
    assert why in await user.refused("patch", "pod", gated, "--type=json", "-p", json.dumps(patch))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (["annotate", f"{names.CLAIM}=1"], "only the operator"),
        (["annotate", f"{names.CLAIM}-"], "only the operator"),
        (["annotate", f"{names.VISIBLE_DEVICES}=all"], "only the operator"),
        (["annotate", f"{NRI_ANNOTATION}-"], "only the operator"),
        (["label", f"{names.MODEL_DEPLOYMENT}-"], "can't be added, changed or removed"),
        (["label", f"{names.MODEL_DEPLOYMENT}=other"], "can't be added, changed or removed"),
        (["label", f"{names.MANAGED_BY}-"], "can't be added, changed or removed"),
    ],
)
async def test_a_user_cannot_change_or_hide_a_claim(alice: Kubectl, claimed: str, change: list[str], why: str) -> None:
    assert why in await alice.refused(change[0], "--overwrite", "pod", claimed, change[1])


@pytest.mark.parametrize("subresource", ["ephemeralcontainers", "resize"])
async def test_subresources_that_users_may_write_change_no_claim(admin: Kubectl, gated: str, subresource: str) -> None:
    """Not matched by the policies, since the API server takes nothing but their own fields from them. That is not so of
    the status, which belongs to kubelets and the scheduler: no role of users has it."""
    changes = [
        *annotations({names.CLAIM: "1"}),
        {"op": "remove", "path": "/metadata/labels/" + names.MODEL_DEPLOYMENT.replace("/", "~1")},
        GATE_GONE,
    ]
    before = await admin.get("pod", gated)
    await admin("patch", "pod", gated, f"--subresource={subresource}", "--type=json", "-p", json.dumps(changes))
    after = await admin.get("pod", gated)
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert after["spec"]["schedulingGates"] == before["spec"]["schedulingGates"]


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        pytest.param(
            replica("forged", annotations=CLAIM), "a new pod can't bring a claim on GPU memory with it", id="claim"
        ),
        pytest.param(
            replica("devices", annotations={NRI_POD: "GPU-1"}), "and its nvidia.cdi.k8s.io/ ones", id="devices by NRI"
        ),
        pytest.param(
            {**replica("ungated"), "spec": plain("ungated")["spec"]}, "it needs the scheduling gate", id="no gate"
        ),
        pytest.param(
            replica("unmanaged", labels={names.MODEL_DEPLOYMENT: "llama"}), "managed-by=vrampack", id="half the labels"
        ),
    ],
)
async def test_a_pod_cannot_be_made_as_if_it_were_placed(alice: Kubectl, pod: dict[str, Any], why: str) -> None:
    assert why in await alice.refused("create", "-f", "-", stdin=json.dumps(pod))


async def test_a_claim_cannot_be_smuggled_in_by_labelling_it_later(alice: Kubectl) -> None:
    await alice.apply(replica("smuggled", labels={"app": "web"}, annotations=CLAIM))  # it claims nothing: no label
    change = f"{names.MODEL_DEPLOYMENT}=llama"
    assert "can't be added" in await alice.refused("label", "pod", "smuggled", change)
    await alice("delete", "pod", "smuggled")


async def test_a_template_without_the_gate_makes_no_pods(admin: Kubectl, alice: Kubectl) -> None:
    deployment = deployment_of(replica("no-gate"))
    del deployment["spec"]["template"]["spec"]["schedulingGates"]
    await alice.apply(deployment)
    await admin("wait", "--for=condition=ReplicaFailure", "deployment/no-gate", "--timeout=30s")
    conditions = (await admin.get("deployment", "no-gate"))["status"]["conditions"]
    assert any("it needs the scheduling gate" in condition["message"] for condition in conditions)
    await alice("delete", "deployment", "no-gate")


# --- what goes on as ever -------------------------------------------------------------------------------------------


async def test_plain_pods_of_users_are_not_touched(alice: Kubectl) -> None:
    await alice.apply(plain("web"))
    await alice("annotate", "pod", "web", "example.com/note=x", f"{names.CLAIM}=1")
    await alice("label", "pod", "web", "tier=front", f"{names.MANAGED_BY}=somebody")
    await alice("annotate", "pod", "web", f"{names.CLAIM}-")
    await alice("delete", "pod", "web")


async def test_the_rest_of_a_replica_can_be_changed(alice: Kubectl, gated: str, claimed: str) -> None:
    for pod in (gated, claimed):
        await alice("label", "pod", pod, "tier=front")
        await alice("annotate", "pod", pod, "example.com/note=x", "controller.kubernetes.io/pod-deletion-cost=5")
        await alice("set", "image", f"pod/{pod}", f"{names.ENGINE_CONTAINER}=engine:2")


async def test_finalizers_deletion_and_eviction_pass(admin: Kubectl, alice: Kubectl, operator: Kubectl) -> None:
    finalizer = {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/hold"]}
    released = {"op": "remove", "path": "/metadata/finalizers"}
    for name in ("held", "evicted"):
        await admin.apply(replica(name))
        await operator.patch(name, placement())
    await alice.patch("held", [finalizer])
    await alice("delete", "pod", "held", "--wait=false")
    await alice.patch("held", [released])
    await admin("wait", "--for=delete", "pod/held", "--timeout=30s")

    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted", "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/evicted/eviction"
    await alice("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    await admin("wait", "--for=delete", "pod/evicted", "--timeout=30s")


async def test_deployments_roll_scale_orphan_adopt_and_go(admin: Kubectl, operator: Kubectl) -> None:
    def pods_are(count: int) -> tuple[str, ...]:
        return ("wait", f"--for=jsonpath={{.status.replicas}}={count}", "deployment/rolling", "--timeout=30s")

    deployment = deployment_of(replica("rolling"), replicas=3)
    await admin.apply(deployment)
    await admin(*pods_are(3))
    for pod in (await admin.get("pod", "-l", "app=model-rolling"))["items"][:2]:
        await operator.patch(pod["metadata"]["name"], placement())

    await admin("delete", "replicaset", "-l", "app=model-rolling", "--cascade=orphan")
    await until("the pods are adopted", lambda: owned(admin, 3))

    await admin("set", "image", "deployment/rolling", f"{names.ENGINE_CONTAINER}=engine:2")
    await admin("wait", "--for=jsonpath={.status.updatedReplicas}=3", "deployment/rolling", "--timeout=30s")
    await admin("scale", "deployment/rolling", "--replicas=5")
    await admin("wait", "--for=jsonpath={.status.updatedReplicas}=5", "deployment/rolling", "--timeout=30s")
    await admin("delete", "deployment", "rolling", "--cascade=foreground")
    await admin("wait", "--for=delete", "pod", "-l", "app=model-rolling", "--timeout=30s")


async def owned(admin: Kubectl, count: int) -> bool:
    pods = (await admin.get("pod", "-l", "app=model-rolling"))["items"]
    return sum("ownerReferences" in pod["metadata"] for pod in pods) == count


def deployment_of(pod: dict[str, Any], *, replicas: int = 1) -> dict[str, Any]:
    name = pod["metadata"]["name"]
    labels = {**pod["metadata"]["labels"], "app": f"model-{name}"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "100%"}},
            "template": {
                "metadata": {"labels": labels, "annotations": pod["metadata"]["annotations"]},
                "spec": {key: value for key, value in pod["spec"].items() if key != "terminationGracePeriodSeconds"},
            },
        },
    }
