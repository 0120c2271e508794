"""From what driver and kernel say to what is reported: whose memory it is, what is wrong, what is worth a write."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from vrampack.agent.attribution import People, gpu_reading
from vrampack.agent.devices import Device, Identity, Memory, MigDevice, Process, RemappedRows, Traits
from vrampack.agent.health import FELL_OFF, OF_APPLICATIONS, Errors, Verdict, standing_errors
from vrampack.agent.metrics import AgentMetrics
from vrampack.agent.nvml import Xid
from vrampack.agent.pods import Pod, decode_pods
from vrampack.agent.processes import UNKNOWN, Owner
from vrampack.agent.reading import ForeignUse, GPUReading, NodeReading, PodUse, Silence, Stuck
from vrampack.agent.status import conditions_of, status_of
from vrampack.agent.tenants import NONE_SEEN_SECONDS, STUCK_SECONDS, Tenants
from vrampack.agent.writer import PLAIN_USE_SECONDS, worth_writing
from vrampack.api import names
from vrampack.api.gpunode import GPUNodeStatus
from vrampack.units import GIB, MIB

CONTAINER = "5e" * 32
NOW = "2026-01-01T12:00:00Z"


def pod(name: str, *, gpus: str = "GPU-0", ready: bool = True, ours: bool = True, **annotations: str) -> Pod:
    body = {
        "metadata": {
            "name": name,
            "namespace": "serving",
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "labels": {names.MODEL_DEPLOYMENT: "m"} if ours else {},
            "annotations": {names.GPUS: gpus, names.CLAIM: "10Gi"} | annotations,
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "engine", "containerID": f"containerd://{CONTAINER}"}],
        },
    }
    (decoded,) = decode_pods(msgspec.json.encode({"items": [body]}))
    return decoded


def owner(of: str) -> Owner:
    return Owner(name="python3", pod_uid=f"uid-{of}", container_id=CONTAINER)


def device(*processes: Process, used: int | None = None, **fields: Any) -> Device:
    total = sum(process.bytes or 0 for process in processes) if used is None else used
    identity = Identity(uuid="GPU-0", index=0, product="NVIDIA-L4", name="NVIDIA L4")
    usual: dict[str, Any] = {"traits": Traits(), "memory": Memory(total=24 * GIB, reserved=GIB, used=total)}
    return Device(identity=identity, processes=processes, **(usual | fields))


def read(found: Device, owners: dict[int, Owner], *pods: Pod, gone: dict[str, str] | None = None) -> GPUReading:
    ours = {each.metadata.uid: each.name for each in pods if each.managed} | (gone or {})
    people = People(owners=owners, pods={each.cgroup_uid: each for each in pods}, ours=ours)
    return gpu_reading(found, people=people, verdict=Verdict(), offered=None, allocations=None)


class TestAttribution:
    def test_a_pods_processes_are_one_use(self) -> None:
        found = read(
            device(Process(pid=2, bytes=GIB), Process(pid=1, bytes=2 * GIB)), {1: owner("a"), 2: owner("a")}, pod("a")
        )
        assert found.processes == (PodUse(uid="uid-a", bytes=3 * GIB, pids=(1, 2), container="engine"),)
        assert found.foreign == ()
        assert (found.memory, found.reserved, found.used) == (23 * GIB, GIB, 3 * GIB)

    def test_everybody_else_is_foreign_by_name(self) -> None:
        owners = {1: owner("web"), 2: Owner(name="Xorg"), 3: UNKNOWN, 4: owner("stranger")}
        found = read(device(*(Process(pid=pid, bytes=pid * GIB) for pid in owners)), owners, pod("web", ours=False))
        assert found.processes == ()
        assert [(use.name, use.pod_uid, use.bytes, use.pid) for use in found.foreign] == [
            ("Xorg", None, 2 * GIB, 2),
            ("pod uid-stranger", "uid-stranger", 4 * GIB, 4),
            ("serving/web", "uid-web", GIB, 1),
            ("unknown", None, 3 * GIB, 3),
        ]

    def test_a_pod_that_is_gone_from_the_api_server_stays_ours(self) -> None:
        found = read(device(Process(pid=1, bytes=GIB)), {1: owner("a")}, gone={"uid-a": "serving/a"})
        assert [use.uid for use in found.processes] == ["uid-a"]

    def test_a_static_pod_is_known_by_the_hash_of_its_file(self) -> None:
        mirror = pod("static", ours=False, **{"kubernetes.io/config.hash": "ab" * 16})
        found = read(device(Process(pid=1, bytes=GIB)), {1: Owner(name="x", pod_uid="ab" * 16)}, mirror)
        assert found.foreign[0].name == "serving/static"

    @pytest.mark.parametrize(
        ("sizes", "used", "held", "rest"),
        [
            ((None,), 5 * GIB, 5 * GIB, 0),  # one pod that can't be measured: all of it
            ((2 * GIB, None), 5 * GIB, 5 * GIB, 0),
            ((2 * GIB,), 5 * GIB, 2 * GIB, 3 * GIB),  # nobody it could be: foreign
            ((2 * GIB,), 2 * GIB + 60 * MIB, 2 * GIB, 0),  # the driver's own bookkeeping
        ],
    )
    def test_bytes_that_no_process_accounts_for(
        self, sizes: tuple[int | None, ...], used: int, held: int, rest: int
    ) -> None:
        processes = [Process(pid=pid, bytes=size) for pid, size in enumerate(sizes)]
        found = read(device(*processes, used=used), dict.fromkeys(range(len(sizes)), owner("a")), pod("a"))
        assert sum(use.bytes for use in found.processes) == held
        assert sum(use.bytes for use in found.foreign) == rest

    @pytest.mark.parametrize(("sizes", "peak"), [((2 * GIB,), 2 * GIB), ((2 * GIB, None), 0), ((None,), 0)])
    def test_what_others_leave_is_no_peak(self, sizes: tuple[int | None, ...], peak: int) -> None:
        """It may be a sandbox's beside the pod, and the next estimate is made from peaks."""
        processes = [Process(pid=pid, bytes=size) for pid, size in enumerate(sizes)]
        found = read(device(*processes, used=9 * GIB), dict.fromkeys(range(len(sizes)), owner("a")), pod("a"))
        tenants = Tenants()
        (use,) = tenants.remembered([found])[0].processes
        assert use.peak == peak

    def test_of_two_that_can_not_be_measured_none_is_blamed(self) -> None:
        processes = (Process(pid=1, bytes=None), Process(pid=2, bytes=None))
        found = read(device(*processes, used=5 * GIB), {1: owner("a"), 2: owner("b")}, pod("a"), pod("b"))
        assert [use.bytes for use in found.processes] == [0, 0]
        assert [(use.name, use.bytes) for use in found.foreign] == [("unattributed", 5 * GIB)]

    @given(
        st.lists(st.tuples(st.sampled_from("abcx"), st.one_of(st.none(), st.integers(0, 8 * GIB))), max_size=8),
        st.integers(0, 8 * GIB),
    )
    def test_no_byte_is_lost_and_none_is_counted_twice(self, held: list[tuple[str, int | None]], more: int) -> None:
        """Uses add up to what the driver counts, but for its bookkeeping."""
        processes = [Process(pid=pid, bytes=size) for pid, (_, size) in enumerate(held)]
        owners = {pid: Owner(name="x") if of == "x" else owner(of) for pid, (of, _) in enumerate(held)}
        used = sum(size or 0 for _, size in held) + more
        found = read(device(*processes, used=used), owners, pod("a"), pod("b"))
        total = sum(use.bytes for use in found.processes) + sum(use.bytes for use in found.foreign)
        assert used - 64 * MIB <= total <= used


