"""Which GPU to fill, told in no time: the one where the least becomes useless to the replicas that are typical.

Free bytes of a device are useless to a class of replicas that needs more than that on a device, or may not have it at
all. The mean over the mix, weighed by the bytes that each class asks for in all, is what of the device is a fragment:
the measure of Weng et al. (Beware of Fragmentation, USENIX ATC 2023), in bytes. What a replica costs is its own bytes
and the fragments that it makes. ``packing.fragmentation`` looks further, at what belongs together and at CPU, and works
on it for seconds; this is a look-up.
"""

from collections.abc import Sequence

import numpy as np

from vrampack.packing.arrays import BoolArray, IntArray
from vrampack.packing.board import Board
from vrampack.packing.mix import Typical
from vrampack.packing.problem import Criterion, Item

_EQUAL = 1e-6
"""Costs that differ by less, as parts of the largest device, are equal: then the least free comes first."""


class FewestFragments:
    """A rule of the packer, for devices in use. They come before empty ones."""

    def __init__(self, mix: Sequence[Typical]) -> None:
        self._mix = tuple(each for each in mix if each.gpus and each.weight > 0)
        self._tables: dict[str, _Table] = {}

    @property
    def criterion(self) -> Criterion:
        return Criterion.LEAST_FRAGMENTATION

    @property
    def orders_empty(self) -> bool:
        return False

    def order(self, board: Board, item: Item, rows: IntArray) -> IntArray:
        """``rows``, the cheapest first."""
        free, products = board.free[rows], board.product[rows]
        after = free - item.memory
        full = board.slots[rows] <= 1
        if item.exclusive or item.group in item.avoid:
            full[:] = True
        made = np.zeros(len(rows))
        for name, code in board.products.items():
            mine = products == code
            if mine.any():
                table = self._tables.get(name) or self._tables.setdefault(name, _Table(self._mix, name))
                made[mine] = table.fragments(after[mine], full[mine]) - table.fragments(free[mine])
        largest = board.capacity.max(initial=1)
        cost = (item.memory + made) / largest
        if board.prices is not None:
            cost *= board.prices[rows] / np.maximum(board.capacity[rows], 1)
        cost = np.round(cost / _EQUAL)
        return rows[np.lexsort((free, cost, ~board.in_use[rows]))]


class _Table:
    """How much of the mix can't use so many free bytes of a product."""

    def __init__(self, mix: Sequence[Typical], product: str) -> None:
        able = sorted(
            (each.memory, each.weight * each.gpus * each.memory)
            for each in mix
            if each.products is None or product in each.products
        )
        total = sum(each.weight * each.gpus * each.memory for each in mix) or 1.0
        self._sizes = np.array([memory for memory, _ in able], np.int64)
        served = np.cumsum([0.0, *(weight for _, weight in able)])
        self._useless = 1.0 - served / total

    def fragments(self, free: IntArray, full: BoolArray | None = None) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The part of ``free`` that is a fragment. ``full``: devices that take nothing more, whatever is free."""
        useless = self._useless[np.searchsorted(self._sizes, free, side="right")]
        if full is not None:
            useless = np.where(full, 1.0, useless)
        return free * useless
