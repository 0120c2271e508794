"""Where the API server keeps each kind that the operator reads or writes."""

from typing import Final

from vrampack.api import names

_KINDS: Final = {
    "Pod": ("/api/v1", "pods"),
    "Node": ("/api/v1", "nodes"),
    "Service": ("/api/v1", "services"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "ReplicaSet": ("/apis/apps/v1", "replicasets"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "Event": ("/apis/events.k8s.io/v1", "events"),
    "ModelDeployment": (f"/apis/{names.API_VERSION}", "modeldeployments"),
    "ModelProfile": (f"/apis/{names.API_VERSION}", "modelprofiles"),
    "GPUNode": (f"/apis/{names.API_VERSION}", "gpunodes"),
    "GPUPool": (f"/apis/{names.API_VERSION}", "gpupools"),
}


def collection(kind: str, *, namespace: str = "") -> str:
    """The path of all objects of a kind, in one namespace or, without one, in the whole cluster."""
    api, plural = _KINDS[kind]
    return f"{api}/namespaces/{namespace}/{plural}" if namespace else f"{api}/{plural}"


def item(kind: str, *, namespace: str, name: str) -> str:
    """The path of one object; kinds of the whole cluster have the namespace empty."""
    return f"{collection(kind, namespace=namespace)}/{name}"
