"""Who is where: a board that replicas leave as well as enter. A board alone only ever gets fuller."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from vrampack.errors import InvalidInputError
from vrampack.packing.arrays import IntArray
from vrampack.packing.board import Board
from vrampack.packing.claims import Claims
from vrampack.packing.fill import fill
from vrampack.packing.gangs import fill_gangs
from vrampack.packing.occupied import occupied
from vrampack.packing.problem import Device, Host, Item, Placement, Resident, Spread
from vrampack.packing.rules import Rule


class Tenancy:
    """Hosts, the replicas that hold claims on them, and the arrays of both as they stand."""

    def __init__(self, hosts: Sequence[Host], residents: Iterable[Resident] = ()) -> None:
        """``residents``: all replicas with a claim on ``hosts``; those of hosts that are not listed are left out. Where
        a device has a tenant or a veto of a group that comes from elsewhere too, it goes with the last of these.

        Raises InvalidInputError for a host, a device of a host or a resident that comes twice, for a device that its
        host does not have, and for a closed one without a reason.
        """
        self.residents: dict[str, Resident] = {}
        self._guests: dict[str, dict[str, Resident]] = {host.name: {} for host in hosts}
        for resident in sorted(residents, key=lambda each: each.item.key):
            key = resident.item.key
            if resident.host not in self._guests:
                continue
            if key in self.residents:
                raise InvalidInputError(field="residents.item.key", value=key, allowed="each replica is listed once")
            self.residents[key] = self._guests[resident.host][key] = resident
        self.board = Board(hosts)
        self._bare = {host.name: self._without(host) for host in hosts}
        """Hosts as they would be without the replicas."""
        self._rows = self._by_name()
        self.claims = Claims()
        for resident in self.residents.values():
            self._require(resident)
            self._note(resident)

    def enter(self, resident: Resident) -> None:
        """Book it. Whether it fits is the caller's to know."""
        self._note(resident)
        self._book(resident)

    def settle(self, item: Item, rule: Rule, *, shut: IntArray) -> Resident | None:
        """Book a place for ``item`` on devices other than those at ``shut``; None where there is none.

        Only the arrays know of it: the caller goes on with ``accept``, ``swap`` or ``cancel``.
        """
        board = self.board
        takes = board.takes[shut]
        board.takes[shut] = False
        batches = fill_gangs(board, item, 1) if item.gpus > 1 else fill(board, item, 1, rule)
        batch = next(iter(batches), None)
        # What was booked is not among them, so what they took before they take again.
        board.takes[shut] = takes
        if batch is None:
            return None
        devices = tuple(board.devices[row].id for row in batch.rows[0].tolist())
        return Resident(item=item, host=board.names[int(batch.hosts[0])], devices=devices)

    def accept(self, new: Resident) -> None:
        """``new``, which is settled, stays."""
        self._note(new)

    def cancel(self, new: Resident) -> None:
        """``new``, which is settled, does not come."""
        self._renew(new.host, new.item)

    def swap(self, old: Resident, new: Resident) -> None:
        """``new``, which is settled, takes the part of ``old``, which gives its claim up."""
        del self._guests[old.host][old.item.key]
        self._note(new)
        self._renew(old.host, old.item)

    def revert(self, old: Resident, new: Resident) -> None:
        """Undo ``swap``."""
        self._book(old)
        self.swap(new, old)

    def leave(self, resident: Resident) -> None:
        """Give its claim back."""
        self.claims.drop(resident.item.key)
        del self.residents[resident.item.key]
        del self._guests[resident.host][resident.item.key]
        self._renew(resident.host, resident.item)

    def rows(self, resident: Resident) -> IntArray:
        """The rows of its devices."""
        names = self._rows[resident.host]
        return np.array([names[device] for device in resident.devices], np.int64)

    def on(self, host: str) -> tuple[Resident, ...]:
        """The replicas on ``host``, by key."""
        return tuple(resident for _, resident in sorted(self._guests[host].items()))

    def host(self, name: str) -> Host:
        """A host as it stands."""
        guests = self.on(name)
        placements = [Placement(item=each.item, host=name, devices=each.devices) for each in guests]
        return occupied([self._bare[name]], placements)[0]

    def hosts(self) -> tuple[Host, ...]:
        """All hosts as they stand, by name."""
        return tuple(self.host(name) for name in self.board.names)

    def _note(self, resident: Resident) -> None:
        key = resident.item.key
        self.residents[key] = self._guests[resident.host][key] = resident
        self.claims.drop(key)
        if resident.movable:
            names = self._rows[resident.host]
            rows = [names[device] for device in resident.devices]
            self.claims.add(resident.item, self.board.place_of[resident.host], rows)

    def _book(self, resident: Resident) -> None:
        place = np.array([self.board.place_of[resident.host]])
        self.board.book(
            resident.item,
            rows=self.rows(resident).reshape(1, -1),
            hosts=place,
            amounts=np.ones(1, np.int64),
        )

    def _require(self, resident: Resident) -> None:
        if resident.item.spread is Spread.REQUIRE:
            self.board.alone.add(resident.item.group, np.array([self.board.place_of[resident.host]]))

    def _renew(self, name: str, gone: Item) -> None:
        host = self.host(name)
        if any(device.layouts for device in host.devices):
            self.board = Board(self.hosts())
            self._rows = self._by_name()
            for resident in self.residents.values():
                self._require(resident)
                self._note(resident)
            return
        groups = {gone.group} | gone.avoid | host.tenants
        groups = groups.union(*(device.tenants | device.avoided_by for device in host.devices))
        self.board.renew(host, groups=sorted(groups))
        if gone.spread is Spread.REQUIRE:
            self.board.alone.drop(gone.group, np.array([self.board.place_of[name]]))
            for resident in self.on(name):
                if resident.item.group == gone.group:
                    self._require(resident)

    def _without(self, host: Host) -> Host:
        guests = self.on(host.name)
        known = {device.id for device in host.devices}
        for guest in guests:
            if unknown := sorted(set(guest.devices) - known):
                field = f"residents[{guest.item.key}].devices"
                raise InvalidInputError(field=field, value=unknown[0], allowed=f"a device of host {host.name}")
        items = [guest.item for guest in guests]
        return replace(
            host,
            cpu=None if host.cpu is None else host.cpu + sum(item.cpu for item in items),
            memory=None if host.memory is None else host.memory + sum(item.host_memory for item in items),
            slots=None if host.slots is None else host.slots + len(items),
            tenants=host.tenants - {item.group for item in items},
            devices=tuple(
                _bare(device, [guest.item for guest in guests if device.id in guest.devices]) for device in host.devices
            ),
        )

    def _by_name(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {name: {} for name in self.board.names}
        for row, place in enumerate(self.board.host.tolist()):
            if not self.board.asleep[row]:
                found[self.board.names[place]][self.board.devices[row].id] = row
        return found


def _bare(device: Device, items: Sequence[Item]) -> Device:
    """``device`` without the claims of ``items``. What else is on it stays."""
    if not items:
        return device
    return replace(
        device,
        free=device.free + sum(item.memory for item in items),
        tenants=device.tenants - {item.group for item in items},
        avoided_by=device.avoided_by - frozenset().union(*(item.avoid for item in items)),
        exclusive=device.exclusive and not any(item.exclusive for item in items),
        slots=None if device.slots is None else device.slots + len(items),
    )
