"""An independent look at a packing: does it keep every promise? It shares no code with the packer.

It says nothing about how good a packing is, nor about the order in which items were taken.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import permutations

from vrampack.packing.problem import (
    Closest,
    Cut,
    Device,
    Host,
    Item,
    Packing,
    Placement,
    Reason,
    Reservation,
    Spread,
    Unplaced,
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
    for host in hosts:
        here = [placement for placement in sound if placement.host == host.name]
        found += _host_violations(host, [placement.item for placement in here])
        for device in host.devices:
            guests = [placement.item for placement in here if device.id in placement.devices]
            found += (f"{host.name}/{device.id}: {problem}" for problem in _device_violations(device, guests))
    after = [_after(host, sound) for host in hosts]
    alone = {(placement.host, placement.item.group) for placement in sound if placement.item.spread is Spread.REQUIRE}
    if not packing.reserved:
        found += _link_violations(sound, known, after, alone)
    found += _reservation_violations(packing, known, {each.item.key for each in reserve})
    binding: list[Reservation] = []
    owners = {reservation.item.key: reservation for reservation in packing.reserved}
    for unplaced in packing.unplaced:
        found += (
            f"{unplaced.item.key}: {problem}" for problem in _unplaced_violations(unplaced, after, alone, binding)
        )
        if unplaced.item.key in owners:
            binding.append(owners[unplaced.item.key])
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
                if _first(_device_tests(item, host, device, crowded=crowded, kept=frozenset())) is None
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
    return -item.priority, item.key not in given, item.rank, -item.waited


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


def _after(host: Host, placements: Sequence[Placement]) -> Host:
    """``host`` with the placements on it booked."""
    here = [placement for placement in placements if placement.host == host.name]
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


def _less(host: Host, reservations: Sequence[Reservation]) -> Host:
    """``host`` without the CPU, RAM and slots that are set aside with these reservations."""
    owners = [each.item for each in reservations if each.host == host.name]
    return replace(
        host,
        cpu=None if host.cpu is None else host.cpu - sum(item.cpu for item in owners),
        memory=None if host.memory is None else host.memory - sum(item.host_memory for item in owners),
        slots=None if host.slots is None else host.slots - len(owners),
    )


def _unplaced_violations(
    unplaced: Unplaced, hosts: Sequence[Host], alone: set[tuple[str, str]], reserved: Sequence[Reservation]
) -> Iterator[str]:
    item = unplaced.item
    hosts = [_less(host, reserved) for host in hosts]
    counts: Counter[str] = Counter()
    shortfalls: dict[int, set[tuple[str, str]]] = {}
    for host in hosts:
        crowded = (host.name, item.group) in alone
        kept = frozenset(name for each in reserved if each.host == host.name for name in each.devices)
        if item.gpus == 0:
            reason = _first(_host_tests(item, host, crowded=crowded))
            if reason is None:
                yield f"is unplaced, yet fits on {host.name}"
            counts[reason or ""] += len(host.devices)
            continue
        for product in {device.product for device in host.devices}:
            reasons = {
                device.id: _first(_device_tests(item, host, device, crowded=crowded, kept=kept))
                for device in host.devices
                if device.product == product
            }
            fits = [name for name, reason in reasons.items() if reason is None]
            if len(fits) >= item.gpus:
                yield f"is unplaced, yet fits on {host.name}: {', '.join(sorted(fits))}"
            counts.update(reason or Reason.TOO_FEW_GPUS for reason in reasons.values())
            free = {device.id: device.free for device in host.devices if device.id in reasons}
            for short, name in _decisive(item, free, reasons):
                shortfalls.setdefault(short, set()).add((host.name, name))
    if +counts != Counter(unplaced.rejected):
        yield f"is said to be rejected for {dict(unplaced.rejected)}, is for {dict(+counts)}"
    yield from _closest_violations(item, unplaced.closest, shortfalls)


def _decisive(item: Item, free: Mapping[str, int], reasons: Mapping[str, str | None]) -> Iterator[tuple[int, str]]:
    """The k-th best of the devices that lack memory at most, with its shortfall; equally good ones all."""
    able = [name for name, reason in reasons.items() if reason is None or reason is Reason.INSUFFICIENT_GPU_MEMORY]
    if len(able) >= item.gpus:
        kth = sorted((free[name] for name in able), reverse=True)[item.gpus - 1]
        yield from ((item.memory - kth, name) for name in able if free[name] == kth)


def _closest_violations(
    item: Item, closest: Closest | None, shortfalls: Mapping[int, set[tuple[str, str]]]
) -> Iterator[str]:
    least = min(shortfalls, default=None)
    if least is None or closest is None:
        if closest is not None or least is not None:
            yield f"closest is {closest}, the least shortfall {least}"
    elif closest.short != least or (closest.host, closest.device) not in shortfalls[least]:
        yield f"closest is {closest}, should be one of {sorted(shortfalls[least])}, short of {least}"
    elif closest.free + closest.short != item.memory:
        yield f"closest is {closest}, but {item.memory} bytes are needed"


def _first(tests: Iterator[tuple[str | None, bool]]) -> str | None:
    return next((reason for reason, fails in tests if fails), None)


def _device_tests(
    item: Item, host: Host, device: Device, *, crowded: bool, kept: frozenset[str]
) -> Iterator[tuple[str | None, bool]]:
    """What is asked of a device, in order: the reason to give, and whether the device fails."""
    yield host.closed, host.closed is not None
    yield device.closed, device.closed is not None
    yield item.refused.get(host.name), host.name in item.refused
    yield Reason.PRODUCT_MISMATCH, item.products is not None and device.product not in item.products
    yield Reason.SLICE, item.gpus > 1 and (device.slice_of is not None or bool(device.layouts))
    yield Reason.AVOIDED_NEIGHBOUR, item.group in device.avoided_by or bool(item.avoid & device.tenants)
    yield _spread_test(item, host, crowded=crowded)
    yield Reason.GPU_EXCLUSIVE, device.exclusive
    yield Reason.GPU_NOT_EMPTY, item.exclusive and bool(device.tenants)
    yield Reason.GPU_FULL, device.slots is not None and device.slots < 1
    yield from _resource_tests(item, host)
    yield Reason.INSUFFICIENT_GPU_MEMORY, device.free < item.memory
    yield Reason.RESERVED, device.id in kept


def _host_tests(item: Item, host: Host, *, crowded: bool) -> Iterator[tuple[str | None, bool]]:
    yield host.closed, host.closed is not None
    yield item.refused.get(host.name), host.name in item.refused
    yield _spread_test(item, host, crowded=crowded)
    yield from _resource_tests(item, host)


def _spread_test(item: Item, host: Host, *, crowded: bool) -> tuple[str, bool]:
    return Reason.SPREAD, crowded or (item.spread is Spread.REQUIRE and item.group in host.tenants)


def _resource_tests(item: Item, host: Host) -> Iterator[tuple[str, bool]]:
    yield Reason.INSUFFICIENT_CPU, host.cpu is not None and item.cpu > 0 and item.cpu > host.cpu
    yield (
        Reason.INSUFFICIENT_MEMORY,
        host.memory is not None and item.host_memory > 0 and item.host_memory > host.memory,
    )
    yield Reason.INSUFFICIENT_SLOTS, host.slots is not None and host.slots < 1
