"""Every replica that waits has a reason, with bytes, and what would help."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.planning_world import (
    H100,
    NOW,
    PARALLEL,
    STARTED,
    Json,
    annotated,
    children,
    condition,
    decide,
    gpu,
    gpu_node,
    gpus,
    model,
    node,
    placed,
    pod,
    pool,
    spec_hash,
    status_of,
    told,
    waiting,
    where,
    world,
)
from vrampack.planning.need import Need
from vrampack.planning.snapshot import Held, Memory, ModelView
from vrampack.units import GIB

ALONE = Need(gpus=1, bytes=20 * GIB, kv=0, context=0, comm=0, exclusive=True, avoid=()).to_json()
"""The need of a replica that was promised its GPU for itself."""


def test_too_little_free_memory_names_need_closest_gpu_and_shortfall() -> None:
    fleet = [gpu_node("n1", gpu("GPU-1")), gpu_node("n2", gpu("GPU-2", memory="24Gi", index=3))]
    pods = [placed(claim="40Gi"), pod("llama-1", need="50Gi"), pod("llama-2", need="50Gi")]
    found = decide(world(model(replicas=3, per_gpu="50Gi"), pods=pods, gpu_nodes=fleet))
    assert waiting(found) == {
        "reason": "InsufficientGPUMemory",
        "count": 2,
        "pod": "llama-1",
        "message": "needs 50.00 GiB on 1 GPU; ruled out: 2 GPUs with too little memory free (InsufficientGPUMemory); "
        "closest is GPU 0 of n1 with 40.00 GiB free, 10.00 GiB short",
        "needed": "50Gi",
        "gpus": 1,
        "closest": {"node": "n1", "gpu": 0, "free": "40Gi", "short": "10Gi"},
        "rejected": {"InsufficientGPUMemory": 2},
        "wouldFitIf": [],
    }
    status = status_of(found)
    assert condition(status, "Ready")["reason"] == "WaitingForRoom"
    assert condition(status, "Reconciling")["reason"] == "WaitingForRoom"
    assert "10.00 GiB short" in condition(status, "Ready")["message"]
    assert condition(status, "Scheduled")["reason"] == "InsufficientGPUMemory"
    assert not condition(status, "Stalled")
    assert found.waiting == {"InsufficientGPUMemory": 2}


def test_too_few_gpus_with_room_on_one_node() -> None:
    fleet = [gpu_node("n1", *gpus(2)), gpu_node("n2", *gpus(2, first="OTHER"))]
    pods = [placed(claim="70Gi"), placed("llama-1", on="OTHER-1", claim="70Gi"), pod("big-0", of="big", tensor=2)]
    found = decide(world(model("big", gpus=2), model(replicas=2), pods=pods, gpu_nodes=fleet))
    assert waiting(found, "big")["rejected"] == {"InsufficientGPUMemory": 2, "TooFewGPUs": 2}
    assert waiting(found, "big")["closest"] == {"node": "n1", "gpu": 0, "free": "10Gi", "short": "10Gi"}


def test_no_gpu_at_all() -> None:
    found = decide(world(model(), pods=[pod()], gpu_nodes=[]))
    assert waiting(found)["reason"] == "NoMatchingGPU"
    assert waiting(found)["message"] == "needs 20.00 GiB on 1 GPU; the pool has no GPU"


def test_no_gpu_that_the_pod_may_use() -> None:
    pods = [pod(node_selector={"zone": "b"})]
    found = decide(world(model(), pods=pods, nodes=[node(labels={"zone": "a"})]))
    assert waiting(found)["reason"] == "NoMatchingGPU"
    assert waiting(found)["rejected"] == {"NodeSelectorMismatch": 1}


def test_gpus_of_another_pool_do_not_count() -> None:
    named = pool("big", nodeSelector={"pool": "big"})
    fleet = [gpu_node("n1", gpu("GPU-1")), gpu_node("n2", gpu("GPU-2"))]
    nodes = [node("n1"), node("n2", labels={"pool": "big"})]
    inside = model("inside", placement={"pool": "big"})
    pods = [pod("inside-0", of="inside"), pod()]
    found = decide(world(inside, model(), pods=pods, gpu_nodes=fleet, nodes=nodes, pools=[named]))
    assert where(found) == {"inside-0": ("GPU-2",), "llama-0": ("GPU-1",)}


@pytest.mark.parametrize(
    ("wanted", "reason", "words"),
    [
        pytest.param(model(per_gpu="81Gi"), "LargerThanAnyGPU", "1.00 GiB too little", id="bytes"),
        pytest.param(
            model(per_gpu="30Gi", placement={"gpuProducts": ["NVIDIA-L4"]}),
            "LargerThanAnyGPU",
            "NVIDIA-L4",
            id="product",
        ),
        pytest.param(model(gpus=4), "LargerThanAnyNode", "no node has more than 2", id="count"),
    ],
)
def test_what_would_not_fit_an_empty_fleet_is_stalled(wanted: ModelView, reason: str, words: str) -> None:
    assert wanted.spec is not None
    bytes_ = wanted.spec.memory.per_gpu or ""
    fleet = [gpu_node("n1", *gpus(2)), gpu_node("n2", gpu("L4", product="NVIDIA-L4", memory="22Gi"))]
    waits = pod(need=bytes_, tensor=wanted.spec.parallelism.tensor)
    status = status_of(decide(world(wanted, pods=[waits], gpu_nodes=fleet)))
    assert condition(status, "Stalled")["reason"] == reason
    assert words in condition(status, "Stalled")["message"]
    assert condition(status, "Ready")["status"] == "False"
    assert not condition(status, "Reconciling")


def test_a_reserve_makes_a_gpu_smaller_for_all() -> None:
    pools = [pool(generation=0, reservePerGPU="1Gi")]
    status = status_of(decide(world(model(per_gpu="80Gi"), pods=[pod(need="80Gi")], pools=pools)))
    assert condition(status, "Stalled")["reason"] == "LargerThanAnyGPU"
    assert H100 in condition(status, "Stalled")["message"]


def test_a_larger_estimate_of_today_does_not_stall_what_waits_with_the_one_in_force() -> None:
    today = model(per_gpu="81Gi")
    made = annotated(children(model(per_gpu="50Gi")), spec_hash=spec_hash(today))
    pods = [placed("other-0", of="other", claim="40Gi"), pod(need="50Gi")]
    status = status_of(decide(world(today, model("other"), pods=pods, made=made)))
    assert not condition(status, "Stalled")
    assert condition(status, "Ready")["reason"] == "WaitingForRoom"


def test_another_gate_is_waited_for_and_named() -> None:
    found = decide(world(model(), pods=[pod(gates=("vrampack.dev/placement", "quota.example.com/hold"))]))
    assert where(found) == {}
    assert waiting(found)["reason"] == "OtherGate"
    assert "quota.example.com/hold" in waiting(found)["message"]


@pytest.mark.parametrize("need", ["", "{}", "20Gi", '{"gpus":0,"bytes":1,"kv":0,"context":0,"comm":0}'])
def test_a_need_that_can_not_be_read_stops_only_its_pod(need: str) -> None:
    pods = [replace(pod("llama-0"), need=need), pod("llama-1")]
    found = decide(world(model(replicas=2), pods=pods, pools=[PARALLEL]))
    assert where(found) == {"llama-1": ("GPU-1",)}
    assert waiting(found)["reason"] == "NeedUnreadable"
    assert waiting(found)["pod"] == "llama-0"


def test_a_claim_that_was_refused_is_told_and_leaves_its_room_to_others_until_it_is_asked_again() -> None:
    held = Held(until=NOW + 2, message='failed calling webhook "x"')
    pods = [pod("llama-0", need="60Gi"), pod("other-0", of="other", need="60Gi")]
    snapshot = world(
        model(per_gpu="60Gi"),
        model("other", per_gpu="60Gi"),
        pods=pods,
        memory=Memory(started=STARTED, unclaimed={"uid-llama-0": held}),
    )

    found = decide(snapshot)

    assert where(found) == {"other-0": ("GPU-1",)}
    assert waiting(found)["reason"] == "ClaimRefused"
    assert waiting(found)["message"] == 'the API server refuses its claim: failed calling webhook "x"'
    assert condition(status_of(found), "Ready")["reason"] == "ClaimRefused"
    assert found.wake_at == held.until
    assert "llama-0" in where(decide(replace(snapshot, now=held.until)))


def test_the_fleets_status_is_not_held_up_by_a_claim_that_is_refused() -> None:
    held = Held(until=NOW + 2, message="denied")
    found = decide(world(model(), pods=[pod()], memory=Memory(started=STARTED, unclaimed={"uid-llama-0": held})))
    assert status_of(found, "n1", kind="GPUNode")


def test_pods_that_kubernetes_refuses_to_create_are_explained_in_its_words() -> None:
    refused = "pods is forbidden: exceeded quota: compute"
    made = tuple(
        replace(
            each,
            object=each.object
            | {
                "status": {
                    "observedGeneration": 1,
                    "conditions": [{"type": "ReplicaFailure", "status": "True", "message": refused}],
                }
            },
        )
        for each in children(model(replicas=3))
    )
    found = decide(world(model(replicas=3), pods=[placed()], made=made))
    assert waiting(found) == waiting(found) | {"reason": "PodsRefused", "count": 2, "message": refused}
    assert found.waiting == {"PodsRefused": 2}
    assert condition(status_of(found), "Ready")["reason"] == "PodsRefused"


@pytest.mark.parametrize(
    ("selector", "free"),
    [({"pool": "lab"}, {"llama-0": ("GPU-1",)}), ({}, {})],
    ids=["its node is known", "it may have any node"],
)
def test_nobody_is_placed_in_a_pool_that_can_not_be_read(
    selector: dict[str, str], free: dict[str, tuple[str, ...]]
) -> None:
    broken = replace(pool("lab", nodeSelector=selector), problem="spec.startup: 'Lazy' is none of them")
    inside, new = model("inside", placement={"pool": "lab"}), model("new", placement={"pool": "lab"})
    made = (*children(model()), *children(inside, pools=[pool("lab")]))
    pods = [pod(), pod("inside-0", of="inside")]
    fleet = [gpu_node("n1", gpu("GPU-1")), gpu_node("n2", gpu("GPU-2"))]
    nodes = [node("n1"), node("n2", labels={"pool": "lab"})]
    snapshot = world(model(), inside, new, pods=pods, gpu_nodes=fleet, nodes=nodes, pools=[broken], made=made)
    found = decide(snapshot)
    assert where(found) == free
    for name in ("inside", "new"):
        assert waiting(found, name)["reason"] == "InvalidPool"
        assert "spec.startup: 'Lazy'" in condition(status_of(found, name), "Stalled")["message"]
    after = told(snapshot, found)
    after = told(after, decide(after))  # statuses of pools are written by the pass after the last placement
    [status] = [each.status for each in after.pools if each.name == "lab"]
    ready = condition(status, "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "InvalidSpec", broken.problem)


def test_gated_pods_of_a_pool_that_was_deleted_are_explained() -> None:
    named = pool("big")
    wanted = model(placement={"pool": "big"})
    made = children(wanted, pools=[named])
    found = decide(world(wanted, pods=[pod()], made=made))
    assert where(found) == {}
    assert waiting(found)["reason"] == "PoolNotFound"
    assert condition(status_of(found), "Stalled")["reason"] == "PoolNotFound"


def test_the_room_of_a_leaving_replica_is_for_its_successor() -> None:
    """Without that, another model's replica of the right size would take it and the rollout would never end."""
    made = children(model(per_gpu="50Gi"), rolling=True)
    pods = [placed(claim="50Gi", deleting=True), pod("llama-1", need="50Gi"), pod("other-0", of="other", need="50Gi")]
    made += children(model("other", per_gpu="50Gi"))
    found = decide(world(model(per_gpu="50Gi"), model("other", per_gpu="50Gi"), pods=pods, made=made))
    assert where(found) == {}
    assert waiting(found)["reason"] == "RoomBeingFreed"
    assert waiting(found, "other")["reason"] == "InsufficientGPUMemory"