class TestHealth:
    def test_errors_stay_until_the_driver_starts_anew(self) -> None:
        errors = Errors()
        errors.note([Xid(uuid="GPU-0", number=48)], ["GPU-0", "GPU-1"])
        assert errors.verdict(device()) == Verdict(fault="failed with XID 48", xid=48)
        errors.forget()
        assert errors.verdict(device()) == Verdict()

    @pytest.mark.parametrize("number", sorted(OF_APPLICATIONS))
    def test_those_of_applications_are_counted_and_no_more(self, number: int) -> None:
        errors = Errors()
        errors.note([Xid(uuid="GPU-0", number=number)] * 2, ["GPU-0"])
        assert errors.verdict(device()) == Verdict()
        assert errors.counted == {("GPU-0", number): 2}

    def test_one_of_no_gpu_in_particular_is_one_of_each(self) -> None:
        errors = Errors()
        errors.note([Xid(uuid="", number=119)], ["GPU-0", "GPU-1"])
        assert errors.latched == {"GPU-0": 119, "GPU-1": 119}

    def test_a_lost_gpu_needs_no_error(self) -> None:
        verdict = Errors().verdict(device(lost="GPU is lost"))
        assert verdict.xid == FELL_OFF
        assert "does not answer (GPU is lost)" in verdict.fault

    @pytest.mark.parametrize(("failed", "fault"), [(True, "can't be replaced"), (False, "")])
    def test_rows_without_a_spare(self, failed: bool, fault: str) -> None:
        rows = RemappedRows(corrected=0, uncorrected=1, pending=True, failed=failed)
        assert fault in Errors().verdict(device(traits=Traits(rows=rows))).fault

    @pytest.mark.parametrize(("booted", "known"), [(0.0, {"GPU-0": 48}), (2e9, {})])
    def test_what_an_earlier_agent_found_holds_until_the_node_boots(self, booted: float, known: dict[str, int]) -> None:
        former = GPUNodeStatus.model_validate(
            {
                "gpus": [
                    {"uuid": "GPU-0", "health": "Unhealthy", "xid": 48},
                    {"uuid": "GPU-1", "health": "Unhealthy", "xid": FELL_OFF},
                ],
                "conditions": [
                    {"type": "Healthy", "status": "False", "reason": "GPUFailed", "lastTransitionTime": NOW}
                ],
            }
        )
        assert standing_errors(former, booted=booted) == known


