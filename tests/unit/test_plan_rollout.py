"""Change without surprise: what reaches the replicas, when, and what never does."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.planning_world import (
    PARALLEL,
    Json,
    annotated,
    changed,
    children,
    condition,
    decide,
    deployment,
    estimated,
    gpu,
    gpu_node,
    gpus,
    model,
    of_kind,
    placed,
    pod,
    pool,
    profile,
    spec_hash,
    status_of,
    told,
    waiting,
    where,
    world,
)
from vrampack.api import names
from vrampack.planning.actions import ApplyChild, CreateChild, PatchChild, Plan
from vrampack.planning.need import Need
from vrampack.planning.podtemplate import template_hash
from vrampack.planning.snapshot import Memory, Snapshot

SURGE = {"maxSurge": 1, "maxUnavailable": 0}
IN_PLACE = {"maxSurge": 0, "maxUnavailable": 1}


def applied(found: Plan, kind: str = "Deployment") -> list[Json]:
    return [each.manifest for each in of_kind(found, ApplyChild) if each.manifest["kind"] == kind]


def patches(found: Plan) -> list[Json]:
    return [each.patch["spec"] for each in of_kind(found, PatchChild)]


def rolling_update(manifest: Json) -> Json:
    step: Json = manifest["spec"]["strategy"]["rollingUpdate"]
    return step


def change(*, new: str = "30Gi", old: str = "20Gi", ready: int = 1, others: str = "", **fields: Any) -> Snapshot:
    """Replicas of 20 GiB serve, and the user asks for another size. ``others``: claim of another model on the GPU."""
    replicas = max(ready, 1)
    pods = [placed(f"llama-{index}", claim=old, ready=index < ready) for index in range(replicas)]
    if others:
        pods.append(placed("other-0", of="other", claim=others))
    made = children(model(per_gpu=old, replicas=replicas, **fields))
    return world(model(per_gpu=new, replicas=replicas, **fields), model("other"), pods=pods, made=made)


# What is new.


def kinds_created(found: Plan) -> list[str]:
    return [each.manifest["kind"] for each in of_kind(found, CreateChild)]


def test_a_new_model_gets_a_deployment() -> None:
    [created] = of_kind(decide(world(model(replicas=3))), CreateChild)
    found = created.manifest
    assert found["kind"] == "Deployment"
    spec = found["spec"]
    assert spec["replicas"] == 3
    assert rolling_update(found) == SURGE
    assert spec["template"]["spec"]["schedulingGates"] == [{"name": names.GATE}]
    [owner] = found["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == ("model-llama", True)
    assert spec["progressDeadlineSeconds"] == 2**31 - 1


def test_its_service_and_budget_follow_once_the_replicas_that_have_room_are_placed() -> None:
    """None of them can be reached or disrupted before, and Kubernetes would write what it counts anew for each."""
    new = world(model(replicas=2))
    waiting = told(new, decide(new))
    assert kinds_created(decide(waiting)) == ["PodDisruptionBudget", "Service"]  # no pod yet, or none that fits
    snapshot = replace(waiting, pods=(pod("llama-0"), pod("llama-1")), pools=(PARALLEL,))
    first = decide(snapshot)
    assert where(first).keys() == {"llama-0", "llama-1"}
    assert kinds_created(first) == []
    assert kinds_created(decide(told(snapshot, first))) == ["PodDisruptionBudget", "Service"]


def test_what_is_in_force_and_intact_is_left_alone() -> None:
    snapshot = world(model(), pods=[placed()])
    settled = told(snapshot, decide(snapshot))
    assert decide(settled).children == ()


# What never reaches a template by itself.


def with_estimate(**facts: Any) -> Snapshot:
    made = children(estimated(), profiles=[profile()])
    return world(estimated(), pods=[placed()], made=made, profiles=[profile(**facts)])


def test_a_new_estimate_is_pending_until_the_user_changes_the_spec() -> None:
    snapshot = with_estimate(weight_files={"bytes": "17Gi"})
    found = decide(snapshot)
    assert not applied(found)
    estimate = status_of(found)["estimate"]
    assert estimate["pending"]["because"] == "EstimateChanged"
    assert estimate["perGPU"] != estimate["pending"]["perGPU"]


def test_a_new_headroom_of_the_pool_is_pending_too() -> None:
    snapshot = replace(with_estimate(), pools=(pool(generation=0, headroom="10%"),))
    found = decide(snapshot)
    assert not applied(found)
    assert status_of(found)["estimate"]["pending"]["because"] == "PoolChanged"


def test_asking_for_a_refresh_adopts_the_newest_estimate() -> None:
    snapshot = with_estimate(weight_files={"bytes": "17Gi"})
    asked = replace(snapshot.models[0], refresh="2027-01-01")
    [manifest] = applied(decide(replace(snapshot, models=(asked,))))
    assert '"bytes":2' in manifest["spec"]["template"]["metadata"]["annotations"][names.NEED]


def test_another_rendering_of_a_new_operator_restarts_nothing() -> None:
    snapshot = world(model(), pods=[placed()])
    made = annotated(snapshot.children, template_hash="of-an-older-version")
    live = deployment(made)
    template = live.object["spec"]["template"]
    older = template | {"spec": template["spec"] | {"terminationGracePeriodSeconds": 7}}
    made = changed(made, "Deployment", template=older)
    assert not applied(decide(replace(snapshot, children=made)))


def test_a_template_whose_need_says_nothing_of_neighbours_restarts_nothing() -> None:
    """An older version wrote it."""
    snapshot = world(model(placement={"sharing": "Exclusive"}), pods=[placed()])
    template = copy.deepcopy(deployment(snapshot.children).object["spec"]["template"])
    notes = template["metadata"]["annotations"]
    notes[names.NEED] = replace(Need.from_json(notes[names.NEED]), exclusive=None, avoid=None).to_json()
    made = changed(snapshot.children, "Deployment", template=template)
    made = annotated(made, template_hash=template_hash(template))
    assert not applied(decide(replace(snapshot, children=made)))


def test_a_template_that_somebody_edited_is_put_right() -> None:
    snapshot = world(model(), pods=[placed()])
    template = deployment(snapshot.children).object["spec"]["template"]
    made = changed(snapshot.children, "Deployment", template=template | {"spec": template["spec"] | {"containers": []}})
    [action] = of_kind(decide(replace(snapshot, children=made)), ApplyChild)[:1]
    assert action.manifest["spec"]["template"] == template
    assert action.resource_version == deployment(made).resource_version


def test_what_the_api_server_fills_in_is_no_edit() -> None:
    snapshot = world(model(), pods=[placed()])
    template = deployment(snapshot.children).object["spec"]["template"]
    filled = template | {"spec": template["spec"] | {"dnsPolicy": "ClusterFirst", "restartPolicy": "Always"}}
    assert not applied(decide(replace(snapshot, children=changed(snapshot.children, "Deployment", template=filled))))


# How a change goes out.


@pytest.mark.parametrize(
    ("snapshot", "step"),
    [
        pytest.param(change(), SURGE, id="Auto: the new one fits beside the old one"),
        pytest.param(change(others="40Gi"), None, id="Auto: it fits only when the lone one goes, so it waits"),
        pytest.param(change(others="55Gi", ready=0), IN_PLACE, id="Auto: nothing serves, so nothing is lost"),
        pytest.param(change(ready=2, others="25Gi"), IN_PLACE, id="Auto: one of two may go"),
        pytest.param(change(ready=2, others="35Gi"), None, id="Auto: not even with what an old one gives back"),
        pytest.param(change(rollout="Surge"), SURGE, id="Surge with room"),
        pytest.param(change(rollout="Surge", ready=2, others="25Gi"), None, id="Surge never goes in place"),
        pytest.param(change(rollout="InPlace"), IN_PLACE, id="InPlace even with room"),
        pytest.param(
            change(rollout="InPlace", others="40Gi"), IN_PLACE, id="InPlace of a lone replica: the user says so"
        ),
        pytest.param(change(rollout="InPlace", others="55Gi"), None, id="InPlace waits for room as well"),
        pytest.param(
            change(rollout="InPlace", placement={"sharing": "Exclusive"}),
            IN_PLACE,
            id="an exclusive one in its own place",
        ),
        pytest.param(
            change(rollout="InPlace", placement={"spread": "Require"}), IN_PLACE, id="a spread one on its own node"
        ),
    ],
)
def test_a_new_template_goes_out_only_where_a_new_replica_will_fit(snapshot: Snapshot, step: Json | None) -> None:
    found = decide(snapshot)
    assert [rolling_update(each) for each in applied(found)] == ([] if step is None else [step])
    status = status_of(found)
    if step is None:
        assert condition(status, "Reconciling")["reason"] == "WaitingForRoom"
        assert condition(status, "Ready")["status"] == "False"
        assert "30.00 GiB" in condition(status, "Ready")["message"]
        assert status["readyReplicas"] > 0


def test_a_change_that_waits_goes_out_once_there_is_room() -> None:
    full = change(others="40Gi")
    assert not applied(decide(full))
    freed = replace(full, pods=tuple(each for each in full.pods if each.model == "llama"))
    assert [rolling_update(each) for each in applied(decide(freed))] == [SURGE]


def test_two_models_do_not_surge_into_the_same_room() -> None:
    """40 GiB are free, and each of two new revisions needs 30."""
    pods = [placed("a-0", of="a"), placed("b-0", of="b")]
    made = [*children(model("a")), *children(model("b"))]
    found = decide(world(model("a", per_gpu="30Gi"), model("b", per_gpu="30Gi"), pods=pods, made=made))
    assert [each["metadata"]["name"] for each in applied(found)] == ["a"]
    assert condition(status_of(found, "b"), "Ready")["reason"] == "WaitingForRoom"


def test_a_change_that_waits_does_not_stop_scaling() -> None:
    snapshot = change(others="40Gi")
    larger = model(per_gpu="30Gi", replicas=2)
    found = decide(replace(snapshot, models=(larger, snapshot.models[1])))
    assert patches(found) == [{"replicas": 2}]


def test_a_rollout_on_its_way_surges_no_more_where_the_room_went_away() -> None:
    """The surge pod waits, and the old replicas would stay for ever: with two of them one may go first."""
    made = children(model(per_gpu="30Gi", replicas=2), rolling=True)
    pods = [
        placed("llama-0"),
        placed("llama-1"),
        placed("other-0", of="other", claim="25Gi"),
        pod("new-0", need="30Gi"),
    ]
    found = decide(world(model(per_gpu="30Gi", replicas=2), model("other"), pods=pods, made=made))
    [patch] = patches(found)
    assert patch["strategy"]["rollingUpdate"] == IN_PLACE
    assert "template" not in patch


def test_the_lone_replica_of_a_rollout_on_its_way_stays() -> None:
    made = children(model(per_gpu="30Gi"), rolling=True)
    pods = [placed("llama-0"), placed("other-0", of="other", claim="40Gi"), pod("new-0", need="30Gi")]
    found = decide(world(model(per_gpu="30Gi"), model("other"), pods=pods, made=made))
    assert patches(found) == []
    assert waiting(found)["reason"] == "InsufficientGPUMemory"
    assert condition(status_of(found), "Ready")["status"] == "False"


def way(surge: bool) -> Json:
    return {"type": "RollingUpdate", "rollingUpdate": SURGE if surge else IN_PLACE}


@pytest.mark.parametrize(
    ("fields", "ready", "rolling", "surge", "turns"),
    [
        pytest.param({}, 1, True, False, True, id="the last one serves: a new one comes first"),
        pytest.param({"rollout": "InPlace"}, 1, True, False, False, id="the user says that it may pause"),
        pytest.param({"replicas": 2}, 1, True, False, False, id="another one will serve as well"),
        pytest.param({}, 0, True, False, False, id="nothing serves, so nothing is lost"),
        pytest.param({}, 1, False, False, False, id="no rollout is under way"),
        pytest.param({}, 1, True, True, False, id="a new one comes first already"),
    ],
)
def test_a_rollout_in_place_that_is_left_with_one_replica_surges(
    fields: Json, ready: int, rolling: bool, surge: bool, turns: bool
) -> None:
    """Two were replaced in place when the user scaled down to one: in place would take the only one that serves.

    A new one of 30 GiB fits nowhere, so it is not for its room that the way is another one.
    """
    wanted = model(per_gpu="30Gi", **fields)
    made = changed(children(wanted, rolling=rolling), "Deployment", strategy=way(surge))
    pods = [placed("llama-0", ready=ready > 0), placed("other-0", of="other", claim="58Gi")]
    found = decide(world(wanted, model("other"), pods=pods, made=made))
    assert [each["strategy"] for each in patches(found) if "strategy" in each] == ([way(surge=True)] if turns else [])


@pytest.mark.parametrize(
    ("ready", "wanted", "goes"),
    [
        pytest.param(2, 2, True, id="two serve and two are wanted: one may go"),
        pytest.param(3, 2, True, id="three serve"),
        pytest.param(1, 2, False, id="two are wanted and one serves"),
        pytest.param(2, 1, False, id="two serve and one is wanted: scaling down takes one already"),
        pytest.param(1, 1, False, id="the lone one"),
        pytest.param(0, 2, True, id="none serves"),
    ],
)
def test_a_change_goes_in_place_only_beside_another_one_that_serves(ready: int, wanted: int, goes: bool) -> None:
    """A new replica fits where an old one was, and nowhere else."""
    pods = [placed(f"llama-{index}", ready=index < ready) for index in range(max(ready, 1))]
    rest = 80 - 20 * len(pods) - 20
    if rest:
        pods.append(placed("other-0", of="other", claim=f"{rest}Gi"))
    made = children(model(replicas=wanted))
    found = decide(world(model(per_gpu="30Gi", replicas=wanted), model("other"), pods=pods, made=made))
    assert [rolling_update(each) for each in applied(found)] == ([IN_PLACE] if goes else [])
    if not goes:
        assert condition(status_of(found), "Ready")["reason"] == "WaitingForRoom"


# Replicas, budget, names.


@pytest.mark.parametrize("replicas", [0, 5])
def test_scaling_patches_the_replicas_and_leaves_the_template(replicas: int) -> None:
    snapshot = world(model(), pods=[placed()])
    found = decide(replace(snapshot, models=(model(replicas=replicas),)))
    assert patches(found) == [{"replicas": replicas}]
    assert not applied(found)


def test_scaling_is_no_change_of_the_template() -> None:
    assert spec_hash(model(replicas=1)) == spec_hash(model(replicas=3)) == spec_hash(model(rollout="InPlace"))
    assert spec_hash(model()) != spec_hash(model(per_gpu="21Gi"))


@pytest.mark.parametrize(
    ("pods", "allowed"),
    [
        ([placed(f"llama-{index}") for index in range(3)], 1),
        ([placed("llama-0"), pod("llama-1", need="79Gi"), pod("llama-2", need="79Gi")], 3),
        ([placed("llama-0"), placed("llama-1", ready=False)], 2),
        ([], 4),
    ],
)
def test_replicas_without_a_gpu_never_block_a_drain(pods: list[Any], allowed: int) -> None:
    made = children(model(replicas=3))
    budget = changed(made, "PodDisruptionBudget", maxUnavailable=9)
    [manifest] = applied(decide(world(model(replicas=3), pods=pods, made=budget)), "PodDisruptionBudget")
    assert manifest["spec"]["maxUnavailable"] == allowed
    assert manifest["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_a_budget_is_written_once_the_replicas_of_its_model_are_placed() -> None:
    """Until then it changes with every pass; that of another model is not put off."""
    models = [model(replicas=2), model("other", replicas=1)]
    made = [each for one in models for each in changed(children(one), "PodDisruptionBudget", maxUnavailable=9)]
    pods = [placed(), pod("llama-1"), placed("other-0", of="other")]
    snapshot = world(*models, pods=pods, made=made, pools=[PARALLEL])
    first = decide(snapshot)
    assert where(first) == {"llama-1": ("GPU-1",)}
    assert [each["metadata"]["name"] for each in applied(first, "PodDisruptionBudget")] == ["other"]
    [budget] = applied(decide(told(snapshot, first)), "PodDisruptionBudget")
    assert (budget["metadata"]["name"], budget["spec"]["maxUnavailable"]) == ("llama", 1)


def test_a_budget_that_is_missing_where_a_replica_serves_is_made_even_so() -> None:
    made = [each for each in children(model(replicas=2)) if each.kind != "PodDisruptionBudget"]
    found = decide(world(model(replicas=2), pods=[placed("llama-0"), pod("llama-1")], made=made))
    assert where(found) == {"llama-1": ("GPU-1",)}
    assert kinds_created(found) == ["PodDisruptionBudget"]


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget"])
def test_an_object_of_the_users_with_our_name_stays_as_it_is(kind: str) -> None:
    theirs = [replace(each, owner_uid="") for each in children(model()) if each.kind == kind]
    for conflicts in (
        world(model(), made=theirs),
        world(model(), made=[], memory=Memory(started=0, conflicts=frozenset({("serving/llama", kind)}))),
    ):
        found = decide(conflicts)
        assert all(
            each.manifest["kind"] != kind for each in (*of_kind(found, CreateChild), *of_kind(found, ApplyChild))
        )
        stalled = condition(status_of(found), "Stalled")
        assert stalled["reason"] == "NameConflict"
        assert f"{kind} serving/llama" in stalled["message"]


def test_a_child_that_is_being_deleted_is_waited_for() -> None:
    snapshot = world(model(), pods=[placed()])
    going = tuple(replace(each, deleting=True) for each in snapshot.children)
    assert decide(replace(snapshot, children=going, models=(model(replicas=2),))).children == ()


def test_a_model_that_is_being_deleted_gets_nothing() -> None:
    snapshot = world(model(), pods=[pod()])
    going = replace(snapshot, models=(replace(snapshot.models[0], deleting=True),))
    found = decide(going)
    assert (found.children, where(found)) == ((), {})
    assert not [each for each in found.statuses if each.kind == "ModelDeployment"]


def test_a_larger_fleet_takes_the_surge_on_another_gpu() -> None:
    snapshot = replace(change(others="55Gi"), gpu_nodes=(gpu_node("n1", *gpus(2)),))
    assert [rolling_update(each) for each in applied(decide(snapshot))] == [SURGE]
    cordoned = (gpu_node("n1", gpu("GPU-1"), gpu("GPU-2", health="Unhealthy", index=1)),)
    assert not applied(decide(replace(snapshot, gpu_nodes=cordoned)))
