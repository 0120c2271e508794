"""Better packings are carried out: of replicas that wait while engines start, and of those that run by moves."""

from dataclasses import replace
from typing import Any

from tests.unit.planning_world import (
    STARTED,
    Json,
    decide,
    gpu_node,
    gpus,
    model,
    placed,
    pod,
    pool,
    status_of,
    where,
    world,
)
from vrampack.packing.firstfit import pack
from vrampack.packing.portfolio import Member
from vrampack.packing.problem import Device, Host, Item, Objective, Packing
from vrampack.planning.actions import Plan
from vrampack.planning.findings import Findings
from vrampack.planning.refined import better, pending
from vrampack.planning.rehearsal import rehearse
from vrampack.planning.seeking import answer, find
from vrampack.planning.snapshot import Claim, Memory, PodView, PoolView, Snapshot
from vrampack.planning.verdict import Settings
from vrampack.units import GIB, parse_bytes

TRIPLETS = (20, 14, 10, 17, 13, 14, 21, 12, 11, 20, 13, 11)
"""GiB of twelve models that fill four GPUs of 44 to the last byte, which no plan by size finds."""
MODELS = tuple(model(f"m{number:02}", per_gpu=f"{size}Gi") for number, size in enumerate(TRIPLETS))
BUSY = tuple(
    placed(f"busy-{number}", of="busy", on=f"GPU-{number + 1}", claim="1Gi", ready=False, started=False)
    for number in range(4)
)
"""An engine starts on each GPU."""
WAITING = tuple(pod(f"m{number:02}-0", of=f"m{number:02}", need=f"{size}Gi") for number, size in enumerate(TRIPLETS))
HELD = {"GPUBusyStarting": 12}


def refining(seconds: int = 5, **fields: Any) -> PoolView:
    return pool(refineSeconds=seconds, **fields)


def starting(*pools: PoolView) -> Snapshot:
    return world(
        *MODELS,
        pods=(*BUSY, *WAITING),
        pools=pools or (refining(),),
        gpu_nodes=[gpu_node("n1", *gpus(4, memory="45Gi"))],
    )


def with_findings(snapshot: Snapshot, findings: Findings) -> Snapshot:
    return replace(snapshot, memory=Memory(started=STARTED, findings={"default": findings}))


def found(snapshot: Snapshot, chunks: int = 5) -> Snapshot:
    """With what the loop would have found beside the passes by the next one."""
    ((question, _),) = decide(snapshot).questions.values()
    return with_findings(snapshot, answer(question, chunks))


def ready(snapshot: Snapshot) -> Snapshot:
    """Every engine that was starting is through."""
    pods = tuple(replace(each, ready=True, started=True) if each.claim else each for each in snapshot.pods)
    return replace(snapshot, pods=pods)


def carried_out(snapshot: Snapshot, plan: Plan) -> Snapshot:
    """The placements are claims, and their engines start."""
    claims = {each.pod.uid: each for each in plan.placements}

    def one(each: PodView) -> PodView:
        if each.uid not in claims:
            return each
        claim = Claim(gpus=claims[each.uid].gpus, bytes=int(each_bytes(each)), epoch=1)
        return replace(each, gated=False, gates=(), claim=claim, node="n1", phase="Running", ready=False)

    return replace(snapshot, pods=tuple(map(one, snapshot.pods)))


def each_bytes(waiting: PodView) -> int:
    return TRIPLETS[int(waiting.model.removeprefix("m"))] * GIB


def test_the_first_plan_holds_until_a_better_one_is_found() -> None:
    first = decide(starting())
    assert first.placements == ()
    assert first.waiting == {"GPUBusyStarting": 11, "InsufficientGPUMemory": 1}
    better = decide(found(starting()))
    assert better.waiting == HELD
    settled = found(found(starting()))
    assert decide(settled).questions == better.questions, "what is left beside it is asked about once"


def test_it_is_carried_out_as_engines_become_ready() -> None:
    snapshot = found(starting())
    for _ in range(3):
        decided = decide(ready(snapshot))
        assert len(decided.placements) == 4, "one engine starts on a GPU at a time"
        assert {each.because.split(",")[0] for each in decided.placements} == {
            "the one that the search for a better packing gave it"
        }
        snapshot = carried_out(ready(snapshot), decided)
    assert decide(snapshot).waiting == {}
    assert all(each.claim for each in snapshot.pods)


def test_what_is_found_next_begins_where_the_plan_stands() -> None:
    """The question is another one after each placement; what is known is not given up for it."""
    snapshot = ready(found(starting()))
    after = carried_out(snapshot, decide(snapshot))
    ((question, _),) = decide(after).questions.values()
    again = with_findings(after, find(question))
    assert decide(again).waiting == {"GPUBusyStarting": 8}


