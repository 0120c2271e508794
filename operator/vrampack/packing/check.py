"""An independent look at a packing: does it keep every promise? It shares no code with the packer.

It says nothing about how good a packing is, nor about the order in which items were taken.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations

from vrampack.packing.problem import Closest, Device, Host, Item, Packing, Placement, Reason, Spread, Unplaced


def violations(*, hosts: Sequence[Host], items: Sequence[Item], packing: Packing) -> list[str]:
    """Every broken promise as a sentence; an empty list when there is none."""
    known = {host.name: host for host in hosts}
    found = list(_accounting(items, packing))
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
    for unplaced in packing.unplaced:
        found += (f"{unplaced.item.key}: {problem}" for problem in _unplaced_violations(unplaced, after, alone))
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
    )


def _unplaced_violations(unplaced: Unplaced, hosts: Sequence[Host], alone: set[tuple[str, str]]) -> Iterator[str]:
    item = unplaced.item
    counts: Counter[str] = Counter()
    shortfalls: dict[int, set[tuple[str, str]]] = {}
    for host in hosts:
        crowded = (host.name, item.group) in alone
        if item.gpus == 0:
            reason = _first(_host_tests(item, host, crowded=crowded))
            if reason is None:
                yield f"is unplaced, yet fits on {host.name}"
            counts[reason or ""] += len(host.devices)
            continue
        for product in {device.product for device in host.devices}:
            reasons = {
                device.id: _first(_device_tests(item, host, device, crowded=crowded))
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


def _device_tests(item: Item, host: Host, device: Device, *, crowded: bool) -> Iterator[tuple[str | None, bool]]:
    """What is asked of a device, in order: the reason to give, and whether the device fails."""
    yield host.closed, host.closed is not None
    yield device.closed, device.closed is not None
    yield item.refused.get(host.name), host.name in item.refused
    yield Reason.PRODUCT_MISMATCH, item.products is not None and device.product not in item.products
    yield Reason.AVOIDED_NEIGHBOUR, item.group in device.avoided_by or bool(item.avoid & device.tenants)
    yield _spread_test(item, host, crowded=crowded)
    yield Reason.GPU_EXCLUSIVE, device.exclusive
    yield Reason.GPU_NOT_EMPTY, item.exclusive and bool(device.tenants)
    yield from _resource_tests(item, host)
    yield Reason.INSUFFICIENT_GPU_MEMORY, device.free < item.memory


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
