"""Bins of one kind, to the proven optimum where it can be: heuristics, all tight patterns, column generation, dives."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vrampack.packing.bounds import second_bound
from vrampack.packing.columns import Master
from vrampack.packing.dive import NEARLY, Node, Pricer, dive
from vrampack.packing.enumeration import least_waste
from vrampack.packing.generation import Generator
from vrampack.packing.problem import Work
from vrampack.packing.slack import best_fit, minimum_slack
from vrampack.packing.stock import Pattern, Solution, Stock, solution_of
from vrampack.packing.tally import UNLIMITED, Tally

_TIGHT_PATTERNS = 8000
_TIGHT_BITS = 60_000_000
"""Work of enumeration: each step looks at a set of as many bits as a bin has units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The best so far, what is proven, and the work that was done for it."""

    best: Solution
    bound: int
    done: Work

    @property
    def optimal(self) -> bool:
        """Whether no solution is better."""
        return self.best.cost <= self.bound


def search(stock: Stock, *, seed: int) -> Iterator[Progress]:
    """Ever better solutions of a stock with one kind of bins, all pieces placed; ends with the proof of the optimum.

    It may go on for ever; each step is a pricing round, a linear programme of a dive or a heuristic, so the caller
    stops it by counting ``done``. Every answer depends on the stock, the seed and the work only.
    """
    work = _Search(stock, seed)
    for _ in work.steps():
        yield work.progress
        if work.progress.optimal:
            return


class _Search:
    def __init__(self, stock: Stock, seed: int) -> None:
        self._stock = stock
        self._kind = stock.kinds[0]
        self._draw = np.random.default_rng(seed)
        self._tally = Tally(UNLIMITED)
        self._generator = Generator(stock, self._draw, self._tally)
        self._best = self._of(best_fit(stock.sizes, stock.counts, self._kind.capacity))
        self._bound = second_bound(stock.sizes, stock.counts, self._kind.capacity) * self._kind.cost

    @property
    def progress(self) -> Progress:
        return Progress(best=self._best, bound=self._bound, done=self._tally.done)

    def steps(self) -> Iterator[None]:
        yield
        self._offer(minimum_slack(self._stock.sizes, self._stock.counts, self._kind.capacity))
        yield
        yield from self._tight()
        master = Master(self._stock)
        master.add(self._best.patterns)
        yield from self._relax(master)
        while True:
            yield from self._dive(master, self._generator)

    def _tight(self) -> Iterator[None]:
        """All patterns that waste no more than all bins together do at the bound, and dives among them."""
        stock = self._stock
        if not stock.sizes or not stock.sizes[-1]:
            return
        waste = self._bound // self._kind.cost * self._kind.capacity - stock.total
        parts = least_waste(
            sizes=stock.sizes,
            limits=self._stock.limits(0),
            capacity=self._kind.capacity,
            waste=waste,
            most=_TIGHT_PATTERNS,
            steps=_TIGHT_BITS // max(1000, self._kind.capacity),
        )
        if not parts:
            return
        master = Master(stock)
        master.add(Pattern(0, each) for each in parts)
        for _ in range(3):
            yield from self._dive(master, None)

    def _relax(self, master: Master) -> Iterator[None]:
        """The linear programme, priced to its end."""
        demand = np.array(self._stock.counts, dtype=np.int64)
        while True:
            relaxed = master.solve()
            if relaxed is None or relaxed.value <= self._bound / master.unit + NEARLY:
                return
            improved = self._generator.improve(master, relaxed, demand)
            self._bound = max(self._bound, self._generator.bound)
            yield
            if not improved:
                return

    def _dive(self, master: Master, pricer: Pricer | None) -> Iterator[None]:
        self._tally.dives += 1
        least = float(sum(self._stock.counts))
        target = self._bound if self._tally.dives % 2 else self._best.cost - self._kind.cost
        for node in dive(master, target=target / master.unit, draw=self._draw, discrepancies=50, pricer=pricer):
            self._tally.nodes += 1
            pieces = int(node.demand.sum())
            if pieces <= 0.8 * least:  # a little further on the rest would be filled in much the same way
                least = pieces
                self._complete(node)
            yield
            if self._best.cost <= self._bound:
                return

    def _complete(self, node: Node) -> None:
        """What a node leaves, by minimum bin slack."""
        left = [int(each) for each in node.demand]
        rest = minimum_slack(self._stock.sizes, left, self._kind.capacity)
        patterns = Counter({Pattern(0, parts): times for parts, times in rest.items()})
        found = solution_of(self._stock, node.fixed + patterns)
        if found.cost < self._best.cost:
            self._best = found

    def _offer(self, bins: Counter[tuple[tuple[int, int], ...]]) -> None:
        found = self._of(bins)
        if found.cost < self._best.cost:
            self._best = found

    def _of(self, bins: Counter[tuple[tuple[int, int], ...]]) -> Solution:
        return solution_of(self._stock, {Pattern(0, parts): times for parts, times in bins.items()})
