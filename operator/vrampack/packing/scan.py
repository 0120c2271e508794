"""Where an item goes: the scans over the devices, one for each objective.

A wish for spread comes before the objective: devices on hosts without a replica of the item's group are scanned first,
all others only when none of those fits. What the user wishes for one model outweighs what the pool prefers for all.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vrampack.packing.problem import Item, Objective, Spread
from vrampack.packing.state import DeviceState, HostState, host_obstacle, likeness, obstacles

Choice = tuple[HostState, Sequence[DeviceState]]
Score = tuple[int, ...]
_Pick = tuple[Score, Sequence[DeviceState]]


class Scan(Protocol):
    """Chooses the devices of an item, and hears what became of it."""

    def single(self, item: Item, *, elsewhere: bool) -> DeviceState | None:
        """The device for an item that needs one; ``elsewhere``: only on a host without the item's group."""

    def gang(self, item: Item, *, elsewhere: bool) -> Sequence[DeviceState] | None:
        """The devices, of one product on one host, for an item that needs several."""

    def taken(self, devices: Sequence[DeviceState]) -> None:
        """An item was booked on ``devices``."""


def scan_for(objective: Objective, hosts: Sequence[HostState]) -> Scan:
    """The scan of an objective."""
    return FirstFit(hosts) if objective is Objective.FEWEST_GPUS else MostFree(hosts)


def choose(item: Item, hosts: Sequence[HostState], scan: Scan) -> Choice | None:
    """Host and devices for ``item``, or None where it fits nowhere."""
    for elsewhere in (True, False) if item.spread is Spread.PREFER else (False,):
        if item.gpus == 0:
            host = _host_only(item, hosts, elsewhere=elsewhere)
            if host is not None:
                return host, ()
        elif item.gpus == 1:
            device = scan.single(item, elsewhere=elsewhere)
            if device is not None:
                return device.host, (device,)
        else:
            devices = scan.gang(item, elsewhere=elsewhere)
            if devices is not None:
                return devices[0].host, devices
    return None


def _host_only(item: Item, hosts: Sequence[HostState], *, elsewhere: bool) -> HostState | None:
    """The host for an item without devices: the one with the fewest, so that CPU stays beside GPUs; then by name."""
    fits = (
        host for host in hosts if not (elsewhere and item.group in host.tenants) and host_obstacle(item, host) is None
    )
    return min(fits, key=lambda host: len(host.devices), default=None)


@dataclass(frozen=True, slots=True)
class _Offer:
    """The best that one set of devices, all of one product on one host, had for an item at a version of the host."""

    devices: Sequence[DeviceState]
    version: int
    score: Score
    chosen: Sequence[DeviceState]


class _Gangs:
    """Looks for several devices of one product on one host. Equal items share what has not changed since."""

    def __init__(self, hosts: Sequence[HostState], pick: Callable[[list[DeviceState], int], _Pick]) -> None:
        self._unseen = [_Offer(devices, -1, (), ()) for host in hosts for devices in host.products.values()]
        self._pick = pick
        self._offers: dict[tuple[Hashable, bool], list[_Offer]] = {}

    def best(self, item: Item, *, elsewhere: bool) -> Sequence[DeviceState] | None:
        """The devices with the lowest score; ties go by host and product."""
        key = (likeness(item), elsewhere)
        offers = [
            offer
            for known in self._offers.get(key, self._unseen)
            if (offer := self._renewed(known, item, elsewhere=elsewhere)) is not None
        ]
        self._offers[key] = offers
        return min(offers, key=lambda offer: offer.score).chosen if offers else None

    def _renewed(self, offer: _Offer, item: Item, *, elsewhere: bool) -> _Offer | None:
        host = offer.devices[0].host
        if offer.version == host.version:
            return offer
        if elsewhere and item.group in host.tenants:
            return None
        roomy = [device for device in offer.devices if device.free >= item.memory]
        if len(roomy) < item.gpus:
            return None
        fits = [device for device, reason in zip(roomy, obstacles(item, roomy), strict=True) if reason is None]
        if len(fits) < item.gpus:
            return None
        score, chosen = self._pick(fits, item.gpus)
        return _Offer(offer.devices, host.version, score, chosen)


