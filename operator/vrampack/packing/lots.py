"""Replicas with several GPUs, settled first: how many of them go onto which kind, and what that leaves for the others.

A linear programme over patterns of single bins does not know that the pieces of such a replica come in equal bins of
one host. Its optimum says how many bins of each kind hold which of these pieces; rounded to whole replicas, those bins
are given, and what is free beside the pieces is a kind of its own, open already, for pieces that come one by one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vrampack.packing.columns import Relaxed
from vrampack.packing.pricing import Parts
from vrampack.packing.stock import Kind, Pattern, Stock


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """``times`` lots of bins of ``kind``, with ``parts`` in each bin; ``bins``: how many bins a lot has."""

    kind: int
    parts: Parts
    bins: int
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Where the rounding stands, the largest lots first.

    ``stock``: what is left to be done, with the kinds of before first and then one for each of ``lots``; a lot may take
    bins that another left. ``groups``: for each kind, how many hosts have how many such bins. ``cost``: of the bins of
    the lots, and of pieces in lots that found no bin.
    """

    stock: Stock
    groups: tuple[Counter[int], ...]
    lots: tuple[Lot, ...] = ()
    cost: int = 0

    @property
    def largest(self) -> int:
        """The largest lot in which pieces that are left come."""
        lots = self.stock.lots or ()
        return max((lot for lot, count in zip(lots, self.stock.counts, strict=True) if count), default=1)

    def carry(self, patterns: Iterable[Pattern], before: "Settled") -> Iterator[Pattern]:
        """Patterns of the stock of ``before`` as those of this one: without the pieces that are settled, on the kinds
        that those left."""
        new = {
            (lot.kind, lot.parts): place
            for place, lot in enumerate(self.lots[len(before.lots) :], len(before.stock.kinds))
        }
        counts = self.stock.counts
        for pattern in patterns:
            parts = tuple(part for part in pattern.parts if not counts[part[0]])
            rest = tuple(part for part in pattern.parts if counts[part[0]])
            kind = new.get((pattern.kind, parts)) if parts else pattern.kind
            if rest and kind is not None and self.stock.permits(Pattern(kind, rest)):
                yield Pattern(kind, rest)


def settle(before: Settled, patterns: Sequence[Pattern], relaxed: Relaxed, draw: np.random.Generator) -> Settled:
    """The largest lots of ``before``, rounded from the linear programme's optimum: whole ones as they are, then the
    largest fractions, with some chance."""
    size = before.largest
    rounding = _Rounding(before, size)
    shares = _shares(before.stock, patterns, relaxed, size)
    for (kind, parts), share in shares.items():
        rounding.take(kind, parts, int(share + 1e-6))
    rest = [(lot, share - int(share + 1e-6)) for lot, share in shares.items()]
    scores = [share * (1 - 0.5 * draw.random()) for _, share in rest]
    for place in sorted(range(len(rest)), key=lambda place: -scores[place]):
        rounding.take(*rest[place][0], 1)
    rounding.force(draw)
    return rounding.settled()


def _shares(stock: Stock, patterns: Sequence[Pattern], relaxed: Relaxed, size: int) -> dict[tuple[int, Parts], float]:
    """How many lots of ``size`` bins of each kind have which pieces that come in such lots."""
    assert stock.lots is not None
    found: dict[tuple[int, Parts], float] = {}
    for column in np.flatnonzero(relaxed.times > 1e-6):
        pattern = patterns[int(column)]
        parts = tuple(part for part in pattern.parts if stock.lots[part[0]] == size)
        if parts:
            key = (pattern.kind, parts)
            found[key] = found.get(key, 0.0) + float(relaxed.times[column]) / size
    return dict(sorted(found.items()))


class _Rounding:
    def __init__(self, before: Settled, size: int) -> None:
        assert before.stock.lots is not None
        self._before = before
        self._stock = before.stock
        self._size = size
        self._mine = [each for each, lot in enumerate(before.stock.lots) if lot == size]
        self._left = list(before.stock.counts)
        self._groups = [Counter(group) for group in before.groups]
        self._taken: Counter[tuple[int, Parts]] = Counter()

    def take(self, kind: int, parts: Parts, times: int) -> int:
        """Up to ``times`` lots, as far as there are pieces, and bins on one host."""
        size, taken = self._size, 0
        while taken < times and all(self._left[each] >= many * size for each, many in parts):
            host = min((bins for bins, hosts in self._groups[kind].items() if hosts and bins >= size), default=None)
            if host is None:
                break
            self._groups[kind][host] -= 1
            self._groups[kind][host - size] += 1
            for each, many in parts:
                self._left[each] -= many * size
            taken += 1
        if taken:
            self._taken[kind, parts] += taken
        return taken

    def force(self, draw: np.random.Generator) -> None:
        """What has no lot yet: onto bins where it is alone of its like, the cheapest kinds first."""
        stock = self._stock
        for each in self._mine:
            if not self._left[each]:
                continue
            kinds = [kind for kind in range(len(self._groups)) if stock.limits(kind)[each]]
            prices = {kind: (stock.kinds[kind].cost + 1) * (1 + 0.3 * draw.random()) for kind in kinds}
            for kind in sorted(kinds, key=prices.__getitem__):
                self.take(kind, ((each, 1),), self._left[each] // self._size)

    def settled(self) -> Settled:
        stock, size = self._stock, self._size
        lots = tuple(
            Lot(kind=kind, parts=parts, bins=size, times=times) for (kind, parts), times in sorted(self._taken.items())
        )
        supply = [kind.supply for kind in stock.kinds]
        for lot in lots:
            had = supply[lot.kind]
            supply[lot.kind] = None if had is None else had - size * lot.times
        kinds = [replace(kind, supply=left) for kind, left in zip(stock.kinds, supply, strict=True)]
        kinds += [self._beside(lot) for lot in lots]
        counts = list(stock.counts)
        cost = sum(stock.kinds[lot.kind].cost * size * lot.times for lot in lots)
        for each in self._mine:
            counts[each] = 0
            cost += self._left[each] * (stock.penalties[each] if stock.penalties else 0)
        return Settled(
            stock=replace(stock, counts=tuple(counts), kinds=tuple(kinds)),
            groups=(*self._groups, *(Counter({size: lot.times}) for lot in lots)),
            lots=(*self._before.lots, *lots),
            cost=self._before.cost + cost,
        )

    def _beside(self, lot: Lot) -> Kind:
        """What a bin of the lot has left."""
        stock, kind = self._stock, self._stock.kinds[lot.kind]
        taken = sum(stock.sizes[each] * many for each, many in lot.parts)
        pieces = sum(many for _, many in lot.parts)
        closed = {each for part, _ in lot.parts for each in range(len(stock.sizes)) if self._apart(part, each)}
        admits = stock.counts if kind.admits is None else kind.admits
        shut = not stock.alone.isdisjoint(each for each, _ in lot.parts)
        return Kind(
            capacity=kind.capacity - taken,
            supply=lot.bins * lot.times,
            cost=0,
            admits=tuple(
                0 if shut or each in closed or each in stock.alone else most for each, most in enumerate(admits)
            )
            if shut or closed or stock.alone
            else kind.admits,
            slots=None if kind.slots is None else kind.slots - pieces,
        )

    def _apart(self, one: int, other: int) -> bool:
        return (one, other) in self._stock.conflicts or (other, one) in self._stock.conflicts
