"""Observing and acting on the real API server, as the operator's ServiceAccount and under the chart's policies."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.claims import EPOCH, RELEASE, lease, replica
from tests.integration.kubectl import Kubectl, until
from vrampack.api import names
from vrampack.kube.act import Actor
from vrampack.kube.client import Kube
from vrampack.kube.observe import Observer
from vrampack.kube.outcome import Outcome
from vrampack.localcluster.cluster import LocalCluster
from vrampack.planning.actions import ApplyChild, CreateChild, DeletePod, PatchChild, PlacePod, Plan, Tell, WriteStatus
from vrampack.planning.snapshot import Claim, Memory, PodView, Snapshot

pytestmark = pytest.mark.cluster

NAMESPACE = "observe-act"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
ZONE = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
MATCH = {"labelSelector": {"matchLabels": {"app": "model"}}, "topologyKey": "zone"}
AFFINITIES: dict[str, Any] = {
    "none": None,
    "empty": {},
    "empty-node": {"nodeAffinity": {}},
    "pods-only": {"podAntiAffinity": {REQUIRED: [MATCH]}},
    "preferred": {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": ZONE}]}
    },
    "terms": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [ZONE, {}, ZONE]}}},
    "fields": {
        "nodeAffinity": {
            REQUIRED: {
                "nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["gpu-9"]}]}
                ]
            }
        }
    },
}
CLAIM = {names.GPUS: "GPU-1,GPU-2", names.CLAIM: "1024"}


class Session:
    """An operator's connection; the admin in its namespace prepares what it finds."""

    def __init__(self, kube: Kube, admin: Kubectl) -> None:
        self.kube = kube
        self.admin = admin
        self.epoch = EPOCH
        self.observer = Observer(kube, namespace=RELEASE, lease_clock=time.monotonic)
        self.actor = Actor(kube, epoch=lambda: self.epoch, settled=lambda: True)

    async def observe(self) -> Snapshot:
        return await self.observer.observe(now=time.time(), memory=Memory(started=0.0), resolutions={})

    async def pod(self, name: str) -> PodView:
        [pod] = [pod for pod in (await self.observe()).pods if (pod.namespace, pod.name) == (NAMESPACE, name)]
        return pod

    async def gated(self, name: str, *, affinity: Any = None, **metadata: Any) -> PodView:
        manifest = replica(name, **metadata)
        if affinity is not None:
            manifest["spec"]["affinity"] = affinity
        await self.admin("create", "-f", "-", stdin=json.dumps(manifest))  # apply would add an annotation
        return await self.pod(name)

    async def act(self, **plan: Any) -> Outcome:
        return await self.actor.act(Plan(**plan))


def place(pod: PodView) -> PlacePod:
    return PlacePod(pod=pod, node="gpu-1", gpus=("GPU-1", "GPU-2"), annotations=CLAIM)


@pytest.fixture(scope="module")
async def session(installed: LocalCluster) -> AsyncIterator[Session]:
    release = Kubectl(cluster=installed).within(RELEASE)
    await release.apply(lease())
    await release("create", "namespace", NAMESPACE)
    kube = await Kube.connect(str(await installed.token_for("vrampack", RELEASE)))
    yield Session(kube, Kubectl(cluster=installed).within(NAMESPACE))
    await kube.close()
    await release("delete", "namespace", NAMESPACE, "--wait=false")
    await release("delete", "lease", names.LEADER_LEASE, "--ignore-not-found")


@pytest.mark.parametrize("case", AFFINITIES)
async def test_a_claim_lands_whatever_affinity_the_pod_has(session: Session, case: str) -> None:
    pod = await session.gated(case, affinity=AFFINITIES[case])
    assert (pod.gated, pod.claim) == (True, None)

    assert await session.act(placements=(place(pod),)) == Outcome(placed=(place(pod),))

    after = await session.pod(case)
    assert (after.gated, after.claim) == (False, Claim(gpus=("GPU-1", "GPU-2"), bytes=1024, epoch=EPOCH))
    assert await session.act(placements=(place(pod),)) == Outcome(conflicts=1)


