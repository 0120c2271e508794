"""Which layout a GPU gets that may still be cut: decided when the first item needs a slice of it, and no sooner."""

from collections.abc import Sequence

import numpy as np

from vrampack.packing.board import Board
from vrampack.packing.fill import allowed, limits
from vrampack.packing.problem import Item, Spread
from vrampack.packing.turn import Lot

_AHEAD = 64
"""How many lots a layout is weighed against; those after them are small, and fit into what is left."""


def cut_for(board: Board, lots: Sequence[Lot], left: int) -> bool:
    """Cuts devices for the first of ``lots``, of which ``left`` items found no place on anything that exists.

    The layout is the one on which the most bytes of this lot and those that follow find room; ties go to the one in
    place, then to the first listed. False where no device can be cut for it.
    """
    item = lots[0].item
    able = board.divisible & board.open & (board.kept == 0) & (board.free >= item.memory)
    if not able.any():
        return False
    able &= allowed(board, item)
    able &= (limits(board, item, elsewhere=item.spread is Spread.REQUIRE) > 0).take(board.host)
    rows = np.flatnonzero(able)
    if not len(rows):
        return False
    first = board.devices[int(rows[0])]
    layout = _best(board, int(rows[0]), lots, left)
    fit = max(1, sum(size >= item.memory for size in layout))
    # With many to cut, an eighth of them at a time: what follows is weighed anew after each.
    for row in rows[: max(1, left // (8 * fit))].tolist():
        if board.devices[row].layouts == first.layouts:
            board.cut(row, layout)
    return True


def _best(board: Board, row: int, lots: Sequence[Lot], left: int) -> tuple[int, ...]:
    item = lots[0].item
    code = int(board.product[row])
    demands = [(item.memory, left)]
    for lot in lots[1 : 1 + _AHEAD]:
        other = lot.item
        if other.gpus == 1 and (other.products is None or code in _codes(board, other)):
            demands.append((other.memory, len(lot.items)))
    slots = int(board.slots[row])
    layouts = [layout for layout in board.devices[row].layouts if layout and max(layout) >= item.memory]
    return max(layouts, key=lambda layout: _placed(layout, demands, slots))


def _placed(layout: Sequence[int], demands: Sequence[tuple[int, int]], slots: int) -> int:
    """Bytes of ``demands`` that find room on the slices, the tightest slice first."""
    free = [[size, slots] for size in sorted(layout)]
    found = 0
    for memory, count in demands:
        wanted = count
        for part in free:
            take = min(wanted, part[1], part[0] // memory if memory else wanted)
            part[0] -= take * memory
            part[1] -= take
            wanted -= take
            found += take * memory
    return found


def _codes(board: Board, item: Item) -> set[int]:
    return {board.products[name] for name in item.products or () if name in board.products}
