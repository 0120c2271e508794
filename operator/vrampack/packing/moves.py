"""Moves of running replicas: for one that would otherwise find no place, and to close devices that are hardly used.

A move claims the new place before the old one is given up, so each of a list can be carried out after those before it,
and stopped after any of them. Nothing is moved twice, and what may not be moved stays where it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from vrampack.packing.arrays import BoolArray, IntArray
from vrampack.packing.board import Board
from vrampack.packing.fill import allowed, fitting, limits
from vrampack.packing.problem import Host, Item, Move, Resident, Spread
from vrampack.packing.rules import Rule, Tightest
from vrampack.packing.tenancy import Tenancy

TRIES = 24
"""How many sets of replicas are tried for one that is blocked, and how many devices are tried to be closed, before it
is left as it is. A bound on the work, so that the answer does not depend on the clock."""


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

    What is opened (memory, or price) shrinks with each group of moves that empties a device, and each move has its part
    of that as its gain. It ends where nothing more is gained.

    Raises InvalidInputError as Tenancy does.
    """
    return close_devices(Tenancy(hosts, residents), limit=limit, rule=rule, tries=tries)


def make_room(
    tenancy: Tenancy, *, item: Item, limit: int, rule: Rule | None = None, tries: int = TRIES
) -> tuple[Move, ...] | None:
    """``room_for`` on a tenancy, in which the moves are then carried out; where there are none it stays as it was."""
    if _fits(tenancy.board, item).any():
        return ()
    if limit < 1:
        return None
    rule = rule or Tightest()
    for sought in islice(_sought(tenancy, item, limit), tries):
        done = _relocate(tenancy, sought.victims, sought.shut, rule)
        if done is None:
            continue
        if _fits(tenancy.board, item)[sought.shut].any():
            gains = _parts(max(item.gpus, 1) * item.memory, [1] * len(done))
            return tuple(_move(old, new, gain) for (old, new), gain in zip(done, gains, strict=True))
        _undo(tenancy, done)
    return None


def close_devices(tenancy: Tenancy, *, limit: int, rule: Rule | None = None, tries: int = TRIES) -> tuple[Move, ...]:
    """``consolidate`` on a tenancy, in which the moves are then carried out."""
    rule = rule or Tightest()
    moves: list[Move] = []
    moved: set[str] = set()
    gained = True
    while gained and len(moves) < limit:
        gained = False
        for row, guests in _closable(tenancy, limit - len(moves), moved)[:tries]:
            opened = _opened(tenancy.board)
            shut = np.flatnonzero(~tenancy.board.in_use & (tenancy.board.weight() >= tenancy.board.weight()[row]))
            done = _relocate(tenancy, guests, np.append(shut, row), rule)
            if done is None:
                continue
            gain = opened - _opened(tenancy.board)
            if gain < len(done):
                _undo(tenancy, done)
                continue
            gains = _parts(gain, [old.item.memory for old, _ in done])
            moves += (_move(old, new, part) for (old, new), part in zip(done, gains, strict=True))
            moved.update(old.item.key for old, _ in done)
            gained = True
            break
    return tuple(moves)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sought:
    """Replicas whose move would make room at ``shut``, which takes none of them meanwhile."""

    victims: tuple[Resident, ...]
    shut: IntArray


def _fits(board: Board, item: Item) -> BoolArray:
    """Which devices take ``item`` now, in full teams where it needs several; for one without devices all of a host."""
    elsewhere = item.spread is Spread.REQUIRE
    most = limits(board, item, elsewhere=elsewhere)
    if item.gpus == 0:
        return ((most > 0) & (board.host_closed == 0))[board.host]
    fits = fitting(board, item, most)
    if item.gpus > 1:
        fits &= board.whole
        teams = np.bincount(board.set[fits], minlength=int(board.set.max(initial=-1)) + 1)
        fits &= np.append(teams >= item.gpus, False)[board.set]
    return fits


def _sought(tenancy: Tenancy, item: Item, limit: int) -> Iterator[_Sought]:
    """Sets of at most ``limit`` replicas, the fewest first, then those with the least to load."""
    reach = _Reach(tenancy, item)
    yield from reach.singles()
    if limit > 1:
        yield from reach.several(limit)


