"""Moves of running replicas: for one that would otherwise find no place, and to close devices that are hardly used.

A move claims the new place before the old one is given up, so each of a list can be carried out after those before it,
and stopped after any of them. Nothing is moved twice, and what may not be moved stays where it is.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from vrampack.packing.arrays import NONE, BoolArray, IntArray
from vrampack.packing.board import Board
from vrampack.packing.problem import Host, Item, Move, Resident
from vrampack.packing.reach import fits, fits_of, sought
from vrampack.packing.rules import Rule, Tightest
from vrampack.packing.tenancy import Tenancy

TRIES = 24
"""How many sets of replicas are tried for one that is blocked, and how many devices are tried to be closed, before it
is left as it is. A bound on the work, so that the answer does not depend on the clock."""
_TRIES_FOR_ONE = 4
"""The same where others make room for one that is moved."""

_Done = list[tuple[Resident, Resident]]
"""Each replica as it was, and where it is now, in the order in which they were moved."""


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
    """At most ``limit`` moves that close devices, the ones with the most gain for the least loading first.

    What is opened (memory, or price) shrinks with each group of moves that empties a device, by no less than the bytes
    that the group loads anew; each of its moves has its part of that as its gain. It ends where nothing more is gained.

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
    gains = _parts(max(item.gpus, 1) * item.memory, [1] * len(done))
    return tuple(_move(old, new, gain) for (old, new), gain in zip(done, gains, strict=True))


def close_devices(tenancy: Tenancy, *, limit: int, rule: Rule | None = None, tries: int = TRIES) -> tuple[Move, ...]:
    """``consolidate`` on a tenancy, in which the moves are then carried out."""
    rule = rule or Tightest()
    moves: list[Move] = []
    moved: set[str] = set()
    gained = True
    while gained and len(moves) < limit:
        gained = False
        for row, guests in islice(_closable(tenancy, limit - len(moves), moved), tries):
            before = _opened(tenancy.board)
            weight = tenancy.board.weight()
            shut = np.flatnonzero(~tenancy.board.in_use & (weight >= weight[row]))
            done = _relocate(tenancy, guests, np.append(shut, row), rule, limit - len(moves))
            if done is None:
                continue
            after = _opened(tenancy.board)
            gain = before.memory - after.memory
            keys = {old.item.key for old, _ in done}
            worth = after.weight < before.weight and gain >= max(1, sum(_cost(old) for old, _ in done))
            if not worth or len(keys) < len(done) or not moved.isdisjoint(keys):
                _undo(tenancy, done)
                continue
            gains = _parts(gain, [old.item.memory for old, _ in done])
            moves += (_move(old, new, part) for (old, new), part in zip(done, gains, strict=True))
            moved |= keys
            gained = True
            break
    return tuple(moves)


def _room(tenancy: Tenancy, item: Item, limit: int, rule: Rule, tries: int, shut: IntArray) -> _Done | None:
    """Moves others until ``item`` fits on devices besides those at ``shut``; None where that can't be had."""
    if limit < 1:
        return None
    for each in islice(sought(tenancy, item, limit, shut=shut), tries):
        done = _relocate(tenancy, each.victims, np.concatenate((shut, each.shut)), rule, len(each.victims))
        if done is None:
            continue
        if fits_of(tenancy.board, item)[each.shut].any():
            return done
        _undo(tenancy, done)
    return None


def _relocate(tenancy: Tenancy, guests: Sequence[Resident], shut: IntArray, rule: Rule, limit: int) -> _Done | None:
    """Moves all of ``guests`` to devices other than ``shut``, and others for them where there is no room, in at most
    ``limit`` moves; where one has no place nothing has changed."""
    done: _Done = []
    for place, old in enumerate(guests):
        new = tenancy.settle(old.item, rule, shut=shut)
        if new is None and (spare := limit - len(done) - (len(guests) - place)) > 0:
            done += _room(tenancy, old.item, spare, rule, _TRIES_FOR_ONE, shut) or []
            new = tenancy.settle(old.item, rule, shut=shut)
        if new is None:
            _undo(tenancy, done)
            return None
        tenancy.swap(old, new)
        done.append((old, new))
    return done


def _closable(tenancy: Tenancy, limit: int, moved: set[str]) -> Iterator[tuple[int, tuple[Resident, ...]]]:
    """Devices whose replicas may all be moved, with them; those first whose closing gains most for what it loads."""
    board = tenancy.board
    claims = tenancy.claims.live()
    on_device = claims["row"] >= 0
    rows, memory = claims["row"][on_device], claims["memory"][on_device]
    number = np.bincount(rows, minlength=len(board.free))
    loaded = np.bincount(rows, weights=memory, minlength=len(board.free))
    able = np.flatnonzero((number > 0) & (number <= limit))
    rate = loaded[able] / np.maximum(board.weight()[able], 1)
    homes = _Homes(tenancy)
    for row in able[np.argsort(rate, kind="stable")].tolist():
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


def _undo(tenancy: Tenancy, done: _Done) -> None:
    for old, new in reversed(done):
        tenancy.revert(old, new)


class _Opened(NamedTuple):
    """What is open: by the objective, and in bytes."""

    weight: int
    memory: int


def _opened(board: Board) -> _Opened:
    return _Opened(int(board.weight()[board.in_use].sum()), int(board.capacity[board.in_use].sum()))


def _cost(resident: Resident) -> int:
    return resident.item.gpus * resident.item.memory


def _move(old: Resident, new: Resident, gain: int) -> Move:
    return Move(resident=old, host=new.host, devices=new.devices, gain=gain, cost=_cost(old))


def _parts(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` in proportion to ``weights``, at least 1 each where it suffices; the parts add up to it."""
    spare = max(0, total - len(weights))
    whole = max(sum(weights), 1)
    parts = [min(1, total) + spare * weight // whole for weight in weights]
    parts[0] += total - sum(parts)
    return parts
