"""Room by preemption: who is evicted for whom, who gets the room, and what is said meanwhile."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.unit.planning_world import (
    NOW,
    PARALLEL,
    STARTED,
    Json,
    decide,
    gpu,
    gpu_node,
    gpus,
    model,
    placed,
    pod,
    status_of,
    told,
    where,
    world,
)
from vrampack.planning.actions import Plan
from vrampack.planning.snapshot import Held, Memory, ModelView, PodView, Snapshot

LARGE = model("large", per_gpu="60Gi", priorityClassName="high")
SMALL = model("small", per_gpu="30Gi", replicas=2)
SMALL_PODS = (
    placed("small-0", of="small", claim="30Gi"),
    placed("small-1", of="small", claim="30Gi"),
)


def waits(
    name: str = "large-0", *, of: str = "large", need: str = "60Gi", priority: int = 100, **fields: object
) -> PodView:
    return pod(name, of=of, need=need, priority=priority, **fields)


def full(*pods: PodView, models: Sequence[ModelView] = (LARGE, SMALL), **others: object) -> Snapshot:
    """One GPU of 80 GiB with two replicas of 30, and whoever waits."""
    return world(*models, pods=(*pods, *SMALL_PODS), pools=(PARALLEL,), **others)  # type: ignore[arg-type]


def nominations(found: Plan, name: str = "large") -> list[Json]:
    entries: list[Json] = status_of(found, name).get("nominations", [])
    return entries


def reason(found: Plan, name: str = "large") -> str:
    entry: str = status_of(found, name)["waiting"][0]["reason"]
    return entry


def test_the_place_is_noted_before_anybody_goes() -> None:
    found = decide(full(waits()))
    (entry,) = nominations(found)
    assert (entry["pod"], entry["node"], entry["gpus"]) == ("large-0", "n1", ["GPU-1"])
    assert {each["pod"] for each in entry["evicts"]} == {"small-0", "small-1"}
    assert reason(found) == "RoomBeingFreed"
    assert found.evictions == ()


def test_what_is_noted_is_done() -> None:
    snapshot = full(waits())
    (eviction,) = decide(told(snapshot, decide(snapshot))).evictions
    assert sorted(each.name for each in eviction.pods) == ["small-0", "small-1"]
    assert {event.kind for event in eviction.events} == {"Pod", "ModelDeployment"}
    assert any("serving/large-0 of priority 100" in event.message for event in eviction.events)


@pytest.mark.parametrize(
    "large",
    [
        waits(priority=0),
        waits(priority=-5),
        waits(preempts=False),
        waits(need="79Gi", node_selector={"zone": "elsewhere"}),
    ],
    ids=["equal priority", "lower priority", "preemptionPolicy: Never", "would not help"],
)
def test_nobody_goes_for_who_may_not_or_need_not(large: PodView) -> None:
    found = decide(full(large))
    assert nominations(found) == []
    assert reason(found) != "RoomBeingFreed"


@pytest.mark.parametrize("until", [NOW + 2, NOW], ids=["not asked yet", "asked again"])
def test_nobody_goes_for_one_whose_claim_was_refused(until: float) -> None:
    """Else they would go again and again, since the room is theirs again as long as the claim is refused."""
    refused = Memory(started=STARTED, unclaimed={"uid-large-0": Held(until=until, message="a webhook is down")})
    found = decide(full(waits(), memory=refused))
    assert nominations(found) == []
    assert found.evictions == ()


def test_room_that_is_free_anyway_costs_nobody_a_place() -> None:
    found = decide(full(waits(), gpu_nodes=[gpu_node("n1", *gpus(2))]))
    assert where(found) == {"large-0": ("GPU-2",)}
    assert nominations(found) == []


def leaving(*names: str) -> tuple[PodView, ...]:
    return tuple(replace(each, deleting=each.name in names) for each in SMALL_PODS)


OTHER = model("other", per_gpu="20Gi")


def test_room_that_is_free_beside_the_victims_is_kept_too() -> None:
    """Else small replicas would take it one by one, and who caused the evictions would wait for ever."""
    snapshot = full(waits(need="70Gi"), models=(LARGE, SMALL, OTHER))
    noted = told(snapshot, decide(snapshot))
    same = waits("other-0", of="other", need="20Gi", created=NOW - 3600)
    for others in (SMALL_PODS, leaving("small-0"), leaving("small-0", "small-1")):
        found = decide(replace(noted, pods=(waits(need="70Gi"), same, *others)))
        assert where(found) == {}
    found = decide(replace(noted, pods=(waits(need="70Gi"), same)))
    assert where(found) == {"large-0": ("GPU-1",)}


def test_the_room_is_kept_until_the_processes_of_the_victims_are_gone_too() -> None:
    snapshot = full(waits(), models=(LARGE, SMALL, OTHER))
    noted = told(snapshot, decide(snapshot))
    processes = [{"podUID": each.uid, "bytes": "29Gi"} for each in SMALL_PODS]
    lingers = (gpu_node("n1", gpu(processes=processes)),)
    other = waits("other-0", of="other", need="20Gi")
    found = decide(replace(noted, gpu_nodes=lingers, pods=(waits(), other)))
    assert where(found) == {}
    assert nominations(found)
    strangers = [{"podUID": "somebody", "bytes": "29Gi"}, {"podUID": "else", "bytes": "29Gi"}]
    found = decide(replace(noted, gpu_nodes=(gpu_node("n1", gpu(processes=strangers)),), pods=(waits(), other)))
    assert where(found) == {"other-0": ("GPU-1",)}, "whoever holds that, nobody evicted it"


def test_one_of_higher_priority_takes_the_room_that_is_freed() -> None:
    urgent = model("urgent", per_gpu="70Gi")
    noted = told(full(waits(), models=(LARGE, SMALL, urgent)), decide(full(waits(), models=(LARGE, SMALL, urgent))))
    found = decide(replace(noted, pods=(waits(), waits("urgent-0", of="urgent", need="70Gi", priority=200))))
    assert where(found) == {"urgent-0": ("GPU-1",)}


def test_while_a_former_victim_leaves_nobody_else_is_evicted() -> None:
    found = decide(full(waits(), models=(LARGE, SMALL)))
    snapshot = replace(full(waits()), pods=(waits(), *leaving("small-0", "small-1")))
    assert decide(snapshot).evictions == ()
    assert found.evictions == ()
    (entry,) = nominations(decide(snapshot))
    assert entry.get("evicts", []) == []


def test_a_replica_that_finds_room_elsewhere_spares_its_victims() -> None:
    noted = told(full(waits()), decide(full(waits())))
    roomier = replace(noted, gpu_nodes=(gpu_node("n1", *gpus(2)),))
    found = decide(roomier)
    assert where(found) == {"large-0": ("GPU-2",)}
    assert found.evictions == ()
    assert nominations(found) == []


def test_whom_a_disruption_budget_holds_is_not_asked_again_at_once_and_others_are() -> None:
    held = Memory(started=STARTED, held={"uid-small-0": Held(until=NOW + 20, message="one too many")})
    found = decide(full(waits(), memory=held))
    assert nominations(found) == []
    assert found.wake_at == NOW + 20
    found = decide(full(waits(), memory=replace(held, held={"uid-small-0": Held(until=NOW - 1, message="")})))
    assert nominations(found)
    found = decide(full(waits(need="40Gi"), memory=held))
    (entry,) = nominations(found)
    assert [each["pod"] for each in entry["evicts"]] == ["small-1"]


def test_once_one_has_gone_for_it_the_others_are_waited_for() -> None:
    snapshot = full(waits())
    noted = told(snapshot, decide(snapshot))
    held = Memory(started=STARTED, held={"uid-small-1": Held(until=NOW + 20, message="one too many")})
    found = decide(replace(noted, pods=(waits(), *leaving("small-0")), memory=held))
    assert found.evictions == ()
    assert "one too many" in status_of(found, "large")["waiting"][0]["message"]
    assert nominations(found)
    later = replace(noted, pods=(waits(), *leaving("small-0")), now=NOW + 21, memory=held)
    assert [each.name for each in decide(later).evictions[0].pods] == ["small-1"]


def test_those_that_fit_after_the_victims_of_others_are_gone_evict_nobody_twice() -> None:
    two = (waits("large-0", need="50Gi"), waits("large-1", need="30Gi"))
    both = model("large", per_gpu="60Gi", priorityClassName="high", replicas=2)
    found = decide(full(*two, models=(both, SMALL)))
    entries = nominations(found)
    assert {each["pod"] for each in entries} == {"large-0", "large-1"}
    evicted = [each["pod"] for entry in entries for each in entry.get("evicts", [])]
    assert sorted(evicted) == ["small-0", "small-1"]


def test_a_status_that_somebody_else_wrote_is_no_nomination() -> None:
    odd = model("large", per_gpu="60Gi", status={"nominations": [{"pod": "large-0"}, 7, {"uid": "uid-large-0"}]})
    found = decide(full(waits(), models=(odd, SMALL)))
    assert found.evictions == ()
    assert nominations(found)


def test_the_evicted_may_be_placed_elsewhere_at_once_but_not_on_the_room_they_made() -> None:
    snapshot = full(waits())
    noted = told(snapshot, decide(snapshot))
    successor = pod("small-2", of="small", need="30Gi")
    found = decide(replace(noted, pods=(waits(), successor, *leaving("small-0", "small-1"))))
    assert where(found) == {}
    two = (gpu_node("n1", gpu(), gpu("GPU-2", memory="40Gi", index=1)),)
    found = decide(replace(noted, gpu_nodes=two, pods=(waits(), successor, *leaving("small-0", "small-1"))))
    assert where(found) == {"small-2": ("GPU-2",)}


def test_a_place_is_kept_for_the_one_that_has_waited_longest() -> None:
    """Nobody is evicted for it: it is of the same priority. But what gets free stays free for it."""
    old = waits(priority=0, created=NOW - 700)
    young = waits("other-0", of="other", need="20Gi", priority=0)
    snapshot = full(old, young, models=(LARGE, SMALL, OTHER))
    assert where(decide(snapshot, patience_seconds=800)) == {"other-0": ("GPU-1",)}
    found = decide(snapshot, patience_seconds=600)
    assert where(found) == {}
    assert "GPU 0 of n1 is kept for it" in status_of(found, "large")["waiting"][0]["message"]
    assert found.evictions == ()


def test_of_several_places_that_are_kept_the_nearest_is_told() -> None:
    """The longer it waits the more places it has; the one that lacks the fewest bytes comes first."""
    old = waits(priority=0, created=NOW - 700)
    young = waits("other-0", of="other", need="20Gi", priority=0)
    less = placed("small-2", of="small", on="GPU-2", claim="30Gi")
    nodes = (gpu_node("n1", gpu(), gpu("GPU-2", index=1)),)
    snapshot = full(old, young, less, models=(LARGE, SMALL, OTHER), gpu_nodes=nodes)
    assert where(decide(snapshot, patience_seconds=600)) == {"other-0": ("GPU-1",)}
    found = decide(snapshot, patience_seconds=100)
    assert where(found) == {}
    assert "GPU 1 of n1 is kept for it" in status_of(found, "large")["waiting"][0]["message"]