def held(*uids: str, uuid: str = "GPU-0", index: int = 0, size: int = GIB) -> GPUReading:
    uses = tuple(PodUse(uid=f"uid-{uid}", bytes=size, pids=(number,)) for number, uid in enumerate(uids))
    return GPUReading(uuid=uuid, index=index, product="L4", memory=23 * GIB, reserved=0, processes=uses)


class TestTenants:
    def test_processes_that_outlive_their_pod_are_stuck_after_a_while(self) -> None:
        tenants = Tenants()
        tenants.update([pod("a")], seen=["uid-a"], now=0)
        tenants.update([], seen=["uid-a"], now=10)
        gpus = [held("a")]
        assert tenants.names == {"uid-a": "serving/a"}
        assert tenants.stuck(gpus, now=10 + STUCK_SECONDS - 1) == ()
        (stuck,) = tenants.stuck(gpus, now=10 + STUCK_SECONDS)
        assert stuck == Stuck(pod="serving/a", uid="uid-a", gpu=0, bytes=GIB, pids=(0,))
        tenants.update([], seen=[], now=50)
        assert tenants.names == {}

    def test_a_pod_that_others_made_is_none_of_ours(self) -> None:
        tenants = Tenants()
        tenants.update([pod("a", ours=False)], seen=["uid-a"], now=0)
        assert tenants.names == {}

    def mismatches(self, one: Pod, *gpus: GPUReading, after: float = 0, sighted: bool = True) -> list[tuple[str, ...]]:
        tenants = Tenants()
        tenants.mismatches([one], gpus, sighted=sighted, now=0)
        return [each.seen for each in tenants.mismatches([one], gpus, sighted=sighted, now=after)]

    def test_a_gpu_too_many_is_wrong_at_once(self) -> None:
        second = held("a", uuid="GPU-1", index=1)
        assert self.mismatches(pod("a", ready=False), held("a"), second) == [("GPU-0", "GPU-1")]

    @pytest.mark.parametrize(
        ("after", "ready", "sighted", "wrong"),
        [
            (NONE_SEEN_SECONDS - 1, True, True, False),
            (NONE_SEEN_SECONDS, True, True, True),
            (NONE_SEEN_SECONDS, False, True, False),  # it may still load
            (NONE_SEEN_SECONDS, True, False, False),  # processes can't be told apart here
        ],
    )
    def test_none_at_all_is_wrong_once_the_engine_serves(
        self, after: float, ready: bool, sighted: bool, wrong: bool
    ) -> None:
        found = self.mismatches(pod("a", ready=ready), held(), after=after, sighted=sighted)
        assert found == ([()] if wrong else [])

    @pytest.mark.parametrize("name", ["unattributed", "unknown"])
    def test_where_a_use_is_nobodys_none_is_missed(self, name: str) -> None:
        """Behind a sandbox, or without the host's process namespace, the engine's process may just not be in view."""
        hidden = replace(held(), foreign=(ForeignUse(name=name, bytes=GIB),))
        assert self.mismatches(pod("a"), hidden, after=NONE_SEEN_SECONDS) == []

    def test_one_of_two_is_missing(self) -> None:
        both = pod("a", gpus="GPU-0,GPU-1")
        assert self.mismatches(both, held("a"), after=NONE_SEEN_SECONDS) == [("GPU-0",)]

    def test_a_pod_on_its_gpus_is_right(self) -> None:
        assert self.mismatches(pod("a"), held("a"), after=1000) == []

    def test_a_process_in_a_slice_is_seen_on_its_gpu(self) -> None:
        memory = Memory(total=9 * GIB, reserved=0, used=0)
        slices = (MigDevice(uuid="MIG-a", profile="1g.10gb", instance=7, compute=0, memory=memory),)
        assert self.mismatches(pod("a", gpus="MIG-a"), replace(held("a"), mig_devices=slices), after=1000) == []
        assert self.mismatches(pod("a", gpus="MIG-b"), replace(held("a"), mig_devices=slices)) == [("GPU-0",)]

    def test_where_another_scheduler_chose_any_gpu_of_the_node_is_right(self) -> None:
        one = pod("a", gpus="GPU-1")
        annotations = {**(one.metadata.annotations or {}), names.SCOPE: names.NODE_SCOPE}
        chosen = msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, annotations=annotations))
        assert self.mismatches(one, held("a")) == [("GPU-0",)]
        assert self.mismatches(chosen, held("a")) == []

    def test_peaks_stay_as_long_as_the_pod_has_a_process(self) -> None:
        tenants = Tenants()
        peaks = [tenants.remembered([held("a", size=size)])[0].processes[0].peak for size in (GIB, 3 * GIB, 2 * GIB)]
        assert peaks == [GIB, 3 * GIB, 3 * GIB]
        tenants.remembered([held()])
        assert tenants.remembered([held("a")])[0].processes[0].peak == GIB

    def test_a_claim_is_known_for_as_long_as_the_pod_has_a_process(self) -> None:
        tenants = Tenants()
        here = pod("a", **{names.CLAIM: "20Gi"})
        for pods in ([here], []):  # there, and gone
            tenants.update(pods, seen={"uid-a"}, now=0)
            (use,) = tenants.remembered([held("a")])[0].processes
            assert (use.pod, use.claim) == ("serving/a", 20 * GIB)
            (use,) = tenants.remembered([held("a", uuid="GPU-9")])[0].processes
            assert use.claim == 0, "of a GPU that it does not claim"
        tenants.update([], seen=set(), now=0)
        assert tenants.remembered([held("a")])[0].processes[0].claim == 0

    def test_the_next_agent_knows_names_claims_and_peaks(self) -> None:
        process = {"podUID": "uid-a", "bytes": "1Gi", "peak": "3Gi", "pod": "serving/a", "claim": "20Gi"}
        tenants = Tenants()
        tenants.adopt(GPUNodeStatus.model_validate({"gpus": [{"uuid": "GPU-0", "processes": [process]}]}))
        (use,) = tenants.remembered([held("a")])[0].processes
        assert (use.pod, use.claim, use.peak) == ("serving/a", 20 * GIB, 3 * GIB)


