"""Which empty devices are opened for items that none in use has room for: those where a byte in use costs the least.

A device holds so many of the items, and beside them some of what is still to come, as far as that is small enough and
not awaited by gaps that are open already. What it costs over these bytes is its rate. The least rate is opened first;
equal rates go by ``Board.turn``, the larger first. So with much to come the large ones are opened, which have the
smallest share of unused bytes, and the last of a plan, or the only one, gets the device that is just large enough.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from vrampack.packing.arrays import PLENTY, BoolArray, IntArray
from vrampack.packing.board import Board
from vrampack.packing.fill import quota
from vrampack.packing.problem import Item
from vrampack.packing.turn import Lot


class Opening:
    """Knows the lots of a run in their order."""

    def __init__(self, board: Board, lots: Sequence[Lot]) -> None:
        self._number = {id(lot.item): number for number, lot in enumerate(lots)}
        self._memory = np.array([lot.item.memory for lot in lots], np.int64)
        most = PLENTY // max(len(lots), 1)  # so that all of them together are a number too
        self._demand = np.array([min(lot.item.gpus * lot.item.memory * len(lot.items), most) for lot in lots], np.int64)
        self._least = np.maximum(np.minimum.accumulate(self._memory[::-1])[::-1], 1)
        """The smallest share of a lot and those after it."""
        self._allowed: BoolArray | None = None
        """By product and lot, where some may not have all products."""
        if any(lot.item.products is not None for lot in lots):
            self._allowed = np.array(
                [[lot.item.products is None or name in lot.item.products for lot in lots] for name in board.products],
                np.bool_,
            ).reshape(-1, len(lots))

    def order(self, board: Board, item: Item, rows: IntArray, *, count: int, most: IntArray) -> Iterator[IntArray]:
        """``rows``, empty devices that can take ``item``, in the order in which ``count`` items open them, part by
        part. They come in the order of ``Board.turn``, which ties keep. ``most``: how many items each host takes."""
        ends = _ends(board.kind, rows)
        if len(ends) == 1:
            yield rows
            return
        starts = [0, *ends[:-1]]
        first = rows[starts]
        own = np.minimum(quota(board, item, first), most[board.host[first]])
        np.maximum(own, 1, out=own)
        free = board.free[first]
        coming = self._coming(board, item, board.product[first], free - own * item.memory)
        weight = board.weight()[first]
        columns = (own.tolist(), free.tolist(), weight.tolist(), coming.tolist())
        kinds = [
            _Kind(item, rows[start:end], *figures) for start, end, *figures in zip(starts, ends, *columns, strict=True)
        ]
        yield from _chosen(kinds, count)

    def _coming(self, board: Board, item: Item, product: IntArray, room: IntArray) -> IntArray:
        """The bytes of later items that fit on devices of each product, with ``room`` beside the items."""
        number = self._number.get(id(item), len(self._memory)) + 1
        memory = self._memory[number:]
        if not len(memory) or item.exclusive:
            return np.zeros_like(room)
        fits = memory <= room[:, None]
        if self._allowed is not None:
            fits &= self._allowed[product, number:]
        total = fits @ self._demand[number:]
        gaps = board.free >= self._least[number]
        gaps &= board.in_use
        gaps &= board.takes
        coming: IntArray = np.maximum(total - board.free.sum(where=gaps), 0)
        return coming


def _ends(kind: IntArray, rows: IntArray) -> list[int]:
    """Where each run of one kind in ``rows`` ends. A few probes, since there are few kinds and many rows."""
    found = [0]
    while found[-1] < len(rows):
        here = int(kind[rows[found[-1]]])
        if here == kind[rows[-1]]:
            found.append(len(rows))
        else:
            found.append(bisect_right(rows, here, lo=found[-1], key=kind.__getitem__))
    return found[1:]


class _Kind:
    """Empty devices that differ in nothing that matters here, and how many of them are chosen."""

    def __init__(self, item: Item, rows: IntArray, own: int, free: int, weight: int, coming: int) -> None:
        self.rows = rows
        self.own = own
        self.taken = 0
        self._item = item
        self._free = free
        self._weight = weight
        self._coming = coming

    @property
    def teams(self) -> int:
        """For how many items with several devices there are some left."""
        return (len(self.rows) - self.taken) // max(self._item.gpus, 1)

    def rate(self, left: int, spent: int) -> float:
        """What a byte costs on the next one."""
        here = min(self.own, left) * self._item.memory
        beside = self._beside(here, spent)
        return self._weight * self._item.gpus / max(here * self._item.gpus + beside, 1)

    def take(self, left: int, spent: int) -> tuple[IntArray, int, int]:
        """As many as are alike in rate: their rows, the items on them, and the bytes of later ones."""
        here = min(self.own, left)
        beside = self._beside(here * self._item.memory, spent)
        teams = min(self.teams, max(1, left // self.own))
        if beside:
            teams = min(teams, max(1, (self._coming - spent) // beside))
        rows = self.rows[self.taken : self.taken + teams * self._item.gpus]
        self.taken += len(rows)
        return rows, teams * here, teams * beside

    def _beside(self, here: int, spent: int) -> int:
        return min((self._free - here) * self._item.gpus, max(self._coming - spent, 0))


def _chosen(kinds: Sequence[_Kind], left: int) -> Iterator[IntArray]:
    """Those that ``left`` items open, and then, where hosts don't take as many, all others."""
    found: list[IntArray] = []
    spent = 0
    while left > 0 and (able := [kind for kind in kinds if kind.teams]):
        best = min(able, key=lambda kind: kind.rate(left, spent)) if len(able) > 1 else able[0]
        rows, placed, beside = best.take(left, spent)
        found.append(rows)
        left -= placed
        spent += beside
    if found:
        yield np.concatenate(found) if len(found) > 1 else found[0]
    if rest := [kind.rows[kind.taken :] for kind in kinds if kind.taken < len(kind.rows)]:
        yield np.concatenate(rest)
