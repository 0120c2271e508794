"""Mechanisms in the plan: slices as devices, claims on a node until the choice is read back, what a node lacks."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planning_world import (
    H100,
    STARTED,
    children,
    condition,
    decide,
    gpu,
    gpu_node,
    gpus,
    model,
    node,
    of_kind,
    placed,
    pod,
    pool,
    status_of,
    waiting,
    where,
    world,
)
from vrampack.api import names
from vrampack.api.gpupool import InjectionStyle
from vrampack.kube import wire
from vrampack.kube.devices import device_view
from vrampack.planning.actions import CreateChild, DeleteChild
from vrampack.planning.inventory import inventory
from vrampack.planning.mechanisms import read_back
from vrampack.planning.snapshot import DeviceView, Grant, Memory, PublishedDevice
from vrampack.sharing.base import Claimed, NodeFacts, Request, Share
from vrampack.sharing.registry import MECHANISMS, mechanism
from vrampack.units import GIB, MIB

SLICES = [
    {"uuid": "MIG-a", "profile": "3g.40gb", "memory": "39Gi"},
    {"uuid": "MIG-b", "profile": "1g.10gb", "memory": "9Gi"},
]


def sliced(**fields: Any) -> Any:
    return gpu_node("n1", gpu("GPU-1", mig=True, mig_devices=SLICES), gpu("GPU-2", index=1), **fields)


# --- MIG --------------------


def test_a_slice_is_a_device_and_takes_one_replica() -> None:
    mig = pool("default", mechanism="MIG", startup="Parallel")
    small = [pod(f"m-{index}", of="m", need="8Gi") for index in range(3)]
    found = decide(world(model("m", per_gpu="8Gi", replicas=3), pods=small, gpu_nodes=[sliced()], pools=[mig]))
    assert sorted(where(found).values()) == [("MIG-a",), ("MIG-b",)]
    (first, *_) = found.placements
    assert first.annotations[names.VISIBLE_DEVICES].startswith("runtime.nvidia.com/gpu=MIG-")
    assert waiting(found, "m")["reason"] == "TooManyReplicasOnGPU"


def test_the_neighbour_comes_into_no_slice_that_has_a_replica() -> None:
    mig = pool("default", mechanism="MIG")
    there = placed("a-0", of="a", on="MIG-a", claim="8Gi", ready=True)
    given = world(
        model("a", per_gpu="8Gi"),
        model("b", per_gpu="20Gi"),
        pods=[there, pod("b-0", of="b", need="20Gi")],
        gpu_nodes=[sliced()],
        pools=[mig],
    )
    assert not decide(given).placements


def test_a_slice_has_the_product_of_its_size() -> None:
    stock = inventory(world(gpu_nodes=[sliced()], pools=[pool("default", mechanism="MIG")]))
    assert stock.gpus["MIG-a"].product == f"{H100}-MIG-3g.40gb"
    assert stock.gpus["MIG-a"].usable == 39 * GIB
    assert stock.gpus["GPU-2"].closed == "GPUNotInMIGMode"
    assert stock.gpus["GPU-1"].closed == "GPUInMIGMode"


def test_the_account_of_a_slice_stands_in_the_gpu_node() -> None:
    mig = pool("default", mechanism="MIG")
    there = placed("a-0", of="a", on="MIG-a", claim="8Gi", ready=True)
    found = decide(world(model("a", per_gpu="8Gi"), pods=[there], gpu_nodes=[sliced()], pools=[mig]))
    entries = {each["uuid"]: each for each in status_of(found, "n1", kind="GPUNode")["gpus"]}
    assert entries["MIG-a"]["claimed"] == "8Gi"
    assert entries["MIG-b"]["claims"] == []


def test_a_process_of_a_pod_that_is_gone_stays_in_the_slice_that_it_claimed() -> None:
    process = {"podUID": "uid-a-0", "bytes": "2Gi", "pids": [4242]}
    view = gpu_node("n1", gpu("GPU-1", mig=True, mig_devices=SLICES, processes=[process]))
    memory = Memory(started=STARTED, departed=(placed("a-0", of="a", on="MIG-a", claim="8Gi"),))
    mig = pool("default", mechanism="MIG")
    found = decide(world(gpu_nodes=[view], pools=[mig], memory=memory))
    entries = {each["uuid"]: each for each in status_of(found, "n1", kind="GPUNode")["gpus"]}
    assert [each["uid"] for each in entries["MIG-a"]["claims"]] == ["uid-a-0"]
    assert (entries["MIG-a"]["claimed"], entries["MIG-b"]["claims"]) == ("8Gi", [])


def test_two_slices_are_no_two_ranks() -> None:
    mig = pool("default", mechanism="MIG")
    found = decide(world(model("m", gpus=2), gpu_nodes=[sliced()], pools=[mig]))
    stalled = condition(status_of(found, "m"), "Stalled")
    assert stalled["status"] == "True"
    assert "one MIG device" in stalled["message"]


def test_the_claim_of_a_pod_that_is_gone_lives_while_its_processes_do() -> None:
    held = {"uuid": "MIG-a", "claims": [{"namespace": "serving", "pod": "a-0", "uid": "gone", "bytes": "8Gi"}]}
    busy = gpu("GPU-1", mig=True, mig_devices=SLICES, processes=[{"pod_uid": "gone", "bytes": "7Gi"}])
    stock = inventory(world(gpu_nodes=[gpu_node("n1", busy, held)], pools=[pool("default", mechanism="MIG")]))
    assert stock.gpus["MIG-a"].held == {"gone": 8 * GIB}
    assert stock.gpus["MIG-b"].held == {}


def test_in_another_pool_slices_are_nothing() -> None:
    stock = inventory(world(gpu_nodes=[sliced()]))
    assert "MIG-a" not in stock.gpus


# --- claims on a node --------------------


def on_node(name: str, *, on: str) -> Any:
    there = placed(name, of="m", on=on, claim="20Gi", ready=True, node="n1")
    assert there.claim is not None
    return replace(there, uid=name, claim=replace(there.claim, on_node=True))


def test_the_bytes_are_where_the_processes_are() -> None:
    """KAI chose the other GPU: the agent sees it there, and the first is free again."""
    seen = gpu("GPU-2", index=1, processes=[{"pod_uid": "m-0", "bytes": "19Gi"}])
    given = world(
        model("m"),
        pods=[on_node("m-0", on="GPU-1")],
        gpu_nodes=[gpu_node("n1", gpu("GPU-1"), seen)],
        nodes=[replace(node("n1"), resources=frozenset({"nvidia.com/gpu"}))],
        pools=[pool("default", mechanism="KAI")],
    )
    stock = inventory(read_back(given))
    assert stock.gpus["GPU-1"].free == 80 * GIB
    assert stock.gpus["GPU-2"].held == {"m-0": 20 * GIB}


def test_until_then_they_are_held_where_they_were_claimed() -> None:
    given = world(
        model("m"),
        pods=[on_node("m-0", on="GPU-1")],
        gpu_nodes=[gpu_node("n1", *gpus(2))],
        pools=[pool("default", mechanism="KAI")],
    )
    assert inventory(read_back(given)).gpus["GPU-1"].held == {"m-0": 20 * GIB}


def test_a_claim_on_a_gpu_is_never_moved_by_what_is_seen() -> None:
    seen = gpu("GPU-2", index=1, processes=[{"pod_uid": "m-0", "bytes": "19Gi"}])
    there = replace(placed("m-0", of="m", on="GPU-1", claim="20Gi"), uid="m-0")
    given = world(model("m"), pods=[there], gpu_nodes=[gpu_node("n1", gpu("GPU-1"), seen)])
    assert read_back(given) == given


def dra(*grants: Grant, by_memory: bool = True, classes: tuple[str, ...] = ("gpu.nvidia.com",)) -> DeviceView:
    published = tuple(PublishedDevice(uuid=uuid, by_memory=by_memory) for uuid in ("GPU-1", "GPU-2"))
    return DeviceView(classes=frozenset(classes), published={"n1": published}, grants=grants)


def in_dra(devices: DeviceView | None, *pods: Any, **spec: Any) -> Any:
    return world(
        model("m"),
        pods=pods,
        gpu_nodes=[gpu_node("n1", *gpus(2))],
        pools=[pool("default", mechanism="DRA", **spec)],
        devices=devices,
    )


def test_what_the_scheduler_allocated_is_read_back() -> None:
    found = read_back(in_dra(dra(Grant(uuid="GPU-2", pod_uid="m-0", bytes=20 * GIB)), on_node("m-0", on="GPU-1")))
    (there,) = found.pods
    assert there.claim is not None
    assert there.claim.gpus == ("GPU-2",)


@pytest.mark.parametrize(("size", "free"), [(30 * GIB, 50 * GIB), (None, 0)])
def test_what_others_were_allocated_is_foreign(size: int | None, free: int) -> None:
    stock = inventory(in_dra(dra(Grant(uuid="GPU-2", pod_uid="stranger", bytes=size))))
    assert stock.gpus["GPU-2"].free == free
    assert stock.gpus["GPU-1"].free == 80 * GIB


def test_the_request_comes_before_the_deployment_and_once() -> None:
    given = in_dra(dra())
    made = [each.manifest for each in of_kind(decide(given), CreateChild)]
    assert [each["kind"] for each in made][:2] == ["ResourceClaimTemplate", "Deployment"]
    request, deployment = made[:2]
    template = deployment["spec"]["template"]["spec"]
    assert template["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": request["metadata"]["name"]}]
    exactly = request["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    assert exactly["capacity"]["requests"] == {"memory": "20480Mi"}
    there = children(given.models[0], pools=given.pools)[0]
    owned = replace(
        there, kind="ResourceClaimTemplate", name=request["metadata"]["name"], uid="rct", owner_uid=given.models[0].uid
    )
    again = decide(replace(given, children=(owned,)))
    assert "ResourceClaimTemplate" not in [each.manifest["kind"] for each in of_kind(again, CreateChild)]


def test_a_request_goes_once_no_template_refers_to_it() -> None:
    given = in_dra(dra())
    [request] = [
        each.manifest
        for each in of_kind(decide(given), CreateChild)
        if each.manifest["kind"] == "ResourceClaimTemplate"
    ]
    there = children(given.models[0], pools=given.pools)
    like = replace(there[0], kind="ResourceClaimTemplate", object={}, owner_uid=given.models[0].uid)
    present = replace(like, name=request["metadata"]["name"], uid="present")
    former = replace(like, name="m-gpu-former", uid="former", resource_version="9")
    strangers = replace(like, name="m-gpu-strangers", uid="strangers", owner_uid="another")
    live = replace(given, children=(*there, present, former, strangers))
    [gone] = of_kind(decide(live), DeleteChild)
    assert (gone.kind, gone.name, gone.uid, gone.resource_version) == (
        "ResourceClaimTemplate",
        "m-gpu-former",
        "former",
        "9",
    )
    old = [replace(each, requests=frozenset({"m-gpu-former"})) for each in live.replica_sets]
    assert not of_kind(decide(replace(live, replica_sets=tuple(old))), DeleteChild), "its pods may still be made"


# --- what a node and a cluster lack --------------------


def ready(given: Any) -> dict[str, Any]:
    return condition(status_of(decide(given), "default", kind="GPUPool"), "MechanismReady")


@pytest.mark.parametrize(
    ("devices", "spec", "reason", "words"),
    [
        (dra(), {}, "Works", "nothing is missing"),
        (dra(classes=()), {}, "ClusterLacksIt", "no DeviceClass gpu.nvidia.com"),
        (dra(), {"device_class": "mine"}, "ClusterLacksIt", "no DeviceClass mine"),
        (DeviceView(problem="resource.k8s.io/v1 can't be read: 404"), {}, "ClusterLacksIt", "404"),
        (dra(by_memory=False), {}, "NodesLackIt", "consumable shares"),
        (dra(by_memory=False), {"resource_claim": "one"}, "Works", "nothing"),
        (DeviceView(classes=frozenset({"gpu.nvidia.com"})), {}, "NodesLackIt", "no ResourceSlice"),
    ],
)
def test_dra_says_what_is_missing(devices: DeviceView, spec: dict[str, Any], reason: str, words: str) -> None:
    found = ready(in_dra(devices, **spec))
    assert found["reason"] == reason
    assert words in found["message"]
    assert found["status"] == ("True" if reason == "Works" else "False")


def test_some_nodes_may_have_it() -> None:
    nodes = [replace(node("n1"), labels={"vrampack.dev/mps": "true"}), node("n2")]
    views = [gpu_node("n1"), gpu_node("n2", gpu("GPU-9"))]
    given = world(gpu_nodes=views, nodes=nodes, pools=[pool("default", mechanism="MPS")])
    found = ready(given)
    assert found["reason"] == "SomeNodesLackIt"
    assert "1 of 2 nodes" in found["message"]
    assert "n2: the agent runs no MPS server" in found["message"]


@pytest.mark.parametrize(
    ("driver", "lacking"),
    [("615.10", False), ("620.1", False), ("580.126.09", True), ("", True), ("unknown", True)],
)
def test_limits_need_a_new_driver(driver: str, lacking: bool) -> None:
    assert bool(mechanism("MemoryLimits").lacks(NodeFacts(driver=driver, toolkit="1.20.1"))) is lacking


@pytest.mark.parametrize(
    ("toolkit", "labelled", "lacking"),
    [
        ("1.20.1", False, False),
        ("1.20.0", False, True),
        ("1.18.1", False, True),
        ("1.18.1", True, True),
        ("", False, True),
        ("", True, False),
    ],
)
def test_limits_need_a_new_toolkit_or_somebody_who_knows(toolkit: str, labelled: bool, lacking: bool) -> None:
    """An older one ignores the limit, and a fraction of the claim would be one of the GPU."""
    facts = NodeFacts(driver="615.10", toolkit=toolkit, labels={"vrampack.dev/memory-limits": str(labelled).lower()})
    assert bool(mechanism("MemoryLimits").lacks(facts)) is lacking


# --- every mechanism --------------------


@given(
    name=st.sampled_from(sorted(MECHANISMS)),
    size=st.integers(MIB, 200 * GIB),
    style=st.sampled_from([each for each in InjectionStyle if each is not InjectionStyle.AUTO]),
)
def test_what_is_enforced_is_never_below_the_claim(name: str, size: int, style: InjectionStyle) -> None:
    shares = mechanism(name)
    mutation = shares.mutation(Request(name="m", gpus=1, claim_bytes=size))
    share = Share(kv_cache=0, runtime_context=0, communication=0)
    said = shares.annotations(Claimed(gpus=["GPU-1"], bytes=size, style=style, share=share, usable_bytes=256 * GIB))
    assert int(said[names.CLAIM]) == size
    assert int(said[names.MEMORY_LIMIT_MIB]) * MIB >= size
    if "nvidia.com/gpumem" in mutation.limits:
        assert int(mutation.limits["nvidia.com/gpumem"]) * MIB >= size
    if names.MPS_LIMIT in said:
        assert said[names.MPS_LIMIT] == f"0={said[names.MEMORY_LIMIT_MIB]}M"
    assert (names.SCOPE in said) is not shares.chooses
    assert shares.by_runtime or said[names.VISIBLE_DEVICES] == "void"


def test_published_devices_and_what_was_given_out() -> None:
    devices = [
        {
            "name": "gpu-0",
            "attributes": {"uuid": {"string": "GPU-1"}},
            "capacity": {"memory": {"value": "44Gi"}},
            "allowMultipleAllocations": True,
        },
        {"name": "gpu-1", "attributes": {"gpu.nvidia.com/uuid": {"string": "GPU-2"}}, "capacity": {}},
        {"name": "nic-0", "attributes": {"mac": {"string": "x"}}},
        {"name": "odd", "attributes": None},
    ]
    results = [
        {"driver": "d", "pool": "p", "device": "gpu-0", "consumedCapacity": {"memory": "20Gi"}},
        {"driver": "d", "pool": "p", "device": "gpu-1"},
        {"driver": "d", "pool": "p", "device": "nic-0"},
    ]
    allocated = {"allocation": {"devices": {"results": results}}}
    meta = wire.Metadata(name="x", uid="u", resource_version="1")
    slice_ = {"nodeName": "n1", "driver": "d", "pool": {"name": "p"}, "devices": devices}
    found = device_view(
        [wire.Head(metadata=meta)],
        [wire.CustomObject(metadata=meta, spec=slice_)],
        [
            wire.CustomObject(
                metadata=meta, status=allocated | {"reservedFor": [{"resource": "pods", "name": "a", "uid": "pod-a"}]}
            ),
            wire.CustomObject(metadata=meta, status={"allocation": {"devices": {"results": "odd"}}}),
            wire.CustomObject(metadata=meta, status={}),
        ],
    )
    assert found.published == {
        "n1": (PublishedDevice(uuid="GPU-1", by_memory=True), PublishedDevice(uuid="GPU-2", by_memory=False))
    }
    assert found.grants == (
        Grant(uuid="GPU-1", pod_uid="pod-a", bytes=20 * GIB),
        Grant(uuid="GPU-2", pod_uid="pod-a", bytes=None),
    )
    unheld = device_view(
        (), [wire.CustomObject(metadata=meta, spec={})], [wire.CustomObject(metadata=meta, status=allocated)]
    )
    assert unheld.grants == ()
