"""Which plan is taken. First-fit decreasing is good as long as everything fits, and poor on a full fleet.

*The rule.* The first plan is first-fit decreasing (with Objective.BALANCED the one for even headroom; with a rule of
the caller's that one, and first-fit decreasing is the second). Where it leaves any item without a place and there are
several classes, the other members run from the same start, one after another until one of them places everything; else
the plan with the least ``Cost`` is taken, the earlier member's where they are equal. (Of one class alone, any order
places as many.) A plan is given up as soon as it leaves more items of the highest priority without a place than one
that is known, which it can't make good any more.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import cached_property

from vrampack.packing.board import Board
from vrampack.packing.objective import Cost
from vrampack.packing.opening import Opening
from vrampack.packing.problem import Objective
from vrampack.packing.rules import FirstFit, Rule, Tightest
from vrampack.packing.run import Outcome, Run, cost_of, outcomes
from vrampack.packing.turn import Lot, by_age, by_scarcity


class Member(StrEnum):
    """The plans that are tried, in this order. All keep to priorities, reservations, ranks and ages.

    The first two open empty devices as ``packing.opening`` has it. The second takes those first that the fewest devices
    could take, so that the only place of a large or choosy one is not spent on one that could go anywhere. The others
    fill the tightest device first, in use or not: in the order of the second, of the first, and the oldest first,
    whatever its size.
    """

    FIRST_FIT_DECREASING = "FirstFitDecreasing"
    SCARCEST_FIRST = "ScarcestFirst"
    SCARCEST_TIGHTEST = "ScarcestTightest"
    BEST_FIT_DECREASING = "BestFitDecreasing"
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
    plain = None if objective is Objective.BALANCED else rule
    first, *others = (_Attempt(member, own, board, lots, objective) for member, own in _plans(members, plain, lots))
    only = not others or len(lots) < 2
    first.until(lambda: not only and not first.complete)
    if only or first.complete:
        return first.run
    best: _Attempt | None = None
    for attempt in (others[0], first, *others[1:]):
        attempt.until(lambda: best is not None and attempt.waiting > best.waiting)  # noqa: B023 - called here only
        if not attempt.done:
            continue
        if attempt.complete:
            return attempt.run
        if best is None or (attempt.cost, attempt is not first) < (best.cost, best is not first):
            best = attempt
    assert best is not None
    return best.run


def _plans(members: Sequence[Member], rule: Rule | None, lots: Sequence[Lot]) -> Iterator[tuple[Member, Rule | None]]:
    """Members, the first plan with the caller's rule and without. Where all are as old, age is no other order."""
    aged = len({lot.item.waited for lot in lots}) > 1
    for member in members:
        if member is Member.FIRST_FIT_DECREASING and rule is not None:
            yield member, rule
        if member is not Member.OLDEST_FIRST or aged or Member.BEST_FIT_DECREASING not in members:
            yield member, None


class _Attempt:
    """One plan, made lot by lot. ``rule``: the caller's; None: the member's own."""

    def __init__(
        self, member: Member, rule: Rule | None, board: Board, lots: Sequence[Lot], objective: Objective
    ) -> None:
        self._start = board
        self._lots = lots
        self._objective = objective
        self._steps = self._begun(member, rule)
        self._outcomes: list[Outcome] = []
        self._highest = lots[0].item.priority if lots else 0
        self.complete = True
        """Whether every item up to now has its place."""
        self.waiting = 0
        """How many items of the highest priority have none."""
        self.done = False

    def _begun(self, member: Member, rule: Rule | None) -> Iterator[Outcome]:
        lots, board = self._lots, self._start.copy()
        self._board = board
        if member in (Member.SCARCEST_FIRST, Member.SCARCEST_TIGHTEST):
            lots = by_scarcity(lots, board)
        elif member is Member.OLDEST_FIRST:
            lots = by_age(lots)
        if rule is None and member is Member.FIRST_FIT_DECREASING and self._objective is Objective.BALANCED:
            yield from outcomes(board, lots, None)
            return
        if rule is None:
            rule = FirstFit() if member in (Member.FIRST_FIT_DECREASING, Member.SCARCEST_FIRST) else Tightest()
        yield from outcomes(board, lots, rule, None if rule.orders_empty else Opening(board, lots))

    def until(self, stop: Callable[[], bool]) -> None:
        """Goes on, up to its end or until ``stop`` says so after a lot."""
        for outcome in self._steps:
            self._outcomes.append(outcome)
            if outcome.left:
                self.complete = False
                if outcome.lot.item.priority == self._highest:
                    self.waiting += outcome.left
            if stop():
                return
        self.done = True

    @property
    def run(self) -> Run:
        return Run(board=self._board, outcomes=tuple(self._outcomes))

    @cached_property
    def cost(self) -> Cost:
        """Once it is done."""
        return cost_of(self.run, self._start, self._objective)
