"""The one patch that claims GPU memory for a pod: annotations, node and gate together, or nothing.

A test on the uid keeps it from a pod of the same name that came later. Replacing the resourceVersion by the one that
was read is the optimistic lock: a stale one gives 409 Conflict, where a failed test gives a 422 like any bad patch.

It also ends the record of who wrote which field of the pod (one empty entry is how Kubernetes is told so). Nobody
applies fields to a replica's pod, and the record is half of it: without it, this update and all later ones by the
scheduler and the kubelet cost the API server much less, and every watch and list of pods is half as long.
"""

from collections.abc import Mapping
from typing import Any

from vrampack.api.names import EPOCH, GATE
from vrampack.errors import InvalidInputError
from vrampack.planning.snapshot import PodView

Json = dict[str, Any]

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def claim_patch(*, pod: PodView, node: str, annotations: Mapping[str, str], epoch: int) -> list[Json]:
    """Operations of a JSON patch (RFC 6902). ``annotations``: the claim without its epoch.

    Raises InvalidInputError where the pod can't be claimed: it has no gate of ours, or no node can match it.
    """
    if GATE not in pod.gates:
        raise InvalidInputError(field="spec.schedulingGates", value=pod.gates, allowed=f"{GATE} must be among them")
    claim = {**annotations, EPOCH: str(epoch)}
    # Written as a whole: the removal of a gate that is gone by now would be a bad patch instead of a stale one.
    others = [{"name": gate} for gate in pod.gates if gate != GATE]
    return [
        {"op": "test", "path": "/metadata/uid", "value": pod.uid},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": pod.resource_version},
        *([] if pod.annotated else [{"op": "add", "path": "/metadata/annotations", "value": {}}]),
        *(
            {"op": "add", "path": f"/metadata/annotations/{_escaped(key)}", "value": value}
            for key, value in claim.items()
        ),
        {"op": "add", "path": "/spec/affinity", "value": pinned(pod.affinity, node=node)},
        {"op": "add", "path": "/metadata/managedFields", "value": [{}]},
        {"op": "add", "path": "/spec/schedulingGates", "value": others},
    ]


def pinned(affinity: Json | None, *, node: str) -> Json:
    """The affinity, narrowed to one node. The node's name is matched, since its hostname label may differ.

    One of several terms is enough for a node, so each is narrowed. An empty term matches no node, and the API server
    refuses any change of it. Raises InvalidInputError where all are empty.
    """
    only = {"key": "metadata.name", "operator": "In", "values": [node]}
    result = dict(affinity or {})
    node_affinity = dict(result.get("nodeAffinity") or {})
    required = dict(node_affinity.get(_REQUIRED) or {})
    terms = required.get("nodeSelectorTerms") or []
    if terms and not any(map(_matches_something, terms)):
        raise InvalidInputError(
            field=f"spec.affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms",
            value=terms,
            allowed="an empty term matches no node: write at least one with expressions",
        )
    required["nodeSelectorTerms"] = [
        {**term, "matchFields": [*(term.get("matchFields") or []), only]} if _matches_something(term) else term
        for term in terms
    ] or [{"matchFields": [only]}]
    return {**result, "nodeAffinity": {**node_affinity, _REQUIRED: required}}


def _matches_something(term: Json) -> bool:
    return bool(term.get("matchExpressions") or term.get("matchFields"))


def _escaped(key: str) -> str:
    """As one step of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
