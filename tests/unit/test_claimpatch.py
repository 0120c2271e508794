"""The one patch that claims GPU memory for a pod."""

from typing import Any

import pytest

from vrampack.api import names
from vrampack.errors import InvalidInputError
from vrampack.planning.claimpatch import claim_patch, pinned
from vrampack.planning.snapshot import PodView

NODE = {"key": "metadata.name", "operator": "In", "values": ["gpu-1"]}
ZONE = {"key": "zone", "operator": "In", "values": ["a"]}
L40S = {"key": names.PRODUCT_LABEL, "operator": "In", "values": ["NVIDIA-L40S"]}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def pod(**fields: Any) -> PodView:
    return PodView(
        **{
            "namespace": "serving",
            "name": "llama-1",
            "uid": "uid-1",
            "resource_version": "41",
            "model": "llama",
            "owner_uid": "uid-rs",
            "created": 0.0,
            "phase": "Pending",
            "gated": True,
            "gates": (names.GATE,),
            "annotated": True,
            **fields,
        }
    )


def required(*terms: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(terms)}}, **other}


def patch(one: PodView) -> list[dict[str, Any]]:
    return claim_patch(pod=one, node="gpu-1", annotations={names.GPUS: "GPU-1"}, epoch=7)


def test_claim_node_and_gate_are_one_conditional_patch() -> None:
    assert patch(pod()) == [
        {"op": "test", "path": "/metadata/uid", "value": "uid-1"},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "41"},
        {"op": "add", "path": "/metadata/annotations/vrampack.dev~1gpus", "value": "GPU-1"},
        {"op": "add", "path": "/metadata/annotations/vrampack.dev~1epoch", "value": "7"},
        {"op": "add", "path": "/spec/affinity", "value": required({"matchFields": [NODE]})},
        {"op": "add", "path": "/metadata/managedFields", "value": [{}]},
        {"op": "add", "path": "/spec/schedulingGates", "value": []},
    ]


def test_a_pod_without_annotations_gets_the_map_first() -> None:
    paths = [operation["path"] for operation in patch(pod(annotated=False))]

    assert paths.index("/metadata/annotations") == paths.index("/metadata/annotations/vrampack.dev~1gpus") - 1


def test_only_our_gate_goes() -> None:
    assert patch(pod(gates=("example.com/quota", names.GATE)))[-1]["value"] == [{"name": "example.com/quota"}]


def test_a_pod_without_our_gate_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=names.GATE):
        patch(pod(gates=("example.com/quota",)))


PREFERRED = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}
APART = {"podAntiAffinity": {REQUIRED: [{"topologyKey": "zone"}]}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(None, required({"matchFields": [NODE]}), id="no affinity"),
        pytest.param({}, required({"matchFields": [NODE]}), id="empty affinity"),
        pytest.param({"nodeAffinity": {}}, required({"matchFields": [NODE]}), id="empty node affinity"),
        pytest.param(APART, required({"matchFields": [NODE]}, **APART), id="pods apart"),
        pytest.param(
            {"nodeAffinity": PREFERRED},
            {"nodeAffinity": {**PREFERRED, REQUIRED: {"nodeSelectorTerms": [{"matchFields": [NODE]}]}}},
            id="preferred terms",
        ),
        pytest.param(
            required({"matchExpressions": [ZONE]}, {"matchExpressions": [L40S]}),
            required(
                {"matchExpressions": [ZONE], "matchFields": [NODE]}, {"matchExpressions": [L40S], "matchFields": [NODE]}
            ),
            id="each of several terms",
        ),
        pytest.param(
            required({"matchFields": [ZONE]}), required({"matchFields": [ZONE, NODE]}), id="behind the fields there"
        ),
        pytest.param(
            required({}, {"matchExpressions": [ZONE]}, {"matchExpressions": []}),
            required({}, {"matchExpressions": [ZONE], "matchFields": [NODE]}, {"matchExpressions": []}),
            id="empty terms stay",
        ),
    ],
)
def test_the_affinity_is_narrowed_to_the_node(before: dict[str, Any] | None, after: dict[str, Any]) -> None:
    assert pinned(before, node="gpu-1") == after


def test_an_affinity_that_no_node_can_match_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="empty term"):
        pinned(required({}), node="gpu-1")


def test_the_view_stays_as_it_was_read() -> None:
    before = required({"matchExpressions": [ZONE]})

    pinned(before, node="gpu-1")

    assert before == required({"matchExpressions": [ZONE]})
