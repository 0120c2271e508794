"""Which nodes a pod may go to, by the rules that Kubernetes' scheduler will apply: selector, affinity, taints."""

from collections.abc import Mapping, Sequence

from vrampack.planning.reasons import Obstacle
from vrampack.planning.snapshot import Json, NodeView, PodView

_NO_EXECUTION = ("NoSchedule", "NoExecute")


def refusal(pod: PodView, node: NodeView) -> Obstacle | None:
    """Why the scheduler would refuse this node; None where it would not."""
    if any(node.labels.get(key) != value for key, value in pod.node_selector.items()):
        return Obstacle.NODE_SELECTOR
    terms = required_terms(pod.affinity)
    if terms is not None and not any(_term_matches(term, node) for term in terms):
        return Obstacle.NODE_AFFINITY
    for taint in node.taints:
        if taint.get("effect") in _NO_EXECUTION and not tolerates(pod.tolerations, taint):
            return Obstacle.TAINT
    return None


def required_terms(affinity: Json | None) -> Sequence[Json] | None:
    """The required terms of a node affinity; None where there are none."""
    required = ((affinity or {}).get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    return (required or {}).get("nodeSelectorTerms")


def tolerates(tolerations: Sequence[Json], taint: Json) -> bool:
    """Whether one of these tolerations speaks of this taint."""
    return any(
        toleration.get("effect") in (None, "", taint.get("effect"))
        and toleration.get("key") in (None, "", taint.get("key"))
        and (toleration.get("operator") == "Exists" or (toleration.get("value") or "") == (taint.get("value") or ""))
        for toleration in tolerations
    )


def _term_matches(term: Json, node: NodeView) -> bool:
    """A term without any requirement matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_holds(each, node.labels) for each in expressions) and all(
        _holds(each, {"metadata.name": node.name}) for each in fields
    )


def _holds(requirement: Json, values: Mapping[str, str]) -> bool:
    key, wanted = requirement.get("key", ""), requirement.get("values") or ()
    found = values.get(key)
    match requirement.get("operator"):
        case "In":
            return found in wanted
        case "NotIn":
            return found not in wanted
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case "Gt" | "Lt" as operator:
            try:
                have, limit = int(found or ""), int(next(iter(wanted), ""))
            except ValueError:
                return False
            return have > limit if operator == "Gt" else have < limit
        case _:
            return False
