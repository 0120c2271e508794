"""The looking itself: moves that make room or close GPUs, and the search for a better packing of the whole.

Apart from what it is asked and answers, since it brings a solver with it: a process that only asks is spared that.
"""

from vrampack.packing.moves import consolidate, room_for
from vrampack.packing.problem import Move, Work
from vrampack.packing.refine import refine
from vrampack.planning.findings import CHUNK, MOST_BLOCKED, MOST_SUGGESTED, Findings, Question


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
        closing = consolidate(
            hosts=question.hosts, residents=question.residents, limit=min(question.limit, MOST_SUGGESTED)
        )
    return Findings(question=question, room=room, closing=closing)


def further(findings: Findings) -> Findings:
    """One more chunk of work on the packing of the whole: the best so far is where it begins."""
    whole = findings.question.whole
    if not whole.items or (findings.bound is not None and findings.bound.optimal):
        return findings
    found = refine(
        hosts=whole.hosts,
        items=whole.items,
        objective=findings.question.objective,
        start=findings.packing or whole.packing,
        seed=findings.chunks,
        work=CHUNK,
    )
    before = findings.bound
    better = before is None or (found.bound.unplaced, found.bound.opened) >= (before.unplaced, before.opened)
    done = findings.done
    return Findings(
        question=findings.question,
        room=findings.room,
        closing=findings.closing,
        bound=found.bound if better else before,
        packing=found.packing,
        done=Work(
            rounds=done.rounds + found.done.rounds,
            dives=done.dives + found.done.dives,
            nodes=done.nodes + found.done.nodes,
        ),
        chunks=findings.chunks + 1,
    )