READING = NodeReading(
    driver="580",
    cuda="13.0",
    injection_style=None,
    gpus=(replace(held("a", size=10 * GIB), in_use=10 * GIB, foreign=(ForeignUse(name="X", bytes=GIB, pid=9),)),),
    cpu=1000,
    memory=GIB,
    pods=10,
    mismatches=(),
)


def changed(**fields: Any) -> NodeReading:
    return replace(READING, gpus=(replace(READING.gpus[0], **fields),))


def using(bytes_: int, *, pids: tuple[int, ...] = (0,)) -> NodeReading:
    return changed(processes=(PodUse(uid="uid-a", bytes=bytes_, pids=pids),), in_use=bytes_)


class TestWriter:
    @pytest.mark.parametrize(
        "reading",
        [
            using(10 * GIB, pids=(0, 1)),
            changed(processes=()),
            changed(foreign=()),
            changed(fault="failed with XID 48", xid=48),
            changed(offered=True),
            changed(mig=True),
            changed(compute_mode="Prohibited"),
            replace(READING, silence=Silence(reason="NoDriver", message="")),
            replace(READING, driver="590"),
        ],
    )
    def test_what_decides_a_placement_is_written_at_once(self, reading: NodeReading) -> None:
        assert worth_writing(reading, READING, 0.0)

    def test_room_on_the_node_is_written_now_and_then(self) -> None:
        less = replace(READING, cpu=999)
        assert not worth_writing(less, READING, PLAIN_USE_SECONDS - 0.1)
        assert worth_writing(less, READING, PLAIN_USE_SECONDS)

    @pytest.mark.parametrize(
        ("bytes_", "seconds", "worth"),
        [
            (20 * GIB, PLAIN_USE_SECONDS - 0.1, False),
            (20 * GIB, PLAIN_USE_SECONDS, True),
            (int(10 * GIB * 1.009), 3600, False),
            (int(10 * GIB * 1.011), PLAIN_USE_SECONDS, True),
            (int(10 * GIB * 0.985), PLAIN_USE_SECONDS, True),
            (10 * GIB, 3600, False),
        ],
    )
    def test_memory_that_only_moves_is_written_now_and_then(self, bytes_: int, seconds: float, worth: bool) -> None:
        assert worth_writing(using(bytes_), using(10 * GIB), seconds) == worth

    def test_a_peak_that_has_passed_is_written_too(self) -> None:
        spike = changed(processes=(PodUse(uid="uid-a", bytes=10 * GIB, peak=12 * GIB, pids=(0,)),))
        before = changed(processes=(PodUse(uid="uid-a", bytes=10 * GIB, peak=10 * GIB, pids=(0,)),))
        assert worth_writing(spike, before, PLAIN_USE_SECONDS)

    def test_the_first_is_always_written(self) -> None:
        assert worth_writing(READING, None, 0.0)

    @given(st.lists(st.integers(0, 23 * GIB), min_size=2, max_size=60))
    def test_what_stands_there_is_never_far_off_for_long(self, sizes: list[int]) -> None:
        """One reading a second: after five, what was written differs by at most a hundredth."""
        written, at = using(sizes[0]), 0
        for now, size in enumerate(sizes):
            if worth_writing(using(size), written, float(now - at)):
                assert now - at >= PLAIN_USE_SECONDS
                written, at = using(size), now
            if now - at >= PLAIN_USE_SECONDS:
                assert abs(written.gpus[0].used - size) <= 0.01 * written.gpus[0].used


