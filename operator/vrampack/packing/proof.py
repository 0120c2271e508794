"""The linear programme over all patterns of a stock, solved to its end, and the bound that it proves."""

from collections.abc import Iterable, Iterator

import numpy as np

from vrampack.packing.columns import Master, Relaxed
from vrampack.packing.generation import Generator
from vrampack.packing.stock import Pattern, Stock
from vrampack.packing.tally import Tally


class Proof:
    """``master`` and ``relaxed`` stand where the work ended; ``bound`` is proven, as a cost of the stock, wherever that
    was. Every piece may be left out at a penalty, so the programme always has an optimum."""

    def __init__(self, stock: Stock, draw: np.random.Generator, tally: Tally) -> None:
        self.master = Master(stock)
        self.generator = Generator(stock, draw, tally)
        self.relaxed: Relaxed | None = None

    @property
    def bound(self) -> int:
        """Nothing costs less."""
        return self.generator.bound

    def relax(self, patterns: Iterable[Pattern]) -> Iterator[None]:
        """Priced in steps of the generator's unit, from ``patterns`` on; a step is a round of pricing."""
        demand = np.array(self.master.stock.counts, dtype=np.int64)
        self.master.add(patterns)
        while True:
            self.relaxed = self.master.solve()
            if self.relaxed is None or not self.generator.improve(self.master, self.relaxed, demand):
                return
            yield

    def steps(self, patterns: Iterable[Pattern]) -> Iterator[None]:
        """Priced exactly, so that the bound is the programme's optimum, rounded."""
        while True:
            yield from self.relax(patterns)
            patterns = ()
            if self.relaxed is None or not self.generator.prove(self.master, self.relaxed):
                return
            yield
