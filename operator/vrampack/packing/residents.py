"""Hosts as they are once some replicas are gone."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from vrampack.packing.problem import Device, Host, Resident


def vacate(hosts: Iterable[Host], *, residents: Iterable[Resident], leaving: Iterable[Resident]) -> tuple[Host, ...]:
    """``hosts`` as they would be once ``leaving`` are gone; see ``vacated``."""
    away: dict[str, list[Resident]] = defaultdict(list)
    for each in leaving:
        away[each.host].append(each)
    if not away:
        return tuple(hosts)
    there: dict[str, list[Resident]] = defaultdict(list)
    for each in residents:
        there[each.host].append(each)
    return tuple(
        vacated(host, residents=there[host.name], leaving=away[host.name]) if host.name in away else host
        for host in hosts
    )


def vacated(host: Host, *, residents: Sequence[Resident], leaving: Iterable[Resident]) -> Host:
    """``host`` as it would be once ``leaving`` are gone. ``residents``: all that are known to hold a claim on it.

    A group stays a tenant while another replica of it stays, and so does whatever the host knows of tenants that are
    not among the residents.
    """
    gone = {each.item.key for each in leaving}
    here = [each for each in residents if each.host == host.name]
    if not any(each.item.key in gone for each in here):
        return host
    away = [each for each in here if each.item.key in gone]
    staying = [each for each in here if each.item.key not in gone]
    return replace(
        host,
        devices=tuple(
            _device(
                device,
                away=[each for each in away if device.id in each.devices],
                staying=[each for each in staying if device.id in each.devices],
            )
            for device in host.devices
        ),
        cpu=None if host.cpu is None else host.cpu + sum(each.item.cpu for each in away),
        memory=None if host.memory is None else host.memory + sum(each.item.host_memory for each in away),
        slots=None if host.slots is None else host.slots + len(away),
        tenants=_left(host.tenants, away=_groups(away), staying=_groups(staying)),
    )


def _device(device: Device, *, away: Sequence[Resident], staying: Sequence[Resident]) -> Device:
    if not away:
        return device
    shy, still_shy = (frozenset().union(*(each.item.avoid for each in some)) for some in (away, staying))
    lonely = any(each.item.exclusive for each in away)
    return replace(
        device,
        free=device.free + sum(each.item.memory for each in away),
        tenants=_left(device.tenants, away=_groups(away), staying=_groups(staying)),
        avoided_by=_left(device.avoided_by, away=shy, staying=still_shy),
        exclusive=any(each.item.exclusive for each in staying) if lonely else device.exclusive,
        slots=None if device.slots is None else device.slots + len(away),
    )


def _groups(residents: Iterable[Resident]) -> frozenset[str]:
    return frozenset(each.item.group for each in residents)


def _left(before: frozenset[str], *, away: Collection[str], staying: Collection[str]) -> frozenset[str]:
    return before - (frozenset(away) - frozenset(staying))
