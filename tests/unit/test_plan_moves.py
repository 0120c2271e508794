"""Moves: when one begins, how it is carried out pass by pass, and what ends it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.planning_world import (
    NOW,
    STARTED,
    Json,
    children,
    decide,
    gpu,
    gpu_node,
    model,
    of_kind,
    placed,
    pod,
    pool,
    status_of,
    told,
    where,
    world,
)
from vrampack.packing.problem import Packing, Unplaced
from vrampack.planning.actions import PatchChild, Plan
from vrampack.planning.rehearsal import rehearse
from vrampack.planning.seeking import find, further
from vrampack.planning.snapshot import Held, Memory, PodView, PoolView, Snapshot
from vrampack.planning.verdict import Settings
from vrampack.planning.whole import proven

SMALL = model("small", per_gpu="20Gi")
OTHER = model("other", per_gpu="20Gi")
LARGE = model("large", per_gpu="70Gi")
FLEET = (gpu_node("n1", gpu()), gpu_node("n2", gpu("GPU-2")))
"""Two nodes with one GPU of 80 GiB each."""
PODS = (
    placed("small-0", of="small", created=STARTED),
    placed("other-0", of="other", on="GPU-2", node="n2", created=STARTED),
)
"""Each of them is half empty, and neither has room for the large one."""


def policy(mode: str = "Evict", status: Json | None = None, **limits: int) -> PoolView:
    return pool(startup="Parallel", moves={"mode": mode, **limits}, status=status or {})


def spread_out(
    *pods: PodView, mode: str = "Evict", models: Sequence[Any] = (SMALL, OTHER), limits: Json | None = None
) -> Snapshot:
    return world(*models, pods=(*PODS, *pods), gpu_nodes=FLEET, pools=(policy(mode, **(limits or {})),))


def found(snapshot: Snapshot) -> Snapshot:
    """With what the loop would have found beside the passes by the next one."""
    answers = {name: find(question) for name, (question, _) in decide(snapshot).questions.items()}
    return replace(snapshot, memory=replace(snapshot.memory, findings=answers))


def entries(plan: Plan) -> list[Json]:
    listed: list[Json] = status_of(plan, "default", kind="GPUPool")["moves"]
    return listed


def begun(snapshot: Snapshot) -> tuple[Snapshot, Json]:
    """One pass further: a move was written down."""
    decided = decide(found(snapshot))
    (entry,) = entries(decided)
    return told(snapshot, decided), entry


def replicas(plan: Plan, name: str) -> list[int]:
    return [each.patch["spec"]["replicas"] for each in of_kind(plan, PatchChild) if each.name == name]


def test_in_mode_suggest_moves_are_told_and_none_is_made() -> None:
    snapshot = found(spread_out(mode="Suggest"))
    decided = decide(snapshot)
    status = status_of(decided, "default", kind="GPUPool")
    (move,) = status["suggestedMoves"]
    assert {move["fromNode"], move["toNode"]} == {"n1", "n2"}
    assert (move["gain"], move["cost"]) == ("80Gi", "20Gi")
    assert status["moves"] == []
    assert decided.evictions == ()
    assert decide(told(snapshot, decided)).statuses == (), "the same findings are no news"


def test_in_mode_never_nothing_is_looked_for() -> None:
    status = status_of(decide(found(spread_out(mode="Never"))), "default", kind="GPUPool")
    assert status["suggestedMoves"] == []


def test_for_even_headroom_no_gpu_is_emptied_but_room_is_made() -> None:
    even = pool(startup="Parallel", objective="Balanced")
    assert (
        status_of(decide(found(replace(spread_out(), pools=(even,)))), "default", kind="GPUPool")["suggestedMoves"]
        == []
    )
    (move,) = status_of(decide(found(replace(blocked(), pools=(even,)))), "default", kind="GPUPool")["suggestedMoves"]
    assert move["because"] == "room for serving/large-0"


def test_what_was_found_for_another_snapshot_is_dropped() -> None:
    snapshot = found(spread_out())
    changed = replace(snapshot, gpu_nodes=(*FLEET, gpu_node("n3", gpu("GPU-3"))), nodes=snapshot.nodes)
    status = status_of(decide(changed), "default", kind="GPUPool")
    assert status["moves"] == []
    assert "suggestedMoves" not in status


def test_a_move_is_written_down_before_anything_is_done_about_it() -> None:
    decided = decide(found(spread_out()))
    (entry,) = entries(decided)
    assert entry["outcome"] == "Moving"
    assert datetime.fromisoformat(entry["startedAt"]) == datetime.fromtimestamp(NOW, UTC)
    assert decided.evictions == ()
    assert of_kind(decided, PatchChild) == []


def moved(snapshot: Snapshot, entry: Json, **fields: Any) -> Snapshot:
    """The new replica has its place."""
    name = entry["model"]
    new = placed(f"{name}-1", of=name, on=entry["toGpus"][0], node=entry["toNode"], created=NOW, **fields)
    return replace(snapshot, pods=(*snapshot.pods, new))


def test_it_is_carried_out_by_one_replica_more_whose_place_is_kept() -> None:
    snapshot, entry = begun(spread_out())
    mover = entry["model"]
    decided = decide(snapshot)
    assert replicas(decided, mover) == [2]
    assert decided.evictions == ()

    # Whoever comes meanwhile does not get the new place, though it comes first by size.
    late = model("late", per_gpu="50Gi")
    greedy = pod("late-0", of="late", need="50Gi")
    snapshot = told(snapshot, decided)
    crowded = replace(
        snapshot,
        models=(late, *snapshot.models),
        pods=(greedy, *snapshot.pods),
        children=(*snapshot.children, *children(late)),
        replica_sets=world(late, SMALL, OTHER).replica_sets,
    )
    (free,) = {"GPU-1", "GPU-2"} - set(entry["toGpus"])
    assert where(decide(crowded)) == {"late-0": (free,)}

    gated = pod(f"{mover}-1", of=mover)
    assert where(decide(replace(snapshot, pods=(gated, *snapshot.pods)))) == {f"{mover}-1": tuple(entry["toGpus"])}


def test_the_old_one_goes_only_when_the_new_one_is_ready_and_the_model_is_ready_all_along() -> None:
    snapshot, entry = begun(spread_out())
    mover = entry["model"]
    snapshot = told(snapshot, decide(snapshot))
    starting = decide(moved(snapshot, entry, ready=False))
    assert starting.evictions == ()
    ready = moved(snapshot, entry)
    decided = decide(ready)
    ((old,),) = (each.pods for each in decided.evictions)
    assert old.name == entry["pod"]
    assert decided.evictions[0].reason == "Moved"
    for each in (starting, decided):
        changed = {write.name: write.status for write in each.statuses}
        if mover in changed:
            assert changed[mover]["summary"]["ready"] == "1/1"

    leaving = tuple(replace(each, deleting=each.name == entry["pod"]) for each in ready.pods)
    after = decide(replace(ready, pods=leaving))
    assert replicas(after, mover) == [1]
    assert [each["outcome"] for each in entries(after)] == ["Done"]
    assert after.evictions == ()


def test_the_pod_that_takes_the_evicted_ones_place_for_a_moment_gets_no_gpu() -> None:
    snapshot, entry = begun(spread_out())
    mover = entry["model"]
    ready = moved(told(snapshot, decide(snapshot)), entry)
    third = pod(f"{mover}-2", of=mover)
    leaving = tuple(replace(each, deleting=each.name == entry["pod"]) for each in ready.pods)
    decided = decide(replace(ready, pods=(*leaving, third)))
    assert where(decided) == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"failure": "CrashLoopBackOff", "ready": False}, "CrashLoopBackOff"),
        ({"restarts": 1, "ready": False}, "started again"),
    ],
)
def test_a_new_replica_that_fails_ends_the_move_and_the_old_one_stays(changes: Json, says: str) -> None:
    snapshot, entry = begun(spread_out())
    before = told(snapshot, decide(snapshot))
    failing = moved(before, entry, **changes)
    decided = decide(failing)
    assert [each.pod.name for each in decided.deletions] == [f"{entry['model']}-1"]
    assert replicas(decided, entry["model"]) == [], "else Kubernetes would choose which of the two goes"
    assert decided.evictions == ()

    gone = decide(replace(told(failing, decided), pods=before.pods))
    (after,) = entries(gone)
    assert (after["outcome"], says in after["message"]) == ("Failed", True)
    assert replicas(gone, entry["model"]) == [1]
    assert (gone.evictions, gone.deletions) == ((), ())


def test_a_place_that_nobody_claims_is_given_up_after_a_while() -> None:
    snapshot, _ = begun(spread_out())
    late = replace(told(snapshot, decide(snapshot)), now=NOW + 121)
    assert [each["outcome"] for each in entries(decide(late))] == ["Failed"]


def test_a_budget_that_holds_the_old_one_again_and_again_ends_the_move() -> None:
    snapshot, entry = begun(spread_out())
    ready = moved(told(snapshot, decide(snapshot)), entry)
    uid = f"uid-{entry['pod']}"
    once = replace(ready.memory, held={uid: Held(until=NOW + 2, message="one too many")})
    decided = decide(replace(ready, memory=once))
    assert (decided.evictions, decided.wake_at) == ((), NOW + 2)
    often = replace(ready.memory, held={uid: Held(until=NOW - 1, message="one too many", times=5)})
    decided = decide(replace(ready, memory=often))
    assert [each.pod.name for each in decided.deletions] == [f"{entry['model']}-1"]
    gone = replace(told(ready, decided), pods=snapshot.pods)
    (after,) = entries(decide(gone))
    assert (after["outcome"], "one too many" in after["message"]) == ("Failed", True)


def test_switching_moves_off_ends_the_one_under_way() -> None:
    snapshot, entry = begun(spread_out())
    off = replace(snapshot, pools=tuple(replace(each, spec=policy("Suggest").spec) for each in snapshot.pools))
    decided = decide(off)
    assert [each["outcome"] for each in entries(decided)] == ["Failed"]
    assert replicas(decided, entry["model"]) == []


def past(count: int, *, outcome: str = "Done", seconds: float = 60, **fields: Any) -> list[Json]:
    at = datetime.fromtimestamp(NOW - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entry = {
        "namespace": "serving",
        "model": "x",
        "pod": "x-0",
        "fromNode": "n1",
        "toNode": "n2",
        "toGpus": ["GPU-9"],
        "outcome": outcome,
        "startedAt": at,
    }
    return [entry | {"uid": f"past-{number}"} | fields for number in range(count)]


@pytest.mark.parametrize(
    ("listed", "begins"),
    [
        (past(2), True),
        (past(3), False),
        (past(3, seconds=3700), True),
        (past(2) + past(1, startedAt="not a time"), False),
    ],
    ids=["one is left", "all were made", "an hour ago", "when, nobody knows"],
)
def test_never_more_in_an_hour_than_there_may_be(listed: list[Json], begins: bool) -> None:
    snapshot = spread_out(limits={"perHour": 3})
    snapshot = replace(snapshot, pools=tuple(replace(each, status={"moves": listed}) for each in snapshot.pools))
    decided = decide(found(snapshot))
    assert any(each["outcome"] == "Moving" for each in entries(decided)) is begins


def test_what_failed_is_not_tried_again_in_this_hour() -> None:
    snapshot, entry = begun(spread_out())
    failed = entry | {"outcome": "Failed"}
    snapshot = replace(snapshot, pools=tuple(replace(each, status={"moves": [failed]}) for each in snapshot.pools))
    decided = decide(found(snapshot))
    assert all(each["uid"] != entry["uid"] for each in entries(decided) if each["outcome"] == "Moving")


def blocked() -> Snapshot:
    return spread_out(pod("large-0", of="large", need="70Gi"), models=(SMALL, OTHER, LARGE))


def test_moves_make_room_for_one_that_is_blocked_and_the_room_is_kept_for_it() -> None:
    snapshot = blocked()
    decided = decide(found(snapshot))
    (entry,) = entries(decided)
    assert entry["because"] == "room for serving/large-0"
    (nomination,) = status_of(decided, "large")["nominations"]
    assert nomination["gpus"] == entry["fromGpus"]
    assert [each["uid"] for each in nomination["moves"]] == [entry["uid"]]
    snapshot = told(snapshot, decided)
    (waiting,) = status_of(decide(snapshot), "large")["waiting"]
    assert waiting["reason"] == "RoomBeingFreed"

    # The old one is gone: the large one gets the room, whoever else came meanwhile.
    ready = moved(told(snapshot, decide(snapshot)), entry)
    tiny = pod("tiny-0", of="tiny", need="20Gi", created=NOW - 999)
    gone = replace(
        ready,
        models=(*ready.models, model("tiny", per_gpu="20Gi")),
        pods=(*(each for each in ready.pods if each.uid != entry["uid"]), tiny),
        children=(*ready.children, *children(model("tiny", per_gpu="20Gi"))),
        replica_sets=world(SMALL, OTHER, LARGE, model("tiny")).replica_sets,
    )
    assert where(decide(gone))["large-0"] == tuple(entry["fromGpus"])


def test_no_more_moves_for_one_replica_than_there_may_be() -> None:
    """Two would have to go for it."""
    crowd = (
        placed("small-0", of="small", created=STARTED),
        placed("third-0", of="third", created=STARTED),
        placed("other-0", of="other", on="GPU-2", node="n2", created=STARTED),
        placed("fourth-0", of="fourth", on="GPU-2", node="n2", created=STARTED),
    )
    models = (SMALL, model("third", per_gpu="20Gi"), OTHER, model("fourth", per_gpu="20Gi"), LARGE)
    waits = pod("large-0", of="large", need="70Gi")

    def first(limit: int) -> list[str]:
        snapshot = world(*models, pods=(*crowd, waits), gpu_nodes=FLEET, pools=(policy(perPlacement=limit),))
        return [each["because"] for each in entries(decide(found(snapshot)))]

    assert first(2) == ["room for serving/large-0"]
    assert "room for serving/large-0" not in first(1)


@pytest.mark.parametrize("mode", ["Evict", "Suggest"])
def test_a_rehearsal_makes_the_moves_too(mode: str) -> None:
    end = rehearse(
        spread_out(pod("large-0", of="large", need="70Gi"), mode=mode, models=(SMALL, OTHER, LARGE)),
        Settings(),
        priorities={},
    )
    assert end.settled
    ready = {each.name: each.status["summary"]["ready"] for each in end.snapshot.models}
    assert ready == {"small": "1/1", "other": "1/1", "large": "1/1" if mode == "Evict" else "0/1"}
    assert [each.reason for each in end.evicted] == (["Moved"] if mode == "Evict" else [])


def test_what_is_proven_is_told_with_the_work_that_it_took() -> None:
    snapshot = spread_out(mode="Suggest")
    ((question, chunks),) = decide(snapshot).questions.values()
    assert chunks == 1
    answer = further(find(question))
    known = replace(snapshot, memory=Memory(started=STARTED, findings={"default": answer}))
    bound = status_of(decide(known), "default", kind="GPUPool")["bound"]
    assert (bound["leastMemory"], bound["usedMemory"], bound["distance"]) == ("80Gi", "160Gi", "100.0%")
    assert bound["explanation"].startswith("2 GPUs with 160.00 GiB, within 100.0% of the least memory that is possible")
    assert bound["work"]


def test_nothing_is_proven_of_a_pool_by_a_bound_of_packings_that_place_more() -> None:
    ((question, _),) = decide(spread_out(mode="Suggest")).questions.values()
    bound = further(find(question)).bound
    assert bound is not None
    (first, *rest) = question.whole.packing.placed
    left = Packing(placed=tuple(rest), unplaced=(Unplaced(item=first.item, rejected={}, closest=None),))
    assert "within" in proven(question.whole, bound)
    assert proven(replace(question.whole, packing=left), bound).endswith("nothing proven")