def test_it_is_dropped_where_anything_else_has_changed() -> None:
    snapshot = found(starting())
    smaller = replace(snapshot, gpu_nodes=(gpu_node("n1", *gpus(4, memory="46000Mi")),))
    assert decide(smaller).waiting == decide(replace(smaller, memory=Memory(started=STARTED))).waiting != HELD
    newcomer = replace(snapshot, pods=(*snapshot.pods, pod("m00-1", of="m00", need="19Gi")))
    assert decide(newcomer).waiting != HELD
    planned = decide(ready(snapshot))
    taken = [each.gpus for each in planned.placements]
    others = [replace(each, gpus=gpus_) for each, gpus_ in zip(planned.placements, taken[1:] + taken[:1], strict=True)]
    elsewhere = carried_out(ready(snapshot), replace(planned, placements=tuple(others)))
    alone = replace(elsewhere, memory=Memory(started=STARTED))
    assert where(decide(ready(elsewhere))) == where(decide(ready(alone))), "others took these places"


def test_it_takes_the_place_of_none_that_has_waited_long() -> None:
    """A plan that leaves out another one, which is as many and costs as much."""
    items = [Item(key=key, group=key, gpus=1, memory=30, waited=waited) for key, waited in (("old", 700), ("new", 10))]
    hosts = (Host(name="n", devices=(Device(id="g", product="L4", capacity=48, free=48),)),)
    first = pack(hosts=hosts, items=items, patience=600, members=(Member.FIRST_FIT_DECREASING,))
    first = replace(first, reserved=())
    assert [each.item.key for each in first.placed] == ["old"]
    other = Packing(
        placed=tuple(replace(each, item=items[1]) for each in first.placed),
        unplaced=tuple(replace(each, item=items[0]) for each in first.unplaced),
    )
    for patience, taken in ((600, first), (900, other)):
        asked = pending(hosts, items, first, patience=patience)
        found_ = better(
            first, other, asked=asked, hosts=hosts, items=items, objective=Objective.FEWEST_GPUS, patience=patience
        )
        assert [each.item.key for each in found_.placed] == [each.item.key for each in taken.placed]


def test_without_work_to_spend_the_first_plan_is_taken() -> None:
    ((question, _),) = decide(starting(refining(0))).questions.values()
    assert question.pending is None
    assert not question.better


def test_where_engines_start_together_nothing_is_left_to_plan() -> None:
    assert len(where(decide(starting(refining(startup="Parallel"))))) == 11


def test_a_rehearsal_does_as_the_operator_does() -> None:
    def waits(seconds: int) -> int:
        snapshot = world(
            *MODELS, pools=[refining(seconds)], gpu_nodes=[gpu_node("n1", *gpus(4, memory="44Gi"))], pods=()
        )
        end = rehearse(snapshot, Settings(), priorities={})
        assert end.settled
        return sum(not each.claim for each in end.snapshot.pods)

    assert waits(0) > waits(5)


STUCK = ((8, 4), (12, 2), (19, 4), (20, 3), (12, 4), (15, 1), (14, 1), (15, 1), (17, 2))
"""GiB of models that run, and the GPU of each: three would do, and none can be emptied before others change places."""


def running(seconds: int = 3, mode: str = "Suggest") -> Snapshot:
    models = [model(f"m{number:02}", per_gpu=f"{size}Gi") for number, (size, _) in enumerate(STUCK)]
    pods = [
        placed(f"m{number:02}-0", of=f"m{number:02}", on=f"GPU-{on}", claim=f"{size}Gi", created=STARTED)
        for number, (size, on) in enumerate(STUCK)
    ]
    return world(
        *models,
        pods=pods,
        pools=[refining(seconds, startup="Parallel", moves={"mode": mode, "perHour": 16})],
        gpu_nodes=[gpu_node("n1", *gpus(4, memory="44Gi"))],
    )


def suggested(snapshot: Snapshot, findings: Findings) -> list[Json]:
    status = status_of(decide(with_findings(snapshot, findings)), "default", kind="GPUPool")
    moves: list[Json] = status["suggestedMoves"]
    return moves


def test_of_what_runs_the_difference_becomes_moves() -> None:
    ((question, chunks),) = decide(running()).questions.values()
    assert suggested(running(), find(question)) == [], "no GPU can be emptied by itself"
    moves = suggested(running(), answer(question, chunks))
    assert len(moves) == 3
    assert {each["because"] for each in moves} == {"1 GPU less in use"}
    assert sum(parse_bytes(each["gain"]) for each in moves) == 44 * GIB


def test_moves_begin_when_the_search_is_over() -> None:
    """A way that is left for another one has moved replicas for nothing."""
    snapshot = running(mode="Evict")
    ((question, chunks),) = decide(snapshot).questions.values()
    over = answer(question, chunks)
    for found_, begins in ((replace(over, complete=False), 0), (over, 1)):
        status = status_of(decide(with_findings(snapshot, found_)), "default", kind="GPUPool")
        assert len(status["moves"]) == begins


def test_a_rehearsal_makes_these_moves() -> None:
    end = rehearse(running(mode="Evict"), Settings(), priorities={})
    assert end.settled
    assert {each.reason for each in end.evicted} == {"Moved"}
    assert len({uuid for each in end.snapshot.pods if each.claim for uuid in each.claim.gpus}) == 3
    assert all(each.ready for each in end.snapshot.pods)
