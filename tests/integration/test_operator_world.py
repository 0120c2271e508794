"""The world changes under a model that runs: GPUs, nodes, pods, and a scheduler with a mind of its own."""

from collections.abc import Awaitable, Callable

import pytest

from tests.integration.claims import RELEASE
from tests.integration.harness import World
from tests.integration.looks import condition, ended, gpus_of, lone, pod_ready, uids
from tests.integration.manifests import Manifest, group, model, overlay
from vrampack.api import names
from vrampack.units import GIB, parse_bytes

pytestmark = pytest.mark.cluster


async def gpu_status(world: World, node: str = "a", index: int = 0) -> Manifest:
    gpus = (await world.get("GPUNode", world.node(node))).get("status", {}).get("gpus", ())
    return next((gpu for gpu in gpus if gpu["uuid"] == world.gpu(node, index)), {})


async def test_a_gpu_that_shrinks_below_its_claims_keeps_its_pod_and_takes_no_more(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="30Gi"))
    await world.ready("m")
    before = await world.pods("m")
    world.edit("a", usable=[{"gpu": 0, "memory": "20Gi"}])
    found = await world.condition("GPUNode", world.node("a"), "Overcommitted", "True")
    assert "10.00 GiB" in condition(found, "Overcommitted")["message"]
    await world.apply(model("late", claim="5Gi"))
    await world.condition("ModelDeployment", "late", "Scheduled", "False")
    assert uids(await world.pods("m")) == uids(before)
    await world.ready("m")

    world.edit("a")
    await world.condition("GPUNode", world.node("a"), "Overcommitted", "False")
    await world.ready("m", "late")
    assert uids(await world.pods("m")) == uids(before)


async def test_a_foreign_process_takes_room_and_gives_it_back(world: World) -> None:
    await world.fleet(group("a", foreign=[{"gpu": 0, "memory": "20Gi"}]))
    await world.apply(model("m", claim="30Gi"))
    entry = await world.waiting("m", "InsufficientGPUMemory")
    assert abs(parse_bytes(entry["closest"]["free"]) - 24.39 * GIB) < 0.1 * GIB
    world.edit("a")
    await world.ready("m")


async def test_a_gpu_that_vanishes_keeps_its_pod(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="30Gi"))
    await world.ready("m")
    before = await world.pods("m")
    world.edit("a", missing=[0])

    async def vanished() -> None:
        assert "memory" not in await gpu_status(world)

    await world.eventually(vanished)
    await world.apply(model("late", claim="5Gi"))
    await world.condition("ModelDeployment", "late", "Ready", "False")
    assert uids(await world.pods("m")) == uids(before)
    assert all(map(pod_ready, await world.pods("m")))

    world.edit("a")
    await world.ready("m", "late")
    assert uids(await world.pods("m")) == uids(before)


async def test_a_node_is_lost_and_comes_back(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="30Gi"))
    await world.ready("m")
    before = await world.pods("m")
    await world.fleet(group("b"))
    await world.cluster.lose_node(world.node("a"))

    async def elsewhere() -> None:
        pod = lone(await world.pods("m"))
        assert gpus_of(pod) == [world.gpu("b")]
        assert pod_ready(pod)

    await world.eventually(elsewhere, within=90)
    await world.ready("m")
    assert parse_bytes((await gpu_status(world))["claimed"]) == 30 * GIB  # nobody has seen its end
    await world.apply(model("late", claim="5Gi"))
    await world.ready("late")
    (late,) = await world.pods("late")
    assert gpus_of(late) == [world.gpu("b")]

    await world.cluster.return_node(world.node("a"))

    async def gone() -> None:
        assert not uids(await world.pods("m", all_of_them=True)) & uids(before)
        assert parse_bytes((await gpu_status(world)).get("claimed", "0")) == 0

    await world.eventually(gone)


async def test_a_node_whose_agent_is_silent_keeps_what_it_has_and_takes_no_more(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m"))
    await world.ready("m")
    await world.apply(model("large", claim="40Gi"))
    await world.waiting("large", "InsufficientGPUMemory")
    before = await world.pods("m")
    world.edit("a", silent=True)

    async def noticed() -> None:
        await expire(world, "a")
        await told("large")

    async def told(name: str) -> Manifest:
        found = await world.get("ModelDeployment", name)
        entry = lone(found["status"].get("waiting", ()))
        assert (entry["reason"], entry["rejected"]) == ("AgentSilent", {"AgentSilent": 1})
        return found

    await world.eventually(noticed)
    await world.apply(model("late"))  # for which there is room
    found = await world.eventually(lambda: told("late"))
    assert condition(found, "Scheduled")["reason"] == "AgentSilent"
    words = "ruled out: 1 GPU on a node whose agent has been silent for a minute (AgentSilent)"
    assert words in condition(found, "Scheduled")["message"]
    assert condition(found, "Stalled").get("status", "False") == "False"
    assert "schedulingGates" in lone(await world.pods("late"))["spec"]
    # The node itself is well, and so is what runs there.
    await world.ready("m")
    assert uids(await world.pods("m")) == uids(before)
    assert (await gpu_status(world))["claims"]

    world.edit("a")
    await world.ready("m", "late")
    assert uids(await world.pods("m")) == uids(before)
    await world.waiting("large", "InsufficientGPUMemory")


async def expire(world: World, node: str) -> None:
    """Lets the Lease of a silent agent end now, not after a minute. To be repeated: a last renewal may be under way."""
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{RELEASE}/leases/{names.AGENT_LEASE_PREFIX}{world.node(node)}"
    await world.kube.merge_patch(lease, {"spec": {"leaseDurationSeconds": 1}}, field_manager="kubectl")


async def test_a_deleted_pod_is_placed_again(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="30Gi"))
    await world.ready("m")
    (pod,) = await world.pods("m")
    await world.delete("Pod", pod["metadata"]["name"])
    await replaced(world, pod)


