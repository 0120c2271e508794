"""Hosts, devices and items in few words; sizes are plain numbers, the packer does not care of what."""

from typing import Any

from vrampack.packing.problem import Device, Host, Item, Packing


def gpu(name: str, free: int, **fields: Any) -> Device:
    return Device(**{"id": name, "product": "L40S", "capacity": 48, "free": free, **_frozen(fields)})


def host(name: str, *devices: Device, **fields: Any) -> Host:
    return Host(name=name, devices=devices, **_frozen(fields))


def item(key: str, memory: int, **fields: Any) -> Item:
    return Item(**{"key": key, "group": f"ns/{key}", "gpus": 1, "memory": memory, **_frozen(fields)})


def where(packing: Packing) -> dict[str, str]:
    """Key to ``host/device``, several devices joined by ``+``, for what was placed."""
    return {placement.item.key: f"{placement.host}/{'+'.join(placement.devices)}" for placement in packing.placed}


def _frozen(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: frozenset(value) if isinstance(value, set) else value for name, value in fields.items()}
