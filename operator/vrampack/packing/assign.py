"""Patterns onto the very GPUs: here belongs what the stock does not know, the constraints of whole hosts.

Patterns with replicas of several GPUs go first, those with the most GPUs before others, each onto one host (and one
domain of fast links where it can be had). What a host can't take for its CPU, RAM, slots or for spread stays over, and
first fit finds another place for it, or none.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vrampack.packing.board import Board
from vrampack.packing.inventory import Inventory, hosts_cut
from vrampack.packing.lots import Settled
from vrampack.packing.portfolio import best_run
from vrampack.packing.problem import Criterion, Cut, Device, Host, Item, Objective, Packing, Placement, Spread, Why
from vrampack.packing.run import answer
from vrampack.packing.stock import Pattern
from vrampack.packing.turn import in_turn

_LOOK = 256
"""Hosts that are compared for one pattern at most."""


@dataclass(slots=True, eq=False)
class _Site:
    """What is left of a host while patterns are put on it."""

    host: Host
    cpu: int | None
    memory: int | None
    slots: int | None
    tenants: set[str]
    alone: set[str] = field(default_factory=set)
    spots: dict[int, list[Device]] = field(default_factory=dict)

    def takes(self, item: Item) -> bool:
        if item.spread is Spread.REQUIRE and item.group in self.tenants:
            return False
        return (
            item.group not in self.alone
            and (self.cpu is None or not item.cpu or item.cpu <= self.cpu)
            and (self.memory is None or not item.host_memory or item.host_memory <= self.memory)
            and (self.slots is None or self.slots > 0)
        )

    def take(self, item: Item) -> None:
        self.tenants.add(item.group)
        if item.spread is Spread.REQUIRE:
            self.alone.add(item.group)
        self.cpu = None if self.cpu is None else self.cpu - item.cpu
        self.memory = None if self.memory is None else self.memory - item.host_memory
        self.slots = None if self.slots is None else self.slots - 1


def assign(
    *,
    inventory: Inventory,
    hosts: Sequence[Host],
    cuts: Sequence[Cut],
    others: Sequence[Item],
    settled: Settled,
    patterns: Mapping[Pattern, int],
) -> Packing:
    """The packing that lots and patterns make on ``hosts`` with ``cuts``, whose kinds they are of. What they don't
    cover, and ``others``, is placed by first fit behind them; what is cut for nothing is not cut."""
    work = _Assignment(inventory, hosts_cut(hosts, cuts))
    first = len(inventory.stock.kinds)
    for place, lot in sorted(enumerate(settled.lots), key=lambda pair: -pair[1].bins):
        for _ in range(lot.times):
            work.place(Pattern(lot.kind, lot.parts), lot.bins, becomes=first + place)
    for pattern, times in sorted(patterns.items(), key=lambda pair: (settled.stock.free(pair[0]), pair[0])):
        for _ in range(times):
            work.place(pattern, 1)
    return work.packing(hosts, cuts, others)


class _Assignment:
    def __init__(self, inventory: Inventory, hosts: Sequence[Host]) -> None:
        self._inventory = inventory
        self._left = [deque(members.items) for members in inventory.classes]
        self._placed: list[Placement] = []
        self._sites = {host.name: _Site(host, host.cpu, host.memory, host.slots, set(host.tenants)) for host in hosts}
        self._of_kind: dict[int, list[_Site]] = defaultdict(list)
        devices = {(host.name, device.id): device for host in hosts for device in host.devices}
        for kind, spots in enumerate(inventory.spots):
            for spot in spots:
                self._offer(self._sites[spot[0]], kind, [devices[spot]])
        self._free = {spot: device.free for spot, device in devices.items()}
        self._empty = {spot for spot, device in devices.items() if not device.in_use}
        self._fits = [
            sum(kind.supply or 0 for kind in inventory.stock.kinds if kind.admits is None or kind.admits[each])
            for each in range(len(inventory.classes))
        ]

    def _offer(self, site: _Site, kind: int, devices: Sequence[Device]) -> None:
        if kind not in site.spots:
            site.spots[kind] = []
            self._of_kind[kind].append(site)
        site.spots[kind] += devices

    def place(self, pattern: Pattern, bins: int, *, becomes: int | None = None) -> None:
        """``bins`` bins of ``pattern`` on one host, which then are of the kind that they become."""
        wanted = [(self._inventory.classes[each].item, many) for each, many in pattern.parts]
        best: tuple[tuple[int, bool, int, int], _Site] | None = None
        sites = [site for site in self._of_kind[pattern.kind] if len(site.spots[pattern.kind]) >= bins]
        for site in sites[:_LOOK]:
            spots = site.spots[pattern.kind]
            misfits, crowded = _misfits(site, wanted)
            score = (misfits, bins > 1 and not _linked(spots, bins), crowded, len(spots))
            if best is None or score < best[0]:
                best = (score, site)
        if best is None:
            return
        site = best[1]
        devices = _together(site.spots[pattern.kind], bins)
        for each, many in pattern.parts:
            for _ in range(many):
                self._give(site, each, devices)
        if becomes is not None:
            self._offer(site, becomes, devices)

    def _give(self, site: _Site, each: int, devices: Sequence[Device]) -> None:
        left = self._left[each]
        if not left or not site.takes(left[0]):
            return
        item = left.popleft()
        site.take(item)
        spots = [(site.host.name, device.id) for device in devices]
        opened = sum(spot in self._empty for spot in spots)
        for spot in spots:
            self._free[spot] -= item.memory
            self._empty.discard(spot)
        why = Why(
            criterion=Criterion.REFINED,
            fits=self._fits[each],
            left=min(self._free[spot] for spot in spots),
            opened=opened,
        )
        placed = tuple(sorted(device.id for device in devices))
        self._placed.append(Placement(item=item, host=site.host.name, devices=placed, why=why))

    def packing(self, hosts: Sequence[Host], cuts: Sequence[Cut], others: Sequence[Item]) -> Packing:
        """What was placed, and what first fit makes of the rest."""
        used = {(placed.host, name.rpartition("/")[0]) for placed in self._placed for name in placed.devices}
        cuts = tuple(cut for cut in cuts if (cut.host, cut.device) in used)
        rest = [item for left in self._left for item in left] + list(others)
        if not rest:
            return Packing(placed=tuple(self._placed), unplaced=(), cuts=cuts)
        board = Board(hosts_cut(hosts, cuts))
        rows = {
            (board.names[host], device.id): row
            for row, (host, device) in enumerate(zip(board.host.tolist(), board.devices, strict=True))
            if not board.asleep[row]
        }
        for placement in self._placed:
            spots = [rows[placement.host, device] for device in placement.devices]
            board.book(
                placement.item,
                rows=np.array([spots]),
                hosts=np.array([board.place_of[placement.host]]),
                amounts=np.ones(1, dtype=np.int64),
            )
        behind = answer(best_run(board, in_turn(rest), Objective.FEWEST_GPUS))
        every = sorted((*cuts, *behind.cuts), key=lambda cut: (cut.host, cut.device))
        return replace(behind, placed=(*self._placed, *behind.placed), cuts=tuple(every))


def _misfits(site: _Site, wanted: Sequence[tuple[Item, int]]) -> tuple[int, int]:
    """How many of these can't go on the host, and how many would rather not."""
    misfits = crowded = 0
    cpu, memory, slots = site.cpu, site.memory, site.slots
    for item, many in wanted:
        if item.spread is not Spread.IGNORE:
            beside = item.group in site.tenants
            if item.spread is Spread.REQUIRE:
                misfits += many if beside else many - 1
            else:
                crowded += many if beside else many - 1
        if item.group in site.alone:
            misfits += many
        for _ in range(many):
            if (
                (cpu is not None and 0 < item.cpu > cpu)
                or (memory is not None and 0 < item.host_memory > memory)
                or (slots is not None and slots < 1)
            ):
                misfits += 1
                continue
            cpu = None if cpu is None else cpu - item.cpu
            memory = None if memory is None else memory - item.host_memory
            slots = None if slots is None else slots - 1
    return misfits, crowded


def _linked(devices: Sequence[Device], bins: int) -> bool:
    """Whether one domain of fast links has so many of them."""
    return max(Counter(device.link for device in devices).values(), default=0) >= bins


def _together(devices: list[Device], lot: int) -> list[Device]:
    """Takes ``lot`` of ``devices``, of one link domain where one has so many, the smallest such domain."""
    if lot > 1:
        links = Counter(device.link for device in devices)
        enough = [(many, link or "", link) for link, many in links.items() if many >= lot]
        if enough:
            chosen = min(enough, key=lambda each: each[:2])[2]
            devices.sort(key=lambda device: device.link != chosen)
    taken = devices[:lot]
    del devices[:lot]
    return taken
