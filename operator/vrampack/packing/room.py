"""How large an item could be and still find its devices: the packer's answer turned round."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vrampack.packing.arrays import sizes, starts
from vrampack.packing.board import Board
from vrampack.packing.fill import fitting, limits, passes
from vrampack.packing.problem import Host, Item


class Rooms:
    """Asks these hosts, as they are, again and again."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        """Raises InvalidInputError as ``pack`` does for its hosts."""
        self._board = Board(hosts)
        board = self._board
        # A device that can be cut has room for its largest slice.
        board.takes |= board.divisible & board.open

    @property
    def products(self) -> tuple[str, ...]:
        """All products, by name."""
        return tuple(sorted(self._board.products))

    def most(self, item: Item) -> dict[str, int]:
        """The most bytes on each of its devices with which ``item`` would find them, by product; what it asks for now
        does not matter. A product that is missing has no room for it, however small it were. ``gpus`` is 1 or more.
        """
        board, smallest = self._board, replace(item, memory=0)
        fits = fitting(board, smallest, limits(board, smallest, elsewhere=passes(item) == (True,)))
        if item.gpus > 1:
            fits &= board.whole
        rows = np.flatnonzero(fits)
        rooms: dict[str, int] = {}
        for product, code in sorted(board.products.items()):
            own = rows[board.product[rows] == code]
            if item.gpus > 1:
                own = own[np.lexsort((-board.free[own], board.set[own]))]
                start = starts(board.set[own])
                own = own[start[sizes(start, len(own)) >= item.gpus] + item.gpus - 1]
            room = int(board.free[own].max(initial=0))
            if room > 0:
                rooms[product] = room
        return rooms
