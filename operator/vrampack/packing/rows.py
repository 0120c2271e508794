"""Hosts and devices as rows for the board."""

from collections.abc import Iterable
from dataclasses import replace
from operator import attrgetter
from typing import NoReturn

import numpy as np

from vrampack.errors import InvalidInputError
from vrampack.packing.arrays import PLENTY, IntArray
from vrampack.packing.layouts import parts
from vrampack.packing.problem import Device, Host


def column(values: Iterable[int]) -> IntArray:
    """Integers as a column of the board."""
    return np.fromiter(values, np.int64)


def host_limits(host: Host) -> tuple[int, int, int]:
    """Free CPU, RAM and slots."""
    return (
        PLENTY if host.cpu is None else host.cpu,
        PLENTY if host.memory is None else host.memory,
        PLENTY if host.slots is None else host.slots,
    )


def structure(device: Device) -> tuple[object, ...]:
    """What must stay the same for a device to keep its row."""
    return device.id, device.product, device.link, device.slice_of, device.price, bool(device.layouts)


def rows_of(place: int, host: Host) -> list[tuple[int, Device, bool]]:
    """For each device the place of its host, itself, and whether it is a slice that there may be."""
    found: list[tuple[int, Device, bool]] = []
    ids: set[str] = set()
    for device in sorted(host.devices, key=attrgetter("product", "id")):
        if device.id in ids:
            _refuse(host, "id", device.id, "each device is listed once")
        ids.add(device.id)
        if not device.layouts:
            found.append((place, device, False))
            continue
        largest, most = _extent(host, device)
        found.append((place, replace(device, free=largest), False))
        found += ((place, part, True) for part in parts(device, (0,) * most))
    return found


def _extent(host: Host, device: Device) -> tuple[int, int]:
    """The largest slice of any layout, and the most slices."""
    if device.in_use or device.free != device.capacity:
        _refuse(host, f"[{device.id}].layouts", device.layouts, "only an empty device can be cut")
    layouts = [layout for layout in device.layouts if layout]
    if not layouts or min(map(min, layouts)) <= 0 or max(map(sum, layouts)) > device.capacity:
        allowed = "slices have bytes, and all of them together no more than the device"
        _refuse(host, f"[{device.id}].layouts", device.layouts, allowed)
    return max(map(max, layouts)), max(map(len, layouts))


def _refuse(host: Host, field: str, value: object, allowed: str) -> NoReturn:
    dot = "" if field.startswith("[") else "."
    raise InvalidInputError(field=f"hosts[{host.name}].devices{dot}{field}", value=value, allowed=allowed)
