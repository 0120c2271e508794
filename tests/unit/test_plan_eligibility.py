"""Which nodes a pod may go to: the words of Kubernetes' scheduler, case by case."""

from typing import Any

import pytest

from tests.unit.planning_world import Json, node, pod
from vrampack.planning.eligibility import refusal, tolerates

LABELS = {"zone": "a", "disk": "ssd", "generation": "9"}
NODE = node("n1", labels=LABELS)


def required(*terms: Json) -> Json:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


def label(key: str, operator: str, *values: str) -> Json:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({}, True),
        ({"zone": "a"}, True),
        ({"zone": "a", "disk": "ssd"}, True),
        ({"zone": "b"}, False),
        ({"x": "y"}, False),
    ],
)
def test_a_node_selector_is_met_in_whole(selector: dict[str, str], matches: bool) -> None:
    assert refusal(pod(node_selector=selector), NODE) == (None if matches else "NodeSelectorMismatch")


@pytest.mark.parametrize(
    ("term", "matches"),
    [
        (label("zone", "In", "a", "b"), True),
        (label("zone", "In", "b"), False),
        (label("rack", "In", "a"), False),
        (label("zone", "NotIn", "b"), True),
        (label("zone", "NotIn", "a"), False),
        (label("rack", "NotIn", "a"), True),
        (label("zone", "Exists"), True),
        (label("rack", "Exists"), False),
        (label("rack", "DoesNotExist"), True),
        (label("zone", "DoesNotExist"), False),
        (label("generation", "Gt", "8"), True),
        (label("generation", "Gt", "9"), False),
        (label("generation", "Lt", "10"), True),
        (label("generation", "Lt", "9"), False),
        (label("zone", "Gt", "1"), False),
        (label("rack", "Lt", "1"), False),
        (label("generation", "Gt", "many"), False),
        (label("zone", "Near", "a"), False),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}, True),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}, False),
        ({"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}, False),
        ({}, False),
    ],
)
def test_a_term_of_a_required_affinity(term: Json, matches: bool) -> None:
    assert refusal(pod(affinity=required(term)), NODE) == (None if matches else "NodeAffinityMismatch")


def test_terms_are_alternatives_and_requirements_are_not() -> None:
    ours, other = label("zone", "In", "a"), label("zone", "In", "b")
    assert refusal(pod(affinity=required(other, ours)), NODE) is None
    both = {"matchExpressions": [*ours["matchExpressions"], *other["matchExpressions"]]}
    assert refusal(pod(affinity=required(both)), NODE) == "NodeAffinityMismatch"


@pytest.mark.parametrize(
    "affinity",
    [
        None,
        {},
        {"podAffinity": {}},
        {"nodeAffinity": {}},
        {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}},
    ],
)
def test_what_is_not_required_rules_out_nothing(affinity: Json | None) -> None:
    assert refusal(pod(affinity=affinity), NODE) is None


TAINT = {"key": "dedicated", "value": "llm", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("toleration", "helps"),
    [
        ({"key": "dedicated", "operator": "Equal", "value": "llm", "effect": "NoSchedule"}, True),
        ({"key": "dedicated", "value": "llm", "effect": "NoSchedule"}, True),
        ({"key": "dedicated", "value": "llm"}, True),
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "dedicated", "value": "web"}, False),
        ({"key": "dedicated"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_a_toleration_speaks_of_a_taint(toleration: Json, helps: bool) -> None:
    assert tolerates([toleration], TAINT) is helps
    tainted = node("n1", taints=(TAINT,))
    assert refusal(pod(tolerations=(toleration,)), tainted) == (None if helps else "UntoleratedTaint")


@pytest.mark.parametrize(
    ("effect", "refused"), [("NoSchedule", True), ("NoExecute", True), ("PreferNoSchedule", False)]
)
def test_only_taints_that_keep_pods_away_count(effect: str, refused: bool) -> None:
    tainted = node("n1", taints=({"key": "dedicated", "effect": effect},))
    assert (refusal(pod(), tainted) is not None) is refused


def test_every_taint_needs_its_toleration() -> None:
    second: dict[str, Any] = {"key": "gpu", "effect": "NoExecute"}
    tainted = node("n1", taints=(TAINT, second))
    one = ({"key": "dedicated", "operator": "Exists"},)
    assert refusal(pod(tolerations=one), tainted) == "UntoleratedTaint"
    assert refusal(pod(tolerations=(*one, {"key": "gpu", "operator": "Exists"})), tainted) is None
