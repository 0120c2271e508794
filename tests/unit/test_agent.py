"""What an agent reads off a node and what it says of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from vrampack.agent.fleet import parse_fleet
from vrampack.agent.pods import Pod, decode_nodes, decode_pods, free_for_vrampack
from vrampack.agent.reading import NodeReading, Stuck
from vrampack.agent.report import LeaseTerms, Reporter
from vrampack.agent.simulated import read_node, use_of
from vrampack.agent.status import conditions_of, status_of
from vrampack.api import names
from vrampack.errors import NotFoundError
from vrampack.units import GIB

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
FLEET = parse_fleet("nodes: [{name: n, product: L4, gpus: 2, foreign: [{gpu: 1, memory: 2Gi}]}]\nloading: {seconds: 4}")
(SIMULATED,) = FLEET.expand()
FIRST, SECOND = (gpu.uuid for gpu in SIMULATED.gpus)
META = {"name": "n", "uid": "uid", "resourceVersion": "41"}
ALLOCATABLE = {"cpu": "8", "memory": "32Gi", "pods": "10"}
(NODE,) = decode_nodes(msgspec.json.encode({"items": [{"metadata": META, "status": {"allocatable": ALLOCATABLE}}]}))


def pod(
    uid: str = "one",
    *,
    age: float = 60,
    ready: bool = True,
    phase: str = "Running",
    state: str = "running",
    **spec: Any,
) -> Pod:
    """A pod of vrampack with 10 GiB on the first GPU."""
    body = {
        "metadata": META
        | {
            "uid": uid,
            "labels": {names.MODEL_DEPLOYMENT: "llama"},
            "annotations": {names.GPUS: FIRST, names.CLAIM: "10Gi"},
        },
        "spec": {"nodeName": "n", **spec},
        "status": {
            "phase": phase,
            "startTime": (NOW - timedelta(seconds=age)).isoformat(),
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"state": {state: {}}}],
        },
    }
    (decoded,) = decode_pods(msgspec.json.encode({"items": [body]}))
    return decoded


def asks(cpu: str, memory: str, restart: str = "") -> dict[str, Any]:
    """A container with these requests."""
    return {"resources": {"requests": {"cpu": cpu, "memory": memory}}, "restartPolicy": restart}


SIDECAR = asks("1", "1Gi", "Always")


def use(one: Pod) -> float:
    return use_of(one, loading_seconds=4, now=NOW) / (10 * GIB)


def altered(one: Pod, **metadata: Any) -> Pod:
    return msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, **metadata))


def read(*pods: Pod) -> NodeReading:
    return read_node(fleet=FLEET, simulated=SIMULATED, node=NODE, pods=pods, now=NOW)


class TestUse:
    def test_a_ready_pod_uses_most_of_its_claim_and_always_the_same(self) -> None:
        shares = [use(pod(f"uid-{number}")) for number in range(50)]
        assert all(0.95 <= share < 0.97 for share in shares)
        assert len(set(shares)) == 50
        assert use(pod("uid-7")) == shares[7]

    def test_it_grows_while_the_pod_loads(self) -> None:
        full = use(pod())
        loading = [use(pod(ready=False, age=age)) / full for age in (0, 1, 2, 3, 4, 60)]
        assert loading == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])

    @pytest.mark.parametrize("state", ["waiting", "terminated"])
    def test_a_crashed_pod_uses_nothing(self, state: str) -> None:
        assert use(pod(state=state, ready=False)) == 0

    def test_nor_does_one_of_somebody_else_whatever_it_carries(self) -> None:
        assert use(altered(pod(), labels={})) == 0

    @pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed"])
    def test_nor_does_one_that_does_not_run(self, phase: str) -> None:
        assert use(pod(phase=phase)) == 0


class TestReading:
    def test_each_process_is_on_the_gpu_that_its_pod_was_given(self) -> None:
        reading = read(pod("b"), pod("a"))
        assert [use.uid for use in reading.gpus[0].processes] == ["a", "b"]
        assert reading.gpus[1].processes == ()
        assert reading.gpus[1].used == 2 * GIB

    def test_the_order_of_the_list_changes_nothing(self) -> None:
        assert read(pod("a"), pod("b")) == read(pod("b"), pod("a"))

    @pytest.mark.parametrize("claim", ["", "much"])
    def test_a_claim_that_can_not_be_read_is_none(self, claim: str) -> None:
        one = altered(pod(), annotations={names.GPUS: FIRST, names.CLAIM: claim})
        assert read(one).gpus[0].processes == ()


class TestFree:
    """What is left of a node for vrampack: everything but what others ask for."""

    @pytest.mark.parametrize(
        ("spec", "cpu", "memory"),
        [
            ({"containers": [asks("1", "2Gi"), asks("500m", "1Gi")]}, 1500, 3),
            ({"containers": [asks("1", "2Gi")], "initContainers": [asks("3", "1Gi")]}, 3000, 2),
            (
                {"containers": [asks("1", "2Gi")], "initContainers": [asks("1", "1Gi", "Always"), asks("1", "9Gi")]},
                2000,
                10,
            ),
            ({"containers": [asks("1", "2Gi")], "overhead": {"cpu": "250m", "memory": "1Gi"}}, 1250, 3),
            ({"containers": [asks("1", "2Gi")], "resources": {"requests": {"cpu": "4", "memory": "8Gi"}}}, 4000, 8),
            ({"containers": [{}]}, 0, 0),
        ],
        ids=["sum", "init", "sidecar", "overhead", "pod level", "nothing asked"],
    )
    def test_pods_of_others_count_as_the_scheduler_counts_them(
        self, spec: dict[str, Any], cpu: int, memory: int
    ) -> None:
        other = altered(pod(**spec), labels={})
        assert free_for_vrampack(NODE, [other]) == (8000 - cpu, (32 - memory) * GIB, 9)

    def test_pods_of_vrampack_do_not_count(self) -> None:
        assert free_for_vrampack(NODE, [pod(containers=[asks("1", "2Gi")])]) == (8000, 32 * GIB, 10)

    def test_a_round_number_of_pods_is_written_as_a_quantity(self) -> None:
        allocatable = ALLOCATABLE | {"pods": "1k"}
        (found,) = decode_nodes(
            msgspec.json.encode({"items": [{"metadata": META, "status": {"allocatable": allocatable}}]})
        )
        assert free_for_vrampack(found, []) == (8000, 32 * GIB, 1000)

    def test_an_overcommitted_node_has_nothing_rather_than_less(self) -> None:
        other = altered(pod(containers=[asks("9", "33Gi")]), labels={})
        assert free_for_vrampack(NODE, [other] * 11) == (0, 0, 0)


class TestStatus:
    def test_what_the_agent_says(self) -> None:
        reading = read(pod("a"))
        conditions = conditions_of(reading, before={}, now="2026-01-01T12:00:00Z")
        status = status_of(reading, conditions=conditions.values(), now="2026-01-01T12:00:00Z").wire()
        used = status["gpus"][0]["used"]
        assert status["gpus"][0] == {
            "uuid": FIRST,
            "index": 0,
            "product": "NVIDIA-L4",
            "total": "23034Mi",
            "memory": "22558Mi",
            "reservedByDriver": "476Mi",
            "used": used,
            "processes": [{"podUID": "a", "bytes": used}],
            "foreign": [],
            "health": "Healthy",
        }
        assert status["gpus"][1]["foreign"] == [{"name": "foreign", "bytes": "2Gi"}]
        assert status["node"] == {"cpu": "8", "memory": "32Gi", "pods": 10}
        assert status["injectionStyle"] == "CDIRuntime"
        assert status["summary"]["healthy"] == "2/2"
        assert {entry["type"]: entry["status"] for entry in status["conditions"]} == {
            "Reporting": "True",
            "Healthy": "True",
        }

    def test_what_is_wrong_with_many_is_said_in_bounds(self) -> None:
        gpus = [replace(read().gpus[0], index=index, product=f"NVIDIA-{index:056}", xid=79) for index in range(64)]
        stuck = [
            Stuck(pod=f"llama-{index}", uid=f"uid-{index}", gpu=0, bytes=GIB, pids=tuple(range(64)))
            for index in range(110)
        ]
        reading = replace(read(), gpus=tuple(gpus), stuck=tuple(stuck), mismatches=())
        conditions = conditions_of(reading, before={}, now="2026-01-01T12:00:00Z")
        assert all(len(each.message) <= 2048 for each in conditions.values())
        assert conditions["Released"].message.startswith("pod llama-0 (UID uid-0) is gone")
        assert conditions["Healthy"].message.endswith("…")
        status = status_of(reading, conditions=conditions.values(), now="2026-01-01T12:00:00Z")
        assert status.summary is not None
        assert status.summary.product is not None
        assert len(status.summary.product) == 256

    def test_a_condition_keeps_the_time_of_its_last_change(self) -> None:
        sick = parse_fleet("nodes: [{name: n, product: L4, failed: [{gpu: 0}]}]")
        (simulated,) = sick.expand()
        bad = read_node(fleet=sick, simulated=simulated, node=NODE, pods=[], now=NOW)
        first = conditions_of(read(), before={}, now="2026-01-01T12:00:00Z")
        second = conditions_of(bad, before=first, now="2026-01-01T13:00:00Z")
        assert second["Reporting"].last_transition_time == "2026-01-01T12:00:00Z"
        assert second["Healthy"].last_transition_time == "2026-01-01T13:00:00Z"
        assert second["Healthy"].reason == "GPUFailed"
        assert f"GPU 0 ({FIRST}) failed with XID 79" in second["Healthy"].message


class Recorder:
    """Keeps what is applied, and answers as the API server does: one UID for each object's life."""

    def __init__(self) -> None:
        self.applied: list[tuple[str, dict[str, Any]]] = []
        self.life = 1
        self.gone = False
        self.status: dict[str, Any] = {}

    async def apply(self, path: str, body: dict[str, Any], *, field_manager: str) -> dict[str, Any]:
        assert field_manager == names.AGENT_MANAGER
        if self.gone and path.endswith("/status"):
            self.gone = False
            raise NotFoundError(path, status=404)
        self.applied.append((path, body))
        self.status |= body.get("status", {})
        return {"metadata": {"uid": f"life-{self.life}"}, "status": self.status}

    @property
    def paths(self) -> list[str]:
        paths = [path.rsplit("/gpunodes/", 1)[-1].rsplit("/leases/", 1)[-1] for path, _ in self.applied]
        self.applied.clear()
        return paths