def test_room_that_is_free_is_given_to_one_successor_only() -> None:
    made = children(model(per_gpu="30Gi", replicas=2), rolling=True)
    pods = [placed(f"llama-{index}", claim="20Gi", deleting=True) for index in range(2)]
    pods += [pod(f"llama-{index}", need="30Gi") for index in range(2, 4)]
    found = decide(world(model(per_gpu="30Gi", replicas=2), pods=pods, made=made, pools=[PARALLEL]))
    assert where(found) == {"llama-2": ("GPU-1",)}  # 40 GiB are free
    assert waiting(found)["reason"] == "RoomBeingFreed"


@pytest.mark.parametrize(
    ("leaves", "follows", "room", "fields"),
    [
        pytest.param({"cpu": 3000}, {"cpu": 3000}, {"cpu": 5000}, {}, id="CPU"),
        pytest.param({"memory": 3 * GIB}, {"memory": 3 * GIB}, {"memory": 5 * GIB}, {}, id="RAM"),
        pytest.param({}, {}, {"pods": 1}, {}, id="its slot"),
        pytest.param({}, {}, {}, {"placement": {"spread": "Require"}}, id="a node for each"),
        pytest.param({"need": ALONE}, {}, {}, {}, id="the GPU, which was to be its own"),
    ],
)
def test_a_successor_waits_for_all_that_a_leaving_replica_holds(
    leaves: Json, follows: Json, room: Json, fields: Json
) -> None:
    """Its bytes are free. But the scheduler counts a pod until it is gone, and would refuse the next one."""
    wanted = model(**fields)
    made = children(wanted, rolling=True)
    first = replace(placed("llama-0", deleting=True), **leaves)
    pods = [first, pod("llama-1", **follows)]
    given = world(wanted, pods=pods, made=made, nodes=[node(**room)])
    found = decide(given)
    assert where(found) == {}
    assert waiting(found)["reason"] == "RoomBeingFreed"
    assert where(decide(replace(given, pods=(pods[1],)))) == {"llama-1": ("GPU-1",)}


