"""The most that a device of every size can be filled with, for many sets of values at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vrampack.packing.arrays import BoolArray, IntArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Filling:
    """``best[s, j]`` is the most that fits into ``s`` steps at the values of column ``j``.

    Pieces are offered in bundles of 1, 2, 4, …: ``bundles`` has the piece and the number of each, ``took[i, s, j]``
    says whether bundle ``i`` improved ``s`` steps.
    """

    best: FloatArray
    sizes: IntArray
    bundles: list[tuple[int, int]]
    took: BoolArray

    def parts(self, steps: int, column: int) -> dict[int, int]:
        """A filling that reaches ``best[steps, column]``: how many of each piece."""
        found: dict[int, int] = {}
        for row in range(len(self.bundles) - 1, -1, -1):
            if self.took[row, steps, column]:
                piece, number = self.bundles[row]
                found[piece] = found.get(piece, 0) + number
                steps -= number * int(self.sizes[piece])
        return found


def filled(*, sizes: IntArray, values: FloatArray, steps: int) -> Filling:
    """The unbounded knapsack of all sizes up to ``steps``. ``sizes``: 1 or more; ``values``: a line for each piece, a
    column for each set of values; pieces without a positive value are left out."""
    bundles = [
        (piece, 1 << power)
        for piece, size in enumerate(sizes.tolist())
        if values[piece].max(initial=0.0) > 0
        for power in range((steps // size).bit_length())
    ]
    best = np.zeros((steps + 1, values.shape[1]))
    took = np.zeros((len(bundles), *best.shape), np.bool_)
    for row, (piece, number) in enumerate(bundles):
        size = number * int(sizes[piece])
        if size <= steps:
            offer = best[: steps + 1 - size] + number * values[piece]
            np.greater(offer, best[size:] + 1e-9, out=took[row, size:])
            np.maximum(best[size:], offer, out=best[size:])
    return Filling(best, sizes, bundles, took)
