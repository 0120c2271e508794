"""The objects that a ModelDeployment owns: Deployment, Service and PodDisruptionBudget, as manifests.

They stand here and not beside the client because the plan compares them with what is there.
"""

from typing import Any, Final

from vrampack.api import names
from vrampack.planning.podtemplate import device_template_name, selector, template_hash
from vrampack.planning.snapshot import Json, ModelView
from vrampack.planning.verdict import Sized
from vrampack.units import parse_quantity

NO_DEADLINE: Final = 2_147_483_647
"""A replica may wait for room for days; the Deployment must not call that a failed rollout."""

API_VERSIONS: Final = {
    "Deployment": "apps/v1",
    "Service": "v1",
    "PodDisruptionBudget": "policy/v1",
    "ResourceClaimTemplate": "resource.k8s.io/v1",
}


def strategy(*, surge: bool) -> Json:
    """A new replica first and then an old one away, or the other way round; one at a time."""
    step = {"maxSurge": 1, "maxUnavailable": 0} if surge else {"maxSurge": 0, "maxUnavailable": 1}
    return {"type": "RollingUpdate", "rollingUpdate": step}


def deployment(model: ModelView, sized: Sized, *, spec_hash: str, replicas: int, surge: bool) -> Json:
    """The Deployment; its annotations say which spec and which estimate its template was made from."""
    annotations = {
        names.SPEC_HASH: spec_hash,
        names.TEMPLATE_HASH: template_hash(sized.template),
        names.ESTIMATE: sized.estimate.model_dump_json(by_alias=True, exclude_none=True),
        names.COMMIT: sized.commit,
    }
    if (draft := sized.draft) is not None:
        annotations |= {names.DRAFT_COMMIT: draft.commit} if draft.commit else {}
        annotations |= {names.DRAFT_DIGEST: draft.digest} if draft.digest else {}
    if sized.facts.weights_digest:
        annotations[names.DIGEST] = sized.facts.weights_digest
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": selector(model.name)},
        "strategy": strategy(surge=surge),
        "progressDeadlineSeconds": NO_DEADLINE,
        "revisionHistoryLimit": 3,
        "template": sized.template,
    }
    return _child(model, "Deployment", spec, annotations)


def service(model: ModelView, *, port: int) -> Json:
    """The Service in front of the replicas that are ready."""
    ports = [{"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}]
    return _child(model, "Service", {"selector": selector(model.name), "ports": ports})


def disruption_budget(model: ModelView, *, without_gpu: int) -> Json:
    """At most one replica away at a time. Replicas without a GPU serve nothing, so they never block a drain."""
    spec = {
        "maxUnavailable": 1 + without_gpu,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector(model.name)},
    }
    return _child(model, "PodDisruptionBudget", spec)


def device_request(model: ModelView, request: Json) -> Json:
    """The ResourceClaimTemplate of the pods' GPUs; ``request``: its spec, which its name stands for."""
    manifest = _child(model, "ResourceClaimTemplate", request)
    manifest["metadata"]["name"] = device_template_name(model.name, request)
    return manifest


def covers(desired: Any, live: Any) -> bool:
    """Whether everything that is desired is there. What the API server filled in beside it does not matter."""
    if isinstance(desired, dict):
        return isinstance(live, dict) and all(key in live and covers(each, live[key]) for key, each in desired.items())
    if isinstance(desired, list):
        return isinstance(live, list) and len(desired) == len(live) and all(map(covers, desired, live))
    return desired == live or _same_quantity(desired, live)


def _same_quantity(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    try:
        return parse_quantity(one) == parse_quantity(other)
    except (TypeError, ValueError):
        return False


def _child(model: ModelView, kind: str, spec: Json, annotations: Json | None = None) -> Json:
    metadata: Json = {
        "name": model.name,
        "namespace": model.namespace,
        "labels": selector(model.name) | {"app.kubernetes.io/name": model.name},
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": "ModelDeployment",
                "name": model.name,
                "uid": model.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": API_VERSIONS[kind], "kind": kind, "metadata": metadata, "spec": spec}
