"""Hosts as they would be once some replicas had left."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from vrampack.packing.problem import Host
from vrampack.planning.inventory import Inventory, group_of
from vrampack.planning.snapshot import PodView


def released(stock: Inventory, hosts: Iterable[Host], pods: Iterable[PodView]) -> tuple[Host, ...]:
    """These hosts as they would be without these pods' claims."""
    leaving: dict[str, list[PodView]] = defaultdict(list)
    for pod in pods:
        if pod.claim is not None and not pod.ended and (first := stock.gpus.get(pod.claim.gpus[0])) is not None:
            leaving[first.node].append(pod)
    return tuple(_without(stock, host, leaving[host.name]) if host.name in leaving else host for host in hosts)


def _without(stock: Inventory, host: Host, leaving: Sequence[PodView]) -> Host:
    gone = {pod.uid for pod in leaving}
    devices = []
    stay: set[str] = set()
    for device in host.devices:
        tenants = stock.tenants.get(device.id, ())
        staying = {group_of(pod) for pod in tenants if pod.uid not in gone}
        stay |= staying
        left = device.tenants - ({group_of(pod) for pod in tenants} - staying)
        back = sum(stock.gpus[device.id].held.get(pod.uid, 0) for pod in tenants if pod.uid in gone)
        devices.append(
            replace(
                device,
                free=device.free + back,
                tenants=left,
                # What the last tenant kept away may come again.
                exclusive=device.exclusive and bool(left),
                avoided_by=device.avoided_by if left else frozenset(),
                slots=None if device.slots is None else device.slots + sum(pod.uid in gone for pod in tenants),
            )
        )
    return replace(
        host,
        devices=tuple(devices),
        tenants=host.tenants - ({group_of(pod) for pod in leaving} - stay),
        cpu=None if host.cpu is None else host.cpu + sum(pod.cpu for pod in leaving),
        memory=None if host.memory is None else host.memory + sum(pod.memory for pod in leaving),
        slots=None if host.slots is None else host.slots + len(leaving),
    )
