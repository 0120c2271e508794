"""Where the API server keeps each kind that the operator reads or writes."""

from typing import Final

from vrampack.api import names

_KINDS: Final = {
    "Pod": ("v1", "pods"),
    "Node": ("v1", "nodes"),
    "Service": ("v1", "services"),
    "Deployment": ("apps/v1", "deployments"),
    "ReplicaSet": ("apps/v1", "replicasets"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "ResourceClaimTemplate": ("resource.k8s.io/v1", "resourceclaimtemplates"),
    "ResourceClaim": ("resource.k8s.io/v1", "resourceclaims"),
    "ResourceSlice": ("resource.k8s.io/v1", "resourceslices"),
    "DeviceClass": ("resource.k8s.io/v1", "deviceclasses"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
    "Event": ("events.k8s.io/v1", "events"),
    "ModelDeployment": (names.API_VERSION, "modeldeployments"),
    "ModelProfile": (names.API_VERSION, "modelprofiles"),
    "GPUNode": (names.API_VERSION, "gpunodes"),
    "GPUPool": (names.API_VERSION, "gpupools"),
}


def api_version(kind: str) -> str:
    """As a manifest of this kind names it."""
    return _KINDS[kind][0]


def collection(kind: str, *, namespace: str = "") -> str:
    """The path of all objects of a kind, in one namespace or, without one, in the whole cluster."""
    version, plural = _KINDS[kind]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def item(kind: str, *, namespace: str, name: str) -> str:
    """The path of one object; kinds of the whole cluster have the namespace empty."""
    return f"{collection(kind, namespace=namespace)}/{name}"
