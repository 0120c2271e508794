"""The fleet as arrays: the working copy of hosts and devices that a run of the packer writes to.

Within a run everything in it only ever gets scarcer: bytes, CPU and slots shrink, neighbours and vetoes grow. So a
device that could not take an item will never take an equal one later in the same run; the batches rest on that.

Devices are rows in the order of host, product and id, whatever the order in which they came; a device with layouts is
followed by as many rows as its finest layout has slices, which sleep until it is cut.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Final

import numpy as np

from vrampack.errors import InvalidInputError
from vrampack.packing.arrays import NONE, PLENTY, IntArray, Members
from vrampack.packing.problem import Cut, Device, Host, Item, Reason, Spread
from vrampack.packing.rows import column, host_limits, rows_of, structure

CODES: Final[Mapping[str, int]] = {reason: code for code, reason in enumerate(Reason, start=1)}
"""Of the packer's own reasons; 0 is none, those of the caller follow as they are met."""


class Board:
    """Hosts and devices in columns. What is not limited, or not known, is PLENTY."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        """Raises InvalidInputError for a host or a device of a host that comes twice, for a closed one without a
        reason, and for layouts of a device that is in use."""
        ordered = sorted(hosts, key=lambda host: host.name)
        self.names = [host.name for host in ordered]
        self.place_of = {name: place for place, name in enumerate(self.names)}
        if len(self.place_of) < len(ordered):
            twice = next(one for one, other in zip(self.names, self.names[1:], strict=False) if one == other)
            raise InvalidInputError(field="hosts.name", value=twice, allowed="each host is listed once")
        self.reasons: dict[str, int] = dict(CODES)
        free = np.array([host_limits(host) for host in ordered], np.int64).reshape(-1, 3)
        self.cpu, self.ram, self.room = (each.copy() for each in free.T)
        self.host_closed = column(self.code(host.closed, f"hosts[{host.name}]") for host in ordered)
        self.devices: list[Device] = []
        counts: list[int] = []
        sleeping: list[int] = []
        for host in ordered:
            devices, asleep = rows_of(host)
            sleeping += (len(self.devices) + number for number in asleep)
            self.devices += devices
            counts.append(len(devices))
        self.host = np.arange(len(ordered)).repeat(counts)
        self.asleep = np.zeros(len(self.devices), np.bool_)
        self.asleep[sleeping] = True
        self._columns()
        self._groups(ordered)
        self._turn: IntArray | None = None
        self._kind: IntArray | None = None
        self._masks: dict[int, tuple[object, IntArray]] = {}

    def _columns(self) -> None:
        devices, size = self.devices, len(self.devices)
        self.prices: IntArray | None = None
        if any(price is not None for price in map(attrgetter("price"), devices)):
            self.prices = column(
                self._price(each, place) for each, place in zip(devices, self.host.tolist(), strict=True)
            )
        names = list(map(attrgetter("product"), devices))
        self.products = {name: code for code, name in enumerate(dict.fromkeys(names))}
        self.product = column(map(self.products.__getitem__, names))
        self.capacity = column(map(attrgetter("capacity"), devices))
        self.free = column(map(attrgetter("free"), devices))
        self.slots = column([PLENTY if each.slots is None else each.slots for each in devices])
        self.counted = bool((self.slots < PLENTY).any())
        """Whether any device takes only so many items."""
        self.exclusive = np.fromiter(map(attrgetter("exclusive"), devices), np.bool_, size)
        self.occupied = np.fromiter(map(bool, map(attrgetter("tenants"), devices)), np.bool_, size)
        self.in_use = self.exclusive | self.occupied
        self.closed = np.zeros(size, np.int64)
        for row in [row for row, device in enumerate(devices) if device.closed is not None]:
            path = f"hosts[{self.names[int(self.host[row])]}].devices[{devices[row].id}]"
            self.closed[row] = self.code(devices[row].closed, path)
        self.divisible = np.fromiter(map(bool, map(attrgetter("layouts"), devices)), np.bool_, size)
        self.kept = np.zeros(size, np.int64)
        """For how many items a device is kept."""
        self.open = (self.closed == 0) & (self.host_closed[self.host] == 0) & ~self.asleep
        self.takes = self.open & ~self.divisible & ~self.exclusive & (self.slots > 0)
        self.size_of_host = np.bincount(self.host[~self.asleep], minlength=len(self.names))
        self.cuts: dict[int, tuple[int, ...]] = {}
        self.whole = ~(self.divisible | self.asleep)
        self.whole &= np.array([each.slice_of is None for each in devices], np.bool_)
        self.gpu = np.arange(size)
        """The same number for all slices of one GPU."""
        numbers: dict[tuple[int, str], int] = {}
        for row in np.flatnonzero(~self.whole).tolist():
            device = devices[row]
            key = (int(self.host[row]), device.slice_of or device.id)
            self.gpu[row] = numbers.setdefault(key, row)
        of_product = self.host * len(self.products) + self.product
        self.set = np.where(self.whole, np.cumsum(np.diff(of_product, prepend=-1) != 0) - 1, -1)
        """Whole devices of one product on one host."""
        reported = list(map(attrgetter("link"), devices))
        links = {name: code for code, name in enumerate(dict.fromkeys(reported))}
        self.linked = len(links) > 1
        self.domain = self.set
        """The same, in one domain of fast links."""
        if self.linked:
            link = column(map(links.__getitem__, reported))
            self.domain = np.where(self.whole, np.unique(self.set * len(links) + link, return_inverse=True)[1], -1)

    def _groups(self, hosts: Sequence[Host]) -> None:
        tenants: dict[str, list[int]] = defaultdict(list)
        vetoes: dict[str, list[int]] = defaultdict(list)
        guests: dict[str, list[int]] = defaultdict(list)
        for row in [row for row, each in enumerate(self.devices) if each.tenants or each.avoided_by]:
            for group in self.devices[row].tenants:
                tenants[group].append(row)
            for group in self.devices[row].avoided_by:
                vetoes[group].append(row)
        for place, host in enumerate(hosts):
            for group in host.tenants:
                guests[group].append(place)
        self.tenants, self.vetoes, self.guests = Members(tenants), Members(vetoes), Members(guests)
        self.alone = Members()
        """Hosts on which a replica of the group requires that no other of it joins."""

    def code(self, reason: str | None, path: str) -> int:
        """The number of a reason. Raises InvalidInputError for an empty text: as a reason it would not count as one."""
        if reason is None:
            return 0
        if not reason:
            allowed = "give a reason, or None where it is open"
            raise InvalidInputError(field=f"{path}.closed", value=reason, allowed=allowed)
        return self.reasons.setdefault(str(reason), len(self.reasons) + 1)

    def copy(self) -> "Board":
        """A twin to try something on. What never changes in a run is shared."""
        twin = object.__new__(Board)
        twin.__dict__.update(self.__dict__)
        for name in ("cpu", "ram", "room", "free", "slots", "exclusive", "occupied", "in_use", "takes", "open"):
            setattr(twin, name, getattr(self, name).copy())
        for name in ("asleep", "kept", "size_of_host", "capacity", "divisible"):
            setattr(twin, name, getattr(self, name).copy())
        for name in ("tenants", "vetoes", "guests", "alone", "cuts"):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    @property
    def kind(self) -> IntArray:
        """By row, a number that devices of one size and price share: the larger the size, then the lower the price, the
        lower the number."""
        if self._kind is None:
            self._kind = np.unique(-self.capacity, return_inverse=True)[1]
            if self.prices is not None:
                price = np.unique(self.prices, return_inverse=True)[1]
                self._kind = np.unique(self._kind * (price.max(initial=0) + 1) + price, return_inverse=True)[1]
        return self._kind

    @property
    def turn(self) -> IntArray:
        """The rows in the order in which first fit looks at them.

        Those in use come first, least free first; then the empty ones, larger before smaller: as items come large
        first, what is left of a large one takes the small ones that follow. Among empty ones of a size, those of hosts
        with the fewest of them come first: whole hosts stay free for items with several devices. Ties go by row.
        """
        if self._turn is None:
            used = np.flatnonzero(self.in_use)
            empty = np.flatnonzero(~self.in_use)
            on_host = np.bincount(self.host[empty], minlength=len(self.names))[self.host[empty]]
            size = self.kind[empty]
            key = size * (on_host.max(initial=0) + 1) + on_host
            if key.max(initial=0) < 1 << 16:  # sorted by counting, which is ten times as fast
                key = key.astype(np.uint16)
            self._turn = np.concatenate(
                (used[np.argsort(self.free[used], kind="stable")], empty[np.argsort(key, kind="stable")])
            )
        return self._turn

    def settle(self) -> None:
        """What was booked up to now counts as it stands: a new run begins."""
        self._turn = None
        self.alone = Members()

    def renewable(self, old: Host, new: Host) -> bool:
        """Whether ``new`` has the devices of ``old``, as far as rows go, and is well-formed: ``renew`` suffices."""
        if "" in (new.closed, *(device.closed for device in new.devices)):
            return False
        return [structure(device) for device in old.devices] == [
            structure(device) for device in new.devices
        ] and not any(device.layouts for device in new.devices)

    def renew(self, host: Host, *, groups: Iterable[str]) -> None:
        """Write ``host``, which is renewable, into its rows. ``groups``: all that may be on it up to now."""
        place = self.place_of[host.name]
        start, end = np.searchsorted(self.host, [place, place + 1]).tolist()
        rows, devices = np.arange(start, end), sorted(host.devices, key=attrgetter("product", "id"))
        host_closed = self.code(host.closed, f"hosts[{host.name}]")
        closed = [self.code(each.closed, f"hosts[{host.name}].devices[{each.id}]") for each in devices]
        self.cpu[place], self.ram[place], self.room[place] = host_limits(host)
        self.host_closed[place] = host_closed
        self.closed[rows] = closed
        for row, device in zip(rows.tolist(), devices, strict=True):
            self.devices[row] = device
            self.capacity[row], self.free[row] = device.capacity, device.free
            self.slots[row] = PLENTY if device.slots is None else device.slots
            self.counted |= device.slots is not None
            self.exclusive[row], self.occupied[row] = device.exclusive, bool(device.tenants)
        self.in_use[rows] = self.exclusive[rows] | self.occupied[rows]
        self.open[rows] = (self.closed[rows] == 0) & (host_closed == 0)
        self.takes[rows] = self.open[rows] & ~self.exclusive[rows] & (self.slots[rows] > 0)
        here = np.array([place])
        for group in groups:
            self.guests.drop(group, here)
            self.tenants.drop(group, rows)
            self.vetoes.drop(group, rows)
        for group in host.tenants:
            self.guests.add(group, here)
        for row, device in zip(rows.tolist(), devices, strict=True):
            for group in device.tenants:
                self.tenants.add(group, np.array([row]))
            for group in device.avoided_by:
                self.vetoes.add(group, np.array([row]))
        self._turn = self._kind = None

    def refusals(self, item: Item) -> IntArray | None:
        """By host, the code of the reason for which it can't take ``item``; None where none refuses it."""
        if not item.refused:
            return None
        known = self._masks.get(id(item.refused))
        if known is None:
            if len(self._masks) >= 4096:
                self._masks.clear()
            codes = np.zeros(len(self.names), np.int64)
            for name, reason in item.refused.items():
                if (place := self.place_of.get(name)) is not None:
                    codes[place] = self.reasons.setdefault(str(reason), len(self.reasons) + 1)
            # The mapping is held too: its id stays its own.
            known = self._masks[id(item.refused)] = (item.refused, codes)
        return known[1]

    def book(self, item: Item, *, rows: IntArray, hosts: IntArray, amounts: IntArray) -> None:
        """Book ``amounts`` items on each line of ``rows`` (one column a device), which are on ``hosts``."""
        if item.cpu:
            np.subtract.at(self.cpu, hosts, amounts * item.cpu)
        if item.host_memory:
            np.subtract.at(self.ram, hosts, amounts * item.host_memory)
        np.subtract.at(self.room, hosts, amounts)
        self.guests.add(item.group, hosts)
        if item.spread is Spread.REQUIRE:
            self.alone.add(item.group, hosts)
        if item.gpus == 0:
            return
        flat = rows.ravel()
        each = amounts if item.gpus == 1 else np.repeat(amounts, item.gpus)
        self.free[flat] -= each * item.memory
        self.occupied[flat] = True
        self.in_use[flat] = True
        self.tenants.add(item.group, flat)
        for group in item.avoid:
            self.vetoes.add(group, flat)
        if item.exclusive:
            self.exclusive[flat] = True
            self.takes[flat] = False
        if self.counted:
            self.slots[flat] -= each
            self.takes[flat] &= self.slots[flat] > 0

    def cut(self, row: int, layout: tuple[int, ...]) -> None:
        """Wake the slices of a device with layouts."""
        parts = np.arange(row + 1, row + 1 + len(layout))
        self.capacity[parts] = self.free[parts] = layout
        self.asleep[parts] = False
        self.open[parts] = self.open[row]
        self.takes[parts] = self.open[row] & (self.slots[parts] > 0)
        self.asleep[row], self.open[row], self.divisible[row] = True, False, False
        self.size_of_host[self.host[row]] += len(layout) - 1
        self.cuts[row] = layout

    def mend(self) -> None:
        """What was cut, and then taken by nobody, is whole again."""
        for row, layout in list(self.cuts.items()):
            parts = slice(row + 1, row + 1 + len(layout))
            if not (self.in_use[parts].any() or self.kept[parts].any()):
                self.asleep[parts], self.open[parts], self.takes[parts] = True, False, False
                self.asleep[row], self.open[row], self.divisible[row] = False, True, True
                self.size_of_host[self.host[row]] -= len(layout) - 1
                del self.cuts[row]

    def cut_list(self) -> tuple[Cut, ...]:
        """What was cut, by host and device."""
        return tuple(
            Cut(
                host=self.names[int(self.host[row])],
                device=self.devices[row].id,
                layout=layout,
                changed=layout != self.devices[row].layouts[0],
            )
            for row, layout in sorted(self.cuts.items())
        )

    def _price(self, device: Device, place: int) -> int:
        if device.price is None:
            path = f"hosts[{self.names[place]}].devices[{device.id}].price"
            raise InvalidInputError(field=path, value=None, allowed="all devices have a price or none has")
        return device.price

    def weight(self) -> IntArray:
        """By row, what it costs to have it in use: its price, or its capacity where there are no prices."""
        if self.prices is None:
            return self.capacity
        return self.prices

    def shut(self, group: str, avoid: frozenset[str]) -> IntArray:
        """Rows on which ``group`` would have a neighbour that one of the two avoids."""
        found = [self.vetoes.of(group), *(self.tenants.of(other) for other in avoid)]
        found = [each for each in found if len(each)]
        return np.concatenate(found) if found else NONE
