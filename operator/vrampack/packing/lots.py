"""Replicas with several GPUs, settled first: how many of them go onto which kind, and what that leaves for the others.

A linear programme over patterns of single bins does not know that the pieces of such a replica come in equal bins of
one host. Its optimum says how many bins of each kind hold which of these pieces; rounded to whole replicas, those bins
are given, and what is free beside the pieces is a kind of its own, open already, for pieces that come one by one.
"""

from collections import Counter
from collections.abc import Sequence
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
    """``stock``: what is left to be done, with the kinds of before first and then one for each of ``lots``; pieces that
    come in lots have no count in it. ``cost``: of the bins of the lots, and of pieces in lots that found no bin."""

    stock: Stock
    lots: tuple[Lot, ...]
    cost: int

    def kind(self, pattern: Pattern, lots: Sequence[int]) -> Pattern | None:
        """A pattern of the stock of before as one of this stock, without the pieces in lots. None where there is no
        such kind, or nothing left in the pattern."""
        parts = tuple(part for part in pattern.parts if lots[part[0]] > 1)
        rest = tuple(part for part in pattern.parts if lots[part[0]] == 1)
        if not rest:
            return None
        if not parts:
            return pattern
        first = len(self.stock.kinds) - len(self.lots)
        for place, lot in enumerate(self.lots):
            if (lot.kind, lot.parts) == (pattern.kind, parts):
                return Pattern(first + place, rest)
        return None


def settle(
    stock: Stock,
    patterns: Sequence[Pattern],
    relaxed: Relaxed,
    *,
    groups: Sequence[Counter[int]],
    draw: np.random.Generator,
) -> Settled:
    """Rounds the linear programme's optimum by lot. ``groups``: for each kind, how many hosts have how many such bins.

    Whole lots are taken as they are, then the largest fractions, with some chance.
    """
    if stock.lots is None or max(stock.lots, default=1) == 1:
        return Settled(stock=stock, lots=(), cost=0)
    rounding = _Rounding(stock, groups)
    shares = _shares(stock, patterns, relaxed)
    for (kind, parts), share in shares.items():
        rounding.take(kind, parts, int(share + 1e-6))
    rest = [(kind_parts, share - int(share + 1e-6)) for kind_parts, share in shares.items()]
    scores = [share * (1 - 0.5 * draw.random()) for _, share in rest]
    for place in sorted(range(len(rest)), key=lambda place: -scores[place]):
        rounding.take(*rest[place][0], 1)
    rounding.force(draw)
    return rounding.settled()


def _shares(stock: Stock, patterns: Sequence[Pattern], relaxed: Relaxed) -> dict[tuple[int, Parts], float]:
    """How many lots of each kind have which pieces that come in lots."""
    assert stock.lots is not None
    found: dict[tuple[int, Parts], float] = {}
    for column in np.flatnonzero(relaxed.times > 1e-6):
        pattern = patterns[int(column)]
        parts = tuple(part for part in pattern.parts if stock.lots[part[0]] > 1)
        if parts:
            key = (pattern.kind, parts)
            lot = max(stock.lots[each] for each, _ in parts)
            found[key] = found.get(key, 0.0) + float(relaxed.times[column]) / lot
    return dict(sorted(found.items()))


class _Rounding:
    def __init__(self, stock: Stock, groups: Sequence[Counter[int]]) -> None:
        assert stock.lots is not None
        self._stock = stock
        self._lots = stock.lots
        self._left = list(stock.counts)
        self._groups = [Counter(group) for group in groups]
        self._taken: Counter[tuple[int, Parts]] = Counter()

    def take(self, kind: int, parts: Parts, times: int) -> int:
        """Up to ``times`` lots, as far as there are pieces and bins beside each other. All pieces of ``parts`` are of
        replicas with equally many GPUs."""
        lot = self._lots[parts[0][0]]
        taken = 0
        while taken < times:
            if any(self._lots[each] != lot or self._left[each] < many * lot for each, many in parts):
                break
            size = min((size for size, hosts in self._groups[kind].items() if hosts and size >= lot), default=None)
            if size is None:
                break
            self._groups[kind][size] -= 1
            self._groups[kind][size - lot] += 1
            for each, many in parts:
                self._left[each] -= many * lot
            taken += 1
        if taken:
            self._taken[kind, parts] += taken
        return taken

    def force(self, draw: np.random.Generator) -> None:
        """What has no lot yet: onto bins that it shares with none of its like, the cheapest kinds first."""
        for each in sorted(
            range(len(self._left)), key=lambda each: (-self._lots[each], -self._stock.sizes[each], each)
        ):
            if self._lots[each] == 1:
                continue
            kinds = [kind for kind in range(len(self._groups)) if self._stock.limits(kind)[each]]
            for kind in sorted(kinds, key=lambda kind: self._stock.kinds[kind].cost * (1 + 0.3 * draw.random())):
                self.take(kind, ((each, 1),), self._left[each] // self._lots[each])

    def settled(self) -> Settled:
        stock = self._stock
        lots = tuple(
            Lot(kind=kind, parts=parts, bins=self._lots[parts[0][0]], times=times)
            for (kind, parts), times in sorted(self._taken.items())
        )
        supply = [kind.supply for kind in stock.kinds]
        for lot in lots:
            before = supply[lot.kind]
            supply[lot.kind] = None if before is None else before - lot.bins * lot.times
        kinds = [replace(kind, supply=left) for kind, left in zip(stock.kinds, supply, strict=True)]
        kinds += [self._beside(lot) for lot in lots]
        missing = sum(
            left * penalty
            for left, penalty, lot in zip(self._left, stock.penalties or self._left, self._lots, strict=True)
            if lot > 1
        )
        counts = tuple(0 if lot > 1 else count for count, lot in zip(stock.counts, self._lots, strict=True))
        return Settled(
            stock=replace(stock, counts=counts, kinds=tuple(kinds), lots=None),
            lots=lots,
            cost=missing + sum(stock.kinds[lot.kind].cost * lot.bins * lot.times for lot in lots),
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
