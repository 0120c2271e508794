"""``vrampack explain``: all that can be said of one model, from a snapshot."""

import json
from dataclasses import replace

import pytest

from tests.unit.planning_world import PARALLEL, gpu, gpu_node, model, placed, pod, world
from vrampack.cli.explain import lines, to_json
from vrampack.errors import InvalidInputError
from vrampack.planning.explaining import Explanation, explain
from vrampack.planning.snapshot import Snapshot
from vrampack.planning.verdict import Settings

FLEET = (gpu_node("n1", gpu()), gpu_node("n2", gpu("GPU-2")))
MODELS = (
    model("small", per_gpu="20Gi"),
    model("other", per_gpu="30Gi"),
    model("large", per_gpu="70Gi", replicas=2, placement={"gpuProducts": ["NVIDIA-H100-80GB-HBM3"]}),
)


def crowded() -> Snapshot:
    """Two GPUs of 80 GiB with a small replica each, and two large ones that fit on neither."""
    return world(
        *MODELS,
        pods=(
            placed("small-0", of="small", because="the first that fits"),
            placed("other-0", of="other", on="GPU-2", node="n2", claim="30Gi"),
            pod("large-0", of="large", need="70Gi"),
            pod("large-1", of="large", need="70Gi"),
        ),
        gpu_nodes=FLEET,
        pools=(PARALLEL,),
    )


def explained(name: str) -> Explanation:
    return explain(crowded(), Settings(), namespace="serving", name=name)


def test_who_waits_is_told_all_that_stands_in_its_way_and_what_would_help() -> None:
    (waits,) = explained("large").waiting
    assert (waits.reason, waits.pods, waits.gpus) == ("InsufficientGPUMemory", ("large-0", "large-1"), 1)
    assert waits.ruled_out == {"InsufficientGPUMemory": (2, "with too little memory free")}
    assert waits.closest is not None
    assert (waits.closest.node, waits.closest.gpu) == ("n1", 0)
    assert waits.closest.free + waits.closest.short == 70 << 30
    assert waits.moves == "serving/small-0 moves from n1/0 to n2/0"
    assert waits.evictions == "serving/small-0 (priority 0) leaves n1/0"


def test_who_runs_is_told_why_it_is_where_it_is_and_beside_whom() -> None:
    (placement,) = explained("small").placements
    assert (placement.node, placement.gpus, placement.because) == ("n1", (0,), "the first that fits")
    assert placement.beside == ()
    assert explained("small").waiting == ()


def test_the_text_names_bytes_and_the_json_holds_them() -> None:
    text = "\n".join(lines(explained("large")))
    assert "serving/large: 0 of 2 replicas are ready" in text
    assert "large-0 and 1 more waits: InsufficientGPUMemory" in text
    assert "closest: GPU 0 of n1 with 60.00 GiB free, 10.00 GiB short" in text
    assert "room by moves: serving/small-0 moves from n1/0 to n2/0" in text
    (waits,) = json.loads(json.dumps(to_json(explained("large"))))["waiting"]
    assert waits["bytes"] == 70 << 30
    assert waits["ruledOut"] == {"InsufficientGPUMemory": {"gpus": 2, "meaning": "with too little memory free"}}


def test_a_model_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(InvalidInputError, match="there is large, other, small"):
        explained("huge")


def test_what_the_operator_knows_of_a_model_is_told() -> None:
    """The hub refused it: a snapshot does not know, the status does, as long as it is of this generation."""
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "HubUnauthorized",
        "message": "the hub wants a token",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    asked = replace(model("gated", engine={"name": "vllm"}, memory={}), status={"conditions": [condition]})
    of = {number: replace(asked, generation=number) for number in (1, 2)}
    found = {
        number: explain(world(each, profiles=(), gpu_nodes=FLEET), Settings(), namespace="serving", name="gated")
        for number, each in of.items()
    }
    assert (found[1].status, found[1].problem) == ("HubUnauthorized", "HubUnauthorized: the hub wants a token")
    assert "0 of 1 replicas are ready (HubUnauthorized)" in next(lines(found[1]))
    assert found[2].status == ""
    assert found[2].problem.startswith("ResolvingModel")


def test_nobody_is_told_that_a_replica_of_its_own_should_go() -> None:
    snapshot = world(
        model("large", per_gpu="70Gi", replicas=2),
        pods=(placed("large-0", of="large", claim="70Gi"), pod("large-1", of="large", need="70Gi")),
        gpu_nodes=FLEET[:1],
        pools=(PARALLEL,),
    )
    (waits,) = explain(snapshot, Settings(), namespace="serving", name="large").waiting
    assert (waits.moves, waits.evictions) == ("", "")
