"""Why an item has no device: every device by the first reason that rules it out, and the one that came nearest."""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence

from vrampack.packing.problem import Closest, Item, Reason, Unplaced
from vrampack.packing.state import DeviceState, HostState, host_obstacle, likeness, obstacles


def explain(items: Sequence[Item], hosts: Sequence[HostState]) -> Iterator[Unplaced]:
    """The reasons for each of ``items``, as ``hosts`` stand after all else was placed. Equal items share the work."""
    known: dict[Hashable, tuple[Mapping[str, int], Closest | None]] = {}
    for item in items:
        key = likeness(item)
        if key not in known:
            known[key] = _without_host(item, hosts) if item.gpus == 0 else _without_devices(item, hosts)
        rejected, closest = known[key]
        yield Unplaced(item=item, rejected=rejected, closest=closest)


def _without_host(item: Item, hosts: Sequence[HostState]) -> tuple[Mapping[str, int], None]:
    rejected = Counter(host_obstacle(item, host) for host in hosts for _ in host.devices)
    return _by_name(rejected), None


def _without_devices(item: Item, hosts: Sequence[HostState]) -> tuple[Mapping[str, int], Closest | None]:
    rejected: Counter[str | None] = Counter()
    nearest: Closest | None = None
    for host in hosts:
        for devices in host.products.values():
            reasons = obstacles(item, devices)
            rejected.update(reasons)
            near = _nearest(item, devices, reasons, below=nearest.short if nearest else None)
            nearest = near or nearest
    return _by_name(rejected), nearest


def _nearest(
    item: Item, devices: Sequence[DeviceState], reasons: Sequence[str | None], *, below: int | None
) -> Closest | None:
    """The device that decides for devices of one product on one host, where they lack nothing but memory.

    With several GPUs that is the k-th best: once it has room, those before it have too. None where its shortfall is not
    ``below`` the one known.
    """
    lack = Reason.INSUFFICIENT_GPU_MEMORY
    free = [device.free for device, reason in zip(devices, reasons, strict=True) if reason is lack]
    missing = item.gpus - reasons.count(None)
    if len(free) < missing:
        return None
    best = sorted(free)[-missing]
    short = item.memory - best
    if below is not None and short >= below:
        return None
    found = zip(devices, reasons, strict=True)
    device = next(device for device, reason in found if reason is lack and device.free == best)
    return Closest(host=device.host.name, device=device.id, free=best, short=short)


def _by_name(rejected: Counter[str | None]) -> Mapping[str, int]:
    """The counts by reason. A device without an obstacle of its own has too few like it beside it."""
    if None in rejected:
        rejected[Reason.TOO_FEW_GPUS] += rejected.pop(None)
    return dict(sorted((reason or "", count) for reason, count in rejected.items()))
