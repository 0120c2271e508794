"""What no packing can beat. All of it in integers, so a bound is never too high."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate


def second_bound(sizes: Sequence[int], counts: Sequence[int], capacity: int) -> int:
    """L2, the number of bins of one ``capacity`` that are needed at least. ``sizes`` descend.

    (Martello, Toth: Lower bounds and reduction procedures for the bin packing problem, Discrete Applied Mathematics 28,
    1990.)

    For each threshold: the pieces above half a bin need one each; the pieces between the threshold and half a bin need
    what is left beside those that leave at least the threshold.
    """
    numbers = [0, *accumulate(counts)]
    totals = [0, *accumulate(size * count for size, count in zip(sizes, counts, strict=True))]
    most = -(-totals[-1] // capacity) if capacity else 0
    half = next((place for place, size in enumerate(sizes) if 2 * size <= capacity), len(sizes))
    alone = half
    for last in range(half, len(sizes)):
        threshold = sizes[last]
        while alone and sizes[alone - 1] + threshold <= capacity:
            alone -= 1
        room = (numbers[half] - numbers[alone]) * capacity - (totals[half] - totals[alone])
        rest = totals[last + 1] - totals[half]
        most = max(most, numbers[half] + max(0, -(-(rest - room) // capacity)))
    return max(most, numbers[half])


def dual_bound(
    *, counts: Sequence[int], prices: Sequence[int], bins: Sequence[tuple[int | None, int, int]]
) -> Fraction:
    """The cost that these prices of pieces prove, in the unit of the prices; never more than the optimum.

    ``bins``: for each kind its supply, what the best pattern is worth (the exact optimum of pricing) and the cost of a
    bin. Where bins are without limit the prices are divided until no pattern is worth more than its bin (Farley: A note
    on bounding a class of linear programming problems, including cutting stock problems, Operations Research 38, 1990);
    where they are limited, what patterns are worth beyond their bins is subtracted (the Lagrangian bound).
    """
    factor = min((Fraction(cost, best) for supply, best, cost in bins if supply is None and best > cost), default=1)
    value = factor * sum(count * price for count, price in zip(counts, prices, strict=True))
    excess = sum(supply * max(Fraction(0), factor * best - cost) for supply, best, cost in bins if supply is not None)
    return Fraction(value - excess)
