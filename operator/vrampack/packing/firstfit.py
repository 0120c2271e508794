"""The first plan: the whole set of waiting replicas at once, onto the bytes that are really free.

On identical empty devices and single-device items it opens at most 11/9 of the optimum plus 6/9 of a device
(Dósa, Li, Han, Tuza: Tight absolute bound for First Fit Decreasing bin-packing, TCS 510, 2013).
"""

from collections.abc import Sequence

from vrampack.packing.board import Board
from vrampack.packing.collector import paused
from vrampack.packing.portfolio import Member, best_run
from vrampack.packing.problem import Host, Item, Objective, Packing, Reservation
from vrampack.packing.rules import Rule
from vrampack.packing.run import answer
from vrampack.packing.turn import in_turn


def pack(
    *,
    hosts: Sequence[Host],
    items: Sequence[Item],
    objective: Objective = Objective.FEWEST_GPUS,
    patience: int | None = None,
    reserve: Sequence[Reservation] = (),
    rule: Rule | None = None,
    members: Sequence[Member] = tuple(Member),
) -> Packing:
    """Give each item its devices, or the reasons why it has none.

    Items go in the order of ``packing.turn``; where some find no place, the portfolio's rule (``packing.portfolio``)
    says which plan is taken. ``patience``: seconds after which one that waits goes by age, and the oldest of them has
    a place kept for it (``packing.reserve``); None: age does not count. ``reserve``: places that the caller keeps for
    some of ``items``; their items may go there, or elsewhere, and what comes after them may not. ``rule``: the order
    in which devices are filled in the first plan; None: first fit. ``members``: the plans that are tried.

    The result depends on the sets of hosts, devices and items only, never on the order in which they come. Claims that
    exist are never moved. An item that fits nowhere does not stop those after it; its reasons describe the devices as
    they are when everything else is placed.

    Raises InvalidInputError for a negative demand, for a key, a host or a device of a host that comes twice, for an
    empty string where a reason belongs, for layouts of a device in use or larger than it, and for a reservation that
    is not for one of ``items``.
    """
    with paused():
        lots = in_turn(items, patience=patience, reserve=reserve)
        return answer(best_run(Board(hosts), lots, objective, rule=rule, members=members))