class _Reach:
    """What ``item`` lacks, device by device, and the claims that stand in its way."""

    def __init__(self, tenancy: Tenancy, item: Item) -> None:
        board = tenancy.board
        self._tenancy, self._item = tenancy, item
        self._homes: dict[int, BoolArray] = {}
        self._claims = self._with_a_home(tenancy.claims.live())
        barred = board.host_closed > 0
        if (refused := board.refusals(item)) is not None:
            barred = barred | (refused > 0)
        barred[board.alone.of(item.group)] = True
        if item.spread is Spread.REQUIRE:
            barred[board.guests.of(item.group)] = True
        self._hosts = ~barred
        rows = board.open & ~board.divisible & self._hosts[board.host]
        if item.gpus:
            rows &= allowed(board, item) & (board.capacity >= item.memory)
        if item.gpus > 1:
            rows &= board.whole
        self._eligible = rows
        # Hosts' shortages. Nobody needs CPU or RAM where none is asked for.
        self._cpu = np.maximum(item.cpu - board.cpu, 0) if item.cpu else np.zeros(len(board.cpu), np.int64)

    def _with_a_home(self, claims: dict[str, IntArray]) -> dict[str, IntArray]:
        """Those of replicas that would find another place as things stand."""
        board = self._tenancy.board
        for kind in np.unique(claims["kind"]).tolist():
            fits = _fits(board, self._tenancy.claims.like(kind))
            if fits.any():
                self._homes[kind] = fits
        kept = np.isin(claims["kind"], list(self._homes))
        return {name: column[kept] for name, column in claims.items()}

    def _elsewhere(self, kind: int, shut: IntArray) -> bool:
        """Whether there is one besides ``shut``."""
        fits = self._homes[kind]
        return int(fits.sum()) > int(fits[shut].sum())

    def singles(self) -> Iterator[_Sought]:
        """One replica at a time."""
        item, board, claims = self._item, self._tenancy.board, self._claims
        if item.gpus > 1 or not len(claims["row"]):
            yield from self.several(1)
            return
        row, host = claims["row"], claims["host"]
        enough = self._hosts[host] & (claims["cpu"] >= self._cpu[host])
        ready = self._eligible & (board.free >= item.memory) if item.gpus else self._eligible
        on_host = np.bincount(board.host[ready], minlength=len(board.names)) > 0
        here = np.zeros(len(row), np.bool_)
        if item.gpus:
            here = (row >= 0) & self._eligible[row] & (board.free[row] + claims["memory"] >= item.memory)
        able = np.flatnonzero(enough & (here | on_host[host]))
        cost = claims["memory"][able]
        for line in able[np.argsort(cost, kind="stable")].tolist():
            shut = np.array([row[line]]) if here[line] else np.flatnonzero(ready & (board.host == host[line]))
            if self._elsewhere(int(claims["kind"][line]), shut):
                yield _Sought(victims=(self._resident(line),), shut=shut)

    def several(self, limit: int) -> Iterator[_Sought]:
        """On each host the devices that lack the fewest moves; the hosts in the order of what they lack."""
        item, board, claims = self._item, self._tenancy.board, self._claims
        short = np.maximum(item.memory - board.free, 0) if item.gpus else np.zeros(len(board.free), np.int64)
        needed = np.where(short == 0, 0, limit + 1)
        order = np.lexsort((-claims["memory"], claims["row"]))
        order = order[claims["row"][order] >= 0]
        rows = claims["row"][order]
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        place = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))
        for number in range(1, limit + 1):
            largest = place < number
            freed = np.bincount(rows[largest], weights=claims["memory"][order][largest], minlength=len(short))
            needed = np.where((needed > limit) & (freed >= short), number, needed)
        usable = np.flatnonzero(self._eligible & (needed <= limit))
        # The best devices of each set, as many as the item needs.
        team = max(item.gpus, 1)
        sets = board.set if item.gpus > 1 else np.arange(len(short))
        usable = usable[np.lexsort((short[usable], needed[usable], sets[usable]))]
        owner = sets[usable]
        start = np.flatnonzero(np.diff(owner, prepend=-1))
        size = np.diff(start, append=len(owner))
        start = start[size >= team]
        lines = usable[start[:, None] + np.arange(team)] if len(start) else np.empty((0, team), np.int64)
        moves, lack = needed[lines].sum(axis=1), short[lines].sum(axis=1)
        best = np.lexsort((lines[:, 0], lack, moves)) if len(lines) else np.empty(0, np.int64)
        for at in best[moves[best] <= limit].tolist():
            victims = self._victims(lines[at], short, limit)
            if victims:
                yield _Sought(victims=victims, shut=lines[at])

    def _victims(self, rows: IntArray, short: IntArray, limit: int) -> tuple[Resident, ...]:
        """Who must go from ``rows``, the largest first, and then for the CPU of their host; none where that takes more
        than ``limit``."""
        tenancy = self._tenancy
        place = int(tenancy.board.host[rows[0]])
        lines = np.flatnonzero(self._claims["host"] == place)
        guests = list({each.item.key: each for each in map(self._resident, lines.tolist())}.values())
        chosen: dict[str, Resident] = {}
        for row in rows.tolist():
            device, lack = tenancy.board.devices[row].id, int(short[row])
            here = [each for each in guests if device in each.devices]
            lack -= sum(each.item.memory for each in here if each.item.key in chosen)
            covering = [each for each in here if each.item.memory >= lack]
            here.sort(key=lambda each: (-each.item.memory, each.item.key))
            if lack > 0 and covering:
                here = [min(covering, key=lambda each: (each.item.memory, each.item.key))]
            for each in here:
                if lack > 0 and each.item.key not in chosen:
                    chosen[each.item.key] = each
                    lack -= each.item.memory
        cpu = int(self._cpu[place]) - sum(each.item.cpu for each in chosen.values())
        for each in sorted(guests, key=lambda each: (-each.item.cpu, each.item.memory, each.item.key)):
            if cpu > 0 and each.item.key not in chosen:
                chosen[each.item.key] = each
                cpu -= each.item.cpu
        return tuple(chosen.values()) if cpu <= 0 and len(chosen) <= limit else ()

    def _resident(self, line: int) -> Resident:
        key = self._tenancy.claims.key(int(self._claims["number"][line]))
        return self._tenancy.residents[key]


