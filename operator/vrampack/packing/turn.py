"""Who is taken first: the order of the classes, and the rule of ageing.

Items are taken by priority (higher first), then those for which room is reserved, then by rank (lower first), then
those that have aged, then those with several devices before those with one, by bytes over all their devices (more
first), exclusive before shared, and by key. Several devices come first because they must be free at once on one host:
single ones find room in the gaps that are left, the other way round a few small ones scattered over the hosts would
shut all of them out.

An item has *aged* once it has waited for ``patience`` seconds. Aged ones are taken by age instead of by size, the
oldest first; and the first of them that fits nowhere gets a reservation (``packing.reserve``). Rank comes before
age: what completes a rollout brings a model back that is short of a replica, and there is only so much of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final, NoReturn

import numpy as np

from vrampack.errors import InvalidInputError
from vrampack.packing.arrays import PLENTY
from vrampack.packing.board import Board
from vrampack.packing.classes import classes_of
from vrampack.packing.fill import fitting, limits
from vrampack.packing.problem import Item, Reservation

_EXACT: Final = 64
"""So many of those that have aged are taken in the exact order of their ages; the others class by class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """Equal items that are taken together, the oldest first, then by key. ``patience``: the seconds after which they
    have aged; None: they have not. ``reserved``: the devices kept for it, which is then alone in its lot."""

    items: tuple[Item, ...]
    patience: int | None = None
    reserved: Reservation | None = None

    @property
    def item(self) -> Item:
        """The one that stands for all of them."""
        return self.items[0]


def in_turn(items: Sequence[Item], *, patience: int | None = None, reserve: Sequence[Reservation] = ()) -> list[Lot]:
    """All of ``items`` in lots, in the order in which they are taken.

    Raises InvalidInputError for a key that comes twice, a negative or absurd demand, an empty text where a reason
    belongs, a patience below 1, and for a reservation for what is not among ``items``, or a second one for the same.
    """
    if patience is not None and patience < 1:
        raise InvalidInputError(
            field="patience", value=patience, allowed="seconds, 1 or more; None: age does not count"
        )
    keys = {item.key: item for item in items}
    if len(keys) < len(items):
        _refuse_twice(items)
    kept: dict[str, Reservation] = {}
    for reservation in reserve:
        key = reservation.item.key
        if key not in keys or key in kept:
            allowed = "a reservation is for one of the items, and each has one at most"
            raise InvalidInputError(field="reserve.item", value=key, allowed=allowed)
        kept[key] = reservation
    lots = [Lot(items=(keys[key],), reserved=kept[key]) for key in kept]
    aged: list[tuple[Item, int]] = []
    for number, each in enumerate(
        classes_of(item for item in items if item.key not in kept) if kept else classes_of(items)
    ):
        _checked(each.item)
        old = 0 if patience is None else sum(item.waited >= patience for item in each.items)
        aged += ((item, number) for item in each.items[:old])
        if old < each.count:
            lots.append(Lot(items=each.items[old:]))
    lots += _aged_lots(aged, patience)
    return sorted(lots, key=_turn)


def _aged_lots(aged: list[tuple[Item, int]], patience: int | None) -> Iterator[Lot]:
    """Lots of what has aged, given with its class: the very oldest in their exact order, the others class by class."""
    aged.sort(key=lambda pair: (-pair[0].priority, pair[0].rank, -pair[0].waited, pair[0].key))
    rest = sorted(aged[_EXACT:], key=itemgetter(1))
    for pairs in (aged[:_EXACT], rest):
        for _, members in groupby(pairs, key=itemgetter(1)):
            yield Lot(items=tuple(item for item, _ in members), patience=patience)


def by_age(lots: Sequence[Lot]) -> list[Lot]:
    """The same lots, the oldest first instead of the largest. ``lots`` are in their turn."""
    return sorted(lots, key=lambda lot: (*_standing(lot), -lot.item.waited))


def by_scarcity(lots: Sequence[Lot], board: Board) -> list[Lot]:
    """The same lots, those first that the fewest devices of ``board`` could take, in whole teams where several are
    needed. ``lots`` are in their turn."""
    return sorted(lots, key=lambda lot: (*_standing(lot), _choices(lot.item, board)))


def _choices(item: Item, board: Board) -> int:
    fits = fitting(board, item, limits(board, item, elsewhere=False))
    if item.gpus < 2:
        return int(fits.sum())
    sets = np.bincount(board.set[fits & board.whole])
    return int((sets // item.gpus).sum()) * item.gpus


def _standing(lot: Lot) -> tuple[int, bool, int, int, str]:
    """What comes before size in any order: it decides for those that have aged."""
    item = lot.item
    age, key = (1, "") if lot.patience is None else (-item.waited, item.key)
    return -item.priority, lot.reserved is None, item.rank, age, key


def _turn(lot: Lot) -> tuple[object, ...]:
    item = lot.item
    return *_standing(lot), item.gpus < 2, -item.gpus * item.memory, not item.exclusive, item.key


def _refuse_twice(items: Sequence[Item]) -> NoReturn:
    seen: set[str] = set()
    for item in items:
        if item.key in seen:
            raise InvalidInputError(field="items.key", value=item.key, allowed="each item is listed once")
        seen.add(item.key)
    raise AssertionError(items)


def _checked(item: Item) -> None:
    for name in ("gpus", "memory", "cpu", "host_memory", "waited"):
        value = getattr(item, name)
        if not 0 <= value < PLENTY:
            raise InvalidInputError(
                field=f"items[{item.key}].{name}", value=value, allowed="a demand is 0 or more, and below 2^62"
            )
    if "" in item.refused.values():
        raise InvalidInputError(field=f"items[{item.key}].refused", value="", allowed="each host has a reason")
