"""What no packing can beat. All of it in integers, so a bound is never too high."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from math import ceil, gcd

from vrampack.packing.stock import Choice, Stock


def second_bound(sizes: Sequence[int], counts: Sequence[int], capacity: int) -> int:
    """L2, the number of bins of one ``capacity`` that are needed at least. ``sizes`` descend.

    (Martello, Toth: Lower bounds and reduction procedures for the bin packing problem, Discrete Applied Mathematics 28,
    1990.)

    For each threshold: the pieces above half a bin need one each; the pieces between the threshold and half a bin need
    what is left beside those that leave at least the threshold.
    """
    if not capacity:  # only pieces of no size fit
        return min(1, sum(counts))
    numbers = [0, *accumulate(counts)]
    totals = [0, *accumulate(size * count for size, count in zip(sizes, counts, strict=True))]
    most = -(-totals[-1] // capacity)
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
    *,
    counts: Sequence[int],
    prices: Sequence[int],
    bins: Sequence[tuple[int | None, int, int, int]],
    choices: Sequence[Choice] = (),
) -> Fraction:
    """The cost that these prices of pieces prove, in the unit of the prices; never more than the optimum.

    ``bins``: for each kind its supply, what the best pattern is worth (no less than the optimum of pricing), the cost
    of a bin, and the price of one more of them, which is only a hint. Divided until no pattern is worth more than its
    bin, the prices are feasible in the dual (Farley: A note on bounding a class of linear programming problems,
    including cutting stock problems, Operations Research 38, 1990); where bins are limited, what patterns are worth
    beyond their bins may be subtracted instead (the Lagrangian bound). The better of the two.
    """
    needed = min((Fraction(cost, best) for supply, best, cost, _ in bins if supply is None and best > cost), default=1)
    hinted = min((Fraction(cost + more, best) for _, best, cost, more in bins if best > cost + more), default=1)
    worth = sum(count * price for count, price in zip(counts, prices, strict=True))
    proven = Fraction(0)
    for factor in {Fraction(needed), Fraction(min(needed, hinted))}:
        excess = Fraction(0) + sum(
            supply * max(Fraction(0), factor * best - cost) for supply, best, cost, _ in bins if supply is not None
        )
        for choice in choices:
            gains = [
                sum(many * max(Fraction(0), factor * bins[kind][1] - bins[kind][2]) for kind, many in way)
                for way in choice.ways
            ]
            excess += choice.supply * max(gains, default=Fraction(0))
        proven = max(proven, factor * worth - excess)
    return proven


def cheap_bound(stock: Stock) -> int:
    """The cost that a stock whose pieces must all be placed has at least, without a linear programme.

    L2 where all bins that cost something are alike and no others help; else what fits into bins that cost nothing is
    taken off the pieces, and each unit of the rest costs as much as in the bin where a unit is cheapest.
    """
    dear = [kind for kind in stock.kinds if kind.cost and kind.capacity]
    if not dear or any(not kind.cost and kind.supply is None for kind in stock.kinds):
        return 0
    free = [0 if kind.cost else kind.capacity for kind in stock.kinds]
    beside = sum(room * (kind.supply or 0) for room, kind in zip(free, stock.kinds, strict=True))
    for choice in stock.choices:
        beside += choice.supply * max((sum(free[kind] * many for kind, many in way) for way in choice.ways), default=0)
    rest = max(0, stock.total - beside)
    rate = min(Fraction(kind.cost, kind.capacity) for kind in dear)
    least = ceil(rest * rate)
    if len(dear) == len(stock.kinds) and len({(kind.cost, kind.capacity) for kind in dear}) == 1:
        ordered = sorted(zip(stock.sizes, stock.counts, strict=True), reverse=True)
        sizes, counts = [size for size, _ in ordered], [count for _, count in ordered]
        least = max(least, dear[0].cost * second_bound(sizes, counts, dear[0].capacity))
    return rounded(stock, Fraction(least), penalties=False)


def rounded(stock: Stock, cost: Fraction, *, penalties: bool = True) -> int:
    """The least cost that bins of ``stock`` (and, with ``penalties``, pieces left out) can have together and that is
    not below ``cost``: a multiple of what all of them are multiples of."""
    step = gcd(*(kind.cost for kind in stock.kinds), *((stock.penalties or ()) if penalties else ()))
    return ceil(cost / step) * step if step else 0
