"""Types and helpers of the arrays on which the packer works."""

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

PLENTY: Final = 1 << 62
"""More than there is of anything: what is not limited, or not known."""

NONE: Final[IntArray] = np.empty(0, dtype=np.int64)


class Members:
    """Which places (devices, or hosts) hold something of a group. A place may come more than once."""

    def __init__(self, found: Mapping[str, Iterable[int]] | None = None) -> None:
        self._found = {
            group: [np.fromiter(places, dtype=np.int64)] for group, places in (found.items() if found else ())
        }

    def of(self, group: str) -> IntArray:
        """The places of ``group``."""
        found = self._found.get(group)
        if found is None:
            return NONE
        if len(found) > 1:
            found[:] = [np.concatenate(found)]
        return found[0]

    def add(self, group: str, places: IntArray) -> None:
        self._found.setdefault(group, []).append(places)

    def drop(self, group: str, places: IntArray) -> None:
        """Nothing of ``group`` is at ``places`` any more."""
        left = self.of(group)
        self._found[group] = [left[~np.isin(left, places)]]

    def copy(self) -> "Members":
        twin = Members()
        twin._found = {group: list(found) for group, found in self._found.items()}
        return twin


def within(limits: IntArray, amounts: IntArray, owners: IntArray) -> IntArray:
    """``amounts``, in this order, cut so that those of an owner add up to at most its limit. ``limits``: by owner."""
    order = owners.argsort(kind="stable")
    mine, wanted = owners[order], amounts[order]
    before = wanted.cumsum() - wanted
    start = starts(mine)
    before -= before[start].repeat(sizes(start, len(mine)))
    cut = np.empty_like(amounts)
    cut[order] = np.minimum(np.maximum(limits[mine] - before, 0), wanted)
    return cut


def upto(total: int, amounts: IntArray) -> IntArray:
    """``amounts``, in this order, cut so that they add up to at most ``total``."""
    before = amounts.cumsum() - amounts
    cut: IntArray = np.minimum(np.maximum(total - before, 0), amounts)
    return cut


def starts(owners: IntArray) -> IntArray:
    """Where each run of equal owners begins."""
    new = np.empty(len(owners), np.bool_)
    new[:1] = True
    np.not_equal(owners[1:], owners[:-1], out=new[1:])
    return new.nonzero()[0]


def sizes(start: IntArray, total: int) -> IntArray:
    """How long each run is that begins at ``start``."""
    found = np.empty_like(start)
    np.subtract(start[1:], start[:-1], out=found[:-1])
    found[-1:] = total - start[-1:]
    return found
