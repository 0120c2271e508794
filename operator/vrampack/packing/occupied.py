"""Hosts with what was placed on them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from vrampack.packing.layouts import parts
from vrampack.packing.problem import Cut, Device, Host, Placement


def occupied(hosts: Iterable[Host], placements: Iterable[Placement], cuts: Iterable[Cut] = ()) -> tuple[Host, ...]:
    """``hosts`` with these replicas in place, on the slices into which ``cuts`` divide their devices."""
    placed: dict[str, list[Placement]] = defaultdict(list)
    for placement in placements:
        placed[placement.host].append(placement)
    layouts: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for cut in cuts:
        layouts[cut.host][cut.device] = cut.layout
    return tuple(
        _with(_sliced(host, layouts[host.name]) if host.name in layouts else host, placed[host.name])
        if host.name in placed
        else host
        for host in hosts
    )


def _sliced(host: Host, layouts: dict[str, tuple[int, ...]]) -> Host:
    devices: list[Device] = []
    for device in host.devices:
        devices += parts(device, layouts[device.id]) if device.id in layouts else [device]
    return replace(host, devices=tuple(devices))


def _with(host: Host, placements: Sequence[Placement]) -> Host:
    devices = {device.id: device for device in host.devices}
    cpu, memory, slots, tenants = host.cpu, host.memory, host.slots, host.tenants
    for placement in placements:
        item = placement.item
        cpu = None if cpu is None else cpu - item.cpu
        memory = None if memory is None else memory - item.host_memory
        slots = None if slots is None else slots - 1
        tenants |= {item.group}
        for name in placement.devices:
            device = devices[name]
            devices[name] = replace(
                device,
                free=device.free - item.memory,
                tenants=device.tenants | {item.group},
                avoided_by=device.avoided_by | item.avoid,
                exclusive=device.exclusive or item.exclusive,
                slots=None if device.slots is None else device.slots - 1,
            )
    return replace(host, devices=tuple(devices.values()), cpu=cpu, memory=memory, slots=slots, tenants=tenants)
