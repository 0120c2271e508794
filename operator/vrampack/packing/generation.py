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


@dataclass(slots=True, eq=False)
class Generator:
    """Prices the kinds of ``stock``: those that admit the same pieces share one table.

    ``rounds`` counts the pricings so far, ``bound`` is the most that one of them proved, as a cost of the whole stock.
    ``columns``: the most patterns that a kind gets in one round.
    """

    stock: Stock
    draw: np.random.Generator
    columns: int = 12
    rounds: int = 0
    bound: int = 0
    _groups: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        alike: dict[object, list[int]] = {}
        for kind, each in enumerate(self.stock.kinds):
            alike.setdefault(each.admits, []).append(kind)
        self._groups = list(alike.values())

    def improve(self, master: Master, relaxed: Relaxed, demand: _INTS) -> int:
        """Adds patterns within ``demand`` to ``master``; how many there were. One round."""
        self.rounds += 1
        stock, unit = self.stock, master.unit
        prices = [int(value * SCALE) for value in relaxed.pieces]
        if stock.penalties is not None:
            prices = [min(each, most * SCALE // unit) for each, most in zip(prices, stock.penalties, strict=True)]
        costs = [kind.cost * SCALE // unit for kind in stock.kinds]
        found: list[Pattern] = []
        worth = [0] * len(stock.kinds)
        whole = demand.tolist() == list(stock.counts)
        for group in self._groups:
            table = self._table(group, prices, demand)
            for kind in group:
                capacity = stock.kinds[kind].capacity
                worth[kind] = int(table.best[capacity])
                above = costs[kind] + int((relaxed.bins[kind] + _NEARLY) * SCALE)
                if worth[kind] > above:
                    found += (
                        Pattern(kind, parts) for parts in table.patterns(capacity, above=above, most=self.columns)
                    )
        if whole:
            bins = [(kind.supply, best, cost) for kind, best, cost in zip(stock.kinds, worth, costs, strict=True)]
            proven = dual_bound(counts=stock.counts, prices=prices, bins=bins)
            self.bound = max(self.bound, rounded(stock, proven * unit / SCALE))
        return master.add(found)

    def _table(self, group: Sequence[int], prices: Sequence[int], demand: _INTS) -> Table:
        stock = self.stock
        widest = max(group, key=lambda kind: stock.kinds[kind].capacity)
        limits = [min(int(left), most) for left, most in zip(demand, stock.limits(widest), strict=True)]
        order = self.draw.permutation(len(prices)).tolist()
        return price(
            sizes=stock.sizes, prices=prices, limits=limits, order=order, capacity=stock.kinds[widest].capacity
        )


def rounded(stock: Stock, cost: Fraction) -> int:
    """The least cost that bins of ``stock`` can have together and that is not below ``cost``."""
    step = gcd(*(kind.cost for kind in stock.kinds), *(stock.penalties or ()))
    return ceil(cost / step) * step if step else 0
