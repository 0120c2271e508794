"""The best pattern of all, exact in the unit of the sizes however many units a bin has.

A table over coarse units, everything rounded down, says what is left at most; depth first over the pieces, largest
first, what the table overrates is found out. So the answer is exact, or, where the search takes too long, the table's
own value, which is never too low.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vrampack.packing.pricing import Parts

_CELLS = 1 << 23
"""Of a table, at most: 64 MiB."""


_DEPTH = 256
"""Pieces in one bin; with more of them the table's value has to do."""


class Exact:
    """The knapsack of one set of classes for several capacities. ``prices`` are integers, 0 for what may not go in."""

    def __init__(self, *, sizes: Sequence[int], prices: Sequence[int], limits: Sequence[int], widest: int) -> None:
        self._classes = [each for each in sorted(range(len(sizes)), key=lambda each: sizes[each]) if prices[each] > 0]
        steps = min(1 << 16, _CELLS // max(1, len(self._classes)))
        self._unit = max(1, -(-widest // steps))
        self._sizes = np.array([sizes[each] for each in self._classes], dtype=np.int64)
        self._prices = np.array([prices[each] for each in self._classes], dtype=np.int64)
        self._limits = [limits[each] for each in self._classes]
        self._rows = np.arange(len(self._classes))
        best = np.zeros(widest // self._unit + 1, dtype=np.int64)
        self._best = np.zeros((len(self._classes) + 1, len(best)), dtype=np.int64)
        """Row i: with the first i classes."""
        for row, size in enumerate((self._sizes // self._unit).tolist()):
            many, left = 1, self._limits[row]
            while left > 0:
                many = min(many, left)
                if many * size < len(best):
                    offer = best[: len(best) - many * size] + many * self._prices[row]
                    np.maximum(best[many * size :], offer, out=best[many * size :])
                left -= many
                many *= 2
            self._best[row + 1] = best
        self._nodes = 0
        self._found: list[int] = []

    def best(self, capacity: int, *, above: int, nodes: int) -> tuple[int, Parts]:
        """What the best filling is worth, and the filling. Where none is worth more than ``above``, that and nothing;
        where ``nodes`` do not suffice, no less than it is worth, and the best one found, or nothing."""
        most = int(self._best[-1, capacity // self._unit])
        if most <= above:
            return above, ()
        self._nodes, self._found = nodes, []
        value = self._search(len(self._classes), capacity, 0, above, [])
        parts = tuple(sorted(Counter(self._classes[row] for row in self._found).items()))
        return (most if self._nodes < 0 else value), parts

    def _search(self, last: int, room: int, value: int, above: int, taken: list[int]) -> int:
        """The best of ``value`` and all that can be added to it of the first ``last`` classes; ``above`` if none."""
        self._nodes -= 1
        if value > above:
            above, self._found = value, list(taken)
        if len(taken) > _DEPTH:
            self._nodes = -1
        if self._nodes < 0:
            return above
        fits = int(np.searchsorted(self._sizes[:last], room, side="right"))
        rows = self._rows[:fits]
        rest = self._best[rows + 1, (room - self._sizes[:fits]) // self._unit]
        bounds = rest + (value + self._prices[:fits])
        for row in sorted(np.flatnonzero(bounds > above).tolist(), key=lambda row: -bounds[row]):
            if bounds[row] <= above:
                break
            if taken.count(row) >= self._limits[row]:
                continue
            taken.append(row)
            above = self._search(row + 1, room - int(self._sizes[row]), value + int(self._prices[row]), above, taken)
            taken.pop()
            if self._nodes < 0:
                break
        return above
