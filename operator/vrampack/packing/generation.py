"""Column generation: patterns that lower the linear programme, and the bound that each round of it proves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from vrampack.packing.bounds import dual_bound
from vrampack.packing.columns import Master, Relaxed
from vrampack.packing.pricing import SCALE, Table, price
from vrampack.packing.stock import Pattern, Stock

_INTS = NDArray[np.int64]
_NEARLY = 1e-9


COARSE, FINE = 1 << 11, 1 << 16
"""Steps of the widest bin in which patterns are priced at first, and at the finest."""


@dataclass(slots=True, eq=False)
class Generator:
    """Prices the kinds of ``stock``: those that admit the same pieces share one table.

    ``rounds`` counts the pricings so far, ``bound`` is the most that one of them proved, as a cost of the whole stock.
    ``columns``: the most patterns that a kind gets in one round. ``unit``: sizes are priced in multiples of it, pieces
    rounded up and bins rounded down, so that every pattern fits; it gets finer when nothing more is found.
    """

    stock: Stock
    draw: np.random.Generator
    columns: int = 12
    rounds: int = 0
    bound: int = 0
    unit: int = field(init=False)
    _finest: int = field(init=False)
    _groups: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        alike: dict[object, list[int]] = {}
        for kind, each in enumerate(self.stock.kinds):
            alike.setdefault(each.admits, []).append(kind)
        self._groups = list(alike.values())
        widest = max((kind.capacity for kind in self.stock.kinds), default=0)
        self._finest = 1 if widest <= 2 * FINE else widest // FINE
        self.unit = max(self._finest, widest // COARSE if widest > 8 * COARSE else 1)

    def improve(self, master: Master, relaxed: Relaxed, demand: _INTS) -> int:
        """Adds patterns within ``demand`` to ``master``; how many there were."""
        while True:
            added = self._round(master, relaxed, demand)
            if added or self.unit == self._finest:
                return added
            self.unit = max(self._finest, self.unit // 8)

    def _round(self, master: Master, relaxed: Relaxed, demand: _INTS) -> int:
        self.rounds += 1
        prices = self._prices(master, relaxed)
        costs = self._costs(master)
        found: list[Pattern] = []
        worth = [0] * len(costs)
        for group in self._groups:
            table = self._table(group, prices, demand, up=True)
            for kind in group:
                capacity = self.stock.kinds[kind].capacity // self.unit
                worth[kind] = int(table.best[capacity])
                above = costs[kind] + int((relaxed.bins[kind] + _NEARLY) * SCALE)
                if worth[kind] > above:
                    parts = table.patterns(capacity, above=above, most=self.columns)
                    found += (Pattern(kind, each) for each in parts)
        if self.unit == 1 and demand.tolist() == list(self.stock.counts):
            self._prove(master, prices, costs, worth)
        return master.add(found)

    def prove(self, master: Master, relaxed: Relaxed) -> None:
        """The bound of these prices, at the finest unit: pieces rounded down and bins with what is left of them, so
        that nothing that fits is missed. One round."""
        self.rounds += 1
        self.unit = self._finest
        prices = self._prices(master, relaxed)
        worth = [0] * len(self.stock.kinds)
        for group in self._groups:
            table = self._table(group, prices, np.array(self.stock.counts, dtype=np.int64), up=False)
            for kind in group:
                worth[kind] = int(table.best[self.stock.kinds[kind].capacity // self.unit])
        self._prove(master, prices, self._costs(master), worth)

    def _prove(self, master: Master, prices: Sequence[int], costs: Sequence[int], worth: Sequence[int]) -> None:
        stock = self.stock
        bins = [(kind.supply, best, cost) for kind, best, cost in zip(stock.kinds, worth, costs, strict=True)]
        proven = dual_bound(counts=stock.counts, prices=prices, bins=bins)
        self.bound = max(self.bound, rounded(stock, proven * master.unit / SCALE))

    def _prices(self, master: Master, relaxed: Relaxed) -> list[int]:
        prices = [int(value * SCALE) for value in relaxed.pieces]
        if self.stock.penalties is None:
            return prices
        most = [penalty * SCALE // master.unit for penalty in self.stock.penalties]
        return [min(pair) for pair in zip(prices, most, strict=True)]

    def _costs(self, master: Master) -> list[int]:
        return [kind.cost * SCALE // master.unit for kind in self.stock.kinds]

    def _table(self, group: Sequence[int], prices: Sequence[int], demand: _INTS, *, up: bool) -> Table:
        stock, unit = self.stock, self.unit
        widest = max(group, key=lambda kind: stock.kinds[kind].capacity)
        return price(
            sizes=[-(-size // unit) if up else size // unit for size in stock.sizes],
            prices=prices,
            limits=[min(int(left), most) for left, most in zip(demand, stock.limits(widest), strict=True)],
            order=self.draw.permutation(len(prices)).tolist(),
            capacity=stock.kinds[widest].capacity // unit,
        )


def rounded(stock: Stock, cost: Fraction) -> int:
    """The least cost that bins of ``stock`` can have together and that is not below ``cost``."""
    step = gcd(*(kind.cost for kind in stock.kinds), *(stock.penalties or ()))
    return ceil(cost / step) * step if step else 0
