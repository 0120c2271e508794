"""What is looked for beside the passes: moves that make room or close GPUs, and what is proven of the packing.

A question holds all that its answer depends on, so an answer is used only while the question is still the same: what
was found for another snapshot is dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from vrampack.api.gpupool import SuggestedLayout
from vrampack.packing.problem import Bound, Host, Item, Move, Objective, Packing, Resident, Work
from vrampack.planning.miglayouts import Recut
from vrampack.planning.refined import Pending
from vrampack.planning.whole import Whole

CHUNK: Final = Work(rounds=60, dives=6, nodes=400)
"""About a second of a usual machine. A constant of the search, not of any fleet: it only says how often to look up."""
NOTHING: Final = Work(rounds=0, dives=0, nodes=0)
MOST_CHUNKS_ASKED: Final = 8
"""Chunks for which a person waits, whatever the pool's are."""
MOST_BLOCKED: Final = 8
"""Replicas for which moves are looked for."""
MOST_SUGGESTED: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """``hosts``: with all claims on them; ``blocked``: who fits nowhere, the first ones in their turn; ``moves``:
    whether moves are wanted at all; ``limit``: most moves in all, ``per_placement``: for one that is blocked;
    ``pending``: who has a place in the plan and can't take it yet, where a better plan is wanted; ``better``: whether
    moves towards a better packing of the whole are; ``recut``: who waits for a MIG device, where layouts may be
    suggested."""

    hosts: tuple[Host, ...]
    residents: tuple[Resident, ...]
    blocked: tuple[Item, ...]
    moves: bool
    limit: int
    per_placement: int
    whole: Whole
    objective: Objective
    pending: Pending | None = None
    recut: Recut | None = None
    better: bool = False

    def asked_by_a_person(self) -> "Question":
        """The same, whatever the pool says of moves and of work."""
        return replace(self, moves=True, better=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The answer. ``room``: moves by the key of the replica that they make room for; ``closing``: those that close
    GPUs; ``packing``: the best that is known of the whole; ``plan``: of those that wait; ``chunks``: how often CHUNK
    was spent on each of both."""

    question: Question
    room: Mapping[str, tuple[Move, ...]] = field(default_factory=dict)
    closing: tuple[Move, ...] = ()
    bound: Bound | None = None
    packing: Packing | None = None
    plan: Packing | None = None
    layouts: tuple[SuggestedLayout, ...] = ()
    done: Work = NOTHING
    chunks: int = 0
    complete: bool = False
    """Whether that is all the work it was worth."""

    @property
    def settled(self) -> bool:
        """Whether more work can't change what is known of the whole."""
        return not self.question.whole.items or (self.bound is not None and self.bound.optimal)

    def of(self, question: Question) -> "Findings":
        """The same for an equal question."""
        return replace(self, question=question)
