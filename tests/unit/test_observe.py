"""From the API server's lists to a snapshot."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from vrampack.api import names
from vrampack.api.gpupool import GPUPoolSpec
from vrampack.errors import ClusterError, RestoredError, UnavailableError
from vrampack.kube.observe import Observer
from vrampack.planning.snapshot import Claim, Memory, PodView, Snapshot

PODS = "/api/v1/pods"
MODELS = "/apis/vrampack.dev/v1alpha1/modeldeployments"
POOLS = "/apis/vrampack.dev/v1alpha1/gpupools"
GPU_NODES = "/apis/vrampack.dev/v1alpha1/gpunodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/vrampack-system/leases"
SERVICES = "/api/v1/services"

NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
SPEC = {"model": {"source": "hf://org/model"}, "serving": {"contextLength": 8192, "concurrency": 16}}


class FakeKube:
    """Answers each list with what is in it, in pages of two, and with an error where it was given one."""

    def __init__(self, lists: Mapping[str, list[Any]]) -> None:
        self.lists = dict(lists)
        self.version = 50
        self.errors: dict[str, list[ClusterError]] = {}
        self.asked: list[tuple[str, dict[str, object]]] = []

    async def list_raw(self, path: str, **query: object) -> bytes:
        self.asked.append((path, query))
        start = int(str(query["continue"] or 0))
        if start and self.errors.get(path):
            raise self.errors[path].pop()
        items = self.lists.get(path, [])
        following = str(start + 2) if start + 2 < len(items) else ""
        about = {"continue": following, "resourceVersion": str(self.version)}
        return json.dumps({"metadata": about, "items": items[start : start + 2]}).encode()


class Session:
    """An observer with its API server and its clocks."""

    def __init__(self, lists: Mapping[str, list[Any]], *, mirror: Any = None) -> None:
        self.kube = FakeKube(lists)
        self.clock = 1000.0
        self.now = NOW
        self.observer = Observer(
            self.kube,  # type: ignore[arg-type]
            namespace="vrampack-system",
            lease_clock=lambda: self.clock,
            mirror=mirror,
        )

    async def observe(self, *, since: int | None = None) -> Snapshot:
        return await self.observer.observe(now=self.now, memory=Memory(started=0.0), resolutions={}, since=since)

    async def alive(self, *, after: float) -> bool:
        self.clock += after
        self.now += after
        [node] = (await self.observe()).gpu_nodes
        return node.agent_alive


async def observe(lists: Mapping[str, list[Any]]) -> Snapshot:
    return await Session(lists).observe()


def meta(name: str = "llama-1", **fields: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "serving", "uid": f"uid-{name}", "resourceVersion": "41", **fields}


def pod(name: str = "llama-1", *, spec: Any = None, status: Any = None, **metadata: Any) -> dict[str, Any]:
    labels = {names.MODEL_DEPLOYMENT: "llama"}
    return {"metadata": meta(name, labels=labels, **metadata), "spec": spec or {}, "status": status or {}}


async def view(**fields: Any) -> PodView:
    [one] = (await observe({PODS: [pod(**fields)]})).pods
    return one


# --- pods -----------------------------------------------------------------------------------------------------------


async def test_a_gated_pod() -> None:
    owners = [{"uid": "uid-other"}, {"uid": "uid-rs", "controller": True}]
    gates = [{"name": "example.com/quota"}, {"name": names.GATE}]

    one = await view(
        ownerReferences=owners,
        creationTimestamp="2026-01-01T00:00:05Z",
        annotations={names.NEED: "{}"},
        spec={"schedulingGates": gates, "priority": 7, "runtimeClassName": "nvidia"},
        status={"phase": "Pending"},
    )

    assert (one.namespace, one.name, one.uid, one.resource_version) == ("serving", "llama-1", "uid-llama-1", "41")
    assert (one.model, one.owner_uid, one.created, one.phase) == ("llama", "uid-rs", NOW + 5, "Pending")
    assert (one.gated, one.gates, one.annotated, one.need) == (True, ("example.com/quota", names.GATE), True, "{}")
    assert (one.priority, one.runtime_class, one.claim) == (7, "nvidia", None)


@pytest.mark.parametrize(
    ("policy", "preempts"), [({}, True), ({"preemptionPolicy": "PreemptLowerPriority"}, True), (None, False)]
)
async def test_whether_a_pod_may_preempt(policy: dict[str, str] | None, preempts: bool) -> None:
    spec = {"preemptionPolicy": "Never"} if policy is None else policy
    assert (await view(spec=spec)).preempts is preempts


@pytest.mark.parametrize(
    ("annotations", "claim"),
    [
        ((("GPU-1,GPU-2"), "1024", "7"), Claim(gpus=("GPU-1", "GPU-2"), bytes=1024, epoch=7)),
        (("", "1024", "7"), None),
        (("GPU-1", "1Gi", "7"), None),
        (("GPU-1", "-1", "7"), None),
        (("GPU-1", "1024", ""), None),
    ],
    ids=["whole", "no GPU", "no bytes", "negative", "no epoch"],
)
async def test_a_claim_and_one_of_which_only_the_gpus_can_be_read(
    annotations: tuple[str, str, str], claim: Claim | None
) -> None:
    values = dict(zip((names.GPUS, names.CLAIM, names.EPOCH), annotations, strict=True))

    one = await view(annotations=values)

    assert one.claim == claim
    assert one.obscure == (("GPU-1",) if claim is None and values[names.GPUS] else ())


async def test_requests_count_as_the_scheduler_counts_them() -> None:
    def asks(cpu: str, memory: str, **fields: str) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu, "memory": memory}}, **fields}

    one = await view(
        spec={
            "initContainers": [asks("250m", "1Gi", restartPolicy="Always"), asks("8", "1Gi")],
            "containers": [asks("2", "20Gi"), {}],
            "overhead": {"memory": "1Mi"},
        }
    )

    assert (one.cpu, one.memory) == (8250, 21 * 2**30 + 2**20)


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available",
}


async def test_a_pod_that_the_scheduler_refuses() -> None:
    assert (await view(status={"conditions": [UNSCHEDULABLE]})).refused == "0/3 nodes are available"


async def test_a_gated_pod_is_not_refused() -> None:
    assert (await view(status={"conditions": [{**UNSCHEDULABLE, "reason": "SchedulingGated"}]})).refused == ""


async def test_a_crashing_engine() -> None:
    crashed = {"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    starting = {"restartCount": 1, "state": {"waiting": {"reason": "PodInitializing"}}}

    one = await view(status={"containerStatuses": [starting, crashed]})

    assert (one.failure, one.restarts, one.ready) == ("CrashLoopBackOff", 4, False)


PROBED = {"name": names.ENGINE_CONTAINER, "startupProbe": {"httpGet": {"path": "/health", "port": "http"}}}
SIDECAR = {"name": "metrics", "startupProbe": {}}


@pytest.mark.parametrize(
    ("containers", "running", "started"),
    [
        pytest.param([SIDECAR, PROBED], {"metrics": True, "engine": False}, False, id="its startup probe fails yet"),
        pytest.param([SIDECAR, PROBED], {"metrics": False, "engine": True}, True, id="its startup probe has passed"),
        pytest.param([{"name": "engine"}], {"engine": True}, False, id="without the probe nobody knows"),
        pytest.param([PROBED], {}, False, id="it does not run yet"),
    ],
)
async def test_an_engine_that_got_through_its_start(
    containers: list[dict[str, Any]], running: dict[str, bool], started: bool
) -> None:
    statuses = [{"name": name, "started": passed} for name, passed in running.items()]

    one = await view(spec={"containers": containers}, status={"containerStatuses": statuses})

    assert (one.started, one.ready) == (started, False)


CLAIMED = {names.GPUS: "GPU-1", names.CLAIM: "5", names.EPOCH: "1"}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"spec": {"containers": "none"}}, id="a spec of another shape"),
        pytest.param({"creationTimestamp": "yesterday"}, id="a time that is none"),
        pytest.param({"ownerReferences": [3]}, id="an owner that is none"),
        pytest.param({"annotations": CLAIMED | {"size": 3}}, id="an annotation that is no text"),
        pytest.param({"resourceVersion": None}, id="no version"),
        pytest.param({"uid": 3}, id="a UID that is no text"),
    ],
)
async def test_a_pod_that_can_not_be_read_in_whole_keeps_its_claim(damage: dict[str, Any]) -> None:
    one = await view(**({"annotations": CLAIMED} | damage))

    assert (one.namespace, one.name) == ("serving", "llama-1")
    assert one.claim == Claim(gpus=("GPU-1",), bytes=5, epoch=1)
    assert int(one.resource_version) >= 0


async def test_an_object_that_can_not_be_read_hides_no_other() -> None:
    pods = [pod("b"), {"metadata": [3]}, pod("a")]

    assert [one.name for one in (await observe({PODS: pods})).pods] == ["a", "b"]


# --- lists ----------------------------------------------------------------------------------------------------------


async def test_lists_are_consistent_reads_of_what_is_ours() -> None:
    session = Session({})

    await session.observe()

    selectors = {path: query["labelSelector"] for path, query in session.kube.asked}
    assert selectors[PODS] == names.MODEL_DEPLOYMENT
    assert selectors[SERVICES] == f"{names.MANAGED_BY}={names.MANAGER},{names.MODEL_DEPLOYMENT}"
    assert not any("resourceVersion" in query for _, query in session.kube.asked)


async def test_what_was_parsed_is_forgotten_when_the_store_was_restored() -> None:
    def stored(concurrency: int) -> dict[str, Any]:
        serving = SPEC["serving"] | {"concurrency": concurrency}
        return {"metadata": meta("llama", generation=4), "spec": SPEC | {"serving": serving}}

    session = Session({MODELS: [stored(16)]})
    session.kube.version = 1200
    await session.observe()
    session.kube.version, session.kube.lists[MODELS] = 900, [stored(32)]  # written anew after the backup was read

    with pytest.raises(RestoredError, match="version 900 after 1200"):
        await session.observe()
    [found] = (await session.observe()).models

    assert found.spec is not None
    assert found.spec.serving.concurrency == 32


class Mirror:
    """Knows of nothing beyond ``version``."""

    def __init__(self, *pods: PodView, version: int) -> None:
        self.pods = pods
        self.version = version

    async def read(self, *, since: int) -> tuple[PodView, ...] | None:
        return self.pods if since <= self.version else None


@pytest.mark.parametrize(
    ("since", "seen"),
    [(50, ["mirrored"]), (51, ["listed"]), (None, ["listed"])],
    ids=["new enough", "the watch is not that far", "nobody knows what is new enough"],
)
async def test_pods_come_from_the_mirror_only_where_it_is_new_enough(since: int | None, seen: list[str]) -> None:
    session = Session({PODS: [pod("listed")]}, mirror=Mirror(await view(name="mirrored"), version=50))

    found = await session.observe(since=since)

    assert [one.name for one in found.pods] == seen
    assert (PODS in [path for path, _ in session.kube.asked]) == (seen == ["listed"])


async def test_a_list_that_expires_between_two_pages_is_read_again() -> None:
    session = Session({PODS: [pod(str(number)) for number in range(5)]})
    session.kube.errors[PODS] = [ClusterError("expired", status=410)]

    assert [one.name for one in (await session.observe()).pods] == list("01234")


async def test_without_one_list_there_is_no_snapshot() -> None:
    session = Session({PODS: [pod(str(number)) for number in range(5)]})
    session.kube.errors[PODS] = [UnavailableError("no answer")]

    with pytest.raises(UnavailableError, match="no answer"):
        await session.observe()


# --- vrampack's own kinds -------------------------------------------------------------------------------------------


def model(spec: Any, **metadata: Any) -> dict[str, Any]:
    return {"metadata": meta("llama", generation=2, **metadata), "spec": spec, "status": {"replicas": 1}}


async def test_a_model() -> None:
    [one] = (await observe({MODELS: [model(SPEC, annotations={names.REFRESH: "now"})]})).models

    assert (one.key, one.generation, one.refresh, one.status) == ("serving/llama", 2, "now", {"replicas": 1})
    assert one.spec is not None
    assert (one.spec.serving.concurrency, one.raw_spec, one.problem) == (16, SPEC, "")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            SPEC | {"serving": {"contextLength": 8192, "concurrency": 0}},
            "spec.serving.concurrency: Input should be greater than or equal to 1, got 0",
        ),
        (SPEC | {"serving": {"contextLength": 8192}}, "spec.serving.concurrency: Field required"),
        (
            SPEC | {"placement": {"gpuProducts": [3]}},
            "spec.placement.gpuProducts[0]: Input should be a valid string, got 3",
        ),
    ],
    ids=["out of bounds", "missing", "in a list"],
)
async def test_a_spec_that_can_not_be_read_names_the_field(spec: Any, problem: str) -> None:
    [one] = (await observe({MODELS: [model(spec)]})).models

    assert (one.spec, one.problem) == (None, problem)


async def test_a_spec_is_parsed_once_for_each_generation() -> None:
    session = Session({MODELS: [model(SPEC)]})
    [first] = (await session.observe()).models
    [second] = (await session.observe()).models
    session.kube.lists[MODELS] = [model(SPEC) | {"metadata": meta("llama", generation=3)}]
    [third] = (await session.observe()).models

    assert second.spec is first.spec
    assert third.spec is not first.spec


async def test_the_default_pool_is_there_without_an_object() -> None:
    assert [(pool.name, pool.generation, pool.spec) for pool in (await observe({})).pools] == [
        ("default", 0, GPUPoolSpec())
    ]


async def test_the_default_pool_is_the_object_where_there_is_one() -> None:
    pools = [{"metadata": meta(name, generation=4), "spec": {}} for name in ("zoo", "default")]

    assert [(pool.name, pool.generation) for pool in (await observe({POOLS: pools})).pools] == [
        ("default", 4),
        ("zoo", 4),
    ]


@pytest.mark.parametrize(
    ("spec", "selector", "problem"),
    [
        ({"nodeSelector": {"team": "a"}, "startup": "Lazy"}, {"team": "a"}, "spec.startup"),
        ({"nodeSelector": ["team"]}, {}, "spec.nodeSelector"),
        ({"nodeSelector": {"team": 1}, "startup": "Lazy"}, {}, "spec.nodeSelector.team"),
    ],
    ids=["its nodes are known", "its nodes are not known", "neither"],
)
async def test_a_pool_that_can_not_be_read_keeps_its_nodes(
    spec: dict[str, Any], selector: dict[str, str], problem: str
) -> None:
    pool = (await observe({POOLS: [{"metadata": meta("lab", generation=4), "spec": spec}]})).pools[1]

    assert (pool.name, pool.generation, pool.spec) == ("lab", 4, GPUPoolSpec(node_selector=selector))
    assert pool.problem.startswith(problem)


async def test_a_child_is_what_was_read_without_its_managers() -> None:
    service = {"metadata": meta("llama", managedFields=[{"manager": "x"}]), "spec": {"clusterIP": "10.0.0.1"}}

    [child] = (await observe({SERVICES: [service]})).children

    assert (child.kind, child.name, child.resource_version) == ("Service", "llama", "41")
    assert child.object == {"metadata": meta("llama"), "spec": {"clusterIP": "10.0.0.1"}}


# --- agents ---------------------------------------------------------------------------------------------------------


def lease(renewed: str) -> dict[str, Any]:
    return {
        "metadata": meta(f"{names.AGENT_LEASE_PREFIX}gpu-1"),
        "spec": {"leaseDurationSeconds": 60, "renewTime": renewed},
    }


@pytest.fixture
def agent() -> Callable[..., Session]:
    def session(*leases: dict[str, Any]) -> Session:
        return Session({GPU_NODES: [{"metadata": meta("gpu-1")}], LEASES: list(leases)})

    return session


async def test_without_a_lease_no_agent_is_alive(agent: Callable[..., Session]) -> None:
    assert not await agent().alive(after=0)


async def test_at_first_sight_the_time_of_the_lease_is_believed(agent: Callable[..., Session]) -> None:
    assert not await agent(lease("2025-12-31T23:58:59.000000Z")).alive(after=0)
    session = agent(lease("2025-12-31T23:59:30.000000Z"))
    assert [await session.alive(after=after) for after in (0, 29, 2)] == [True, True, False]


async def test_then_only_a_change_counts_whatever_the_agents_clock_says(agent: Callable[..., Session]) -> None:
    session = agent(lease("2026-01-01T05:00:00.000000Z"))
    assert [await session.alive(after=after) for after in (0, 59, 2)] == [True, True, False]

    session.kube.lists[LEASES] = [lease("2026-01-01T05:00:20.000000Z")]
    assert [await session.alive(after=after) for after in (0, 59, 2)] == [True, True, False]
