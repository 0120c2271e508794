"""What is deleted: placed pods that can't be bound, after a while, one at a time and never one that runs."""

from dataclasses import replace
from typing import Any

from tests.unit.planning_world import (
    NOW,
    STARTED,
    condition,
    decide,
    gpu,
    gpu_node,
    model,
    node,
    placed,
    status_of,
    world,
)
from vrampack.planning.actions import Plan
from vrampack.planning.snapshot import Memory, PodView

REFUSED = "0/1 nodes are available: 1 Insufficient cpu."


def refused(name: str = "llama-0", **fields: Any) -> PodView:
    return placed(name, **({"node": "", "ready": False, "phase": "Pending", "refused": REFUSED} | fields))


def after(seconds: float, *pods: PodView, **memory: Any) -> Plan:
    """``seconds`` after all of the pods were first refused."""
    since = {each.uid: NOW - seconds for each in pods}
    known = Memory(**({"started": STARTED, "refused_since": since} | memory))
    fleet = [gpu_node("n1", gpu("GPU-1")), gpu_node("n2", gpu("GPU-2"))]
    return decide(world(model(replicas=len(pods)), pods=pods, memory=known, gpu_nodes=fleet))


def deleted(found: Plan) -> list[str]:
    return [each.pod.name for each in found.deletions]


def test_a_refused_pod_has_a_while_before_it_is_packed_elsewhere() -> None:
    early = after(29, refused())
    assert deleted(early) == []
    assert early.wake_at == NOW + 1
    [deletion] = after(30, refused()).deletions
    assert (deletion.node, deletion.reason, deletion.message) == ("n1", "PlacementRefused", REFUSED)
    assert deletion.model == "serving/llama"


def test_the_refusal_is_told_in_the_schedulers_words() -> None:
    ready = condition(status_of(after(0, refused())), "Ready")
    assert ready["reason"] == "PlacementRefused"
    assert REFUSED in ready["message"]


def test_the_while_is_the_admins() -> None:
    snapshot = world(model(), pods=[refused()], memory=Memory(started=STARTED, refused_since={"uid-llama-0": NOW - 5}))
    assert deleted(decide(snapshot, refusal_seconds=5)) == ["llama-0"]


def test_one_deletion_per_node_at_a_time() -> None:
    pods = [refused("llama-0"), refused("llama-1"), refused("llama-2", on="GPU-2")]
    found = after(60, *pods)
    assert deleted(found) == ["llama-0", "llama-2"]
    assert found.wake_at == NOW + 60


def test_and_the_next_one_after_the_interval() -> None:
    early = after(100, refused(), deletions={"n1": NOW - 59})
    assert deleted(early) == []
    assert early.wake_at == NOW + 1
    assert deleted(after(100, refused(), deletions={"n1": NOW - 60})) == ["llama-0"]


def test_a_new_leader_waits_an_interval_since_it_does_not_know_the_last_deletion() -> None:
    assert deleted(after(100, refused(), started=NOW - 59)) == []
    assert deleted(after(100, refused(), started=NOW - 60)) == ["llama-0"]


def test_a_pod_on_its_way_is_no_refused_one() -> None:
    assert deleted(after(1000, refused(refused=""))) == []


def test_a_pod_whose_node_is_gone_before_it_was_bound_is_packed_elsewhere() -> None:
    memory = Memory(started=STARTED, refused_since={"uid-llama-0": NOW - 30})
    snapshot = world(model(), pods=[refused(refused="")], memory=memory)
    assert deleted(decide(snapshot)) == []
    [deletion] = decide(replace(snapshot, nodes=())).deletions
    assert "n1 is gone" in deletion.message
    [deletion] = decide(replace(snapshot, gpu_nodes=())).deletions
    assert "(unknown) is gone" in deletion.message


def test_nothing_that_is_bound_is_ever_deleted() -> None:
    """Whatever becomes of its node or GPU, Ready or not, even where the scheduler's old words are still there."""
    pods = [placed("llama-0"), placed("llama-1", ready=False, refused=REFUSED)]
    memory = Memory(started=0, refused_since={each.uid: 0 for each in pods})
    lost = [
        {"nodes": ()},
        {"nodes": [node(ready=False)]},
        {"nodes": [node(unschedulable=True)]},
        {"gpu_nodes": []},
        {"gpu_nodes": [gpu_node(alive=False)]},
        {"gpu_nodes": [gpu_node("n1", gpu(memory=None))]},
        {"gpu_nodes": [gpu_node("n1", gpu(health="Unhealthy"))]},
        {"gpu_nodes": [gpu_node("n1", gpu(memory="1Gi"))]},
        {"gpu_nodes": [gpu_node("n1", gpu(foreign=[{"bytes": "79Gi"}]))]},
    ]
    for world_now in lost:
        found = decide(world(model(replicas=2), pods=pods, memory=memory, **world_now))  # type: ignore[arg-type]
        assert deleted(found) == []


def test_the_end_of_a_refusal_wakes_the_loop() -> None:
    found = after(0, placed(), refusals={("serving/llama", "n2"): NOW + 17, ("serving/llama", "n1"): NOW - 1})
    assert found.wake_at == NOW + 17


def test_a_pod_that_leaves_already_is_not_deleted_again() -> None:
    assert deleted(after(1000, refused(deleting=True))) == []
