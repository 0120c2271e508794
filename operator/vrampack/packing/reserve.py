"""Room that is kept for an item which fits nowhere yet, so that it does not starve.

*The rule.* The oldest aged item that fits nowhere has a place reserved: of all sets of devices that it could ever use
(the capacity suffices, and nothing but memory, neighbours that leave, CPU, RAM or slots is missing) the one where the
fewest bytes must still be given back, on hosts with enough CPU, RAM and slots first; ties go by row. It has one such
place once its patience is over, and one more each time that its waiting has doubled since. Whatever is taken after it
(``packing.turn``: what has the same priority or a lower one, and is younger) gets nothing there, nor the CPU, RAM and
slot of that host that the item needs; the rest of the fleet stays open to all. An item of a higher priority may still
go there.

*Why nobody starves.* The bytes that the first place lacks never grow, since nothing joins it; another is chosen only
where even fewer are missing. Where what holds that place never ends, the others that are reserved by and by include one
where it does. So as long as claims on some place that would do end, the oldest item is placed, and then the next one is
the oldest. What stands idle for this is a place or two in the first hours and a dozen after days, for one item at a
time, whatever the number of items that wait.
"""

from dataclasses import dataclass

import numpy as np

from vrampack.packing.arrays import IntArray, sizes, starts
from vrampack.packing.board import Board
from vrampack.packing.fill import allowed, limits
from vrampack.packing.problem import Item, Reservation, Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A reservation on the board."""

    item: Item
    rows: IntArray
    host: int
    short: int

    def keep(self, board: Board) -> None:
        """Close the devices to all that come after, and set the item's share of the host aside."""
        board.kept[self.rows] += 1
        board.takes[self.rows] = False
        self._aside(board, 1)

    def lift(self, board: Board) -> None:
        """Take that back, for the explanations of what came before."""
        board.kept[self.rows] -= 1
        self._aside(board, -1)

    def _aside(self, board: Board, count: int) -> None:
        board.cpu[self.host] -= count * self.item.cpu
        board.ram[self.host] -= count * self.item.host_memory
        board.room[self.host] -= count

    def told(self, board: Board) -> Reservation:
        """The answer's words for it."""
        return Reservation(
            item=self.item,
            host=board.names[self.host],
            devices=tuple(board.devices[row].id for row in self.rows.tolist()),
            short=self.short,
        )


def given(board: Board, reservation: Reservation) -> Kept | None:
    """The caller's reservation; None where a device of it is gone."""
    place = board.place_of.get(reservation.host)
    if place is None:
        return None
    here = {board.devices[row].id: row for row in np.flatnonzero((board.host == place) & ~board.asleep).tolist()}
    if not here.keys() >= set(reservation.devices):
        return None
    rows = np.array(sorted(here[name] for name in reservation.devices), dtype=np.int64)
    short = max(0, int((reservation.item.memory - board.free[rows]).max(initial=0)))
    return Kept(item=reservation.item, rows=rows, host=place, short=short)


def places(waited: int, patience: int) -> int:
    """How many places are kept for an item that has waited for so many seconds."""
    return (waited // patience).bit_length()


def nearest(board: Board, item: Item) -> Kept | None:
    """The place of which the fewest bytes are missing; None where no GPU could ever take the item, or it needs none."""
    if not item.gpus:
        return None
    able = board.open & (board.kept == 0) & (board.capacity >= item.memory) & ~board.divisible
    if item.gpus > 1:
        able &= board.whole
    able &= allowed(board, item)
    if (refused := board.refusals(item)) is not None:
        able &= refused[board.host] == 0
    rows = np.flatnonzero(able)
    if not len(rows):
        return None
    missing = np.maximum(item.memory - board.free[rows], 0)
    # Who must be alone waits for all that is in use; so does who waits for a neighbour to leave.
    alone = board.occupied[rows] if item.exclusive else np.isin(rows, board.shut(item.group, item.avoid))
    alone |= board.exclusive[rows] | (board.slots[rows] <= 0)
    missing[alone] = np.maximum(missing[alone], board.capacity[rows][alone] - board.free[rows][alone])
    # Where only memory is missing, nothing else has to happen: such hosts come first.
    must = item.spread is Spread.REQUIRE
    later = limits(board, item, elsewhere=must)[board.host[rows]] <= 0
    order = np.lexsort((rows, missing, board.set[rows] if item.gpus > 1 else rows))
    rows, missing, later = rows[order], missing[order], later[order]
    sets = board.set[rows] if item.gpus > 1 else rows
    start = starts(sets)
    size = sizes(start, len(rows))
    start = start[size >= item.gpus]
    if not len(start):
        return None
    last = start + item.gpus - 1
    best = np.lexsort((start, missing[last], later[last]))[0]
    team = rows[start[best] : start[best] + item.gpus]
    return Kept(item=item, rows=np.sort(team), host=int(board.host[team[0]]), short=int(missing[last[best]]))
