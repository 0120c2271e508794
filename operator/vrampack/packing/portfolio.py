"""Which plan is taken. First-fit decreasing is good as long as everything fits, and poor on a full fleet.

*The rule.* The first plan is first-fit decreasing (with Objective.BALANCED the one for even headroom; with a rule of
the caller's that one, and first-fit decreasing is the second). Where it leaves any item without a place and there are
several classes, the other members run from the same start, and the plan with the least ``Cost`` is taken; ties go to
the earlier member. (Of one class alone, any order places as many.)
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from vrampack.packing.board import Board
from vrampack.packing.objective import Cost
from vrampack.packing.problem import Objective
from vrampack.packing.rules import FirstFit, Rule, Tightest
from vrampack.packing.run import Run, cost_of, run
from vrampack.packing.turn import Lot, by_age, by_scarcity


class Member(StrEnum):
    """The plans that are tried, in this order. All keep to priorities, reservations, ranks and ages.

    The second fills the tightest device first. The third does so too, and takes those first that the fewest devices
    could take, so that the only place of a large or choosy one is not spent on one that could go anywhere. The fourth
    takes the oldest first, whatever its size.
    """

    FIRST_FIT_DECREASING = "FirstFitDecreasing"
    BEST_FIT_DECREASING = "BestFitDecreasing"
    SCARCEST_FIRST = "ScarcestFirst"
    OLDEST_FIRST = "OldestFirst"


def best_run(
    board: Board,
    lots: Sequence[Lot],
    objective: Objective,
    *,
    rule: Rule | None = None,
    members: Sequence[Member] = tuple(Member),
) -> Run:
    """The plan of the portfolio. ``board`` itself stays as it is. ``rule``: the order in which devices are filled in
    the first plan; None: first fit. ``members``: one at least, the first of which is the first plan."""
    _ = board.turn  # worked out once for all of them
    best: Run | None = None
    least: Cost | None = None
    for member, order in _orders(members, objective, rule):
        found = _run(member, board, lots, order)
        if best is None and (found.complete or len(lots) < 2):
            return found
        cost = cost_of(found, board, objective)
        if least is None or cost < least:
            best, least = found, cost
    assert best is not None
    return best


def _orders(members: Sequence[Member], objective: Objective, rule: Rule | None) -> Iterator[tuple[Member, Rule | None]]:
    for member in members:
        if member is not Member.FIRST_FIT_DECREASING:
            yield member, Tightest()
        elif objective is Objective.BALANCED:
            yield member, None
        else:
            if rule is not None:
                yield member, rule
            yield member, FirstFit()


def _run(member: Member, board: Board, lots: Sequence[Lot], rule: Rule | None) -> Run:
    if member is Member.SCARCEST_FIRST:
        lots = by_scarcity(lots, board)
    elif member is Member.OLDEST_FIRST:
        lots = by_age(lots)
    return run(board.copy(), lots, rule)
