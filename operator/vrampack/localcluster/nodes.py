"""Nodes without machines: what kwok, the scheduler and the operator see of them is a real Node object."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vrampack.api.names import PRODUCT_LABEL
from vrampack.localcluster.components import MANAGED


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """A node to create. ``cpu``, ``memory`` and ``resources`` are Kubernetes quantities, ``taints`` as in a Node."""

    name: str
    gpu_product: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    cpu: str = "64"
    memory: str = "512Gi"
    pods: int = 110
    resources: Mapping[str, str] = field(default_factory=dict)


def manifest(spec: NodeSpec) -> dict[str, Any]:
    """The Node object. Its conditions are kwok's to write."""
    product = {} if spec.gpu_product is None else {PRODUCT_LABEL: spec.gpu_product}
    labels = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        MANAGED: "fake",
        **product,
        **spec.labels,
    }
    capacity = {"cpu": spec.cpu, "memory": spec.memory, "pods": str(spec.pods), **spec.resources}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": labels, "annotations": {MANAGED: "fake", **spec.annotations}},
        "spec": {"taints": [dict(taint) for taint in spec.taints]},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [
                {"type": "InternalIP", "address": _address(spec.name)},
                {"type": "Hostname", "address": spec.name},
            ],
            "nodeInfo": {
                "architecture": "amd64",
                "operatingSystem": "linux",
                "kubeletVersion": "kwok",
                "containerRuntimeVersion": "kwok",
                "kernelVersion": "",
                "osImage": "",
                "kubeProxyVersion": "",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
            },
        },
    }


def settled(node: Mapping[str, Any]) -> bool:
    """Ready, and the taint that says otherwise is gone: the scheduler takes it."""
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ()))
    return ready and not any(
        taint["key"] in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        for taint in node["spec"].get("taints", ())
    )


def _address(name: str) -> str:
    """An address that is always the same for a name, outside the ranges of pods and services."""
    digest = zlib.crc32(name.encode())
    return f"10.{128 + (digest >> 16) % 64}.{(digest >> 8) % 256}.{digest % 254 + 1}"