class TestSaid:
    def condition(self, reading: NodeReading, type_: str) -> tuple[str, str, str]:
        found = conditions_of(reading, before={}, now=NOW)[type_]
        return found.status.value, found.reason, found.message

    def test_a_stuck_process_is_an_alarm_with_its_id(self) -> None:
        stuck = Stuck(pod="serving/a", uid="uid-a", gpu=1, bytes=20 * GIB, pids=(4242,))
        status, reason, message = self.condition(replace(READING, stuck=(stuck,)), "Released")
        assert (status, reason) == ("False", "ProcessOutlivesPod")
        assert message == "pod serving/a (UID uid-a) is gone, and process 4242 of it still holds 20.00 GiB on GPU 1"

    def test_without_a_driver_it_says_why(self) -> None:
        silence = Silence(reason="NoDriver", message="the NVIDIA driver does not answer: nvmlInit: Driver Not Loaded")
        reading = replace(READING, gpus=(), silence=silence)
        assert self.condition(reading, "Reporting") == ("False", "NoDriver", silence.message)
        assert self.condition(reading, "Healthy")[:2] == ("False", "NoDriver")
        assert status_of(reading, conditions=(), now=NOW).wire()["summary"]["healthy"] == "0/0"

    def test_a_kubelet_that_can_not_be_asked(self) -> None:
        found = self.condition(replace(READING, kubelet="kubelet.sock: refused"), "AllocationsKnown")
        assert found[:2] == ("False", "KubeletSilent")

    def test_more_foreign_uses_than_the_resource_takes_lose_no_byte(self) -> None:
        uses = tuple(ForeignUse(name=f"p{number:03}", bytes=MIB * (number + 1), pid=number) for number in range(200))
        (gpu,) = status_of(changed(foreign=uses), conditions=(), now=NOW).gpus or ()
        assert gpu.foreign is not None
        assert len(gpu.foreign) == 64
        assert gpu.foreign[-1].name == "137 others"
        assert sum(each.bytes.bytes for each in gpu.foreign) == sum(use.bytes for use in uses)


