"""What stands in the way of a replica that finds no place: which others would have to move."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vrampack.packing.arrays import BoolArray, IntArray
from vrampack.packing.board import Board
from vrampack.packing.fill import allowed, fitting, limits
from vrampack.packing.problem import Item, Resident, Spread
from vrampack.packing.tenancy import Tenancy


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Replicas whose move would make room at ``shut``, which takes none of them meanwhile."""

    victims: tuple[Resident, ...]
    shut: IntArray


def fits(board: Board, item: Item, *, shut: IntArray) -> bool:
    """Whether ``item`` finds a place as things stand, on devices other than those at ``shut``."""
    if item.gpus:
        found = fits_of(board, item)
        found[shut] = False
        return bool(found.any())
    most = limits(board, item, elsewhere=item.spread is Spread.REQUIRE)
    return bool(((most > 0) & (board.host_closed == 0)).any())


def fits_of(board: Board, item: Item) -> BoolArray:
    """Which devices take ``item`` now, in full teams where it needs several; for one without devices all of a host."""
    elsewhere = item.spread is Spread.REQUIRE
    most = limits(board, item, elsewhere=elsewhere)
    if item.gpus == 0:
        hosts: BoolArray = (most > 0) & (board.host_closed == 0)
        return hosts[board.host]
    found = fitting(board, item, most)
    if item.gpus > 1:
        found &= board.whole
        teams = np.bincount(board.set[found], minlength=int(board.set.max(initial=-1)) + 1)
        found &= np.append(teams >= item.gpus, False)[board.set]
    return found


def sought(tenancy: Tenancy, item: Item, limit: int, *, shut: IntArray) -> Iterator[Sought]:
    """Sets of at most ``limit`` replicas, the fewest first, then those with the least to load. Nothing goes to the
    devices at ``shut``."""
    reach = _Reach(tenancy, item, shut)
    yield from reach.singles()
    if limit > 1:
        yield from reach.several(limit)


class _Reach:
    """What ``item`` lacks, device by device, and the claims that stand in its way."""

    def __init__(self, tenancy: Tenancy, item: Item, shut: IntArray) -> None:
        board = tenancy.board
        self._shut = shut
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
        rows[self._shut] = False
        self._eligible = rows
        # Hosts' shortages. Nobody needs CPU or RAM where none is asked for.
        none = np.zeros(len(board.cpu), np.int64)
        self._cpu = np.maximum(item.cpu - board.cpu, 0) if item.cpu else none
        self._ram = np.maximum(item.host_memory - board.ram, 0) if item.host_memory else none

    def _with_a_home(self, claims: dict[str, IntArray]) -> dict[str, IntArray]:
        """Those of replicas that would find another place as things stand."""
        board = self._tenancy.board
        for kind in np.unique(claims["kind"]).tolist():
            homes = fits_of(board, self._tenancy.claims.like(kind))
            homes[self._shut] = False
            if homes.any():
                self._homes[kind] = homes
        kept = np.isin(claims["kind"], list(self._homes))
        return {name: column[kept] for name, column in claims.items()}

    def _elsewhere(self, kind: int, shut: IntArray) -> bool:
        """Whether there is one besides ``shut``."""
        homes = self._homes[kind]
        return int(homes.sum()) > int(homes[shut].sum())

    def singles(self) -> Iterator[Sought]:
        """One replica at a time."""
        item, board, claims = self._item, self._tenancy.board, self._claims
        if item.gpus > 1 or not len(claims["row"]):
            yield from self.several(1)
            return
        row, host = claims["row"], claims["host"]
        enough = self._hosts[host] & (claims["cpu"] >= self._cpu[host]) & (claims["ram"] >= self._ram[host])
        ready = self._eligible & (board.free >= item.memory) if item.gpus else self._eligible
        if item.exclusive:
            ready = ready & ~board.occupied
        on_host = np.bincount(board.host[ready], minlength=len(board.names)) > 0
        here = np.zeros(len(row), np.bool_)
        if item.gpus:
            here = (row >= 0) & self._eligible[row] & (board.free[row] + claims["memory"] >= item.memory)
        able = np.flatnonzero(enough & (here | on_host[host]))
        cost = claims["memory"][able]
        for line in able[np.argsort(cost, kind="stable")].tolist():
            shut = np.array([row[line]]) if here[line] else np.flatnonzero(ready & (board.host == host[line]))
            if self._elsewhere(int(claims["kind"][line]), shut):
                yield Sought(victims=(self._resident(line),), shut=shut)

    def several(self, limit: int) -> Iterator[Sought]:
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
        if item.exclusive:  # all must go
            short = np.where(board.occupied, board.capacity, short)
            needed = np.where(board.occupied, np.bincount(rows, minlength=len(short)), needed)
        enough = self._cpu <= self._cpu_of_largest(limit)
        usable = np.flatnonzero(self._eligible & (needed <= limit) & enough[board.host])
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
                yield Sought(victims=victims, shut=lines[at])

    def _cpu_of_largest(self, limit: int) -> IntArray:
        """By host, no less than the CPU of any ``limit`` claims."""
        host, cpu = self._claims["host"], self._claims["cpu"]
        order = np.lexsort((-cpu, host))
        first = np.searchsorted(host[order], host[order])
        largest = order[np.arange(len(order)) - first < limit]
        found = np.zeros(len(self._cpu), np.int64)
        np.add.at(found, host[largest], cpu[largest])
        return found

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
