"""The chart, and pods as the operator and its children make them: what a test needs that plays the operator itself."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.integration.kubectl import until
from vrampack.api import names
from vrampack.localcluster.cluster import LocalCluster
from vrampack.sharing.visible_devices import NRI_ANNOTATION

RELEASE = "vrampack-system"
CHART = ("vrampack", str(Path(__file__).parents[2] / "charts/vrampack"), f"--namespace={RELEASE}")
ABSENT = ("operator.replicas=0", "agent.enabled=false")
"""Operators and agents are processes of the tests."""
EPOCH = 7
CLAIM = {
    names.GPUS: "GPU-0001",
    names.CLAIM: "27874295808",
    names.EPOCH: str(EPOCH),
    names.UTILIZATION: "0.31",
    NRI_ANNOTATION: "k8s.device-plugin.nvidia.com/gpu=GPU-0001",
}

GATE_GONE = {"op": "remove", "path": "/spec/schedulingGates/0"}


def annotations(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"op": "add", "path": "/metadata/annotations/" + key.replace("/", "~1"), "value": value}
        for key, value in values.items()
    ]


def placement(epoch: int = EPOCH, **pod: Any) -> list[dict[str, Any]]:
    """The operator's one patch; with a pod's metadata it is conditional, as the operator writes it."""
    node = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-1"]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [node]}}}
    conditions = [
        {"op": "test", "path": "/metadata/uid", "value": pod.get("uid")},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": pod.get("resourceVersion")},
    ]
    return [
        *(conditions if pod else ()),
        *annotations({**CLAIM, names.EPOCH: str(epoch)}),
        {"op": "add", "path": "/spec/affinity", "value": affinity},
        GATE_GONE,
    ]


def replica(name: str, **metadata: Any) -> dict[str, Any]:
    """A pod as a ModelDeployment's ReplicaSet makes it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "model", names.MANAGED_BY: names.MANAGER, names.MODEL_DEPLOYMENT: "llama"},
            "annotations": {names.NEED: '{"gpus":1,"bytes":27874295808}'},
            **metadata,
        },
        "spec": {
            "schedulingGates": [{"name": names.GATE}],
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": names.ENGINE_CONTAINER, "image": "engine:1"}],
        },
    }


def plain(name: str, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    pod = replica(name, labels={"app": "web"}, annotations=dict(annotations or {}))
    del pod["spec"]["schedulingGates"]
    return pod


def lease(holder: str = "operator-a", epoch: int = EPOCH) -> dict[str, Any]:
    # Nobody renews it, so it must stay out of the way of an operator that starts in this cluster later.
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": names.LEADER_LEASE},
        "spec": {"holderIdentity": holder, "leaseTransitions": epoch, "leaseDurationSeconds": 1},
    }


async def install(cluster: LocalCluster, *values: str) -> None:
    """Installs or upgrades the chart, without an operator, and returns when its policies are in force.

    One simulated agent stands for all nodes, unless ``values`` bind each agent to its own.
    """
    settings = [f"--set={value}" for value in (*ABSENT, "agent.bindToNode=false", *values)]
    await cluster.helm("upgrade", "--install", *CHART, "--create-namespace", "--wait", *settings)
    await until("the policies are in force", lambda: in_force(cluster))  # they are compiled in the background


async def in_force(cluster: LocalCluster) -> bool:
    forged = json.dumps(replica("forged", annotations=CLAIM))
    done = await cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=forged, check=False)
    return "vrampack-replicas" in done.stderr  # the last that helm makes
