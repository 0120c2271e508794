"""Starts and leftovers: minimum bin slack and best-fit decreasing over classes, both on integers as sets of bits.

Minimum bin slack fills one bin after another as full as it gets, always with the largest piece that is left (Gupta, Ho:
A new heuristic algorithm for the one-dimensional bin-packing problem, Production Planning & Control 10, 1999; the
largest piece first: Fleszar, Hindi: New heuristics for one-dimensional bin-packing, Computers & OR 29, 2002). Bit ``s``
of an integer says that some subset has the sum ``s``, so one shift adds a piece to every subset at once.
"""

from collections import Counter
from collections.abc import Sequence


def fullest(sizes: Sequence[int], counts: Sequence[int], capacity: int) -> list[tuple[int, int]]:
    """Pairs of class and number whose sum is the largest within ``capacity``; classes that come first are preferred."""
    mask = (1 << (capacity + 1)) - 1
    goal = 1 << capacity
    reach = 1
    before: list[tuple[int, int]] = []
    for each, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        if not count or size > capacity:
            continue
        for _ in range(count):
            wider = reach | (reach << size) & mask
            if wider == reach:
                break
            before.append((reach, each))
            reach = wider
        if reach & goal:
            break
    return _taken(before, sizes, reach.bit_length() - 1)


def _taken(before: Sequence[tuple[int, int]], sizes: Sequence[int], total: int) -> list[tuple[int, int]]:
    taken: Counter[int] = Counter()
    for reach, each in reversed(before):
        if not reach >> total & 1:
            total -= sizes[each]
            taken[each] += 1
    return sorted(taken.items())


def minimum_slack(sizes: Sequence[int], counts: Sequence[int], capacity: int) -> Counter[tuple[tuple[int, int], ...]]:
    """All pieces in bins, by minimum bin slack. ``sizes`` descend; each must fit into a bin."""
    left = list(counts)
    bins: Counter[tuple[tuple[int, int], ...]] = Counter()
    for first, size in enumerate(sizes):
        while left[first]:
            left[first] -= 1
            parts = Counter(dict(fullest(sizes, left, capacity - size)))
            parts[first] += 1
            left[first] += 1
            times = min(left[each] // many for each, many in parts.items())
            for each, many in parts.items():
                left[each] -= many * times
            bins[tuple(sorted(parts.items()))] += times
    return bins


def best_fit(sizes: Sequence[int], counts: Sequence[int], capacity: int) -> Counter[tuple[tuple[int, int], ...]]:
    """All pieces in bins, by best-fit decreasing. ``sizes`` descend; each must fit into a bin."""
    rooms = 0
    stacks: dict[int, list[list[int]]] = {}
    everything: list[list[int]] = []
    for each, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        for _ in range(count):
            fits = rooms >> size
            if fits:
                room = size + (fits & -fits).bit_length() - 1
                content = stacks[room].pop()
                if not stacks[room]:
                    rooms &= ~(1 << room)
            else:
                room, content = capacity, []
                everything.append(content)
            content.append(each)
            room -= size
            stacks.setdefault(room, []).append(content)
            rooms |= 1 << room
    return Counter(tuple(sorted(Counter(content).items())) for content in everything)
