"""What the plan makes of what agents see: fences, pods without their GPUs, processes without their pods, overuse."""

from typing import Any

import pytest

from tests.unit.planning_world import (
    NOW,
    PARALLEL,
    STARTED,
    condition,
    decide,
    gpu,
    gpu_node,
    model,
    placed,
    pod,
    pool,
    status_of,
    world,
)
from vrampack.planning.actions import Plan
from vrampack.planning.reasons import Obstacle
from vrampack.planning.snapshot import Json, Memory
from vrampack.units import GIB

OTHER = {"namespace": "default", "pod": "notebook", "container": "main", "resource": "nvidia.com/gpu"}
HOLDER = OTHER | {"namespace": "vrampack-system", "pod": "holder", "reservation": True}
CLAIM = {"namespace": "serving", "pod": "gone", "uid": "uid-gone", "bytes": "60Gi"}
HELD = {"claims": [CLAIM], "processes": [{"podUID": "uid-gone", "bytes": "10Gi", "pids": [4242]}]}
BLIND = {
    "type": "Reporting",
    "status": "False",
    "reason": "NoDriver",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def rejected(found: Plan) -> dict[str, int]:
    (entry,) = status_of(found)["waiting"]
    return dict(entry["rejected"])


def of_kind(found: Plan, kind: str) -> Json:
    (write,) = (each for each in found.statuses if each.kind == kind)
    return write.status


class TestFences:
    @pytest.mark.parametrize(
        ("seen", "spec", "why"),
        [
            ({"offered": True}, {}, Obstacle.GPU_NOT_FENCED),
            ({"offered": True}, {"fencing": "Reservation"}, Obstacle.GPU_NOT_FENCED),
            ({"offered": True, "allocations": [HOLDER]}, {}, Obstacle.GPU_NOT_FENCED),
            ({"offered": True, "allocations": [HOLDER]}, {"fencing": "Reservation"}, None),
            ({"offered": True, "allocations": [HOLDER, OTHER]}, {"fencing": "Reservation"}, Obstacle.GPU_ALLOCATED),
            ({"offered": False}, {}, None),
            ({"offered": False, "allocations": [OTHER]}, {}, Obstacle.GPU_ALLOCATED),
            ({"offered": False, "allocations": [HOLDER]}, {}, None),
            ({}, {}, None),
            ({"computeMode": "ExclusiveProcess"}, {}, Obstacle.GPU_COMPUTE_MODE),
            ({"computeMode": "Default"}, {}, None),
            ({"health": "Unhealthy", "offered": True}, {}, Obstacle.GPU_UNHEALTHY),
        ],
    )
    def test_what_the_kubelet_may_hand_out_is_used_only_behind_a_fence(
        self, seen: Json, spec: dict[str, Any], why: Obstacle | None
    ) -> None:
        found = decide(
            world(
                model(), pods=[pod()], gpu_nodes=[gpu_node("n1", gpu(**seen))], pools=[pool(startup="Parallel", **spec)]
            )
        )
        assert bool(found.placements) == (why is None)
        if why is not None:
            assert rejected(found) == {why: 1}

    @pytest.mark.parametrize(
        ("seen", "spec", "reason", "words"),
        [
            ({"offered": True}, {}, "GPUsNotFenced", "nvidia.com/gpu.deploy.device-plugin=false"),
            ({"offered": True}, {"fencing": "Reservation"}, "GPUsNotFenced", "no reservation pod holds them"),
            ({"offered": False, "allocations": [OTHER]}, {}, "GPUsNotFenced", "gave them to other pods"),
            ({"offered": False}, {}, "ByNode", "hands out no GPU"),
        ],
    )
    def test_the_pool_says_what_to_do(self, seen: Json, spec: dict[str, Any], reason: str, words: str) -> None:
        found = decide(world(gpu_nodes=[gpu_node("n1", gpu(**seen))], pools=[pool(**spec)]))
        fenced = condition(of_kind(found, "GPUPool"), "Fenced")
        assert fenced["reason"] == reason
        assert words in fenced["message"]

    def test_nothing_is_said_where_no_agent_asked_a_kubelet(self) -> None:
        found = decide(world(gpu_nodes=[gpu_node("n1", gpu())], pools=[pool()]))
        assert "Fenced" not in {each["type"] for each in of_kind(found, "GPUPool")["conditions"]}


def test_a_node_whose_driver_is_away_takes_no_new_claims() -> None:
    found = decide(world(model(), pods=[pod()], gpu_nodes=[gpu_node("n1", conditions=[BLIND])], pools=[PARALLEL]))
    assert rejected(found) == {Obstacle.DRIVER_SILENT: 1}


@pytest.mark.parametrize(
    ("alive", "status", "reason"), [(True, "True", "LeaseRenewed"), (False, "False", "LeaseExpired")]
)
def test_a_node_says_whether_its_agent_is_alive(alive: bool, status: str, reason: str) -> None:
    found = decide(world(gpu_nodes=[gpu_node("n1", alive=alive)], pools=[PARALLEL]))
    said = condition(of_kind(found, "GPUNode"), "AgentAlive")
    assert (said["status"], said["reason"]) == (status, reason)


class TestRelease:
    """A claim lives until the processes of its pod are gone from the GPU."""

    def test_the_whole_claim_stays_with_the_process(self) -> None:
        found = decide(
            world(model(), pods=[pod(need="30Gi")], gpu_nodes=[gpu_node("n1", gpu(**HELD))], pools=[PARALLEL])
        )
        assert not found.placements
        assert rejected(found) == {"InsufficientGPUMemory": 1}
        (entry,) = of_kind(found, "GPUNode")["gpus"]
        assert entry["claims"] == [CLAIM]
        assert (entry["claimed"], entry["free"]) == ("60Gi", "20Gi")

    def test_also_of_a_pod_that_went_before_its_claim_was_written_here(self) -> None:
        """The node's agent had seen it on the pod."""
        process = {"podUID": "uid-gone", "bytes": "10Gi", "pod": "serving/gone", "claim": "60Gi"}
        seen = gpu_node("n1", gpu(processes=[process]))
        found = decide(world(model(), pods=[pod(need="30Gi")], gpu_nodes=[seen], pools=[PARALLEL]))
        assert not found.placements
        (entry,) = of_kind(found, "GPUNode")["gpus"]
        assert (entry["claims"], entry["claimed"]) == ([CLAIM], "60Gi")

    def test_and_ends_with_it(self) -> None:
        held = HELD | {"processes": []}
        found = decide(
            world(model(), pods=[pod(need="30Gi")], gpu_nodes=[gpu_node("n1", gpu(**held))], pools=[PARALLEL])
        )
        assert [each.gpus for each in found.placements] == [("GPU-1",)]

    def test_a_claim_that_was_never_written_there_is_remembered(self) -> None:
        memory = Memory(started=STARTED, departed=(placed("gone", claim="60Gi"),))
        view = gpu_node("n1", gpu(processes=HELD["processes"]))
        found = decide(world(model(), pods=[pod(need="30Gi")], gpu_nodes=[view], pools=[PARALLEL], memory=memory))
        assert not found.placements
        (entry,) = of_kind(found, "GPUNode")["gpus"]
        assert entry["claims"] == [CLAIM]
        unseen = world(model(), pods=[pod(need="30Gi")], pools=[PARALLEL], memory=memory)
        assert [each.gpus for each in decide(unseen).placements] == [("GPU-1",)]

    def test_a_pod_that_has_ended_holds_as_much_as_its_process(self) -> None:
        ended = placed("gone", claim="60Gi", phase="Failed")
        waiting = pod("llama-1", need="30Gi")
        found = decide(world(model(), pods=[ended, waiting], gpu_nodes=[gpu_node("n1", gpu(**HELD))], pools=[PARALLEL]))
        assert not found.placements


class TestMismatch:
    def seen(self, *uids: str, counted: tuple[str, ...] = (), **status: Any) -> Any:
        mismatches = [
            {"namespace": "serving", "pod": uid[4:], "uid": uid, "claimed": ["GPU-1"], "seen": ["GPU-1", "GPU-2"]}
            for uid in uids
        ]
        setup = "CDIRuntime, driver 580, containerd://2.1"
        failures = {"injectionFailures": {"setup": setup, "pods": list(counted)}} if counted else {}
        node = {"driver": "580", "containerRuntime": "containerd://2.1", "mismatches": mismatches}
        return gpu_node("n1", gpu("GPU-1"), gpu("GPU-2", index=1), **(node | failures | status))

    def test_it_is_counted_first_and_deleted_then(self) -> None:
        victim = placed()
        first = decide(world(model(), pods=[victim], gpu_nodes=[self.seen("uid-llama-0")], pools=[PARALLEL]))
        assert first.deletions == ()
        status = of_kind(first, "GPUNode")
        assert status["injectionFailures"]["pods"] == ["uid-llama-0"]
        assert condition(status, "InjectionBroken")["status"] == "False"
        counted = self.seen("uid-llama-0", counted=("uid-llama-0",))
        second = decide(
            world(
                model(),
                pods=[victim],
                gpu_nodes=[counted],
                pools=[PARALLEL],
                memory=Memory(started=STARTED),
            )
        )
        [deletion] = second.deletions
        assert (deletion.pod, deletion.reason) == (victim, "GPUMismatch")
        [told] = (each for each in second.events if each.reason == "GPUMismatch")
        assert "claims GPU-1, and its processes are on GPU-1, GPU-2" in told.message

    def test_one_at_a_time_on_a_node(self) -> None:
        victims = [placed("llama-0"), placed("llama-1")]
        uids = ("uid-llama-0", "uid-llama-1")
        found = decide(world(model(replicas=2), pods=victims, gpu_nodes=[self.seen(*uids, counted=uids)]))
        assert len(found.deletions) == 1
        assert found.wake_at is not None

    def test_after_two_the_node_takes_no_new_claims(self) -> None:
        counted = self.seen(counted=("uid-a", "uid-b"))
        found = decide(world(model(), pods=[pod()], gpu_nodes=[counted], pools=[PARALLEL]))
        assert rejected(found) == {Obstacle.INJECTION_BROKEN: 2}
        broken = condition(of_kind(found, "GPUNode"), "InjectionBroken")
        assert (broken["status"], broken["reason"]) == ("True", "PodsWithoutTheirGPUs")
        assert "spec.injectionStyle" in broken["message"]

    @pytest.mark.parametrize("change", [{"driver": "590"}, {"containerRuntime": "containerd://2.2"}])
    def test_another_driver_or_runtime_begins_anew(self, change: Json) -> None:
        found = decide(
            world(model(), pods=[pod()], gpu_nodes=[self.seen(counted=("uid-a", "uid-b"), **change)], pools=[PARALLEL])
        )
        assert found.placements

    def test_another_style_of_the_pool_begins_anew(self) -> None:
        found = decide(
            world(
                model(),
                pods=[pod()],
                gpu_nodes=[self.seen(counted=("uid-a", "uid-b"))],
                pools=[pool(startup="Parallel", injectionStyle="Bare")],
            )
        )
        assert found.placements


class TestBudget:
    def used(self, bytes_: str, *, over_since: float | None = None, **spec: Any) -> Plan:
        seen = gpu(processes=[{"podUID": "uid-llama-0", "bytes": bytes_}, {"podUID": "uid-other-0", "bytes": "5Gi"}])
        since = {} if over_since is None else {"uid-llama-0": over_since}
        return decide(
            world(
                model(),
                model("other"),
                pods=[placed(claim="20Gi"), placed("other-0", of="other", claim="5Gi")],
                gpu_nodes=[gpu_node("n1", seen)],
                pools=[pool(overuse=spec)],
                memory=Memory(started=STARTED, over_since=since),
            )
        )

    def status(self, found: Plan) -> Json:
        (write,) = (each for each in found.statuses if each.name == "llama")
        return condition(write.status, "WithinBudget")

    def test_both_figures_are_told_once(self) -> None:
        found = self.used("22Gi")
        said = self.status(found)
        assert (said["status"], said["reason"]) == ("False", "UseExceedsClaim")
        assert said["message"] == "pod llama-0 uses 22.00 GiB and claims 20.00 GiB"
        [told] = (each for each in found.events if each.reason == "UseExceedsClaim")
        assert (told.type, told.message) == ("Warning", said["message"])
        assert found.over_budget == {"uid-llama-0"}
        assert found.evictions == ()

    def test_the_most_that_a_start_took_is_kept(self) -> None:
        seen = gpu(processes=[{"podUID": "uid-llama-0", "bytes": "18Gi", "peak": "21Gi"}])
        found = decide(world(model(), pods=[placed(claim="20Gi")], gpu_nodes=[gpu_node("n1", seen)]))
        [placement] = status_of(found)["placements"]
        assert placement["gpus"][0] | {"uuid": "", "index": 0} == {
            "uuid": "",
            "index": 0,
            "claim": "20Gi",
            "observed": "18Gi",
            "peak": "21Gi",
        }

    @pytest.mark.parametrize(("tolerance", "over"), [("2%", False), ("1%", True)])
    def test_a_tolerance(self, tolerance: str, over: bool) -> None:
        found = self.used(str(int(20 * GIB * 1.02)), tolerance=tolerance)
        assert bool(found.over_budget) == over
        assert self.status(found)["status"] == str(not over)

    def test_the_offender_goes_where_the_pool_says_so_and_never_the_neighbour(self) -> None:
        policy = {"policy": "Evict", "seconds": 30}
        early = self.used("22Gi", over_since=NOW - 29, **policy)
        assert early.evictions == ()
        assert early.wake_at == NOW + 1
        [eviction] = self.used("22Gi", over_since=NOW - 30, **policy).evictions
        assert [each.name for each in eviction.pods] == ["llama-0"]
        assert eviction.reason == "OverBudget"
        assert {each.kind for each in eviction.events} == {"Pod", "ModelDeployment"}
