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


def rows_of(host: Host) -> tuple[list[Device], list[int]]:
    """The devices of a host by product and id, each with layouts followed by the slices that it may be cut into; and
    where these are among them."""
    ordered = sorted(host.devices, key=_place)
    if len(set(map(_id, ordered))) < len(ordered):
        seen: set[str] = set()
        for device in ordered:
            if device.id in seen:
                _refuse(host, "id", device.id, "each device is listed once")
            seen.add(device.id)
    if not any(map(_layouts, ordered)):
        return ordered, []
    found: list[Device] = []
    asleep: list[int] = []
    for device in ordered:
        if not device.layouts:
            found.append(device)
            continue
        largest, most = _extent(host, device)
        found.append(replace(device, free=largest))
        asleep += range(len(found), len(found) + most)
        found += parts(device, (0,) * most)
    return found, asleep


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


_place, _id, _layouts = attrgetter("product", "id"), attrgetter("id"), attrgetter("layouts")
