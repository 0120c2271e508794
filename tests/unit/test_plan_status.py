"""What the objects say: stable, with times that mean something, and the operator's own fields only."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.planning_world import (
    NOW,
    PARALLEL,
    Json,
    children,
    condition,
    decide,
    estimated,
    gpu,
    gpu_node,
    gpus,
    model,
    node,
    placed,
    pod,
    pool,
    profile,
    status_of,
    told,
    unreadable,
    waiting,
    world,
)
from vrampack.api.modeldeploymentstatus import MAX_PLACEMENTS
from vrampack.planning.snapshot import Memory, Snapshot

USED = [{"podUID": "uid-llama-0", "bytes": "18Gi"}]

WORLDS = {
    "new": world(model()),
    "waiting": world(model(), pods=[pod()], gpu_nodes=[]),
    "ready": world(model(), pods=[placed()], gpu_nodes=[gpu_node("n1", gpu(processes=USED))]),
    "placed in part": world(model(replicas=2), pods=[placed(), pod("llama-1", need="70Gi")], pools=[pool()]),
    "estimated": world(estimated(), profiles=[profile()], pods=[placed()]),
    "stalled": world(unreadable(model(), "spec.replicas: -1"), pods=[placed()], made=children(model())),
    "refused": world(model(), pods=[placed(node="", ready=False, refused="no")]),
    "gpu lost": world(model(), pods=[placed()], gpu_nodes=[gpu_node("n1", gpu(memory=None))]),
    "to be placed": world(model(replicas=2), pods=[pod("llama-0"), pod("llama-1")]),
}


@pytest.mark.parametrize("snapshot", WORLDS.values(), ids=WORLDS.keys())
def test_a_plan_that_was_carried_out_writes_nothing_more(snapshot: Snapshot) -> None:
    """Two passes, since statuses of nodes are written by the pass after the last placement."""
    for _ in range(2):
        snapshot = told(snapshot, decide(snapshot))
    later = replace(snapshot, now=NOW + 300)  # before anybody has waited too long
    found = decide(later)
    assert (found.statuses, found.children, found.events, found.placements) == ((), (), (), ())


def test_the_time_of_a_condition_is_that_of_its_last_change() -> None:
    snapshot = world(model(), pods=[placed(ready=False)])
    starting = told(snapshot, decide(snapshot))
    assert condition(starting.models[0].status, "Ready")["lastTransitionTime"] == "2027-01-15T08:00:00Z"
    failing = replace(starting, now=NOW + 60, pods=(placed(ready=False, failure="CrashLoopBackOff"),))
    found = decide(failing)
    ready = condition(status_of(found), "Ready")
    assert (ready["reason"], ready["lastTransitionTime"]) == ("EngineFailing", "2027-01-15T08:00:00Z")
    running = replace(told(failing, found), now=NOW + 90, pods=(placed(),))
    ready = condition(status_of(decide(running)), "Ready")
    assert (ready["status"], ready["lastTransitionTime"]) == ("True", "2027-01-15T08:01:30Z")


def test_nodes_are_named_in_bounds_however_many_they_are_and_however_long_their_names() -> None:
    names = [f"{'n' * 240}-{index:03}" for index in range(12)]
    fleet = [gpu_node(name, gpu(f"GPU-{name[-3:]}")) for name in names]
    pods = [placed(f"llama-{index}", on=f"GPU-{index:03}", node=name) for index, name in enumerate(names)]
    nodes = status_of(decide(world(model(replicas=12), pods=pods, gpu_nodes=fleet)))["summary"]["nodes"]
    assert len(nodes) < 1024
    assert nodes.endswith("… and 4 more")


def test_a_thousand_gpus_are_told_in_sentences_that_can_be_read() -> None:
    products = [f"NVIDIA-{index:02}" for index in range(40)]
    fleet = [
        gpu_node(
            f"n{index}",
            *gpus(
                8,
                first=f"GPU-{index}",
                product=products[index % 40],
                foreign=[{"name": "notebook", "bytes": f"{60 + index % 20}Gi"}],
            ),
        )
        for index in range(125)
    ]
    nodes = [node(view.name, ready=index % 3 > 0) for index, view in enumerate(fleet)]
    pods = [pod(f"llama-{index:03}", need="50Gi") for index in range(300)]
    asked = model(per_gpu="50Gi", replicas=300, placement={"gpuProducts": products[:16]})
    found = decide(world(asked, pods=pods, gpu_nodes=fleet, nodes=nodes))
    status = status_of(found)
    assert status["waiting"][0]["count"] == 300
    assert sum(status["waiting"][0]["rejected"].values()) == 1000
    assert max(len(each["message"]) for each in status["conditions"]) < 500
    assert len(json.dumps(status)) < 10_000
    for each in (write.status for write in found.statuses if write.kind == "GPUNode"):
        assert max(len(condition["message"]) for condition in each["conditions"]) < 500


def test_an_event_for_each_new_reason() -> None:
    snapshot = world(model(), pods=[placed()])
    [event] = decide(snapshot).events
    assert (event.type, event.reason, event.uid) == ("Normal", "AllReplicasReady", "model-llama")
    assert "1 of 1 replicas are ready on 1 GPU" in event.message


def test_ready_is_every_replica_of_the_present_template() -> None:
    def ready(*pods: Any, **fields: Any) -> Json:
        return condition(status_of(decide(world(model(replicas=2), pods=pods, **fields))), "Ready")

    both = (placed("llama-0"), placed("llama-1"))
    assert ready(*both)["status"] == "True"
    assert ready(placed("llama-0"), placed("llama-1", ready=False))["status"] == "False"
    assert ready(*both, made=children(model(replicas=2), rolling=True))["status"] == "False"
    assert ready(*both, placed("llama-2", deleting=True))["status"] == "True"  # on a lost node it may stay for long
    assert ready(*both, placed("other-0", of="other"))["status"] == "True"


def test_scaled_to_zero_is_ready() -> None:
    made = children(model(replicas=0))
    ready = condition(status_of(decide(world(model(replicas=0), made=made))), "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "ScaledToZero")
    leaving = world(model(replicas=0), made=made, pods=[placed(deleting=True)])
    assert condition(status_of(decide(leaving)), "Ready")["status"] == "False"


def test_a_child_that_the_api_server_refuses_is_told() -> None:
    memory = Memory(started=0, child_errors={"serving/llama": "priorityClassName: not found"})
    ready = condition(status_of(decide(world(model(), memory=memory))), "Ready")
    assert ready["reason"] == "ChildRefused"
    assert "priorityClassName: not found" in ready["message"]


def test_placements_say_where_with_claim_and_use() -> None:
    fleet = [gpu_node("n1", gpu(processes=USED), gpu("GPU-2", index=1))]
    snapshot = world(model(gpus=2), pods=[placed(on="GPU-1,GPU-2")], gpu_nodes=fleet)
    status = status_of(decide(snapshot))
    assert status["placements"] == [
        {
            "pod": "llama-0",
            "node": "n1",
            "gpus": [
                {"uuid": "GPU-1", "index": 0, "claim": "20Gi", "observed": "18Gi"},
                {"uuid": "GPU-2", "index": 1, "claim": "20Gi"},
            ],
        }
    ]
    assert status["summary"] == {"ready": "1/1", "gpus": 2, "nodes": "n1"}


def test_many_placements_are_cut_and_counted() -> None:
    count = MAX_PLACEMENTS + 3
    pods = [placed(f"llama-{index:04}", claim="64Mi") for index in range(count)]
    status = status_of(decide(world(model(per_gpu="64Mi", replicas=count), pods=pods)))
    assert len(status["placements"]) == MAX_PLACEMENTS
    assert (status["placementsOmitted"], status["placedReplicas"]) == (3, count)


@pytest.mark.parametrize(("used", "writes"), [("18Gi", False), ("18530Mi", False), ("19Gi", True)])
def test_small_changes_of_the_use_are_not_written(used: str, writes: bool) -> None:
    snapshot = WORLDS["ready"]
    for _ in range(2):
        snapshot = told(snapshot, decide(snapshot))
    process = [{"podUID": "uid-llama-0", "bytes": used}]
    raw = snapshot.gpu_nodes[0].raw_status
    view = gpu_node("n1", raw["gpus"][0] | {"processes": process}, **{k: v for k, v in raw.items() if k != "gpus"})
    found = decide(replace(snapshot, gpu_nodes=(view,)))
    assert bool(found.statuses) is writes


@pytest.mark.parametrize(
    ("used", "status", "reason"),
    [("18Gi", "True", "UseWithinClaim"), ("21Gi", "False", "UseExceedsClaim"), (None, "Unknown", "NotObserved")],
)
def test_use_is_compared_with_the_claim(used: str | None, status: str, reason: str) -> None:
    seen = {} if used is None else {"processes": [{"podUID": "uid-llama-0", "bytes": used}]}
    found = condition(
        status_of(decide(world(model(), pods=[placed()], gpu_nodes=[gpu_node("n1", gpu(**seen))]))), "WithinBudget"
    )
    assert (found["status"], found["reason"]) == (status, reason)


def test_replicas_that_wait_for_several_reasons_come_in_groups() -> None:
    pods = [placed("llama-0", ready=False), *(pod(f"llama-{index}", need="20Gi") for index in (1, 2))]
    pods.append(pod("llama-3", gates=("vrampack.dev/placement", "x/y")))
    found = decide(world(model(replicas=4), pods=pods))
    assert [(each["reason"], each["count"]) for each in status_of(found)["waiting"]] == [
        ("GPUBusyStarting", 2),
        ("OtherGate", 1),
    ]
    assert waiting(found)["pod"] == "llama-1"


# The fleet.


def test_a_gpu_node_says_what_is_claimed_and_free() -> None:
    view = gpu_node("n1", gpu(foreign=[{"bytes": "5Gi"}]), spec=[{"uuid": "GPU-1", "reserve": "1Gi"}])
    status = status_of(decide(world(model(), pods=[placed()], gpu_nodes=[view])), "n1", kind="GPUNode")
    claim = {"namespace": "serving", "pod": "llama-0", "uid": "uid-llama-0", "bytes": "20Gi"}
    assert status["gpus"] == [{"uuid": "GPU-1", "claimed": "20Gi", "free": "54Gi", "claims": [claim]}]
    assert status["summary"] == {"claimed": "20.00 GiB"}
    assert condition(status, "Overcommitted")["status"] == "False"


def test_a_closed_gpu_offers_nothing() -> None:
    view = gpu_node("n1", gpu(health="Unhealthy"))
    status = status_of(decide(world(model(), pods=[placed()], gpu_nodes=[view])), "n1", kind="GPUNode")
    assert (status["gpus"][0]["claimed"], status["gpus"][0]["free"]) == ("20Gi", "0")


def test_an_overcommitted_gpu_says_by_how_much() -> None:
    view = gpu_node("n1", gpu(foreign=[{"bytes": "62Gi"}]), *gpus(1, first="OTHER"))
    status = status_of(decide(world(model(), pods=[placed()], gpu_nodes=[view])), "n1", kind="GPUNode")
    over = condition(status, "Overcommitted")
    assert (over["status"], over["reason"]) == ("True", "ClaimsExceedMemory")
    assert "GPU 0 by 2.00 GiB" in over["message"]


def test_a_gpu_that_vanished_is_named_as_long_as_it_is_claimed() -> None:
    view = gpu_node("n1", gpu(memory=None), gpu("GPU-2", index=1))
    claimed = world(model(), pods=[placed()], gpu_nodes=[view])
    uuids = [each["uuid"] for each in status_of(decide(claimed), "n1", kind="GPUNode")["gpus"]]
    assert uuids == ["GPU-1", "GPU-2"]
    written = told(claimed, decide(claimed))
    ended = replace(written, pods=())
    uuids = [each["uuid"] for each in status_of(decide(ended), "n1", kind="GPUNode")["gpus"]]
    assert uuids == ["GPU-2"]


def test_what_the_agent_writes_is_no_reason_to_write() -> None:
    snapshot = WORLDS["ready"]
    for _ in range(2):
        snapshot = told(snapshot, decide(snapshot))
    raw = snapshot.gpu_nodes[0].raw_status | {"driver": "580.1", "observedAt": "2027-01-15T08:00:05Z"}
    reporting = {"type": "Reporting", "status": "True", "reason": "Fresh", "lastTransitionTime": "2027-01-15T08:00:00Z"}
    raw["conditions"] = [*raw["conditions"], reporting]
    seen = replace(snapshot.gpu_nodes[0], raw_status=raw)
    assert decide(replace(snapshot, gpu_nodes=(seen,))).statuses == ()


def test_statuses_of_the_fleet_wait_until_all_is_placed() -> None:
    snapshot = world(model(), pods=[pod()], pools=[pool()])
    first = decide(snapshot)
    assert {each.kind for each in first.statuses} == {"ModelDeployment"}
    assert {each.kind for each in decide(told(snapshot, first)).statuses} >= {"GPUNode", "GPUPool"}


def test_two_pools_that_match_one_node_both_say_so_and_the_first_has_it() -> None:
    pools = [pool("a", nodeSelector={"zone": "x"}), pool("b", nodeSelector={"gpu": "h100"}), pool("c")]
    nodes = [node("n1", labels={"zone": "x", "gpu": "h100"}), node("n2", labels={"gpu": "h100"}), node("n3")]
    fleet = [gpu_node(f"n{index}", gpu(f"GPU-{index}")) for index in (1, 2, 3)]
    found = decide(world(pools=pools, nodes=nodes, gpu_nodes=fleet))
    of = {name: status_of(found, name, kind="GPUPool") for name in "abc"}
    assert [of[name]["nodes"] for name in "abc"] == [1, 1, 1]
    assert "n1" in condition(of["a"], "Overlap")["message"]
    assert "n2" in condition(of["b"], "Overlap")["message"]
    assert condition(of["c"], "Overlap")["status"] == "True"  # without a selector it matches every node


def test_named_pools_that_are_drained_leave_their_nodes_to_the_default() -> None:
    away = [pool("a", nodeSelector={"zone": "x"})]
    found = decide(world(model(), pods=[pod()], pools=away))
    assert found.placements
    status = status_of(decide(world(pools=away)), "a", kind="GPUPool")
    assert (status["nodes"], condition(status, "Ready")["reason"]) == (0, "NoNodes")
    assert not condition(status, "Overlap")


def test_a_pool_counts_capacity_claims_and_what_nobody_can_use() -> None:
    pods = [placed(claim="75Gi"), pod("llama-1", need="10Gi", gates=("x/y", "vrampack.dev/placement"))]
    pods.append(pod("llama-2", need="60Gi"))
    found = decide(world(model(replicas=3), pods=pods, pools=[pool()]))
    status = status_of(found, "default", kind="GPUPool")
    assert (status["capacity"], status["claimed"], status["stranded"]) == ("80Gi", "75Gi", "5Gi")
    assert found.gpu_bytes is not None
    assert {kind: value >> 30 for (_, kind), value in found.gpu_bytes.items()} == {
        "usable": 80,
        "claimed": 75,
        "foreign": 0,
        "free": 5,
        "stranded": 5,
    }


def test_the_implicit_pool_has_no_status() -> None:
    assert not [each for each in decide(world(pools=[PARALLEL])).statuses if each.kind == "GPUPool"]
