"""The claims of replicas that may be moved, in columns: one line for each device of a replica."""

from collections.abc import Hashable, Sequence

import numpy as np

from vrampack.packing.arrays import IntArray
from vrampack.packing.classes import fit_of
from vrampack.packing.problem import Item

_COLUMNS = ("row", "host", "memory", "cpu", "ram", "number", "kind")


class Claims:
    """Lines come and go; ``live`` has those that stand. A replica without devices has one line, at row -1."""

    def __init__(self) -> None:
        self._table = np.full((len(_COLUMNS), 64), -1, np.int64)
        self._gaps = list(range(63, -1, -1))
        self._lines: dict[str, list[int]] = {}
        self._keys: dict[int, str] = {}
        self._kinds: dict[Hashable, int] = {}
        self._like: list[Item] = []

    def add(self, item: Item, host: int, rows: Sequence[int]) -> None:
        """``item`` is at ``rows`` of ``host``."""
        kind = self._kinds.setdefault(_likeness(item), len(self._like))
        if kind == len(self._like):
            self._like.append(item)
        places = list(rows) or [-1]
        while len(self._gaps) < len(places):
            size = self._table.shape[1]
            self._table = np.concatenate((self._table, np.full_like(self._table, -1)), axis=1)
            self._gaps = list(range(2 * size - 1, size - 1, -1)) + self._gaps
        lines = [self._gaps.pop() for _ in places]
        for line, row in zip(lines, places, strict=True):
            self._table[:, line] = row, host, item.memory, item.cpu, item.host_memory, lines[0], kind
        self._lines[item.key] = lines
        self._keys[lines[0]] = item.key

    def drop(self, key: str) -> None:
        """The replica is gone, or was never here."""
        lines = self._lines.pop(key, None)
        if lines:
            del self._keys[lines[0]]
            self._table[:, lines] = -1
            # Whoever comes next gets the same lines, so that a move to and fro changes nothing.
            self._gaps += reversed(lines)

    def live(self) -> dict[str, IntArray]:
        """The columns ``row``, ``host``, ``memory``, ``cpu``, ``ram``, ``kind``, and ``number``, which is the same for
        all lines of one replica; by number."""
        table = self._table[:, self._table[1] >= 0]
        table = table[:, np.argsort(table[_COLUMNS.index("number")], kind="stable")]
        return dict(zip(_COLUMNS, table, strict=True))

    def key(self, number: int) -> str:
        """Whose ``number`` it is."""
        return self._keys[number]

    def like(self, kind: int) -> Item:
        """One that stands for all of a kind."""
        return self._like[kind]


def _likeness(item: Item) -> Hashable:
    """Equal for items of which each fits where another does. Mappings of refused hosts are told apart by identity."""
    return (*fit_of(item), id(item.refused) if item.refused else None)