class TestMetrics:
    def test_labels_join_with_those_of_dcgm_exporter(self) -> None:
        registry = CollectorRegistry()
        metrics = AgentMetrics(node="n", clock=lambda: 0.0)
        registry.register(metrics)
        use = PodUse(uid="uid-a", bytes=GIB, peak=2 * GIB, pids=(1,), container="engine")
        reading = changed(processes=(use,), name="NVIDIA L4", in_use=3 * GIB, fault="failed", xid=48)
        metrics.show(reading, Errors(counted={("GPU-0", 31): 2}), {"uid-a": ("serving/a", 10 * GIB)})
        gpu = {"UUID": "GPU-0", "gpu": "0", "modelName": "NVIDIA L4", "Hostname": "n"}
        of_pod = gpu | {"namespace": "serving", "pod": "a", "container": "engine", "pod_uid": "uid-a"}
        expected = {
            ("vrampack_gpu_memory_usable_bytes", ()): 23 * GIB,
            ("vrampack_gpu_memory_used_bytes", ()): 3 * GIB,
            ("vrampack_gpu_memory_foreign_bytes", ()): GIB,
            ("vrampack_gpu_healthy", ()): 0,
            ("vrampack_gpu_xid_errors_total", (("xid", "31"),)): 2,
        }
        for (name, more), value in expected.items():
            assert registry.get_sample_value(name, gpu | dict(more)) == value, name
        for name, value in (("used", GIB), ("peak", 2 * GIB), ("claimed", 10 * GIB)):
            assert registry.get_sample_value(f"vrampack_pod_gpu_memory_{name}_bytes", of_pod) == value

    def test_they_fail_once_passes_have_stopped(self) -> None:
        now = [0.0]
        metrics = AgentMetrics(node="n", clock=lambda: now[0])
        metrics.passed()
        now[0] = 61.0
        with pytest.raises(RuntimeError, match="no pass has ended for 61 s"):
            list(metrics.collect())
        metrics.passed()
        assert list(metrics.collect()) == []