class FirstFit:
    """First fit, for the fewest GPUs opened.

    The scan goes over the devices in use, least free first as they stood at the start and then in the order in which
    they were opened, and after them over the empty ones, larger before smaller: as items come large first, what is left
    of a large one takes the small ones that follow. Among empty ones of a size, those of hosts with the fewest of them
    come first: whole hosts stay free for tensor parallelism. Ties go by host and device.
    """

    def __init__(self, hosts: Sequence[HostState]) -> None:
        devices = [device for host in hosts for device in host.devices]
        empty_on = {host.name: sum(not device.in_use for device in host.devices) for host in hosts}
        self._opened = sorted(
            (device for device in devices if device.in_use),
            key=lambda device: (device.free, device.host.name, device.id),
        )
        self._empty = sorted(
            (device for device in devices if not device.in_use),
            key=lambda device: (-device.capacity, empty_on[device.host.name], device.host.name, device.id),
        )
        for place, device in enumerate(self._opened):
            device.turn = (0, place)
        for place, device in enumerate(self._empty):
            device.turn = (1, place)
        self._gangs = _Gangs(hosts, self._pick)
        self._resume: dict[tuple[Hashable, bool], tuple[int, int]] = {}

    def single(self, item: Item, *, elsewhere: bool) -> DeviceState | None:
        """The first device that fits. Equal items resume where the last one of them was placed."""
        key = (likeness(item), elsewhere)
        opened, empty = self._resume.get(key, (0, 0))
        opened = self._first(self._opened, opened, item, elsewhere=elsewhere)
        if opened < len(self._opened):
            self._resume[key] = (opened, empty)
            return self._opened[opened]
        empty = self._first(self._empty, empty, item, elsewhere=elsewhere)
        self._resume[key] = (opened, empty)
        return self._empty[empty] if empty < len(self._empty) else None

    @staticmethod
    def _first(devices: Sequence[DeviceState], start: int, item: Item, *, elsewhere: bool) -> int:
        need, products, group = item.memory, item.products, item.group
        for place in range(start, len(devices)):
            device = devices[place]
            if (
                device.free >= need
                and (products is None or device.product in products)
                and not (elsewhere and group in device.host.tenants)
                and obstacles(item, (device,))[0] is None
            ):
                return place
        return len(devices)

    def gang(self, item: Item, *, elsewhere: bool) -> Sequence[DeviceState] | None:
        """The first devices of the set of which the fewest must be opened, then of the one with the fewest that fit."""
        return self._gangs.best(item, elsewhere=elsewhere)

    @staticmethod
    def _pick(fits: list[DeviceState], gpus: int) -> _Pick:
        chosen = sorted(fits, key=lambda device: device.turn)[:gpus]
        return (sum(device.turn[0] for device in chosen), len(fits), *chosen[0].turn), chosen

    def taken(self, devices: Sequence[DeviceState]) -> None:
        """Devices that were empty join the end of those in use."""
        for device in devices:
            if device.turn[0]:
                device.turn = (0, len(self._opened))
                self._opened.append(device)


class MostFree:
    """The device with the most free bytes, for even headroom. Ties go by host, product and device."""

    def __init__(self, hosts: Sequence[HostState]) -> None:
        self._devices = [device for host in hosts for device in host.devices]
        self._gangs = _Gangs(hosts, self._pick)

    def single(self, item: Item, *, elsewhere: bool) -> DeviceState | None:
        """The device with the most free bytes."""
        best: DeviceState | None = None
        least = item.memory
        for device in self._devices:
            if (
                device.free >= least
                and not (elsewhere and item.group in device.host.tenants)
                and obstacles(item, (device,))[0] is None
            ):
                best, least = device, device.free + 1
        return best

    def gang(self, item: Item, *, elsewhere: bool) -> Sequence[DeviceState] | None:
        """The freest devices of the set in which the least free of them has the most."""
        return self._gangs.best(item, elsewhere=elsewhere)

    @staticmethod
    def _pick(fits: list[DeviceState], gpus: int) -> _Pick:
        chosen = sorted(fits, key=lambda device: (-device.free, device.id))[:gpus]
        return (-chosen[-1].free,), chosen

    def taken(self, devices: Sequence[DeviceState]) -> None:
        """Nothing to note: free bytes say it all."""
