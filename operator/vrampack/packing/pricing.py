"""The pattern that gains most at given prices: a bounded knapsack, exact in integers, for all capacities at once.

Prices are integers (a dual value times a scale, rounded down), so the optimum is exact and a bound that rests on it is
safe. Several patterns come out of one table: besides the best one, the best without the classes that came last.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCALE = 1 << 32
"""Price units of a cost of 1: fine enough for bounds, and sums stay far below 2^63."""

Parts = tuple[tuple[int, int], ...]


@dataclass(slots=True, eq=False)
class Table:
    """The knapsack of every capacity from 0: ``best[c]`` is the most that fits into ``c``.

    ``rows`` are bundles (class, number, size, value), in the order in which they were offered; ``took[i, c]`` says
    whether bundle ``i`` improved capacity ``c``.
    """

    best: NDArray[np.int64]
    rows: list[tuple[int, int, int, int]]
    took: NDArray[np.bool_]

    def pattern(self, capacity: int, *, rows: int | None = None) -> Parts:
        """The best filling of ``capacity`` with the first ``rows`` bundles (all, where None)."""
        parts: Counter[int] = Counter()
        for row in range((len(self.rows) if rows is None else rows) - 1, -1, -1):
            if self.took[row, capacity]:
                each, many, size, _ = self.rows[row]
                parts[each] += many
                capacity -= size
        return tuple(sorted(parts.items()))

    def patterns(self, capacity: int, *, above: int, most: int) -> list[Parts]:
        """Up to ``most`` fillings of ``capacity`` worth more than ``above``, the best first."""
        found: list[Parts] = []
        value = int(self.best[capacity])
        for row in np.flatnonzero(self.took[:, capacity])[::-1]:
            if value <= above or len(found) == most:
                break
            parts = self.pattern(capacity, rows=int(row) + 1)
            found.append(parts)
            value = self._value_before(int(row), capacity)
        return found

    def _value_before(self, row: int, capacity: int) -> int:
        value = 0
        for each in range(row - 1, -1, -1):
            if self.took[each, capacity]:
                value += self.rows[each][3]
                capacity -= self.rows[each][2]
        return value


def price(
    *, sizes: Sequence[int], prices: Sequence[int], limits: Sequence[int], order: Sequence[int], capacity: int
) -> Table:
    """The table for capacities up to ``capacity``; classes are offered in ``order``, at most ``limits`` of each."""
    rows = [bundle for each in order for bundle in _bundles(each, sizes[each], prices[each], limits[each], capacity)]
    best = np.zeros(capacity + 1, dtype=np.int64)
    took = np.zeros((len(rows), capacity + 1), dtype=np.bool_)
    for row, (_, _, size, value) in enumerate(rows):
        offer = best[: capacity + 1 - size] + value
        np.greater(offer, best[size:], out=took[row, size:])
        np.maximum(best[size:], offer, out=best[size:])
    return Table(best=best, rows=rows, took=took)


def _bundles(each: int, size: int, value: int, limit: int, capacity: int) -> list[tuple[int, int, int, int]]:
    """1, 2, 4, … and a rest, so that every number up to ``limit`` is a choice of some of them."""
    if value <= 0:
        return []
    if size:
        limit = min(limit, capacity // size)
    found = []
    many = 1
    while limit > 0:
        many = min(many, limit)
        found.append((each, many, many * size, many * value))
        limit -= many
        many *= 2
    return found
