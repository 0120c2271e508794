"""An independent look at a packing: does it keep every promise? It shares no code with the packer.

It says nothing about how good a packing is, nor about the order in which items were taken.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import permutations

from vrampack.packing.checkreasons import device_tests, first_of, reason_violations
from vrampack.packing.problem import (
    Cut,
    Device,
    Host,
    Item,
    Packing,
    Placement,
    Reservation,
    Spread,
)


def violations(
    *, hosts: Sequence[Host], items: Sequence[Item], packing: Packing, reserve: Sequence[Reservation] = ()
) -> list[str]:
    """Every broken promise as a sentence; an empty list when there is none. ``reserve``: what the packer was given."""
    found = list(_accounting(items, packing))
    found += _cut_violations(hosts, packing)
    hosts = [_cut(host, packing.cuts) for host in hosts]
    known = {host.name: host for host in hosts}
    sound: list[Placement] = []
    for placement in packing.placed:
        problem = _unsound(placement, known.get(placement.host))
        if problem is None:
            sound.append(placement)
        else:
            found.append(f"{placement.item.key}: {problem}")
    on_host: dict[str, list[Placement]] = defaultdict(list)
    for placement in sound:
        on_host[placement.host].append(placement)
    for host in hosts:
        here = on_host[host.name]
        found += _host_violations(host, [placement.item for placement in here])
        for device in host.devices:
            guests = [placement.item for placement in here if device.id in placement.devices]
            found += (f"{host.name}/{device.id}: {problem}" for problem in _device_violations(device, guests))
    after = [_after(host, on_host[host.name]) for host in hosts]
    alone = {(placement.host, placement.item.group) for placement in sound if placement.item.spread is Spread.REQUIRE}
    if not (packing.reserved or reserve):
        found += _link_violations(sound, known, after, alone)
    found += _reservation_violations(packing, known, {each.item.key for each in reserve})
    binding: list[Reservation] = []
    for unplaced in packing.unplaced:
        found += (f"{unplaced.item.key}: {problem}" for problem in reason_violations(unplaced, after, alone, binding))
        binding += (each for each in packing.reserved if each.item.key == unplaced.item.key)
    return found


def _accounting(items: Sequence[Item], packing: Packing) -> Iterator[str]:
    answers = [placement.item for placement in packing.placed] + [unplaced.item for unplaced in packing.unplaced]
    answered = Counter(item.key for item in answers)
    asked = {item.key: item for item in items}
    for key in sorted(asked.keys() | answered.keys()):
        if key not in asked:
            yield f"{key}: was not asked for"
        elif answered[key] != 1:
            yield f"{key}: is answered {answered[key]} times"
    for item in answers:
        if asked.get(item.key, item) != item:
            yield f"{item.key}: is not the item that was asked for"


def _cut_violations(hosts: Sequence[Host], packing: Packing) -> Iterator[str]:
    devices = {(host.name, device.id): device for host in hosts for device in host.devices}
    used = {(placement.host, name) for placement in packing.placed for name in placement.devices}
    for (host, name), count in Counter((cut.host, cut.device) for cut in packing.cuts).items():
        if count > 1:
            yield f"{host}/{name}: is cut {count} times"
    for cut in packing.cuts:
        device = devices.get((cut.host, cut.device))
        if device is None or cut.layout not in device.layouts or not cut.layout:
            yield f"{cut.host}/{cut.device}: {cut.layout} is none of its layouts"
        elif cut.changed != (cut.layout != device.layouts[0]):
            yield f"{cut.host}/{cut.device}: it is wrong that its layout {'changes' if cut.changed else 'stays'}"
        elif used.isdisjoint((cut.host, f"{cut.device}/{number}") for number in range(len(cut.layout))):
            yield f"{cut.host}/{cut.device}: is cut for nothing"


def _cut(host: Host, cuts: Sequence[Cut]) -> Host:
    """``host`` with slices in place of what is cut; what is not has room for its largest slice, and takes nothing."""
    layouts = {cut.device: cut.layout for cut in cuts if cut.host == host.name}
    devices: list[Device] = []
    for device in host.devices:
        if device.id in layouts:
            devices += (
                replace(
                    device,
                    id=f"{device.id}/{number}",
                    capacity=size,
                    free=size,
                    slice_of=device.id,
                    layouts=(),
                    price=None,
                )
                for number, size in enumerate(layouts[device.id])
            )
        elif device.layouts:
            devices.append(replace(device, free=max(max(layout) for layout in device.layouts if layout)))
        else:
            devices.append(device)
    return replace(host, devices=tuple(devices))


def _link_violations(
    placements: Sequence[Placement], known: Mapping[str, Host], after: Sequence[Host], alone: set[tuple[str, str]]
) -> Iterator[str]:
    """Whether somebody has devices in several domains of links though one domain has room even behind all others.

    A wish for spread comes before that of links, so those who have it are left out.
    """
    for placement in placements:
        item = placement.item
        mine = {device.link for device in known[placement.host].devices if device.id in placement.devices}
        if len(mine) < 2 or item.spread is Spread.PREFER:
            continue
        for host in after:
            crowded = (host.name, item.group) in alone
            fits = Counter(
                (device.product, device.link)
                for device in host.devices
                if first_of(device_tests(item, host, device, crowded=crowded, kept=frozenset())) is None
            )
            for (product, link), count in fits.items():
                if count >= item.gpus:
                    yield f"{item.key}: is in several domains, yet fits in {link} of {product} on {host.name}"


def _reservation_violations(packing: Packing, known: Mapping[str, Host], given: AbstractSet[str]) -> Iterator[str]:
    """``given``: who comes first within its priority, because the caller keeps room for it."""
    waiting = {unplaced.item.key for unplaced in packing.unplaced}
    for reservation in packing.reserved:
        owner = reservation.item
        if owner.key not in waiting:
            yield f"{owner.key}: has room reserved and does not wait"
        host = known.get(reservation.host)
        if host is None or not {device.id for device in host.devices} >= set(reservation.devices):
            yield f"{owner.key}: has room reserved on devices that do not exist"
        for placement in packing.placed:
            guest = placement.item
            ahead = _rank(guest, given) <= _rank(owner, given)
            shared = placement.host == reservation.host and set(placement.devices) & set(reservation.devices)
            if shared and not ahead:
                yield f"{guest.key}: is on a device that is reserved for {owner.key}"


def _rank(item: Item, given: AbstractSet[str]) -> tuple[int, bool, int, int]:
    return -item.priority, item.key not in given, item.rank, 0 if item.key in given else -item.waited


def _unsound(placement: Placement, host: Host | None) -> str | None:
    """What is wrong with a placement by itself, whatever else was placed."""
    item = placement.item
    if host is None:
        return f"host {placement.host} does not exist"
    by_id = {device.id: device for device in host.devices}
    unknown = sorted(set(placement.devices) - by_id.keys())
    if unknown:
        return f"{host.name} has no device {', '.join(unknown)}"
    if len(placement.devices) != item.gpus or len(set(placement.devices)) != item.gpus:
        return f"needs {item.gpus} devices, has {', '.join(placement.devices) or 'none'}"
    devices = [by_id[name] for name in placement.devices]
    products = {device.product for device in devices}
    if len(products) > 1:
        return f"its devices are of several products: {', '.join(sorted(products))}"
    if item.products is not None and not products <= item.products:
        return f"{', '.join(products)} is not among its products"
    if any(device.layouts for device in devices):
        return "its device is not cut"
    if item.gpus > 1 and any(device.slice_of is not None for device in devices):
        return "one of its devices is a slice"
    reasons = (host.closed, item.refused.get(host.name), *(device.closed for device in devices))
    return next((f"{host.name} is closed to it: {reason}" for reason in reasons if reason is not None), None)


def _host_violations(host: Host, guests: Sequence[Item]) -> Iterator[str]:
    for name, free, demands in (
        ("CPU", host.cpu, [item.cpu for item in guests]),
        ("memory", host.memory, [item.host_memory for item in guests]),
        ("slots", host.slots, [1 for _ in guests]),
    ):
        if free is not None and sum(demands) > max(free, 0):
            yield f"{host.name}: {name}: {sum(demands)} taken of {free}"
    groups = Counter(item.group for item in guests)
    for item in guests:
        if item.spread is Spread.REQUIRE and (item.group in host.tenants or groups[item.group] > 1):
            yield f"{item.key}: another of {item.group} is on {host.name}"


def _device_violations(device: Device, guests: Sequence[Item]) -> Iterator[str]:
    taken = sum(item.memory for item in guests)
    if guests and taken > device.free:
        yield f"{taken} bytes taken of {device.free}"
    if device.slots is not None and len(guests) > max(device.slots, 0):
        yield f"{len(guests)} replicas more, {device.slots} allowed"
    if guests and device.exclusive:
        yield f"{guests[0].key} joins an exclusive tenant"
    for item in guests:
        if item.exclusive and (device.tenants or len(guests) > 1):
            yield f"{item.key} is exclusive and not alone"
        if item.group in device.avoided_by or item.avoid & device.tenants:
            yield f"{item.key} joins a tenant to be avoided"
    for one, other in permutations(guests, 2):
        if other.group in one.avoid:
            yield f"{one.key} and {other.key} avoid each other"


def _after(host: Host, here: Sequence[Placement]) -> Host:
    """``host`` with the placements on it booked."""
    guests = [placement.item for placement in here]
    return replace(
        host,
        cpu=None if host.cpu is None else host.cpu - sum(item.cpu for item in guests),
        memory=None if host.memory is None else host.memory - sum(item.host_memory for item in guests),
        slots=None if host.slots is None else host.slots - len(guests),
        tenants=host.tenants.union(item.group for item in guests),
        devices=tuple(
            _device_after(device, [placement.item for placement in here if device.id in placement.devices])
            for device in host.devices
        ),
    )


def _device_after(device: Device, guests: Sequence[Item]) -> Device:
    return replace(
        device,
        free=device.free - sum(item.memory for item in guests),
        tenants=device.tenants.union(item.group for item in guests),
        avoided_by=device.avoided_by.union(*(item.avoid for item in guests)),
        exclusive=device.exclusive or any(item.exclusive for item in guests),
        slots=None if device.slots is None else device.slots - len(guests),
    )
