"""Which plan is taken. First-fit decreasing is good as long as everything fits, and poor on a full fleet.

*The rule.* The first plan is first-fit decreasing (with Objective.BALANCED the one for even headroom). Where it leaves
any item without a place, the other members run on the same start, and the plan with the least ``Cost`` is taken; ties
go to the earlier member. The members are, in this order: the first plan; decreasing order with the tightest device
first; the oldest first with the tightest device first.
"""

from collections.abc import Sequence

from vrampack.packing.board import Board
from vrampack.packing.problem import Objective
from vrampack.packing.rules import FirstFit, Rule, Tightest
from vrampack.packing.run import Run, cost_of, run
from vrampack.packing.turn import Lot, by_age


def best_run(board: Board, lots: Sequence[Lot], objective: Objective, *, rule: Rule | None = None) -> Run:
    """The plan of the portfolio. ``board`` itself stays as it is. ``rule``: the order in which devices are filled in
    the first plan; None: first fit."""
    first = run(board.copy(), lots, None if objective is Objective.BALANCED else rule or FirstFit())
    if first.complete:
        return first
    members = [first]
    members.append(run(board.copy(), lots, Tightest()))
    members.append(run(board.copy(), by_age(lots), Tightest()))
    return min(members, key=lambda member: cost_of(member, board, objective))
