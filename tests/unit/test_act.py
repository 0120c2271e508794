"""What the operator sends to the API server for a plan, and what it makes of the answers."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.unit.test_claimpatch import pod
from vrampack.api import names
from vrampack.errors import ClusterError, ConflictError, DisruptionError, NotFoundError, UnavailableError
from vrampack.kube.act import Actor
from vrampack.kube.outcome import InterruptedActError, Outcome
from vrampack.planning.actions import (
    ApplyChild,
    CreateChild,
    DeleteChild,
    DeletePod,
    EvictPods,
    PatchChild,
    PlacePod,
    Plan,
    Tell,
    WriteStatus,
)

POD = "/api/v1/namespaces/serving/pods/llama-1"
DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "serving", "name": "llama"}}
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "serving", "name": "llama"}}
DEPLOYMENTS = "/apis/apps/v1/namespaces/serving/deployments"
SERVICES = "/api/v1/namespaces/serving/services"


class FakeKube:
    """Notes each write; answers by path with the errors that it was given."""

    def __init__(self, answers: Mapping[str, ClusterError]) -> None:
        self.writes: list[tuple[str, str, dict[str, Any]]] = []
        self.most = 0
        self._answers = answers
        self._now = 0

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        async def write(path: str, body: Any = None, **options: Any) -> dict[str, Any]:
            self._now += 1
            self.most = max(self.most, self._now)
            await asyncio.sleep(0)
            self._now -= 1
            self.writes.append((verb, path, {"body": body, **options}))
            if path in self._answers:
                raise self._answers[path]
            return {"metadata": {"resourceVersion": str(40 + len(self.writes))}}

        return write

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _ in self.writes]


class Session:
    """An actor that leads with epoch 7, and its API server."""

    def __init__(self, answers: Mapping[str, ClusterError] | None = None) -> None:
        self.kube = FakeKube(answers or {})
        self.epoch: int | None = 7
        self.settled = True
        self.time = 0.0
        self.actor = Actor(
            self.kube,  # type: ignore[arg-type]
            epoch=lambda: self.epoch,
            settled=lambda: self.settled,
            clock=lambda: self.time,
            in_flight=4,
        )

    async def act(self, **plan: Any) -> Outcome:
        return await self.actor.act(Plan(**plan))


def place(name: str = "llama-1") -> PlacePod:
    return PlacePod(pod=pod(name=name), node="gpu-1", gpus=("GPU-1",), annotations={names.GPUS: "GPU-1"})


def delete() -> DeletePod:
    return DeletePod(pod=pod(), model="serving/llama", node="gpu-1", reason="Refused", message="no CPU")


def status(kind: str = "ModelDeployment", namespace: str = "serving", name: str = "llama") -> WriteStatus:
    return WriteStatus(kind=kind, namespace=namespace, name=name, resource_version="5", status={"replicas": 1})


def tell(message: str = "placed on gpu-1") -> Tell:
    return Tell(
        kind="ModelDeployment",
        namespace="serving",
        name="llama",
        uid="uid-llama",
        type="Normal",
        reason="Placed",
        message=message,
    )


def create(manifest: dict[str, Any]) -> CreateChild:
    return CreateChild(model="serving/llama", manifest=manifest)


async def test_kinds_of_writes_follow_one_another_in_the_plans_order() -> None:
    session = Session()

    outcome = await session.act(
        placements=(place(),),
        children=(create(SERVICE),),
        deletions=(delete(),),
        statuses=(status(),),
        events=(tell(),),
    )

    assert session.kube.paths == [
        POD,
        SERVICES,
        POD,
        "/apis/vrampack.dev/v1alpha1/namespaces/serving/modeldeployments/llama/status",
        "/apis/events.k8s.io/v1/namespaces/serving/events",
    ]
    assert (outcome.placed, outcome.deleted) == ((place(),), (delete(),))


async def test_a_claim_carries_the_epoch_of_the_moment_that_it_is_sent() -> None:
    session = Session()
    session.epoch = 9

    await session.act(placements=(place(),))

    [(verb, _, sent)] = session.kube.writes
    assert (verb, sent["field_manager"]) == ("json_patch", names.PLACEMENT_MANAGER)
    assert {"op": "add", "path": "/metadata/annotations/vrampack.dev~1epoch", "value": "9"} in sent["body"]


async def test_an_outcome_says_how_new_pods_must_be_to_show_its_claims() -> None:
    outcome = await Session().act(placements=(place("llama-1"), place("llama-2")), children=(create(SERVICE),))

    assert outcome.newest == 42  # of the second write; the third is no pod's


@pytest.mark.parametrize(("epoch", "settled"), [(None, True), (7, False)], ids=["not leading", "fence not in force"])
async def test_no_claim_without_the_lease_and_its_fence(epoch: int | None, settled: bool) -> None:
    session = Session()
    session.epoch, session.settled = epoch, settled

    assert (await session.act(placements=(place(),))).dropped == 1
    assert not session.kube.writes


async def test_nothing_at_all_is_written_after_the_lease_is_lost() -> None:
    session = Session()
    session.epoch = None

    outcome = await session.act(children=(create(SERVICE),), deletions=(delete(),), statuses=(status(),))

    assert outcome == Outcome(dropped=3)
    assert not session.kube.writes


async def test_as_many_claims_at_once_as_allowed() -> None:
    session = Session()

    outcome = await session.act(placements=tuple(place(f"llama-{number}") for number in range(20)))

    assert (len(outcome.placed), session.kube.most) == (20, 4)


@pytest.mark.parametrize(
    "answer",
    [
        ConflictError("stale", status=409),
        NotFoundError("gone", status=404),
    ],
    ids=["changed meanwhile", "gone meanwhile"],
)
async def test_a_claim_that_comes_too_late_is_a_conflict(answer: ClusterError) -> None:
    assert await Session({POD: answer}).act(placements=(place(),)) == Outcome(conflicts=1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ClusterError(f"PATCH {POD}: 403 epoch 8 is in force", status=403), {"uid-1": "epoch 8 is in force"}),
        (ClusterError(f"PATCH {POD}: 422 invalid", status=422), {"uid-1": "invalid"}),
        (ClusterError(f"PATCH {POD}: 500 failed calling webhook", status=500), {"uid-1": "failed calling webhook"}),
    ],
    ids=["fenced", "invalid", "a webhook is down"],
)
async def test_a_claim_that_is_refused_is_told_in_the_api_servers_words_and_holds_up_nothing(
    answer: ClusterError, expected: dict[str, str]
) -> None:
    session = Session({POD: answer})

    outcome = await session.act(placements=(place(), place("llama-2")), statuses=(status(),))

    assert outcome == Outcome(placed=(place("llama-2"),), refused=expected)
    assert session.kube.paths[-1].endswith("/status")


async def test_a_pod_without_the_gate_is_refused_before_it_is_sent() -> None:
    session = Session()
    ungated = PlacePod(pod=pod(gates=()), node="gpu-1", gpus=("GPU-1",), annotations={})

    outcome = await session.act(placements=(ungated,))

    assert names.GATE in outcome.refused["uid-1"]
    assert not session.kube.writes


async def test_without_an_answer_the_others_of_the_kind_end_and_the_next_kind_does_not_begin() -> None:
    session = Session({POD: UnavailableError("no answer")})

    with pytest.raises(InterruptedActError, match="no answer") as caught:
        await session.act(placements=(place(), place("llama-2")), statuses=(status(),))

    assert caught.value.outcome.placed == (place("llama-2"),)
    assert len(session.kube.writes) == 2


async def test_children_are_created_by_post_and_a_name_that_is_taken_is_told() -> None:
    taken = ConflictError('POST …: 409 services "llama" already exists', status=409)

    outcome = await Session({SERVICES: taken}).act(children=(create(SERVICE), create(DEPLOYMENT)))

    assert outcome == Outcome(name_conflicts=frozenset({("serving/llama", "Service", "llama")}))


async def test_another_409_is_no_taken_name() -> None:
    quota = ConflictError("Operation cannot be fulfilled on resourcequotas: modified", status=409)

    assert await Session({SERVICES: quota}).act(children=(create(SERVICE),)) == Outcome(conflicts=1)


async def test_a_refused_child_is_told_in_the_api_servers_words_and_holds_up_no_other() -> None:
    session = Session({SERVICES: ClusterError(f"POST {SERVICES}: 403 exceeded quota: services", status=403)})

    outcome = await session.act(children=(create(SERVICE), create(DEPLOYMENT)))

    assert outcome.child_errors == {"serving/llama": "Service llama is refused: exceeded quota: services"}
    assert session.kube.paths == [SERVICES, DEPLOYMENTS]


async def test_a_child_that_nothing_refers_to_goes_as_it_was_read() -> None:
    session = Session()
    gone = DeleteChild(
        model="serving/llama",
        kind="ResourceClaimTemplate",
        namespace="serving",
        name="llama-gpu-1",
        uid="u1",
        resource_version="9",
    )

    await session.act(children=(gone,))

    path = "/apis/resource.k8s.io/v1/namespaces/serving/resourceclaimtemplates/llama-gpu-1"
    assert session.kube.writes == [("delete", path, {"body": None, "uid": "u1", "resource_version": "9"})]


async def test_children_are_changed_only_at_the_version_that_was_read() -> None:
    session = Session()
    apply = ApplyChild(model="serving/llama", manifest=DEPLOYMENT, resource_version="5")
    patch = PatchChild(
        model="serving/llama",
        kind="Deployment",
        namespace="serving",
        name="llama",
        resource_version="6",
        patch={"spec": {"replicas": 2}},
    )

    await session.act(children=(apply, patch))

    assert session.kube.writes == [
        (
            "apply",
            f"{DEPLOYMENTS}/llama",
            {
                "body": {**DEPLOYMENT, "metadata": {**DEPLOYMENT["metadata"], "resourceVersion": "5"}},
                "field_manager": names.FIELD_MANAGER,
                "force": True,
            },
        ),
        (
            "merge_patch",
            f"{DEPLOYMENTS}/llama",
            {
                "body": {"spec": {"replicas": 2}, "metadata": {"resourceVersion": "6"}},
                "field_manager": names.FIELD_MANAGER,
            },
        ),
    ]


async def test_a_deletion_is_of_the_pod_that_was_read() -> None:
    session = Session()

    await session.act(deletions=(delete(),))

    assert session.kube.writes == [("delete", POD, {"body": None, "uid": "uid-1", "resource_version": "41"})]


@pytest.mark.parametrize(
    ("write", "metadata"),
    [
        (status(), {"name": "llama", "namespace": "serving", "resourceVersion": "5"}),
        (status("GPUNode", "", "gpu-1"), {"name": "gpu-1"}),
        (status("GPUPool", "", "default"), {"name": "default", "resourceVersion": "5"}),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
async def test_a_status_is_applied_by_its_own_manager(write: WriteStatus, metadata: dict[str, str]) -> None:
    session = Session()

    await session.act(statuses=(write,))

    [(verb, path, sent)] = session.kube.writes
    assert (verb, sent["field_manager"]) == ("apply", names.STATUS_MANAGER)
    assert path.endswith(f"/{write.name}/status")
    assert sent["body"] == {
        "apiVersion": names.API_VERSION,
        "kind": write.kind,
        "metadata": metadata,
        "status": {"replicas": 1},
    }


async def test_the_same_event_again_only_after_ten_minutes() -> None:
    session = Session()

    for session.time, message in ((0, "a"), (1, "a"), (2, "b"), (599, "a"), (601, "a")):
        await session.act(events=(tell(message),))

    assert [sent["body"]["note"] for _, _, sent in session.kube.writes] == ["a", "b", "a"]


async def test_a_refused_event_fails_nothing_and_is_told_again() -> None:
    events = "/apis/events.k8s.io/v1/namespaces/serving/events"
    session = Session({events: ClusterError("terminating", status=403)})

    outcomes = [await session.act(events=(tell(),)) for _ in range(2)]

    assert outcomes == [Outcome(errors=1)] * 2
    assert session.kube.paths == [events] * 2


def evict(*names_: str) -> EvictPods:
    return EvictPods(
        pods=tuple(pod(name=name, uid=f"uid-{name}") for name in names_),
        reason="Preempted",
        message="for serving/large-0",
        events=(tell("evicted"),),
    )


def asked(session: Session) -> list[tuple[str, bool]]:
    """Which evictions were sent, and whether only as a question."""
    return [(path.rpartition("/")[2], sent["dry_run"]) for verb, path, sent in session.kube.writes if verb == "evict"]


async def test_all_are_asked_before_one_is_evicted_and_what_happened_is_told() -> None:
    session = Session()

    outcome = await session.act(evictions=(evict("a", "b"),))

    assert asked(session) == [("a", True), ("b", True), ("a", False), ("b", False)]
    assert [sent["uid"] for _, _, sent in session.kube.writes[:4]] == ["uid-a", "uid-b", "uid-a", "uid-b"]
    assert session.kube.writes[-1][0] == "create"
    assert (outcome.evicted, outcome.held) == ((evict("a", "b"),), {})


async def test_where_a_budget_holds_one_nobody_goes() -> None:
    says = "POST /x/eviction: 429 Cannot evict pod as it would violate the pod's disruption budget."
    session = Session({"/api/v1/namespaces/serving/pods/b": DisruptionError(says, status=429)})

    outcome = await session.act(evictions=(evict("a", "b"), evict("c")), statuses=(status(),))

    assert ("a", False) not in asked(session)
    assert ("c", False) in asked(session)
    assert outcome.held == {"uid-b": "Cannot evict pod as it would violate the pod's disruption budget."}
    assert outcome.evicted == (evict("c"),)
    assert session.kube.paths[-1].endswith("/status"), "what comes after is not held up"


async def test_one_that_is_gone_already_needs_no_eviction() -> None:
    session = Session({"/api/v1/namespaces/serving/pods/a": NotFoundError("gone", status=404)})

    outcome = await session.act(evictions=(evict("a"),))

    assert (outcome.conflicts, outcome.evicted, outcome.held) == (1, (), {})


async def test_nobody_is_evicted_without_the_lease() -> None:
    session = Session()
    session.epoch = None

    outcome = await session.act(evictions=(evict("a"),))

    assert (outcome.dropped, session.kube.writes) == (1, [])


async def test_a_status_that_the_installed_definitions_refuse_holds_up_no_other_write() -> None:
    older = "/apis/vrampack.dev/v1alpha1/gpupools/older/status"
    session = Session({older: ClusterError(".status.new: field not declared in schema", status=500)})
    statuses = tuple(
        WriteStatus(kind="GPUPool", namespace="", name=name, resource_version="5", status={}) for name in ("older", "b")
    )

    outcome = await session.act(statuses=statuses, events=(tell(),))

    assert outcome == Outcome(errors=1)
    assert [path.rpartition("/")[0].rpartition("/")[2] for path in session.kube.paths[:2]] == ["older", "b"]
    assert len(session.kube.paths) == 3, "the event is told"