class TestReporter:
    @pytest.fixture
    def kube(self) -> Recorder:
        return Recorder()

    @pytest.fixture
    def reporter(self, kube: Recorder) -> Reporter:
        return Reporter(kube=kube, node="n", node_uid="uid", namespace="system", terms=LeaseTerms())

    async def test_the_first_report_makes_the_object_and_the_second_writes_nothing(
        self, kube: Recorder, reporter: Reporter
    ) -> None:
        await reporter.report(read())
        assert kube.applied[0][1]["metadata"]["ownerReferences"][0] == {
            "apiVersion": "v1",
            "kind": "Node",
            "name": "n",
            "uid": "uid",
        }
        assert kube.paths == ["n", "n/status"]
        await reporter.report(read())
        assert kube.paths == []
        await reporter.report(read(pod()))
        assert kube.paths == ["n/status"]

    async def test_a_lease_that_shows_that_the_agent_is_alive(self, kube: Recorder, reporter: Reporter) -> None:
        await reporter.renew()
        path, lease = kube.applied[-1]
        assert path == "/apis/coordination.k8s.io/v1/namespaces/system/leases/vrampack-agent-n"
        assert lease["spec"]["leaseDurationSeconds"] == 60
        renewed = datetime.fromisoformat(lease["spec"]["renewTime"])
        assert abs((datetime.now(UTC) - renewed).total_seconds()) < 60

    async def test_an_object_that_was_made_again_gets_the_whole_report(
        self, kube: Recorder, reporter: Reporter
    ) -> None:
        await reporter.renew()
        await reporter.report(read())
        await reporter.renew()
        await reporter.report(read())
        assert kube.paths == ["n", "vrampack-agent-n", "n/status", "n", "vrampack-agent-n"]
        kube.life = 2
        await reporter.renew()
        await reporter.report(read())
        assert kube.paths == ["n", "vrampack-agent-n", "n/status"]

    async def test_a_status_of_before_is_written_over_when_the_store_was_restored(
        self, kube: Recorder, reporter: Reporter
    ) -> None:
        await reporter.renew()
        await reporter.report(read())
        kube.status = {"observedAt": "2026-01-01T12:00:00Z"}
        assert not reporter.wrote("2026-01-01T12:00:00Z")
        await reporter.report(read())
        assert kube.paths == ["n", "vrampack-agent-n", "n/status"]
        await reporter.renew()
        await reporter.report(read())
        assert kube.paths == ["n", "vrampack-agent-n", "n/status"]
        assert reporter.wrote(kube.status["observedAt"])

    async def test_an_object_that_went_away_is_made_again(self, kube: Recorder, reporter: Reporter) -> None:
        await reporter.report(read())
        kube.gone = True
        with pytest.raises(NotFoundError):
            await reporter.report(read(pod()))
        kube.life = 2
        await reporter.report(read(pod()))
        assert kube.paths == ["n", "n/status", "n", "n/status"]
