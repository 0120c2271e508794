"""What is looked for beside the passes: moves that make room or close GPUs, and what is proven of the packing.

A question holds all that its answer depends on, so an answer is used only while the question is still the same: what
was found for another snapshot is dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from vrampack.packing.moves import consolidate, room_for
from vrampack.packing.problem import Bound, Host, Item, Move, Objective, Packing, Resident, Work
from vrampack.packing.refine import refine
from vrampack.planning.whole import Whole

CHUNK: Final = Work(rounds=60, dives=6, nodes=400)
"""About a second of a usual machine. A constant of the search, not of any fleet: it only says how often to look up."""
NOTHING: Final = Work(rounds=0, dives=0, nodes=0)
MOST_BLOCKED: Final = 8
"""Replicas for which moves are looked for."""
MOST_SUGGESTED: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """``hosts``: with all claims on them; ``blocked``: who fits nowhere, the first ones in their turn; ``moves``:
    whether moves are wanted at all; ``limit``: most moves in all, ``per_placement``: for one that is blocked."""

    hosts: tuple[Host, ...]
    residents: tuple[Resident, ...]
    blocked: tuple[Item, ...]
    moves: bool
    limit: int
    per_placement: int
    whole: Whole
    objective: Objective

    def asked_by_a_person(self) -> "Question":
        """The same, whatever the pool says of moves."""
        return replace(self, moves=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The answer. ``room``: moves by the key of the replica that they make room for; ``closing``: those that close
    GPUs; ``packing``: the best that is known of the whole; ``chunks``: how often CHUNK was spent on it."""

    question: Question
    room: Mapping[str, tuple[Move, ...]] = field(default_factory=dict)
    closing: tuple[Move, ...] = ()
    bound: Bound | None = None
    packing: Packing | None = None
    done: Work = NOTHING
    chunks: int = 0

    def of(self, question: Question) -> "Findings":
        """The same for an equal question."""
        return replace(self, question=question)


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
