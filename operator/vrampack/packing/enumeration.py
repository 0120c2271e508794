"""Every pattern of a bin that wastes next to nothing.

Where all pieces go into ``n`` bins, no bin can waste more than all of them together; with little to waste there are few
patterns (Falkenauer's triplets: those of exactly three pieces), and the linear programme over all of them needs no
pricing.
"""

from collections.abc import Sequence

from vrampack.packing.pricing import Parts


def least_waste(
    *, sizes: Sequence[int], limits: Sequence[int], capacity: int, waste: int, most: int, steps: int
) -> list[Parts] | None:
    """All maximal fillings of ``capacity`` that leave at most ``waste``, or None where there are more than ``most`` or
    the search takes more than ``steps``. ``sizes`` descend, without 0."""
    search = _Search(sizes, limits, waste, most, steps)
    return search.found if search.run(capacity) else None


class _Search:
    """Depth first over the classes; a branch is left where no sum of the classes to come ends within the waste."""

    def __init__(self, sizes: Sequence[int], limits: Sequence[int], waste: int, most: int, steps: int) -> None:
        self._sizes, self._limits, self._waste, self._most, self._steps = sizes, limits, waste, most, steps
        self.found: list[Parts] = []
        self._sums: list[int] = []

    def run(self, capacity: int) -> bool:
        mask = (1 << (capacity + 1)) - 1
        sums = 1
        self._sums = [sums]
        for size, limit in zip(reversed(self._sizes), reversed(self._limits), strict=True):
            for _ in range(min(limit, capacity // size)):
                sums |= (sums << size) & mask
            self._sums.append(sums)
        self._sums.reverse()
        return self._extend(0, capacity, [])

    def _extend(self, start: int, room: int, parts: list[tuple[int, int]]) -> bool:
        """False where the search is given up."""
        sizes, limits, sums = self._sizes, self._limits, self._sums
        least = max(room - self._waste, 0)
        window = (1 << (room - least + 1)) - 1
        if room <= self._waste and self._is_maximal(room, parts):
            self.found.append(tuple(parts))
            if len(self.found) > self._most:
                return False
        for each in range(start, len(sizes)):
            if not sums[each] >> least & window:
                break
            size = sizes[each]
            if size > room:
                continue
            self._steps -= 1
            if self._steps < 0:
                return False
            for many in range(1, min(limits[each], room // size) + 1):
                rest = room - many * size
                low = max(rest - self._waste, 0)
                if not sums[each + 1] >> low & ((1 << (rest - low + 1)) - 1):
                    continue
                parts.append((each, many))
                goes_on = self._extend(each + 1, rest, parts)
                parts.pop()
                if not goes_on:
                    return False
        return True

    def _is_maximal(self, room: int, parts: list[tuple[int, int]]) -> bool:
        """Whether no piece that is left over fits into ``room``."""
        taken = dict(parts)
        for each in range(len(self._sizes) - 1, -1, -1):
            if self._sizes[each] > room:
                return True
            if taken.get(each, 0) < self._limits[each]:
                return False
        return True