def test_who_succeeds_does_not_depend_on_the_order_of_the_pods() -> None:
    made = children(model(per_gpu="50Gi", replicas=2), rolling=True)
    pods = [placed(claim="60Gi", deleting=True), pod("llama-1", need="70Gi"), pod("llama-2", need="10Gi")]
    given = world(model(per_gpu="50Gi", replicas=2), pods=pods, made=made)
    turned = replace(given, pods=tuple(reversed(given.pods)))
    assert decide(given).waiting == decide(turned).waiting == {"InsufficientGPUMemory": 1, "RoomBeingFreed": 1}


def test_the_successor_of_an_exclusive_replica_waits_until_it_is_gone() -> None:
    own = model("own", placement={"sharing": "Exclusive"})
    made = children(own, rolling=True)
    pods = [placed("own-0", of="own", deleting=True), pod("own-1", of="own")]
    found = decide(world(own, pods=pods, made=made))
    assert where(found) == {}
    assert waiting(found, "own")["reason"] == "RoomBeingFreed"


@pytest.mark.parametrize(
    "asked",
    [
        {"cpu": 10**30},
        {"memory": 10**30},
        {"need": Need(gpus=1, bytes=10**30, kv=0, context=0, comm=0).to_json()},
        {"need": Need(gpus=10**30, bytes=20 * GIB, kv=0, context=0, comm=0).to_json()},
        {"need": Need(gpus=10**30, bytes=10**30, kv=0, context=0, comm=0).to_json()},
    ],
    ids=["CPU", "RAM", "memory of a GPU", "GPUs", "both"],
)
@pytest.mark.parametrize("running", [0, 1])
def test_who_asks_for_absurdly_much_waits_and_holds_up_nobody(asked: dict[str, Any], running: int) -> None:
    pods = [replace(pod("greedy-0", of="greedy"), **asked), *[placed("old-0", claim="10Gi", of="old")] * running, pod()]
    models = [model("greedy"), model(), *[model("old")] * running]
    found = decide(world(*models, pods=pods))
    assert where(found) == {"llama-0": ("GPU-1",)}
    assert waiting(found, "greedy")["count"] == 1
