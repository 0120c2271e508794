"""The packer's problem as cutting stock: classes of equal pieces, kinds of equal bins, and patterns of one bin.

A *piece* is what a replica takes of one GPU, a *bin* a GPU; sizes and capacities are integers of any one unit. What
belongs to whole hosts is not in it. (Gilmore, Gomory: A linear programming approach to the cutting-stock problem,
Operations Research 9, 1961.)
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Pattern(NamedTuple):
    """What one bin of a kind holds: pairs of class and how many of it, by class, none of them 0."""

    kind: int
    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Bins that are alike. ``supply``: how many there are (None: as many as it takes); ``cost`` of using one.

    ``admits``: the most pieces of each class in one bin, 0 where the class may not go there (None: what fits).
    ``slots``: the most pieces in one bin (None: any number).
    """

    capacity: int
    supply: int | None = None
    cost: int = 1
    admits: tuple[int, ...] | None = None
    slots: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """``supply`` wholes, each of which may be divided in one of several ``ways``: pairs of kind and how many such bins.

    The kinds of a choice have no supply of their own.
    """

    supply: int
    ways: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True, kw_only=True)
class Stock:
    """``sizes[j]`` and ``counts[j]`` describe class ``j``; ``penalties[j]`` is the cost of each piece of it left out
    (None: all must be placed). ``lots[j]``: pieces of it come in equal bins, so many at once (None: one by one).
    ``alone``: classes whose pieces have a bin each. ``conflicts``: pairs of classes that may not share a bin."""

    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    kinds: tuple[Kind, ...]
    penalties: tuple[int, ...] | None = None
    lots: tuple[int, ...] | None = None
    alone: frozenset[int] = frozenset()
    conflicts: frozenset[tuple[int, int]] = frozenset()
    choices: tuple[Choice, ...] = ()

    @cached_property
    def total(self) -> int:
        """Units of all pieces together."""
        return sum(size * count for size, count in zip(self.sizes, self.counts, strict=True))

    def limits(self, kind: int) -> tuple[int, ...]:
        """The most pieces of each class in one bin of ``kind``."""
        bin_ = self.kinds[kind]
        admits = self.counts if bin_.admits is None else bin_.admits
        counts = (
            self.counts
            if self.lots is None
            else [count // lot for count, lot in zip(self.counts, self.lots, strict=True)]
        )
        return tuple(
            min(count, most, bin_.capacity // size if size else count)
            for size, count, most in zip(self.sizes, counts, admits, strict=True)
        )

    def free(self, pattern: Pattern) -> int:
        """Units of the bin that stay free; negative where the pattern does not fit."""
        return self.kinds[pattern.kind].capacity - sum(self.sizes[each] * many for each, many in pattern.parts)

    def permits(self, pattern: Pattern) -> bool:
        """Whether a bin may hold the pattern."""
        kind, classes = self.kinds[pattern.kind], [each for each, _ in pattern.parts]
        return (
            self.free(pattern) >= 0
            and (kind.admits is None or all(many <= kind.admits[each] for each, many in pattern.parts))
            and (kind.slots is None or sum(many for _, many in pattern.parts) <= kind.slots)
            and (self.alone.isdisjoint(classes) or pattern.parts == ((classes[0], 1),))
            and not any((one, other) in self.conflicts for one in classes for other in classes)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A solution: how often each pattern is used and how many pieces of each class are left out."""

    patterns: Mapping[Pattern, int]
    left: tuple[int, ...]
    cost: int


def solution_of(stock: Stock, patterns: Mapping[Pattern, int]) -> Solution:
    """The solution that these patterns make; pieces beyond the demand are taken out, and the bins that this empties."""
    left = list(stock.counts)
    used: Counter[Pattern] = Counter()
    for pattern, times in sorted(patterns.items()):
        used.update(_trimmed(pattern, times, left))
    cost = sum(stock.kinds[pattern.kind].cost * times for pattern, times in used.items())
    if stock.penalties is not None:
        cost += sum(penalty * many for penalty, many in zip(stock.penalties, left, strict=True))
    return Solution(patterns=used, left=tuple(left), cost=cost)


def _trimmed(pattern: Pattern, times: int, left: list[int]) -> Counter[Pattern]:
    """``times`` bins of ``pattern``, without what exceeds ``left``, which is taken down by the rest."""
    found: Counter[Pattern] = Counter()
    while times > 0:
        parts = tuple((each, min(many, left[each])) for each, many in pattern.parts if left[each])
        if not parts:
            break
        whole = min(left[each] // many for each, many in parts)
        batch = min(times, whole)
        for each, many in parts:
            left[each] -= many * batch
        found[Pattern(pattern.kind, parts)] += batch
        times -= batch
    return found


def single(sizes: Sequence[int], capacity: int) -> tuple[Stock, list[list[int]]]:
    """The classical bin-packing problem, and for each class the places in ``sizes`` of its pieces.

    A piece of size 0 costs nothing and takes part like any other. Raises ValueError for one that is larger than a bin.
    """
    places: dict[int, list[int]] = {}
    for place, size in enumerate(sizes):
        places.setdefault(size, []).append(place)
    if places and (max(places) > capacity or min(places) < 0):
        raise ValueError(f"sizes must be between 0 and {capacity}")
    ordered = sorted(places, reverse=True)
    stock = Stock(
        sizes=tuple(ordered), counts=tuple(len(places[size]) for size in ordered), kinds=(Kind(capacity=capacity),)
    )
    return stock, [places[size] for size in ordered]