async def test_a_pod_without_annotations(session: Session) -> None:
    pod = await session.gated("bare", annotations={})
    assert not pod.annotated

    assert len((await session.act(placements=(place(pod),))).placed) == 1


async def test_a_deposed_leader_is_refused(session: Session) -> None:
    pod = await session.gated("late")
    session.epoch = EPOCH - 1
    try:
        outcome = await session.act(placements=(place(pod),))
        assert f"epoch {EPOCH} is in force" in outcome.refused[pod.uid]
    finally:
        session.epoch = EPOCH
    assert (await session.pod("late")).gated


async def test_a_placed_pod_that_no_node_takes_is_seen_and_deleted(session: Session) -> None:
    await session.act(placements=(place(await session.gated("unlucky")),))

    async def refused() -> bool:
        return "node" in (await session.pod("unlucky")).refused

    await until("the scheduler refuses the pod", refused)
    pod = await session.pod("unlucky")
    stale = DeletePod(
        pod=replace(pod, resource_version="1"), model="m", node="gpu-1", reason="Refused", message=pod.refused
    )
    assert await session.act(deletions=(stale,)) == Outcome(conflicts=1)

    assert len((await session.act(deletions=(replace(stale, pod=pod),))).deleted) == 1
    assert "unlucky" not in {pod.name for pod in (await session.observe()).pods}


async def test_children_status_and_events_of_a_model(session: Session) -> None:
    await session.admin.apply(
        {
            "apiVersion": names.API_VERSION,
            "kind": "ModelDeployment",
            "metadata": {"name": "llama"},
            "spec": {"model": {"source": "hf://org/llama"}, "serving": {"contextLength": 8192, "concurrency": 16}},
        }
    )
    [model] = [model for model in (await session.observe()).models if model.namespace == NAMESPACE]
    assert model.spec is not None, model.problem
    labels = {names.MANAGED_BY: names.MANAGER, names.MODEL_DEPLOYMENT: "llama"}
    meta = {"name": "llama", "namespace": NAMESPACE, "labels": labels}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 8000}]}}
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta,
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
    }
    create = (CreateChild(model=model.key, manifest=service), CreateChild(model=model.key, manifest=budget))

    assert await session.act(children=create) == Outcome()
    assert (await session.act(children=create)).name_conflicts == {
        (model.key, "Service", "llama"),
        (model.key, "PodDisruptionBudget", "llama"),
    }

    children = {child.kind: child for child in (await session.observe()).children if child.namespace == NAMESPACE}
    assert children["Service"].object["spec"]["ports"][0]["port"] == 8000
    assert "managedFields" not in children["Service"].object["metadata"]
    apply = ApplyChild(model=model.key, manifest=service, resource_version=children["Service"].resource_version)
    patch = PatchChild(
        model=model.key,
        kind="PodDisruptionBudget",
        namespace=NAMESPACE,
        name="llama",
        resource_version=children["PodDisruptionBudget"].resource_version,
        patch={"spec": {"maxUnavailable": 2}},
    )
    assert await session.act(children=(apply, patch)) == Outcome()
    assert await session.act(children=(patch,)) == Outcome(conflicts=1)
    bad = CreateChild(model=model.key, manifest=service | {"metadata": meta | {"name": "Llama"}})
    assert "Service Llama is refused: " in (await session.act(children=(bad,))).child_errors[model.key]

    write = WriteStatus(
        kind="ModelDeployment",
        namespace=NAMESPACE,
        name="llama",
        resource_version=model.resource_version,
        status={"observedGeneration": 1, "replicas": 0},
    )
    tell = Tell(
        kind="ModelDeployment",
        namespace=NAMESPACE,
        name="llama",
        uid=model.uid,
        type="Normal",
        reason="Placed",
        message="placed on gpu-1",
    )
    assert await session.act(statuses=(write,), events=(tell,)) == Outcome()
    assert (await session.act(statuses=(write,))).conflicts == 1
    [model] = [model for model in (await session.observe()).models if model.namespace == NAMESPACE]
    assert model.status["observedGeneration"] == 1
    assert "placed on gpu-1" in await session.admin("describe", "modeldeployment", "llama")
