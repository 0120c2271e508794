"""Column generation: patterns that lower the linear programme, and the bound that each round of it proves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vrampack.packing.bounds import dual_bound, rounded
from vrampack.packing.columns import Master, Relaxed
from vrampack.packing.exact import Exact
from vrampack.packing.pricing import SCALE, Parts, Table, price
from vrampack.packing.stock import Pattern, Stock
from vrampack.packing.tally import Tally

_INTS = NDArray[np.int64]
_NEARLY = 1e-9
_NODES = 20_000
"""Of an exact search for one kind."""


COARSE, FINE = 1 << 11, 1 << 16
"""Steps of the widest bin in which patterns are priced at first, and at the finest."""


@dataclass(slots=True, eq=False)
class Generator:
    """Prices the kinds of ``stock``: those that admit the same pieces share one table.

    ``tally`` counts the rounds; ``bound`` is the most that one of them proved, as a cost of the whole stock.
    ``columns``: the most patterns that a kind gets in one round. ``unit``: sizes are priced in multiples of it, pieces
    rounded up and bins rounded down, so that every pattern fits; it gets finer when nothing more is found.
    """

    stock: Stock
    draw: np.random.Generator
    tally: Tally
    columns: int = 12
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
        """Adds patterns within ``demand`` to ``master``; how many there were. None where no more work may be done."""
        while self.tally.prices:
            added = self._round(master, relaxed, demand)
            if added or self.unit == self._finest:
                return added
            self.unit = max(self._finest, self.unit // 8)
        return 0

    def _round(self, master: Master, relaxed: Relaxed, demand: _INTS) -> int:
        self.tally.rounds += 1
        prices = self._prices(master, relaxed)
        costs = self._costs(master)
        found: list[Pattern] = []
        worth = [0] * len(costs)
        for group in self._groups:
            table = self._table(group, prices, demand)
            for kind in group:
                capacity = self.stock.kinds[kind].capacity // self.unit
                worth[kind] = int(table.best[capacity])
                above = costs[kind] + int((relaxed.bins[kind] + _NEARLY) * SCALE)
                if worth[kind] > above:
                    parts = table.patterns(capacity, above=above, most=self.columns)
                    found += (pattern for each in parts if (pattern := self._tidy(kind, each, prices)).parts)
            found += self._singles(group, prices, costs, relaxed, demand)
        if self.unit == 1 and not self.stock.alone and demand.tolist() == list(self.stock.counts):
            self._prove(master, relaxed, prices, worth)
        return master.add(found)

    def _singles(
        self, group: Sequence[int], prices: Sequence[int], costs: Sequence[int], relaxed: Relaxed, demand: _INTS
    ) -> Iterator[Pattern]:
        """Pieces that have a bin to themselves."""
        for kind in group:
            limits = self.stock.limits(kind) if self.stock.alone else ()
            above = costs[kind] + int((relaxed.bins[kind] + _NEARLY) * SCALE)
            for each in self.stock.alone:
                if limits[each] and demand[each] and prices[each] > above:
                    yield Pattern(kind, ((each, 1),))

    def _tidy(self, kind: int, parts: Parts, prices: Sequence[int]) -> Pattern:
        """``parts`` without what may not be in one bin: the cheaper one of two that conflict, and what is too many."""
        stock, slots = self.stock, self.stock.kinds[kind].slots
        kept: list[tuple[int, int]] = []
        for each, many in sorted(parts, key=lambda part: (-part[1] * prices[part[0]], part[0])):
            if any((each, other) in stock.conflicts or (other, each) in stock.conflicts for other, _ in kept):
                continue
            fits = many if slots is None else min(many, slots - sum(number for _, number in kept))
            if fits > 0:
                kept.append((each, fits))
        return Pattern(kind, tuple(sorted(kept)))

    def prove(self, master: Master, relaxed: Relaxed) -> int:
        """Prices exactly: the bound that this proves, and patterns that rounding had hidden, added to ``master``; how
        many there were. One round; nothing where no more work may be done."""
        if not self.tally.prices:
            return 0
        self.tally.rounds += 1
        stock = self.stock
        prices, costs = self._prices(master, relaxed), self._costs(master)
        worth = [0] * len(stock.kinds)
        found: list[Pattern] = []
        for group in self._groups:
            widest = max(group, key=lambda kind: stock.kinds[kind].capacity)
            limits = stock.limits(widest)
            together = [0 if each in stock.alone else value for each, value in enumerate(prices)]
            exact = Exact(
                sizes=stock.sizes, prices=together, limits=limits, widest=max(0, stock.kinds[widest].capacity)
            )
            for kind in group:
                above = costs[kind] + int(relaxed.bins[kind] * SCALE)
                single = max((prices[each] for each in stock.alone if stock.limits(kind)[each]), default=0)
                best, parts = exact.best(stock.kinds[kind].capacity, above=above, nodes=_NODES)
                worth[kind] = max(best, single)
                if parts:
                    found.append(self._tidy(kind, parts, prices))
        self._prove(master, relaxed, prices, worth)
        return master.add(pattern for pattern in found if pattern.parts)

    def _prove(self, master: Master, relaxed: Relaxed, prices: Sequence[int], worth: Sequence[int]) -> None:
        stock = self.stock
        hints = [int(value * SCALE) for value in relaxed.bins]
        supplies = [kind.supply for kind in stock.kinds]
        bins = list(zip(supplies, worth, self._costs(master), hints, strict=True))
        proven = dual_bound(counts=stock.counts, prices=prices, bins=bins, choices=stock.choices)
        self.bound = max(self.bound, rounded(stock, proven * master.unit / SCALE))

    def _prices(self, master: Master, relaxed: Relaxed) -> list[int]:
        prices = [int(value * SCALE) for value in relaxed.pieces]
        if self.stock.penalties is None:
            return prices
        most = [penalty * SCALE // master.unit for penalty in self.stock.penalties]
        return [min(pair) for pair in zip(prices, most, strict=True)]

    def _costs(self, master: Master) -> list[int]:
        return [kind.cost * SCALE // master.unit for kind in self.stock.kinds]

    def _table(self, group: Sequence[int], prices: Sequence[int], demand: _INTS) -> Table:
        stock, unit = self.stock, self.unit
        widest = max(group, key=lambda kind: stock.kinds[kind].capacity)
        lots = stock.lots or (1,) * len(stock.sizes)
        left = [int(pieces) // each for pieces, each in zip(demand, lots, strict=True)]
        limits = [min(pair) for pair in zip(left, stock.limits(widest), strict=True)]
        for each in stock.alone:
            limits[each] = 0
        return price(
            sizes=[-(-size // unit) for size in stock.sizes],
            prices=prices,
            limits=limits,
            order=self.draw.permutation(len(prices)).tolist(),
            capacity=stock.kinds[widest].capacity // unit,
        )
