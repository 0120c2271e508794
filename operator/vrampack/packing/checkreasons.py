"""An independent look at the reasons for which replicas wait. It shares no code with the packer."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from vrampack.packing.problem import Closest, Device, Host, Item, Reason, Reservation, Spread, Unplaced


def _less(host: Host, reservations: Sequence[Reservation]) -> Host:
    """``host`` without the CPU, RAM and slots that are set aside with these reservations."""
    owners = [each.item for each in reservations if each.host == host.name]
    return replace(
        host,
        cpu=None if host.cpu is None else host.cpu - sum(item.cpu for item in owners),
        memory=None if host.memory is None else host.memory - sum(item.host_memory for item in owners),
        slots=None if host.slots is None else host.slots - len(owners),
    )


def reason_violations(
    unplaced: Unplaced, hosts: Sequence[Host], alone: set[tuple[str, str]], reserved: Sequence[Reservation]
) -> Iterator[str]:
    """What is wrong with the reasons of a replica. ``hosts``: as they are when all else is placed; ``alone``: hosts on
    which a placed one requires that no other of its group joins it; ``reserved``: the reservations that bind it."""
    item = unplaced.item
    hosts = [_less(host, reserved) for host in hosts]
    counts: Counter[str] = Counter()
    shortfalls: dict[int, set[tuple[str, str]]] = {}
    for host in hosts:
        crowded = (host.name, item.group) in alone
        kept = frozenset(name for each in reserved if each.host == host.name for name in each.devices)
        if item.gpus == 0:
            reason = first_of(_host_tests(item, host, crowded=crowded))
            if reason is None:
                yield f"is unplaced, yet fits on {host.name}"
            counts[reason or ""] += len(host.devices)
            continue
        for product in {device.product for device in host.devices}:
            reasons = {
                device.id: first_of(device_tests(item, host, device, crowded=crowded, kept=kept))
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


def first_of(tests: Iterator[tuple[str | None, bool]]) -> str | None:
    """The reason of the first test that fails."""
    return next((reason for reason, fails in tests if fails), None)


def device_tests(
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
