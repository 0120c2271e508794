"""From the names of a device plugin's or a DRA driver's devices to GPUs, and so to who else may compute on them."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from vrampack.agent.devices import Device
from vrampack.agent.podresources import Grant, Granted
from vrampack.agent.reading import Allocation

_VENDOR: Final = "nvidia.com/"
_DRIVER: Final = "gpu.nvidia.com"
_REPLICA: Final = re.compile(r"::\d+$")
_INDEX: Final = re.compile(r"\d+")
_MINOR: Final = re.compile(r"nvidia(\d+)(?:/.*)?")
"""GKE's plugin: nvidia0, nvidia0/gi1 for a MIG device, nvidia0/vgpu1 for a share."""
_DRA: Final = re.compile(r"gpu-(\d+)(?:-mig-.*)?")

Slices = Mapping[tuple[str, str, str], str]
"""UUIDs by driver, pool and device, as ResourceSlices have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the kubelet says of the GPUs, by UUID. ``offered``: by a device plugin, so that it may hand them out.

    ``trouble``: why the kubelet can't be asked; then every GPU counts as offered wherever the Node offers any.
    """

    offered: frozenset[str] = frozenset()
    allocations: Mapping[str, tuple[Allocation, ...]] = field(default_factory=dict)
    trouble: str = ""


def held(
    granted: Granted,
    *,
    devices: Collection[Device],
    ours: Collection[tuple[str, str]],
    reserving: Collection[tuple[str, str]],
    slices: Slices,
) -> Held:
    """``ours``: pods of vrampack, by namespace and name: what the kubelet gave them is claimed already.

    ``reserving``: pods that hold GPUs for vrampack.
    """
    gpus = _Names(devices)
    found: dict[str, list[Allocation]] = defaultdict(list)
    for grant in granted.grants:
        uuid = gpus.granted(grant, slices)
        pod = (grant.namespace, grant.pod)
        if uuid is None or pod in ours:
            continue
        found[uuid].append(
            Allocation(
                namespace=grant.namespace,
                pod=grant.pod,
                container=grant.container,
                resource=grant.resource,
                device=gpus.device(grant, slices) or uuid,
                reservation=pod in reserving,
            )
        )
    offered = (gpus.plugged(offer.resource, offer.device) for offer in granted.offers)
    return Held(
        offered=frozenset(uuid for uuid in offered if uuid is not None),
        allocations={uuid: tuple(dict.fromkeys(each)) for uuid, each in sorted(found.items())},
    )


def blind(trouble: str, *, devices: Iterable[Device], allocatable: Mapping[str, str]) -> Held:
    """What is safe to say where the kubelet can't be asked: it may hand out any GPU of a resource that it has."""
    any_offered = any(name.startswith(_VENDOR) and count != "0" for name, count in allocatable.items())
    offered = (device.identity.uuid for device in devices if any_offered)
    return Held(offered=frozenset(offered), trouble=trouble)


class _Names:
    """The GPUs of a node by all the names that they go by."""

    def __init__(self, devices: Iterable[Device]) -> None:
        self._uuids: dict[str, str] = {}
        self._indexes: dict[int, str] = {}
        self._minors: dict[int, str] = {}
        for device in devices:
            identity = device.identity
            self._uuids[identity.uuid] = identity.uuid
            self._indexes[identity.index] = identity.uuid
            if identity.minor is not None:
                self._minors[identity.minor] = identity.uuid
            if device.traits.mig is not None:
                self._uuids.update((mig.uuid, identity.uuid) for mig in device.traits.mig.devices)

    def granted(self, grant: Grant, slices: Slices) -> str | None:
        """None: it is no GPU of this node."""
        if not grant.driver:
            return self.plugged(grant.resource, grant.device)
        uuid = slices.get((grant.driver, grant.pool, grant.device))
        if uuid is not None:
            return self._uuids.get(uuid)
        if grant.driver == _DRIVER and (match := _DRA.fullmatch(grant.device)) is not None:
            return self._minors.get(int(match[1]))
        return None

    def device(self, grant: Grant, slices: Slices) -> str | None:
        """The MIG device that was granted, where its UUID is known."""
        name = (
            slices.get((grant.driver, grant.pool, grant.device), "") if grant.driver else _REPLICA.sub("", grant.device)
        )
        return name if name in self._uuids else None

    def plugged(self, resource: str, device: str) -> str | None:
        if not resource.startswith(_VENDOR):
            return None
        name = _REPLICA.sub("", device)
        if name in self._uuids:
            return self._uuids[name]
        if _INDEX.fullmatch(name):
            return self._indexes.get(int(name))
        match = _MINOR.fullmatch(name)
        return self._minors.get(int(match[1])) if match is not None else None
