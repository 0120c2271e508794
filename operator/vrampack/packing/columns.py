"""The restricted master: the linear programme over the patterns known so far, in HiGHS.

It runs with one thread, by the simplex method and without a time limit, so equal input gives an equal answer. What has
been fixed lowers the right-hand sides and the bounds of columns, from which the simplex method goes on where it stood.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

from vrampack.packing.stock import Pattern, Stock

_INTS = NDArray[np.int64]
_FLOATS = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """An optimum of the linear programme: how often each pattern and each way of each choice, one choice after
    another, and the value of one piece and of one more bin."""

    value: float
    times: _FLOATS
    pieces: _FLOATS
    bins: _FLOATS
    ways: _FLOATS


_PRIMAL = 4
"""Columns come in between, which leaves the basis feasible: the primal method goes on from there."""


class Master:
    """Rows: one a class (as many pieces or more), one a kind (no more bins than there are), one a choice (no more
    wholes than there are). Columns: pieces left out, ways of choices, and patterns.

    ``unit``: the cost that counts 1 in the linear programme.
    """

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self.patterns: list[Pattern] = []
        self._known: set[Pattern] = set()
        self._classes = len(stock.sizes)
        self._starts: list[int] = [0]
        self._classes_of: _INTS = np.empty(0, dtype=np.int64)
        self._many: _INTS = np.empty(0, dtype=np.int64)
        self.unit = max((kind.cost for kind in stock.kinds), default=0) or max(stock.penalties or (1,), default=1) or 1
        self._model = _solver()
        self._rows(stock)

    def _rows(self, stock: Stock) -> None:
        none = np.array([], dtype=np.int32)
        lower = np.concatenate((np.array(stock.counts, dtype=float), np.full(len(stock.kinds), -highspy.kHighsInf)))
        upper = np.concatenate((np.full(self._classes, highspy.kHighsInf), self._supply_bounds(None)))
        self._model.addRows(len(lower), lower, upper, 0, none, none, np.array([], dtype=float))
        for choice in stock.choices:
            self._model.addRow(-highspy.kHighsInf, choice.supply, 0, none, np.array([], dtype=float))
        self._slacks = 0
        if stock.penalties is not None:
            self._slacks = self._classes
            self._model.addCols(
                self._classes,
                np.array(stock.penalties, dtype=float) / self.unit,
                np.zeros(self._classes),
                np.array(stock.counts, dtype=float),
                self._classes,
                np.arange(self._classes, dtype=np.int32),
                np.arange(self._classes, dtype=np.int32),
                np.ones(self._classes),
            )

        self._ways = 0
        for place, choice in enumerate(stock.choices):
            for way in choice.ways:
                kinds = Counter(dict(way))
                rows = [self._classes + kind for kind in kinds] + [self._classes + len(stock.kinds) + place]
                values = [-float(many) for many in kinds.values()] + [1.0]
                self._model.addCol(
                    0.0, 0.0, highspy.kHighsInf, len(rows), np.array(rows, dtype=np.int32), np.array(values)
                )
                self._ways += 1

    def _supply_bounds(self, supply: Sequence[int | None] | None) -> _FLOATS:
        bounds = [kind.supply for kind in self.stock.kinds] if supply is None else supply
        return np.array([highspy.kHighsInf if each is None else each for each in bounds], dtype=float)

    def add(self, patterns: Iterable[Pattern]) -> int:
        """How many of them were new."""
        new = []
        for pattern in patterns:
            if pattern not in self._known:
                self._known.add(pattern)
                new.append(pattern)
        if not new:
            return 0
        index: list[int] = []
        value: list[int] = []
        starts: list[int] = []
        for pattern in new:
            starts.append(len(index))
            for each, many in pattern.parts:
                index.append(each)
                value.append(many)
            self._starts.append(self._starts[-1] + len(pattern.parts))
            index.append(self._classes + pattern.kind)
            value.append(1)
        costs = np.array([self.stock.kinds[pattern.kind].cost / self.unit for pattern in new], dtype=float)
        self._model.addCols(
            len(new),
            costs,
            np.zeros(len(new)),
            np.full(len(new), highspy.kHighsInf),
            len(index),
            np.array(starts, dtype=np.int32),
            np.array(index, dtype=np.int32),
            np.array(value, dtype=float),
        )
        parts = np.array([part for pattern in new for part in pattern.parts], dtype=np.int64)
        self._classes_of = np.concatenate((self._classes_of, parts[:, 0]))
        self._many = np.concatenate((self._many, parts[:, 1]))
        self.patterns += new
        return len(new)

    def fitting(self, demand: _INTS) -> _INTS:
        """How often each pattern goes into the demand that is left."""
        if not self.patterns:
            return np.empty(0, dtype=np.int64)
        whole: _INTS = np.minimum.reduceat(demand[self._classes_of] // self._many, self._starts[:-1])
        return whole

    def restrict(self, *, demand: _INTS, supply: Sequence[int | None], upper: _INTS) -> None:
        """From here on: this demand, these bins, and each pattern at most ``upper`` times."""
        classes, kinds, slacks = self._classes, len(self.stock.kinds), self._slacks
        lower = np.concatenate((demand.astype(float), np.full(kinds, -highspy.kHighsInf)))
        bounds = np.concatenate((np.full(classes, highspy.kHighsInf), self._supply_bounds(supply)))
        self._model.changeRowsBounds(  # type: ignore[attr-defined] # missing from the stubs
            len(lower), np.arange(len(lower), dtype=np.int32), lower, bounds
        )
        first = slacks + self._ways
        columns = np.concatenate((np.arange(slacks), np.arange(first, first + len(upper)))).astype(np.int32)
        most = np.concatenate((demand[:slacks].astype(float), upper.astype(float)))
        self._model.changeColsBounds(len(columns), columns, np.zeros(len(columns)), most)

    def solve(self) -> Relaxed | None:
        """The optimum, or None where the patterns can't do it."""
        self._model.run()
        if self._model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        solution = self._model.getSolution()
        duals, values = np.array(solution.row_dual), np.array(solution.col_value)
        return Relaxed(
            value=self._model.getObjectiveValue(),
            times=values[self._slacks + self._ways :],
            ways=values[self._slacks : self._slacks + self._ways],
            pieces=np.maximum(duals[: self._classes], 0.0),
            bins=np.maximum(-duals[self._classes : self._classes + len(self.stock.kinds)], 0.0),
        )


class _Solver(highspy.Highs):
    """HiGHS without a word: enabling callbacks, of which none is used, would print its banner on standard output."""

    def enableCallbacks(self) -> None:  # noqa: N802 # its name there
        self.setOptionValue("output_flag", False)


def _solver() -> highspy.Highs:
    model = _Solver()  # type: ignore[no-untyped-call]
    model.setOptionValue("threads", 1)
    model.setOptionValue("parallel", "off")
    model.setOptionValue("solver", "simplex")
    model.setOptionValue("simplex_strategy", _PRIMAL)
    model.setOptionValue("presolve", "off")
    model.setOptionValue("random_seed", 0)
    return model
