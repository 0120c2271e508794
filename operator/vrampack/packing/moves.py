"""Moves of running replicas: for one that would otherwise find no place, and to close devices that are hardly used.

A move claims the new place before the old one is given up, so each of a list can be carried out after those before it,
and stopped after any of them. Nothing is moved twice, and what may not be moved stays where it is.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from vrampack.packing.arrays import NONE, BoolArray, IntArray
from vrampack.packing.moving import Done, opened, shares, told, undo, unkind, worth
from vrampack.packing.problem import Host, Item, Move, Resident
from vrampack.packing.reach import fits, fits_of, sought
from vrampack.packing.rules import Rule, Tightest
from vrampack.packing.tenancy import Tenancy

TRIES = 24
"""How many sets of replicas are tried for one that is blocked, and how many devices are tried to be closed, before it
is left as it is. A bound on the work, so that the answer does not depend on the clock."""
_TRIES_FOR_ONE = 4
"""The same where others make room for one that is moved."""


def room_for(
    *,
    hosts: Sequence[Host],
    residents: Sequence[Resident],
    item: Item,
    limit: int,
    rule: Rule | None = None,
    tries: int = TRIES,
) -> tuple[Move, ...] | None:
    """At most ``limit`` moves after which ``item`` fits; none where it fits as it is, None where it can't be had.

    Fewest moves first, then the fewest bytes that must be loaded anew. ``residents``: all replicas with a claim on
    ``hosts``. ``rule``: where what is moved goes; None: where the least is left. The gains add up to the bytes of
    ``item`` over all its devices.

    Raises InvalidInputError as Tenancy does.
    """
    return make_room(Tenancy(hosts, residents), item=item, limit=limit, rule=rule, tries=tries)


def consolidate(
    *,
    hosts: Sequence[Host],
    residents: Sequence[Resident],
    limit: int,
    rule: Rule | None = None,
    tries: int = TRIES,
) -> tuple[Move, ...]:
    """At most ``limit`` moves that close devices, those with the fewest replicas first, then with the least to load.

    What is opened (memory, or price) shrinks with each group of moves that empties a device, by no less than the bytes
    that the group loads anew; each of its moves has its part of that as its gain. It ends where nothing more is gained.
    Replicas that would rather be spread are not brought together for it, nor GPUs of one taken from their fast links.

    Raises InvalidInputError as Tenancy does.
    """
    return close_devices(Tenancy(hosts, residents), limit=limit, rule=rule, tries=tries)


def make_room(
    tenancy: Tenancy,
    *,
    item: Item,
    limit: int,
    rule: Rule | None = None,
    tries: int = TRIES,
    shut: IntArray = NONE,
) -> tuple[Move, ...] | None:
    """``room_for`` on a tenancy, in which the moves are then carried out; where there are none it stays as it was.

    ``shut``: devices that are none for ``item``, nor for what moves.
    """
    if fits(tenancy.board, item, shut=shut):
        return ()
    done = _room(tenancy, item, limit, rule or Tightest(), tries, shut)
    if done is None:
        return None
    return told(done, shares(max(item.gpus, 1) * item.memory, [1] * len(done)))


def close_devices(tenancy: Tenancy, *, limit: int, rule: Rule | None = None, tries: int = TRIES) -> tuple[Move, ...]:
    """``consolidate`` on a tenancy, in which the moves are then carried out."""
    rule = rule or Tightest()
    moves: list[Move] = []
    moved: set[str] = set()
    gained = True
    while gained and len(moves) < limit:
        gained = False
        for row, guests in islice(_closable(tenancy, limit - len(moves), moved), tries):
            before = opened(tenancy.board)
            weight = tenancy.board.weight()
            shut = np.flatnonzero(~tenancy.board.in_use & (weight >= weight[row]))
            done = _relocate(tenancy, guests, np.append(shut, row), rule, limit - len(moves))
            if done is None:
                continue
            gain = worth(before, opened(tenancy.board), done)
            keys = {old.item.key for old, _ in done}
            if not gain or len(keys) < len(done) or not moved.isdisjoint(keys) or unkind(tenancy, done):
                undo(tenancy, done)
                continue
            moves += told(done, shares(gain, [old.item.memory for old, _ in done]))
            moved |= keys
            gained = True
            break
    return tuple(moves)


def _room(tenancy: Tenancy, item: Item, limit: int, rule: Rule, tries: int, shut: IntArray) -> Done | None:
    """Moves others until ``item`` fits on devices besides those at ``shut``; None where that can't be had."""
    if limit < 1:
        return None
    for each in islice(sought(tenancy, item, limit, shut=shut), tries):
        done = _relocate(tenancy, each.victims, np.concatenate((shut, each.shut)), rule, len(each.victims))
        if done is None:
            continue
        if fits_of(tenancy.board, item)[each.shut].any():
            return done
        undo(tenancy, done)
    return None


def _relocate(tenancy: Tenancy, guests: Sequence[Resident], shut: IntArray, rule: Rule, limit: int) -> Done | None:
    """Moves all of ``guests`` to devices other than ``shut``, and others for them where there is no room, in at most
    ``limit`` moves; where one has no place nothing has changed."""
    done: Done = []
    for place, old in enumerate(guests):
        new = tenancy.settle(old.item, rule, shut=shut)
        if new is None and (spare := limit - len(done) - (len(guests) - place)) > 0:
            done += _room(tenancy, old.item, spare, rule, _TRIES_FOR_ONE, shut) or []
            new = tenancy.settle(old.item, rule, shut=shut)
        if new is None:
            undo(tenancy, done)
            return None
        tenancy.swap(old, new)
        done.append((old, new))
    return done


def _closable(tenancy: Tenancy, limit: int, moved: set[str]) -> Iterator[tuple[int, tuple[Resident, ...]]]:
    """Devices whose replicas may all be moved, with them; the fewest first, then those with the least to load."""
    board = tenancy.board
    claims = tenancy.claims.live()
    on_device = claims["row"] >= 0
    rows, memory = claims["row"][on_device], claims["memory"][on_device]
    number = np.bincount(rows, minlength=len(board.free))
    loaded = np.bincount(rows, weights=memory, minlength=len(board.free))
    able = np.flatnonzero((number > 0) & (number <= limit))
    rate = loaded[able] / np.maximum(board.weight()[able], 1)
    homes = _Homes(tenancy)
    for row in able[np.lexsort((rate, number[able]))].tolist():
        if not all(map(homes.besides(row), claims["kind"][claims["row"] == row].tolist())):
            continue
        device = board.devices[row]
        guests = [each for each in tenancy.on(board.names[int(board.host[row])]) if device.id in each.devices]
        alone = device.tenants <= {each.item.group for each in guests}
        if alone and all(each.movable and each.item.key not in moved for each in guests):
            yield row, tuple(sorted(guests, key=lambda each: (-each.item.memory, each.item.key)))


class _Homes:
    """Where replicas of a kind would find a place as things stand, without opening what costs as much."""

    def __init__(self, tenancy: Tenancy) -> None:
        self._tenancy = tenancy
        self._known: dict[int, BoolArray] = {}

    def besides(self, row: int) -> Callable[[int], bool]:
        """Tells whether a kind has one other than the device at ``row``."""
        board = self._tenancy.board
        cheap = board.in_use | (board.weight() < board.weight()[row])
        cheap[row] = False

        def found(kind: int) -> bool:
            if kind not in self._known:
                self._known[kind] = fits_of(board, self._tenancy.claims.like(kind))
            return bool((self._known[kind] & cheap).any())

        return found
