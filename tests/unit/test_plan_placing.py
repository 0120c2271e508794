"""Which waiting replica goes where: the claim it carries, and what a GPU really has left."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.planning_world import (
    NOW,
    PARALLEL,
    Json,
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
    unreadable,
    waiting,
    where,
    world,
)
from vrampack.api import names
from vrampack.planning.cases import cases
from vrampack.planning.filling import FEW, mix_of
from vrampack.planning.inventory import inventory
from vrampack.planning.need import Need
from vrampack.planning.snapshot import GPUNodeView, Memory, ModelView, NodeView, PodView
from vrampack.planning.verdict import Settings
from vrampack.units import GIB, MIB


def test_a_claim_says_gpu_bytes_and_what_the_engine_is_to_use() -> None:
    need = Need(gpus=1, bytes=20 * GIB, kv=4 * GIB, context=GIB, comm=0)
    [action] = decide(world(model(), pods=[replace(pod(), need=need.to_json())])).placements
    assert (action.node, action.gpus) == ("n1", ("GPU-1",))
    assert "of 1 GPU that could take it" in action.because
    assert action.annotations == {
        names.BECAUSE: action.because,
        names.GPUS: "GPU-1",
        names.CLAIM: str(20 * GIB),
        names.VISIBLE_DEVICES: "runtime.nvidia.com/gpu=GPU-1",
        names.UTILIZATION: "0.2375",  # 19 of 80 GiB: the context is outside of the engine's own budget
        names.KV_CACHE_BYTES: str(4 * GIB),
        names.MEMORY_LIMIT_MIB: str(20 * GIB // MIB),
    }


def test_tensor_parallel_replicas_get_gpus_of_one_node_in_the_order_of_their_index() -> None:
    fleet = [gpu_node("n1", gpu("GPU-1")), gpu_node("n2", gpu("GPU-3", index=1), gpu("GPU-2", index=2))]
    [action] = decide(world(model(gpus=2), pods=[pod(tensor=2)], gpu_nodes=fleet)).placements
    assert (action.node, action.gpus) == ("n2", ("GPU-3", "GPU-2"))
    assert action.annotations[names.GPUS] == "GPU-3,GPU-2"


def test_the_utilization_is_of_the_smallest_of_its_gpus() -> None:
    node = gpu_node("n1", gpu("GPU-1", memory="80Gi"), gpu("GPU-2", memory="40Gi", index=1))
    [action] = decide(world(model(gpus=2), pods=[pod(tensor=2, need="20Gi")], gpu_nodes=[node])).placements
    assert action.annotations[names.UTILIZATION] == "0.5000"


def test_pods_bring_their_need_whatever_the_estimate_is_today() -> None:
    [action] = decide(world(model(per_gpu="30Gi"), pods=[pod(need="20Gi")])).placements
    assert action.annotations[names.CLAIM] == str(20 * GIB)


def test_an_unreadable_spec_stops_no_pod_that_is_there() -> None:
    snapshot = world(model(), pods=[pod()])
    broken = unreadable(snapshot.models[0], "spec.replicas: …")
    assert where(decide(replace(snapshot, models=(broken,)))) == {"llama-0": ("GPU-1",)}


def test_engines_of_one_gpu_start_one_after_the_other() -> None:
    pods = [pod("llama-0"), pod("llama-1")]
    first = decide(world(model(replicas=2), pods=pods))
    assert where(first) == {"llama-0": ("GPU-1",)}
    assert waiting(first) == waiting(first) | {"reason": "GPUBusyStarting", "pod": "llama-1", "count": 1}
    assert "GPU 0" in waiting(first)["message"]
    assert first.placements
    parallel = decide(world(model(replicas=2), pods=pods, pools=[PARALLEL]))
    assert where(parallel) == {"llama-0": ("GPU-1",), "llama-1": ("GPU-1",)}


@pytest.mark.parametrize(
    ("first", "waits"),
    [
        pytest.param({"ready": False}, True, id="it starts"),
        pytest.param({"ready": False, "node": ""}, True, id="it is not bound yet"),
        pytest.param({"ready": True}, False, id="it is ready"),
        pytest.param({"ready": False, "started": True}, False, id="it has started, and is not ready for a moment"),
        pytest.param({"ready": False, "restarts": 1}, False, id="it crashed: it may never be ready"),
        pytest.param({"ready": False, "failure": "ImagePullBackOff"}, False, id="its image can't be pulled"),
        pytest.param({"ready": False, "deleting": True}, False, id="it leaves"),
        pytest.param({"ready": False, "phase": "Failed"}, False, id="it ended"),
    ],
)
def test_who_starts_holds_up_who_comes_next(first: Json, waits: bool) -> None:
    found = decide(world(model(replicas=2), pods=[placed("llama-0", **first), pod("llama-1")]))
    assert where(found) == ({} if waits else {"llama-1": ("GPU-1",)})


def test_another_gpu_is_no_reason_to_wait() -> None:
    fleet = [gpu_node("n1", *gpus(2))]
    pods = [placed("llama-0", on="GPU-1", claim="70Gi", ready=False), pod("llama-1")]
    assert where(decide(world(model(replicas=2), pods=pods, gpu_nodes=fleet))) == {"llama-1": ("GPU-2",)}


EXCLUSIVE: Json = {"placement": {"sharing": "Exclusive"}}


def test_an_exclusive_replica_takes_no_gpu_that_another_uses() -> None:
    found = decide(world(model("own", **EXCLUSIVE), model(), pods=[placed(), pod("own-0", of="own")]))
    assert where(found) == {}
    assert waiting(found, "own")["rejected"] == {"GPUNotEmpty": 1}


def test_nobody_joins_an_exclusive_replica() -> None:
    found = decide(world(model("own", **EXCLUSIVE), model(), pods=[placed("own-0", of="own"), pod()]))
    assert where(found) == {}
    assert waiting(found)["rejected"] == {"GPUExclusive": 1}


def test_models_that_avoid_each_other_share_no_gpu() -> None:
    shy = model("shy", placement={"avoidModels": ["llama"]})
    for pods in ([placed(), pod("shy-0", of="shy")], [placed("shy-0", of="shy"), pod()]):
        assert where(decide(world(shy, model(), pods=pods))) == {}


def promised(view: PodView, **company: Any) -> PodView:
    """The pod with a need that says whom it has beside it."""
    return replace(view, need=replace(Need.from_json(view.need), **company).to_json())


@pytest.mark.parametrize("company", [{"exclusive": True, "avoid": ()}, {"exclusive": False, "avoid": ("llama",)}])
@pytest.mark.parametrize(
    "models",
    [
        pytest.param([model()], id="its model is gone"),
        pytest.param([model(), model("own")], id="its model was edited, which is not rolled out yet"),
        pytest.param([model(), unreadable(model("own"), "no")], id="its model can't be read"),
    ],
)
def test_what_a_replica_was_promised_holds_until_it_is_gone(company: Json, models: list[ModelView]) -> None:
    leaves = promised(placed("own-0", of="own", deleting=True), **company)
    assert where(decide(world(*models, pods=[leaves, pod()]))) == {}
    assert where(decide(world(*models, pods=[replace(leaves, phase="Succeeded"), pod()]))) == {"llama-0": ("GPU-1",)}


def test_an_edit_that_is_not_rolled_out_changes_no_company() -> None:
    """The new spec is for pods of the new template; what waits and what runs is of the old one."""
    shared = {"exclusive": False, "avoid": ()}
    pods = [promised(placed("own-0", of="own"), **shared), pod()]
    assert where(decide(world(model(), model("own", **EXCLUSIVE), pods=pods))) == {"llama-0": ("GPU-1",)}
    alone = promised(pod("own-0", of="own"), exclusive=True, avoid=())
    assert where(decide(world(model(), model("own"), pods=[placed(), alone]))) == {}


def test_only_the_products_that_are_allowed() -> None:
    choosy = model(placement={"gpuProducts": ["NVIDIA-L4"]})
    fleet = [gpu_node("n1", *gpus(2)), gpu_node("n2", gpu("GPU-9", product="NVIDIA-L4"))]
    assert where(decide(world(choosy, pods=[pod()], gpu_nodes=fleet))) == {"llama-0": ("GPU-9",)}


TAINT = {"key": "maintenance", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("view", "kubernetes", "reason"),
    [
        (gpu_node(), node(unschedulable=True), "NodeUnschedulable"),
        (gpu_node(), node(ready=False), "NodeNotReady"),
        (gpu_node(), node(taints=(TAINT,)), "UntoleratedTaint"),
        (gpu_node(), None, "NodeMissing"),
        (gpu_node(alive=False), node(), "AgentSilent"),
        (gpu_node("n1", gpu(memory=None)), node(), "GPUVanished"),
        (gpu_node("n1", gpu(health="Unhealthy")), node(), "GPUUnhealthy"),
        (gpu_node("n1", gpu(mig=True)), node(), "GPUInMIGMode"),
        (gpu_node("n1", spec=[{"uuid": "GPU-1", "cordoned": True}]), node(), "GPUCordoned"),
        (gpu_node(), node(cpu=500), "InsufficientCPU"),
        (gpu_node(), node(memory=GIB), "InsufficientMemory"),
        (gpu_node(), node(pods=0), "InsufficientPodSlots"),
        (gpu_node("n1", gpu(), injectionStyle="NRI"), node(), "InjectionStyleMismatch"),
    ],
)
def test_a_closed_node_or_gpu_takes_nothing_new_and_says_why(
    view: GPUNodeView, kubernetes: NodeView | None, reason: str
) -> None:
    nodes = () if kubernetes is None else (kubernetes,)
    waits = pod(cpu=1000, memory=2 * GIB, runtime_class="nvidia")
    found = decide(world(model(), pods=[waits], gpu_nodes=[view], nodes=nodes))
    assert where(found) == {}
    assert waiting(found)["rejected"] == {reason: 1}
    stays = decide(world(model(), pods=[placed()], gpu_nodes=[view], nodes=nodes))
    assert not stays.deletions


def test_a_node_that_refused_a_model_is_left_alone_for_a_while() -> None:
    def after(seconds: float) -> dict[str, Any]:
        memory = Memory(started=0, refusals={("serving/llama", "n1"): NOW + 10})
        return where(decide(world(model(), pods=[pod()], memory=memory, now=NOW + seconds)))

    assert after(0) == {}
    assert after(10) == {"llama-0": ("GPU-1",)}


PROCESS = {"podUID": "uid-llama-0", "bytes": "70Gi"}


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        pytest.param({}, 80, id="empty"),
        pytest.param({"spec": [{"uuid": "GPU-1", "reserve": "5Gi"}]}, 75, id="reserve of the GPU"),
        pytest.param({"pools": [pool(generation=0, reservePerGPU="6Gi")]}, 74, id="reserve of the pool"),
        pytest.param({"foreign": [{"name": "Xorg", "bytes": "3Gi"}, {"bytes": "4Gi"}]}, 73, id="foreign use"),
        pytest.param({"pods": [placed(claim="30Gi")]}, 50, id="a claim"),
        pytest.param({"pods": [placed(claim="30Gi", deleting=True)]}, 50, id="a claim until its pod is gone"),
        pytest.param({"pods": [placed(claim="30Gi", phase="Succeeded")]}, 80, id="no claim of a pod that succeeded"),
        pytest.param({"pods": [placed(claim="30Gi", phase="Failed")]}, 80, id="no claim of a pod that failed"),
        pytest.param({"pods": [placed(claim="30Gi")], "processes": [PROCESS]}, 10, id="observed above the claim"),
        pytest.param({"pods": [placed(claim="75Gi")], "processes": [PROCESS]}, 5, id="observed below the claim"),
        pytest.param({"processes": [PROCESS]}, 10, id="processes that outlive their pod"),
        pytest.param(
            {"pods": [placed(claim="30Gi", phase="Failed")], "processes": [PROCESS]}, 10, id="and one that failed"
        ),
        pytest.param(
            {
                "pods": [placed(claim="30Gi"), placed("gone-0", of="gone", claim="8Gi")],
                "foreign": [{"bytes": "2Gi"}],
                "spec": [{"uuid": "GPU-1", "reserve": "1Gi"}],
            },
            39,
            id="all together, and a claim of a model that is gone",
        ),
    ],
)
def test_free_is_usable_less_reserve_foreign_and_the_larger_of_claim_and_use(taken: Json, free: int) -> None:
    """A replica of just that size fits, and one byte more does not, by one byte."""
    found = {key: taken[key] for key in ("foreign", "processes") if key in taken}
    view = gpu_node("n1", gpu(**found), spec=taken.get("spec", ()))

    def need(size: int) -> str:
        return Need(gpus=1, bytes=size, kv=0, context=0, comm=0).to_json()

    pools = taken.get("pools", ())
    for size, fits in ((free * GIB, True), (free * GIB + 1, False)):
        new = replace(pod("new-0", of="new"), need=need(size))
        plan = decide(world(model("new"), model(), pods=[*taken.get("pods", ()), new], gpu_nodes=[view], pools=pools))
        assert where(plan) == ({"new-0": ("GPU-1",)} if fits else {})
        if not fits:
            assert waiting(plan, "new")["closest"] == {
                "node": "n1",
                "gpu": 0,
                "free": f"{free}Gi",
                "short": "1",
            }


def test_a_gpu_with_a_claim_that_can_not_be_read_takes_no_new_one() -> None:
    fleet = [gpu_node("n1", gpu("GPU-1"), gpu("GPU-2", index=1))]
    strange = replace(placed("other", on="GPU-1"), claim=None, obscure=("GPU-1",))
    found = decide(world(model(replicas=1), pods=[strange, pod("llama-0")], gpu_nodes=fleet))
    assert where(found) == {"llama-0": ("GPU-2",)}
    found = decide(world(model(replicas=1), pods=[strange, pod("llama-0", need="90Gi")], gpu_nodes=fleet))
    assert waiting(found)["rejected"] == {"GPUClaimUnreadable": 1, "InsufficientGPUMemory": 1}
    ended = replace(strange, phase="Succeeded")
    assert where(decide(world(model(replicas=1), pods=[ended, pod("llama-0")], gpu_nodes=fleet))) == {
        "llama-0": ("GPU-1",)
    }


TWICE = {"GPUReportedTwice": 1}


@pytest.mark.parametrize(
    ("first", "second", "needs", "placed_on", "rejected"),
    [
        pytest.param({}, {}, ["50Gi"], ["n1"], {}, id="the first node by name has it"),
        pytest.param({}, {}, ["50Gi", "50Gi"], ["n1"], TWICE | {"InsufficientGPUMemory": 1}, id="and only once"),
        pytest.param({"ready": False}, {}, ["50Gi"], [], TWICE | {"NodeNotReady": 1}, id="also when it takes nothing"),
        pytest.param({}, {"ready": False}, ["50Gi"], ["n1"], {}, id="the other one does not matter"),
    ],
)
def test_a_gpu_that_two_nodes_report_is_given_away_once(
    first: Json, second: Json, needs: list[str], placed_on: list[str], rejected: Json
) -> None:
    fleet = [gpu_node("n1", gpu("GPU-1")), gpu_node("n2", gpu("GPU-1"))]
    nodes = [node("n1", **first), node("n2", **second)]
    pods = [pod(f"llama-{index}", need=each) for index, each in enumerate(needs)]
    found = decide(world(model(replicas=len(pods)), pods=pods, gpu_nodes=fleet, nodes=nodes, pools=[PARALLEL]))
    assert [each.node for each in found.placements] == placed_on
    if rejected:
        assert waiting(found)["rejected"] == rejected


def test_a_pod_on_a_gpu_that_two_nodes_report_counts_on_the_node_that_has_it() -> None:
    fleet = [gpu_node("n1", gpu("GPU-1")), gpu_node("n2", gpu("GPU-1"))]
    pods = [placed("llama-0", cpu=3000, node=""), pod("llama-1", cpu=3000)]
    nodes = [node("n1", cpu=5000), node("n2", cpu=5000)]
    found = decide(world(model(replicas=2), pods=pods, gpu_nodes=fleet, nodes=nodes, pools=[PARALLEL]))
    assert waiting(found)["rejected"] == TWICE | {"InsufficientCPU": 1}


def test_the_other_gpus_of_a_node_that_reports_a_strange_one_are_its_own() -> None:
    fleet = [gpu_node("n1", gpu("GPU-1")), gpu_node("n2", gpu("GPU-1"), gpu("GPU-2", index=1))]
    pods = [placed("llama-0", on="GPU-1", claim="70Gi"), pod("llama-1", need="50Gi")]
    assert where(decide(world(model(replicas=2), pods=pods, gpu_nodes=fleet))) == {"llama-1": ("GPU-2",)}


def test_a_gpu_that_shrank_below_its_claims_takes_nothing_and_keeps_what_it_has() -> None:
    view = gpu_node("n1", gpu(memory="40Gi"))
    found = decide(world(model(replicas=2), pods=[placed(claim="50Gi"), pod("llama-1", need="1Gi")], gpu_nodes=[view]))
    assert where(found) == {}
    assert not found.deletions
    assert waiting(found)["closest"] == {"node": "n1", "gpu": 0, "free": "0", "short": "11Gi"}


def test_cpu_of_pods_that_are_placed_but_not_bound_counts() -> None:
    pods = [placed("llama-0", cpu=3000, node=""), pod("llama-1", cpu=3000)]
    found = decide(world(model(replicas=2), pods=pods, nodes=[node(cpu=5000)], pools=[PARALLEL]))
    assert waiting(found)["rejected"] == {"InsufficientCPU": 1}


def test_higher_priority_goes_first() -> None:
    pods = [pod("llama-0", need="60Gi"), pod("vip-0", of="vip", need="50Gi", priority=1000)]
    assert where(decide(world(model(), model("vip"), pods=pods))) == {"vip-0": ("GPU-1",)}


def test_a_claim_on_a_gpu_that_nobody_reports_hurts_nobody() -> None:
    lost = placed(on="GPU-lost", node="")
    found = decide(world(model(replicas=2), pods=[lost, pod("llama-1")]))
    assert where(found) == {"llama-1": ("GPU-1",)}


def test_an_estimated_model_is_placed_by_its_estimate() -> None:
    facts = [profile()]
    snapshot = world(estimated(), profiles=facts, made=None, pods=[pod()])
    template = next(each for each in snapshot.children if each.kind == "Deployment").object["spec"]["template"]
    need = template["metadata"]["annotations"][names.NEED]
    [action] = decide(replace(snapshot, pods=(replace(pod(), need=need),))).placements
    wanted = Need.from_json(need)
    assert action.annotations[names.CLAIM] == str(wanted.bytes)
    assert action.annotations[names.KV_CACHE_BYTES] == str(wanted.kv)


def test_the_gpu_is_filled_on_which_the_least_becomes_useless_to_what_is_usual() -> None:
    """A gap of 40 GiB is what one more of the large model needs; the small one goes where 30 GiB are free."""
    fleet = [gpu_node("n1", *gpus(2))]
    large, small = model("large", per_gpu="40Gi", replicas=2), model("small", per_gpu="10Gi", replicas=1)
    running = [
        placed("large-0", of="large", on="GPU-1", claim="40Gi"),
        placed("other-0", of="other", on="GPU-2", claim="30Gi"),
    ]
    [action] = decide(
        world(large, small, pods=[*running, pod("small-0", of="small", need="10Gi")], gpu_nodes=fleet)
    ).placements
    # First fit takes the fullest, which is GPU-1; then no GPU would have 40 GiB but the one that is left with 40.
    assert action.gpus == ("GPU-2",)
    assert "the least memory that what is usual here can't use" in action.because


def test_a_whole_fleet_at_once_is_packed_by_first_fit_decreasing() -> None:
    wanted = [pod(f"llama-{number}", need="20Gi") for number in range(FEW + 1)]
    found = decide(
        world(model(replicas=len(wanted)), pods=wanted, pools=[PARALLEL], gpu_nodes=[gpu_node("n1", *gpus(12))])
    )
    assert len(found.placements) == len(wanted)
    assert all(action.because.startswith("the first that fits") for action in found.placements)


def test_where_even_headroom_is_asked_for_no_mix_decides() -> None:
    even = pool(objective="Balanced", startup="Parallel")
    [action] = decide(world(model(), pods=[pod()], pools=[even])).placements
    assert action.because.startswith("the one with the most free memory")


def test_the_mix_depends_on_the_models_alone() -> None:
    """Who runs and who waits makes no difference, nor the order in which they come."""
    large, small = model("large", per_gpu="40Gi", replicas=2), model("small", per_gpu="10Gi", replicas=5)
    no_one = model("none", per_gpu="30Gi", replicas=0)
    waiting_, running_ = (
        [pod(name, of=name, need=need) for name, need in (("large", "40Gi"), ("small", "10Gi"))],
        [placed(name, of=name, claim=need) for name, need in (("large", "40Gi"), ("small", "10Gi"))],
    )
    mixes = []
    for pods in (waiting_, running_, running_[::-1]):
        snapshot = world(small, no_one, large, pods=pods)
        mixes.append(mix_of(cases(snapshot, Settings(), stock=inventory(snapshot))))
    assert mixes[0] == mixes[1] == mixes[2]
    assert [(each.memory, each.weight) for each in mixes[0]] == [(10 * GIB, 5.0), (40 * GIB, 2.0)]


def test_what_a_replica_was_promised_of_its_node_holds_until_it_is_gone() -> None:
    """It asked for a node without another of its model; the spec asks for less by now."""
    need = Need(gpus=1, bytes=20 * GIB, kv=0, context=0, comm=0, apart=True).to_json()
    fleet = [gpu_node("n1", gpu("GPU-1")), gpu_node("n2", gpu("GPU-2"))]
    first = replace(placed(), need=need)

    def second(*nodes: GPUNodeView, spread: str = "Ignore") -> dict[str, tuple[str, ...]]:
        wanted = model(replicas=2, placement={"spread": spread})
        return where(decide(world(wanted, pods=[first, pod("llama-1")], gpu_nodes=nodes)))

    assert second(*fleet) == {"llama-1": ("GPU-2",)}
    assert second(fleet[0]) == {}
    first = placed()
    assert second(fleet[0]) == {"llama-1": ("GPU-1",)}
    assert second(fleet[0], spread="Require") == {}, "the new one asks for it"
