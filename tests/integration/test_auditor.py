"""The auditor on a real API server: it sees every change, in order, through outages too."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.audit_ledger import Kind
from tests.integration.auditor import Auditor
from tests.integration.kubectl import Kubectl
from vrampack.api import names
from vrampack.localcluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

NODE = "audited"
GPU = "GPU-audited-0"


@pytest.fixture(scope="module")
async def admin(cluster: LocalCluster, repo_root: Path) -> AsyncIterator[Kubectl]:
    admin = Kubectl(cluster=cluster)
    await admin("apply", "--server-side", "--force-conflicts", "-f", str(repo_root / "crds"))
    await admin("wait", "--for=condition=Established", "--timeout=30s", "crd", "gpunodes.vrampack.dev")
    await admin("create", "namespace", NODE)
    await admin.apply({"apiVersion": names.API_VERSION, "kind": "GPUNode", "metadata": {"name": NODE}, "spec": {}})
    yield admin.within(NODE)
    await admin("delete", "gpunode", NODE)
    await admin("delete", "namespace", NODE, "--wait=false")


@pytest.fixture
async def kubectl(admin: Kubectl) -> AsyncIterator[Kubectl]:
    """An admin in a namespace without pods, and a GPUNode with one GPU of 80 GiB."""
    await set_usable(admin, "80Gi")
    yield admin
    await admin("delete", "pods", "--all", "--now")


async def set_usable(kubectl: Kubectl, memory: str) -> None:
    status = {"status": {"gpus": [{"uuid": GPU, "memory": memory, "health": "Healthy"}]}}
    await kubectl("patch", "gpunode", NODE, "--subresource=status", "--type=merge", "-p", json.dumps(status))


async def gate(kubectl: Kubectl, name: str) -> None:
    """A pod as vrampack's Deployments make them."""
    container = {"name": names.ENGINE_CONTAINER, "image": "engine:1"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {names.MANAGED_BY: names.MANAGER}, "annotations": {names.NEED: "{}"}},
        "spec": {"schedulingGates": [{"name": names.GATE}], "containers": [container]},
    }
    await kubectl.apply(pod)


async def place(kubectl: Kubectl, name: str, claim: str) -> None:
    """Claim, node and no gate in one patch."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [NODE]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    annotations = {names.GPUS: GPU, names.CLAIM: claim, names.EPOCH: "1"}
    operations: list[dict[str, Any]] = [
        {"op": "add", "path": f"/metadata/annotations/{key.replace('/', '~1')}", "value": value}
        for key, value in annotations.items()
    ]
    operations.append({"op": "add", "path": "/spec/affinity", "value": {"nodeAffinity": required}})
    operations.append({"op": "remove", "path": "/spec/schedulingGates/0"})
    await kubectl.patch(name, operations)


async def test_claims_that_fit_pass_and_one_too_many_is_told_with_its_history(
    cluster: LocalCluster, kubectl: Kubectl
) -> None:
    async with Auditor(cluster.kubeconfig) as auditor:
        for name, claim in (("one", "50Gi"), ("two", "30Gi")):
            await gate(kubectl, name)
            await place(kubectl, name, claim)
        await kubectl("delete", "pod", "two", "--now")
        await gate(kubectl, "three")
        await place(kubectl, "three", "30Gi")
        await auditor.settle()
        auditor.check()
        assert auditor.ledger.claims == 3

        await gate(kubectl, "four")
        await place(kubectl, "four", "1")
        await auditor.settle()
        with pytest.raises(AssertionError) as caught:
            auditor.check()
        assert "pod audited/four got GPU GPU-audited-0 of audited, but it is overbooked by 1 bytes" in str(caught.value)
        assert "pod audited/two" in str(caught.value)
        assert auditor.gaps == auditor.late == 0


async def test_a_gpu_that_shrank_long_ago_takes_no_claim_that_it_could_have_taken_before(
    cluster: LocalCluster, kubectl: Kubectl
) -> None:
    async with Auditor(cluster.kubeconfig, grace=0) as auditor:
        await gate(kubectl, "late")
        await set_usable(kubectl, "20Gi")
        await place(kubectl, "late", "21Gi")
        await auditor.settle()
        with pytest.raises(AssertionError, match="overbooked"):
            auditor.check()


async def test_the_audit_goes_on_when_the_api_server_comes_back(cluster: LocalCluster, kubectl: Kubectl) -> None:
    async with Auditor(cluster.kubeconfig) as auditor:
        await gate(kubectl, "before")
        await gate(kubectl, "after")
        await place(kubectl, "before", "50Gi")
        await cluster.restart_apiserver()
        await place(kubectl, "after", "31Gi")
        await auditor.settle()
        assert auditor.ledger.claims == 2
        with pytest.raises(AssertionError, match=r"overbooked|exceed"):
            auditor.check()


async def test_nothing_happening_is_settled_at_once(cluster: LocalCluster, kubectl: Kubectl) -> None:
    async with Auditor(cluster.kubeconfig) as auditor:
        await auditor.settle(patience=5)
        auditor.check()


async def test_an_api_server_that_answers_nothing_is_named(cluster: LocalCluster, kubectl: Kubectl) -> None:
    async with Auditor(cluster.kubeconfig) as auditor:
        cluster.pause_apiserver()
        try:
            with pytest.raises(TimeoutError) as caught:
                await auditor.settle(patience=0.5)
            assert [each.partition(":")[0] for each in str(caught.value).partition(" s: ")[2].split("; ")] == list(Kind)
        finally:
            cluster.resume_apiserver()
        await auditor.settle()
        auditor.check()
