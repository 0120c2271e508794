"""Devices by DRA, from the API server's objects: what drivers publish, and what kube-scheduler gave to which pod."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from vrampack.kube import wire
from vrampack.planning.snapshot import DeviceView, Grant, PublishedDevice
from vrampack.units import parse_bytes

_UUID: Final = "uuid"
_MEMORY: Final = "memory"

_Device = tuple[str, str, str]
"""Driver, pool and name."""


def device_view(
    classes: Iterable[wire.Head], slices: Iterable[wire.CustomObject], claims: Iterable[wire.CustomObject]
) -> DeviceView:
    """What is published and given out. A device without a UUID is none of a GPU, and is left out."""
    uuids: dict[_Device, str] = {}
    published: dict[str, list[PublishedDevice]] = defaultdict(list)
    for each in slices:
        node = str(each.spec.get("nodeName") or "")
        for device in _maps(each.spec.get("devices")):
            uuid = _uuid(device)
            if uuid:
                pool = each.spec.get("pool") or {}
                key = (str(each.spec.get("driver")), str(pool.get("name")), str(device.get("name")))
                uuids[key] = uuid
                shared = device.get("allowMultipleAllocations") is True and _MEMORY in (device.get("capacity") or {})
                published[node].append(PublishedDevice(uuid=uuid, by_memory=shared))
    return DeviceView(
        classes=frozenset(each.metadata.name for each in classes),
        published={node: tuple(devices) for node, devices in published.items()},
        grants=tuple(_grants(claims, uuids)),
    )


def _grants(claims: Iterable[wire.CustomObject], uuids: Mapping[_Device, str]) -> Iterator[Grant]:
    for claim in claims:
        devices = (claim.status.get("allocation") or {}).get("devices") or {}
        holders = [
            str(each.get("uid") or "")
            for each in _maps(claim.status.get("reservedFor"))
            if each.get("resource") == "pods"
        ]
        for given in _maps(devices.get("results")):
            uuid = uuids.get((str(given.get("driver")), str(given.get("pool")), str(given.get("device"))))
            for holder in holders or [""] if uuid is not None else []:
                yield Grant(uuid=uuid or "", pod_uid=holder, bytes=_consumed(given))


def _consumed(given: Mapping[str, Any]) -> int | None:
    capacity = given.get("consumedCapacity")
    if not isinstance(capacity, dict) or _MEMORY not in capacity:
        return None
    try:
        return parse_bytes(capacity[_MEMORY])
    except ValueError:
        return None


def _uuid(device: Mapping[str, Any]) -> str:
    """The attribute, by its short name or with the driver's domain before it."""
    attributes = device.get("attributes")
    for name, value in attributes.items() if isinstance(attributes, dict) else ():
        if name.rpartition("/")[2] == _UUID and isinstance(value, dict):
            return str(value.get("string") or "")
    return ""


def _maps(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
