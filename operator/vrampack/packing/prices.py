"""What a typical replica's share of a GPU is worth: the memory that must be opened for it when it is packed well.

These are the dual values of the cutting-stock programme over the typical mix (Gilmore and Gomory, Operations Research
9(6), 1961): of all ways to serve the mix, the one that opens the least memory. A piece for which there is always a
place beside others is worth nothing, one that leaves a gap which nothing fills is worth a whole GPU. The programme is
free of scale: neither the number of replicas nor that of GPUs counts, only their proportions.
"""

from collections.abc import Mapping, Sequence
from math import gcd

import highspy
import numpy as np

from vrampack.errors import VrampackError
from vrampack.packing.arrays import IntArray
from vrampack.packing.knapsack import FloatArray, filled
from vrampack.packing.mix import Typical

FINEST = 1024
"""Steps into which a GPU is divided at most, where all sizes are multiples of one."""
COARSE = 256
"""Steps where they are not: sizes are rounded to the nearest, since worth is a forecast, and what fits is never asked
here."""
_ROUNDS = 200
_NEARLY = 1e-7


def admits(each: Typical, product: str, capacity: int) -> bool:
    """Whether one of its shares can be on a device of ``product``."""
    return each.gpus > 0 and 0 < each.memory <= capacity and (each.products is None or product in each.products)


def steps_of(capacity: int, sizes: Sequence[int]) -> int:
    """Into how many steps a device of ``capacity`` is divided for pieces of ``sizes``."""
    exact = capacity // max(1, gcd(capacity, *sizes))
    return exact if exact <= FINEST else COARSE


def level(memory: IntArray, capacity: IntArray | int, steps: IntArray | int) -> IntArray:
    """``memory`` in steps of a device of ``capacity``, the nearest."""
    levels: IntArray = (2 * memory * steps + capacity) // (2 * capacity)
    return levels


def share_prices(mix: Sequence[Typical], capacities: Mapping[str, int]) -> FloatArray:
    """For each class of ``mix``, the bytes that must be opened for its share of one device; 0 for one that needs none,
    and for one that no product admits. ``capacities``: by product, in bytes.

    Raises VrampackError where the solver fails.
    """
    keys = [(each.memory, tuple(admits(each, name, capacities[name]) for name in capacities)) for each in mix]
    kinds = sorted({key for key in keys if any(key[1])})
    weights = np.zeros(len(kinds))
    place = {kind: number for number, kind in enumerate(kinds)}
    for each, key in zip(mix, keys, strict=True):
        if key in place:
            weights[place[key]] += each.weight * each.gpus
    if not kinds:
        return np.zeros(len(mix))
    dual = _Programme(kinds, weights / weights.sum(), list(capacities.values())).solve()
    return np.array([dual[place[key]] if key in place else 0.0 for key in keys])


class _Programme:
    """Least opened memory for demands of ``kinds`` (bytes, and which products admit them); columns are generated."""

    def __init__(
        self, kinds: Sequence[tuple[int, tuple[bool, ...]]], weights: FloatArray, sizes: Sequence[int]
    ) -> None:
        self._capacities = sizes
        # Costs near 1 suit the solver's tolerances.
        self._unit = max(sizes)
        self._admitted = [np.flatnonzero([kind[1][product] for kind in kinds]) for product in range(len(sizes))]
        memory = np.array([kind[0] for kind in kinds], np.int64)
        self._steps = [steps_of(size, memory[rows].tolist()) for size, rows in zip(sizes, self._admitted, strict=True)]
        self._levels = [
            np.maximum(level(memory[rows], size, steps), 1)
            for size, rows, steps in zip(sizes, self._admitted, self._steps, strict=True)
        ]
        self._solver = _Solver()  # type: ignore[no-untyped-call]
        for weight in weights.tolist():
            self._solver.addRow(weight, highspy.kHighsInf, 0, np.array([], np.int32), np.array([]))
        for product, rows in enumerate(self._admitted):
            for row, size in zip(rows.tolist(), self._levels[product].tolist(), strict=True):
                self._add(product, {row: self._steps[product] // size})

    def _add(self, product: int, parts: Mapping[int, int]) -> None:
        rows = np.array(sorted(parts), np.int32)
        numbers = np.array([parts[row] for row in rows.tolist()], np.float64)
        cost = self._capacities[product] / self._unit
        self._solver.addCol(cost, 0.0, highspy.kHighsInf, len(rows), rows, numbers)

    def solve(self) -> FloatArray:
        """The dual values, in bytes."""
        for _ in range(_ROUNDS):
            self._solver.run()
            if self._solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
                raise VrampackError(f"the programme of prices ended as {self._solver.getModelStatus()}")
            dual = np.array(self._solver.getSolution().row_dual)
            improved = [self._improve(product, dual) for product in range(len(self._capacities))]
            if not any(improved):
                break
        bytes_: FloatArray = np.maximum(dual, 0.0) * self._unit
        return bytes_

    def _improve(self, product: int, dual: FloatArray) -> bool:
        """Adds the pattern of ``product`` that gains most at these prices; whether one gains."""
        rows, steps = self._admitted[product], self._steps[product]
        if not len(rows):
            return False
        found = filled(sizes=self._levels[product], values=dual[rows].reshape(-1, 1), steps=steps)
        if found.best[steps, 0] <= self._capacities[product] / self._unit + _NEARLY:
            return False
        self._add(product, {int(rows[piece]): number for piece, number in found.parts(steps, 0).items()})
        return True


class _Solver(highspy.Highs):
    """HiGHS in one thread, so that the answer is always the same, and without a word: enabling callbacks, of which none
    is used, would print its banner on standard output."""

    def enableCallbacks(self) -> None:  # noqa: N802 # its name there
        self.setOptionValue("output_flag", False)
        self.setOptionValue("threads", 1)
