"""The operator's plans on paper: pods come and go as Kubernetes would make them, until nothing more happens."""

from dataclasses import replace

import pytest

from tests.unit.planning_world import (
    NAMESPACE,
    PARALLEL,
    children,
    gpu_node,
    gpus,
    model,
    placed,
    pool,
    world,
)
from vrampack.planning.playedkubernetes import Priority
from vrampack.planning.rehearsal import Rehearsal, rehearse
from vrampack.planning.snapshot import Snapshot
from vrampack.planning.verdict import Settings


def end(snapshot: Snapshot, **priorities: int) -> Rehearsal:
    classes = {name: Priority(value=value) for name, value in priorities.items()}
    found = rehearse(snapshot, Settings(), priorities=classes)
    assert found.settled
    return found


def holders(found: Rehearsal) -> dict[str, list[str]]:
    """Models by GPU."""
    by_gpu: dict[str, list[str]] = {}
    for pod in found.snapshot.pods:
        for uuid in pod.claim.gpus if pod.claim is not None else ():
            by_gpu.setdefault(uuid, []).append(pod.model)
    return {uuid: sorted(models) for uuid, models in sorted(by_gpu.items())}


@pytest.mark.parametrize("startup", ["Parallel", "Serialized"])
def test_models_from_nothing_are_placed_as_the_packer_says(startup: str) -> None:
    models = (model("a", per_gpu="40Gi"), model("b", per_gpu="30Gi", replicas=2), model("c", per_gpu="10Gi"))
    found = end(world(*models, gpu_nodes=[gpu_node("n1", *gpus(2))], pools=[pool(generation=0, startup=startup)]))
    assert holders(found) == {"GPU-1": ["a", "b", "c"], "GPU-2": ["b"]}
    assert len(found.placed) == 4
    statuses = {each.name: each.status for each in found.snapshot.models}
    assert statuses["b"]["summary"]["ready"] == "2/2"


def test_what_does_not_fit_waits_with_its_reason() -> None:
    found = end(world(model("a", per_gpu="50Gi", replicas=2)))
    (status,) = (each.status for each in found.snapshot.models)
    (entry,) = status["waiting"]
    assert (entry["reason"], entry["count"]) == ("InsufficientGPUMemory", 1)


def test_a_class_of_higher_priority_takes_the_place_of_what_runs() -> None:
    low, high = model("low", per_gpu="60Gi"), model("high", per_gpu="60Gi", priorityClassName="urgent")
    found = end(world(low, high, pods=[placed("low-0", of="low", claim="60Gi")], pools=[PARALLEL]), urgent=1000)
    assert holders(found) == {"GPU-1": ["high"]}
    assert [pod.name for each in found.evicted for pod in each.pods] == ["low-0"]


def test_a_change_rolls_out_one_by_one() -> None:
    before = model("a", per_gpu="30Gi", replicas=2)
    running = [placed("a-0", of="a", claim="30Gi"), placed("a-1", of="a", claim="30Gi")]
    snapshot = world(before, pods=running, made=children(before), pools=[PARALLEL])
    after = replace(model("a", per_gpu="20Gi", replicas=2), generation=2)
    found = end(replace(snapshot, models=(after,)))
    assert holders(found) == {"GPU-1": ["a", "a"]}
    assert {pod.name for pod in found.replaced} == {"a-0", "a-1"}
    assert all(pod.claim is not None and pod.claim.bytes == 20 << 30 for pod in found.snapshot.pods)


def test_a_change_that_can_never_fit_leaves_what_runs_alone() -> None:
    before = model("a", per_gpu="30Gi")
    snapshot = world(before, pods=[placed("a-0", of="a", claim="30Gi")], made=children(before), pools=[PARALLEL])
    after = replace(model("a", per_gpu="90Gi"), generation=2)
    found = end(replace(snapshot, models=(after,)))
    assert holders(found) == {"GPU-1": ["a"]}
    assert found.replaced == ()


def test_scaling_down_takes_those_without_a_gpu_first() -> None:
    before = model("a", per_gpu="50Gi", replicas=2)
    first = end(world(before, pools=[PARALLEL]))
    fewer = replace(first.snapshot, models=(replace(model("a", per_gpu="50Gi"), status={}),))
    found = end(fewer)
    assert holders(found) == {"GPU-1": ["a"]}
    assert [pod.namespace for pod in found.snapshot.pods] == [NAMESPACE]


def test_the_same_world_ends_the_same() -> None:
    given = world(model("a", per_gpu="40Gi", replicas=3), model("b", per_gpu="24Gi", replicas=5), pools=[PARALLEL])
    assert end(given) == end(given)
