"""The order in which devices that fit are filled. A rule never decides what fits, only what comes first."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vrampack.packing.arrays import IntArray
from vrampack.packing.board import Board
from vrampack.packing.problem import Criterion, Item


class Rule(Protocol):
    """The order in which devices are filled: the first takes as many equal items as it can, then the next."""

    @property
    def criterion(self) -> Criterion:
        """What the rule goes by, for the explanation of a placement."""

    @property
    def orders_empty(self) -> bool:
        """Whether the order of empty devices is its own. Else it puts those in use first, and the plan says which of
        the others are opened (``packing.opening``)."""

    def order(self, board: Board, item: Item, rows: IntArray) -> IntArray:
        """``rows``, the devices that can take ``item``, the best first. They come in the order of ``board.turn``; ties
        are to keep it."""


@dataclass(frozen=True, slots=True)
class FirstFit:
    """Devices in use before empty ones, each in their turn, for the fewest devices opened."""

    criterion: Criterion = Criterion.FIRST_FIT
    orders_empty: bool = False

    def order(self, board: Board, item: Item, rows: IntArray) -> IntArray:
        del item
        used = board.in_use[rows]
        return np.concatenate((rows[used], rows[~used]))


@dataclass(frozen=True, slots=True)
class Tightest:
    """The least free first, in use or not: where not all find a place, nothing is gained by leaving devices empty."""

    criterion: Criterion = Criterion.TIGHTEST
    orders_empty: bool = True

    def order(self, board: Board, item: Item, rows: IntArray) -> IntArray:
        del item
        return rows[np.argsort(board.free[rows], kind="stable")]