def _closable(tenancy: Tenancy, limit: int, moved: set[str]) -> list[tuple[int, tuple[Resident, ...]]]:
    """Devices whose replicas may all be moved, with them; those that gain most for each byte to be loaded first."""
    board = tenancy.board
    claims = tenancy.claims.live()
    rows = claims["row"][claims["row"] >= 0]
    number = np.bincount(rows, minlength=len(board.free))
    bytes_ = np.bincount(rows, weights=claims["memory"][claims["row"] >= 0], minlength=len(board.free))
    able = np.flatnonzero((number > 0) & (number <= limit))
    rate = bytes_[able] / np.maximum(board.weight()[able], 1)
    found: list[tuple[int, tuple[Resident, ...]]] = []
    for row in able[np.argsort(rate, kind="stable")].tolist():
        device = board.devices[row]
        guests = [each for each in tenancy.on(board.names[int(board.host[row])]) if device.id in each.devices]
        groups = {each.item.group for each in guests}
        if all(each.movable and each.item.key not in moved for each in guests) and device.tenants <= groups:
            found.append((row, tuple(sorted(guests, key=lambda each: (-each.item.memory, each.item.key)))))
    return found


_Done = list[tuple[Resident, Resident]]


def _relocate(tenancy: Tenancy, guests: Sequence[Resident], shut: IntArray, rule: Rule) -> _Done | None:
    """Moves all of ``guests`` to devices other than ``shut``; where one has no place nothing has changed."""
    done: _Done = []
    for old in guests:
        new = tenancy.settle(old.item, rule, shut=shut)
        if new is None:
            _undo(tenancy, done)
            return None
        tenancy.swap(old, new)
        done.append((old, new))
    return done


def _undo(tenancy: Tenancy, done: _Done) -> None:
    for old, new in reversed(done):
        tenancy.revert(old, new)


def _opened(board: Board) -> int:
    return int(board.weight()[board.in_use].sum())


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
