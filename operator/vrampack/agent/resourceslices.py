"""Which GPU a device of a DRA driver is, by the ResourceSlices of the node."""

from typing import Any, Final

import msgspec

from vrampack.agent.allocations import Slices

SLICES: Final = "/apis/resource.k8s.io/v1/resourceslices"


class _Device(msgspec.Struct, frozen=True):
    name: str
    attributes: dict[str, dict[str, Any]] = {}


class _Pool(msgspec.Struct, frozen=True):
    name: str = ""


class _Spec(msgspec.Struct, frozen=True):
    driver: str = ""
    pool: _Pool = _Pool()
    devices: tuple[_Device, ...] = ()


class _Slice(msgspec.Struct, frozen=True):
    spec: _Spec = _Spec()


class _Slices(msgspec.Struct, frozen=True):
    items: list[_Slice]


def decode_slices(raw: bytes) -> Slices:
    """UUIDs by driver, pool and device. Raises msgspec.DecodeError where it is no list."""
    found = {}
    for each in msgspec.json.decode(raw, type=_Slices).items:
        for device in each.spec.devices:
            uuid = _uuid(device)
            if uuid:
                found[each.spec.driver, each.spec.pool.name, device.name] = uuid
    return found


def _uuid(device: _Device) -> str:
    """The attribute may be named with its driver's domain; a MIG device that is not there yet has only its parent's."""
    by_name = {name.rpartition("/")[2]: str(value.get("string", "")) for name, value in device.attributes.items()}
    return by_name.get("uuid") or by_name.get("parentUUID") or ""
