"""The looking itself: moves that make room or close GPUs, and the search for a better packing of the whole.

Apart from what it is asked and answers, since it brings a solver with it: a process that only asks is spared that.
"""

from dataclasses import replace

from vrampack.packing.moves import consolidate, room_for
from vrampack.packing.problem import Move, Objective, Packing, Work
from vrampack.packing.refine import refine
from vrampack.packing.transition import transition
from vrampack.planning.findings import CHUNK, MOST_BLOCKED, MOST_SUGGESTED, Findings, Question
from vrampack.planning.miglayouts import suggested_layouts


def find(question: Question) -> Findings:
    """The moves; nothing is proven yet."""
    room: dict[str, tuple[Move, ...]] = {}
    closing: tuple[Move, ...] = ()
    if question.moves:
        for item in question.blocked[:MOST_BLOCKED]:
            moves = room_for(
                hosts=question.hosts, residents=question.residents, item=item, limit=question.per_placement
            )
            if moves:
                room[item.key] = moves
        if question.objective is Objective.FEWEST_GPUS:  # even headroom is no reason to empty a GPU
            closing = consolidate(
                hosts=question.hosts, residents=question.residents, limit=min(question.limit, MOST_SUGGESTED)
            )
    plan = question.pending.packing if question.pending is not None else None
    layouts = suggested_layouts(question.recut) if question.recut is not None else ()
    return Findings(question=question, room=room, closing=closing, plan=plan, layouts=layouts)


def further(findings: Findings) -> Findings:
    """One more chunk of work: on the packing of the whole, and on the plan of those that wait. The best so far is where
    it begins."""
    after = replace(findings, plan=_planned(findings))
    if not findings.settled:
        after = _packed(after)
    if after == findings:
        return findings
    return replace(after, chunks=findings.chunks + 1)


def answer(question: Question, chunks: int) -> Findings:
    """All that so many chunks of work find."""
    found = find(question)
    for _ in range(chunks):
        after = further(found)
        if after is found:
            break
        found = after
    return replace(found, complete=True)


def _planned(findings: Findings) -> Packing | None:
    pending = findings.question.pending
    if pending is None or findings.plan is None:
        return None
    return refine(
        hosts=pending.hosts,
        items=pending.items,
        objective=findings.question.objective,
        start=findings.plan,
        seed=findings.chunks,
        work=CHUNK,
        keep=pending.keep,
    ).packing


def _packed(findings: Findings) -> Findings:
    question, before = findings.question, findings.bound
    found = refine(
        hosts=question.whole.hosts,
        items=question.whole.items,
        objective=question.objective,
        start=findings.packing or question.whole.packing,
        seed=findings.chunks,
        work=CHUNK,
    )
    better = before is None or (found.bound.unplaced, found.bound.opened) >= (before.unplaced, before.opened)
    done = findings.done
    return replace(
        findings,
        bound=found.bound if better else before,
        packing=found.packing,
        closing=_closing(question, found.packing, findings.closing),
        done=Work(
            rounds=done.rounds + found.done.rounds,
            dives=done.dives + found.done.dives,
            nodes=done.nodes + found.done.nodes,
        ),
    )


def _closing(question: Question, packing: Packing, known: tuple[Move, ...]) -> tuple[Move, ...]:
    """The moves towards ``packing``, where they close more than those that are ``known``."""
    if not (question.better and question.moves and question.objective is Objective.FEWEST_GPUS):
        return known
    way = transition(
        hosts=question.hosts,
        residents=question.residents,
        target=packing,
        limit=min(question.limit, MOST_SUGGESTED),
    )
    return way if sum(move.gain for move in way) > sum(move.gain for move in known) else known