async def test_an_evicted_pod_is_placed_again(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="30Gi"))
    await world.ready("m")
    (pod,) = await world.pods("m")
    name = pod["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}

    async def evicted() -> None:
        await world.kube.create(f"{world.path('Pod', name)}/eviction", eviction)

    await world.eventually(evicted)  # the budget counts ready pods a moment later than we do
    await replaced(world, pod)


async def test_a_failed_pod_that_stays_as_an_object_holds_no_gpu(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m", claim="30Gi"))
    await world.ready("m")
    (pod,) = await world.pods("m")
    failed = {"status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}}
    await world.patch("Pod", pod["metadata"]["name"], failed, subresource="status")
    await replaced(world, pod)
    (left,) = (each for each in await world.pods("m", all_of_them=True) if ended(each))
    assert uids([left]) == uids([pod])


async def replaced(world: World, old: Manifest) -> None:
    async def by_another() -> None:
        pod = lone(await world.pods("m"))
        assert uids([pod]) != uids([old])
        assert pod_ready(pod)
        assert gpus_of(pod) == gpus_of(old)

    await world.eventually(by_another)
    await world.ready("m")


async def cordon(world: World, on: bool) -> None:
    await world.kubectl("cordon" if on else "uncordon", world.node("a"))


async def taint(world: World, on: bool) -> None:
    await world.kubectl("taint", "node", world.node("a"), "maintenance=now:NoSchedule" if on else "maintenance-")


async def cordon_gpu(world: World, on: bool) -> None:
    spec = {"spec": {"gpus": [{"uuid": world.gpu("a"), "cordoned": True}] if on else []}}
    await world.patch("GPUNode", world.node("a"), spec)


async def reserve(world: World, on: bool) -> None:
    spec = {"spec": {"gpus": [{"uuid": world.gpu("a"), "reserve": "40Gi"}] if on else []}}
    await world.patch("GPUNode", world.node("a"), spec)


async def fail_gpu(world: World, on: bool) -> None:
    world.edit("a", **({"failed": [{"gpu": 0, "xid": 79}]} if on else {}))

    async def failed() -> None:
        assert (await gpu_status(world)).get("health") == ("Unhealthy" if on else "Healthy")

    await world.eventually(failed)


@pytest.mark.parametrize("take_out", [cordon, taint, cordon_gpu, reserve, fail_gpu])
async def test_what_is_taken_out_of_service_keeps_what_it_has_and_takes_no_more(
    world: World, take_out: Callable[[World, bool], Awaitable[None]]
) -> None:
    await world.fleet(group("a"))
    await world.apply(model("m"))
    await world.ready("m")
    before = await world.pods("m")
    await take_out(world, True)
    await world.apply(model("late"))

    async def told() -> None:
        entry = lone((await world.get("ModelDeployment", "late"))["status"].get("waiting", ()))
        assert sum(entry["rejected"].values()) == 1

    await world.eventually(told)
    await world.ready("m")
    assert uids(await world.pods("m")) == uids(before)
    await take_out(world, False)
    await world.ready("m", "late")


async def test_a_pod_that_the_scheduler_refuses_is_packed_elsewhere(world: World) -> None:
    """Inter-pod rules are the scheduler's own: a node where such a rule forbids the pod looks free to the packer."""
    await world.fleet(group("a"))
    blocker = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "blocker", "labels": {"app": "blocker"}},
        "spec": {
            "nodeName": world.node("a"),
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "blocker:1"}],
        },
    }
    await world.apply(blocker)
    term = {"labelSelector": {"matchLabels": {"app": "blocker"}}, "topologyKey": "kubernetes.io/hostname"}
    avoid = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    await world.apply(model("m", podTemplate=overlay(affinity=avoid)))

    async def refused() -> Manifest:
        pod = lone(await world.pods("m"))
        assert gpus_of(pod) == [world.gpu("a")]
        assert condition(pod, "PodScheduled").get("reason") == "Unschedulable"
        return pod

    first = await world.eventually(refused)
    await world.fleet(group("b"))
    await world.ready("m")
    (pod,) = await world.pods("m")
    assert uids([pod]) != uids([first])
    assert pod["spec"]["nodeName"] == world.node("b")
    assert names.CLAIM in pod["metadata"]["annotations"]


async def test_cpu_that_others_took_is_no_room(world: World) -> None:
    await world.fleet(group("a", cpu="4"))
    hungry = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hungry"},
        "spec": {
            "nodeName": world.node("a"),
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "hungry:1", "resources": {"requests": {"cpu": "3"}}}],
        },
    }
    await world.apply(hungry)

    async def seen() -> None:
        assert (await world.get("GPUNode", world.node("a")))["status"]["node"]["cpu"] == "1"

    await world.eventually(seen)
    await world.apply(model("m"))
    await world.waiting("m", "InsufficientCPU")
    await world.delete("Pod", "hungry")
    await world.ready("m")
