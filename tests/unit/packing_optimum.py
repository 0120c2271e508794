"""The best packing of a small fleet by trying everything; of the packer's code it uses the words of a problem only."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from vrampack.packing.problem import Device, Host, Item, Spread

Figures = tuple[tuple[tuple[int, int], ...], int]
"""By priority, the highest first, how many are unplaced and their bytes; then the opened memory."""


def fewest_bins(sizes: Sequence[int], capacity: int) -> int:
    """The optimum of bin packing, each size into each different bin so far or a new one."""

    def best(rest: Sequence[int], bins: tuple[int, ...], bound: int) -> int:
        if len(bins) >= bound:
            return bound
        if not rest:
            return len(bins)
        for free in sorted({free for free in bins if free >= rest[0]}):
            place = bins.index(free)
            bound = best(rest[1:], (*bins[:place], free - rest[0], *bins[place + 1 :]), bound)
        return best(rest[1:], (*bins, capacity - rest[0]), bound)

    return best(sorted(sizes, reverse=True), (), len(sizes) + 1)


def optimum(hosts: Sequence[Host], items: Sequence[Item]) -> Figures:
    """The least figures that any packing of ``items`` on ``hosts`` has."""
    return min(_all(list(hosts), list(items), []))


def least_unplaced_bytes(hosts: Sequence[Host], items: Sequence[Item]) -> int:
    """The fewest bytes that any packing leaves without a place."""
    return min(sum(memory for _, memory in unplaced) for unplaced, _ in _all(list(hosts), list(items), []))


_Placed = list[tuple[Item, Host, tuple[Device, ...]]]


def _all(hosts: list[Host], items: list[Item], placed: _Placed, number: int = 0) -> Iterator[Figures]:
    if number == len(items):
        yield _figures(items, placed)
        return
    yield from _all(hosts, items, placed, number + 1)
    item = items[number]
    for host in hosts:
        for devices in combinations(host.devices, item.gpus):
            if _may(item, host, devices, placed):
                placed.append((item, host, devices))
                yield from _all(hosts, items, placed, number + 1)
                placed.pop()


def _figures(items: list[Item], placed: _Placed) -> Figures:
    there = {item.key for item, _, _ in placed}
    levels = sorted({item.priority for item in items}, reverse=True)
    left = [item for item in items if item.key not in there]
    unplaced = tuple(
        (
            sum(item.priority == level for item in left),
            sum(item.gpus * item.memory for item in left if item.priority == level),
        )
        for level in levels
    )
    fresh = {
        (host.name, device.id): device.capacity
        for _, host, devices in placed
        for device in devices
        if not device.tenants and not device.exclusive
    }
    return unplaced, sum(fresh.values())


def _may(item: Item, host: Host, devices: tuple[Device, ...], placed: _Placed) -> bool:
    here = [other for other, place, _ in placed if place is host]
    if host.closed or host.name in item.refused or len({device.product for device in devices}) > 1:
        return False
    if item.spread is Spread.REQUIRE and (item.group in host.tenants or any(o.group == item.group for o in here)):
        return False
    if any(other.spread is Spread.REQUIRE and other.group == item.group for other in here):
        return False
    for free, need, taken in (
        (host.cpu, item.cpu, [other.cpu for other in here]),
        (host.memory, item.host_memory, [other.host_memory for other in here]),
    ):
        if free is not None and need and sum(taken) + need > free:
            return False
    if host.slots is not None and len(here) >= host.slots:
        return False
    return all(_takes(device, item, [o for o, p, d in placed if p is host and device in d]) for device in devices)


def _takes(device: Device, item: Item, guests: list[Item]) -> bool:
    beside = device.tenants | {guest.group for guest in guests}
    return not (
        device.closed
        or device.exclusive
        or any(guest.exclusive for guest in guests)
        or (item.exclusive and beside)
        or (item.products is not None and device.product not in item.products)
        or item.group in device.avoided_by
        or item.avoid & beside
        or any(item.group in guest.avoid for guest in guests)
        or (device.slots is not None and len(guests) >= device.slots)
        or (device.slice_of is not None and item.gpus > 1)
        or sum(guest.memory for guest in guests) + item.memory > device.free
    )
