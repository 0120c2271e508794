"""Hosts and items as cutting stock: which GPUs are alike, which replicas are, and what each may go on.

Only what is a matter of one GPU is in it: bytes, replicas a GPU, exclusive use, neighbours to be avoided, and on which
GPUs a replica may be at all. ``relaxes`` names what is left out, so that a bound can say what it does not know.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from vrampack.packing.classes import ItemClass, classes_of
from vrampack.packing.layouts import parts
from vrampack.packing.problem import Cut, Device, Host, Item, Packing, Spread
from vrampack.packing.stock import Choice, Kind, Pattern, Stock

_BOOLS = NDArray[np.bool_]
Spot = tuple[str, str]
"""Host and device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """``classes`` and ``spots`` go with the classes and the kinds of ``stock``; spots are by host and device.
    ``hopeless``: items that fit on no GPU as they are, even before all others; they are in no class.
    ``wholes``: for each choice of the stock the devices that may be cut, and the layouts in the order of its ways."""

    stock: Stock
    classes: tuple[ItemClass, ...]
    spots: tuple[tuple[Spot, ...], ...]
    hopeless: tuple[Item, ...]
    wholes: tuple[tuple[tuple[Spot, ...], tuple[tuple[int, ...], ...]], ...]
    relaxes: tuple[str, ...]

    def groups(self) -> tuple[Counter[int], ...]:
        """For each kind, how many hosts have how many of its GPUs."""
        return tuple(Counter(Counter(host for host, _ in spots).values()) for spots in self.spots)

    def patterns(self, packing: Packing) -> list[Pattern]:
        """Those that ``packing`` uses, as far as they are patterns of the stock."""
        class_of = {item.key: each for each, members in enumerate(self.classes) for item in members.items}
        kind_of = {spot: kind for kind, spots in enumerate(self.spots) for spot in spots}
        content: dict[Spot, list[int]] = defaultdict(list)
        for placement in packing.placed:
            for device in placement.devices:
                content[placement.host, device].append(class_of[placement.item.key])
        found = set()
        for spot, classes in content.items():
            if spot in kind_of:
                counted = tuple((each, classes.count(each)) for each in sorted(set(classes)))
                found.add(Pattern(kind_of[spot], counted))
        return sorted(pattern for pattern in found if self.stock.permits(pattern))


def hosts_cut(hosts: Sequence[Host], cuts: Sequence[Cut]) -> list[Host]:
    """``hosts`` by name, with the devices that ``cuts`` names cut into their slices."""
    layouts = {(cut.host, cut.device): cut.layout for cut in cuts}
    return [replace(host, devices=tuple(_cut(host, layouts))) for host in sorted(hosts, key=lambda host: host.name)]


def _cut(host: Host, layouts: Mapping[Spot, tuple[int, ...]]) -> Iterator[Device]:
    for device in host.devices:
        layout = layouts.get((host.name, device.id))
        if layout is None:
            yield device
        else:
            yield from parts(device, layout)


def inventory(*, hosts: Sequence[Host], items: Sequence[Item], layouts: bool = False) -> Inventory:
    """The stock that items with devices make on these hosts. A device that may still be cut is part of it only with
    ``layouts``: then each layout is one of the ways of a choice."""
    ordered = sorted(hosts, key=lambda host: host.name)
    classes = sorted(
        classes_of(item for item in items if item.gpus),
        key=lambda members: (-members.item.memory, min(item.key for item in members.items)),
    )
    spots, kinds, choices, wholes = _kinds(ordered, [members.item for members in classes], layouts=layouts)
    fits = [
        any((kind.admits is None or kind.admits[each]) and members.item.memory <= kind.capacity for kind in kinds)
        for each, members in enumerate(classes)
    ]
    hopeless = [item for fit, members in zip(fits, classes, strict=True) if not fit for item in members.items]
    if hopeless:
        classes = [members for fit, members in zip(fits, classes, strict=True) if fit]
        spots, kinds, choices, wholes = _kinds(ordered, [members.item for members in classes], layouts=layouts)
    return Inventory(
        stock=Stock(
            sizes=tuple(members.item.memory for members in classes),
            counts=tuple(members.item.gpus * members.count for members in classes),
            kinds=kinds,
            penalties=_penalties(classes, kinds),
            lots=tuple(members.item.gpus for members in classes),
            alone=frozenset(each for each, members in enumerate(classes) if members.item.exclusive),
            conflicts=_conflicts(classes),
            choices=choices,
        ),
        classes=tuple(classes),
        spots=spots,
        hopeless=tuple(hopeless),
        wholes=wholes,
        relaxes=_relaxes(hosts, classes),
    )


def _penalties(classes: Sequence[ItemClass], kinds: Sequence[Kind]) -> tuple[int, ...]:
    """What a piece left out costs: as many as possible of the highest priority first, then as many bytes.

    One replica weighs more than all that leaving it out can save. Each priority weighs 64 times the one below it, up to
    the third: more than that is beyond the digits of a linear programme.
    """
    dearest = max((kind.cost for kind in kinds), default=1) or 1
    most = max((members.item.gpus for members in classes), default=1)
    whole = sum(members.count * members.item.gpus * members.item.memory for members in classes) or 1
    levels = {level: min(rank, 2) for rank, level in enumerate(sorted({members.item.priority for members in classes}))}
    return tuple(
        2 * most * dearest * 64 ** levels[members.item.priority] // members.item.gpus
        + dearest * members.item.memory // whole
        for members in classes
    )


def _conflicts(classes: Sequence[ItemClass]) -> frozenset[tuple[int, int]]:
    return frozenset(
        (one, other)
        for one, members in enumerate(classes)
        if members.item.avoid
        for other, neighbour in enumerate(classes)
        if neighbour.item.group in members.item.avoid and one != other
    )


_Signature = tuple[str, bytes, int, int, int | None]
"""Product, classes that may go there, free bytes, cost, slots: devices with the same are alike."""


def _kinds(
    hosts: Sequence[Host], items: Sequence[Item], *, layouts: bool
) -> tuple[
    tuple[tuple[Spot, ...], ...],
    tuple[Kind, ...],
    tuple[Choice, ...],
    tuple[tuple[tuple[Spot, ...], tuple[tuple[int, ...], ...]], ...],
]:
    mask = _Masks(items)
    alike: dict[_Signature, list[Spot]] = defaultdict(list)
    cuttable: dict[tuple[tuple[tuple[int, ...], tuple[_Signature | None, ...]], ...], list[Spot]] = defaultdict(list)
    for host in hosts:
        if host.closed is not None:
            continue
        able = mask.of_host(host)
        if not able.any():
            continue
        for device in sorted(host.devices, key=lambda device: (device.product, device.id)):
            spot = (host.name, device.id)
            if not device.layouts:
                if (signature := mask.signature(host, device, able)) is not None:
                    alike[signature].append(spot)
            elif layouts:
                ways = tuple(
                    (layout, tuple(mask.signature(host, part, able) for part in parts(device, layout)))
                    for layout in device.layouts
                    if layout
                )
                if any(any(signatures) for _, signatures in ways):
                    cuttable[ways].append(spot)
    ordered = sorted(alike.items(), key=lambda pair: pair[1][0])
    kinds = [mask.kind(signature, supply=len(spots)) for signature, spots in ordered]
    spots_of = [tuple(spots) for _, spots in ordered]
    choices, wholes = [], []
    for ways, spots in sorted(cuttable.items(), key=lambda pair: pair[1][0]):
        found = []
        for _, signatures in ways:
            counted = Counter(signature for signature in signatures if signature is not None)
            first = len(kinds)
            kinds += (mask.kind(signature, supply=0) for signature in counted)
            spots_of += [()] * len(counted)
            found.append(tuple(zip(range(first, len(kinds)), counted.values(), strict=True)))
        choices.append(Choice(supply=len(spots), ways=tuple(found)))
        wholes.append((tuple(spots), tuple(layout for layout, _ in ways)))
    return tuple(spots_of), tuple(kinds), tuple(choices), tuple(wholes)


class _Masks:
    """Which classes may go where, each test made once for all devices that are alike in it."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._known: dict[object, _BOOLS] = {}
        self._memory = np.array([item.memory for item in items], dtype=np.int64)
        single = [item.spread is Spread.REQUIRE or item.group in item.avoid for item in items]
        self.most = np.where(np.array(single, dtype=np.bool_), 1, 1 << 30)
        """The most of each class on one device, whatever its size."""

    def of_host(self, host: Host) -> _BOOLS:
        able = np.array([host.name not in item.refused for item in self._items], dtype=np.bool_)
        for free, demands in (
            (host.cpu, [item.cpu for item in self._items]),
            (host.memory, [item.host_memory for item in self._items]),
        ):
            if free is not None:
                wanted = np.array(demands, dtype=np.int64)
                able &= (wanted == 0) | (wanted <= free)
        if host.slots is not None and host.slots < 1:
            able[:] = False
        if host.tenants:
            able &= ~np.array(
                [item.spread is Spread.REQUIRE and item.group in host.tenants for item in self._items], dtype=np.bool_
            )
        return able

    def signature(self, host: Host, device: Device, able: _BOOLS) -> _Signature | None:
        """None where nothing fits. ``able``: what its host takes."""
        shut = device.closed is not None or device.exclusive or device.free < 0
        if shut or (device.slots is not None and device.slots < 1):
            return None
        fits = able & self.of_device(host, device)
        if not (fits & self.within(device)).any():
            return None
        cost = device.capacity if device.price is None else device.price
        return device.product, fits.tobytes(), device.free, 0 if device.in_use else cost, device.slots

    def kind(self, signature: _Signature, *, supply: int) -> Kind:
        """The bins that have it."""
        _, fits, free, cost, slots = signature
        most = np.where(np.frombuffer(fits, dtype=np.bool_), self.most, 0)
        return Kind(capacity=free, supply=supply, cost=cost, admits=tuple(most.tolist()), slots=slots)

    def within(self, device: Device) -> _BOOLS:
        """By bytes alone. Devices that differ in nothing else are priced together."""
        return self._memory <= device.free

    def of_device(self, host: Host, device: Device) -> _BOOLS:
        return (
            self._once(
                ("product", device.product), lambda item: item.products is None or device.product in item.products
            )
            & self._once(
                ("tenants", device.tenants),
                lambda item: not (item.avoid & device.tenants or (item.exclusive and device.tenants)),
            )
            & self._once(("avoided", device.avoided_by), lambda item: item.group not in device.avoided_by)
            & self._gangs(host, device)
        )

    def _gangs(self, host: Host, device: Device) -> _BOOLS:
        """Several devices of one product on the host, none of them a slice."""
        beside = 1
        if device.slice_of is None:
            beside = sum(each.product == device.product and each.slice_of is None for each in host.devices)
        return self._once(("gpus", min(beside, 1 << 10)), lambda item: item.gpus <= beside)

    def _once(self, key: object, test: Callable[[Item], bool]) -> _BOOLS:
        if key not in self._known:
            self._known[key] = np.array([test(item) for item in self._items], dtype=np.bool_)
        return self._known[key]


def _relaxes(hosts: Sequence[Host], classes: Sequence[ItemClass]) -> tuple[str, ...]:
    """The constraints of these items and hosts that a stock does not know, and the wish that comes before memory."""
    items = [members.item for members in classes]
    spread: Counter[str] = Counter()
    for members in classes:
        if members.item.spread is Spread.PREFER:
            spread[members.item.group] += members.count
    found = []
    if any(item.gpus > 1 for item in items):
        found.append("GPUs of one replica on one node")
    if any(host.cpu is not None for host in hosts) and any(item.cpu for item in items):
        found.append("CPU")
    if any(host.memory is not None for host in hosts) and any(item.host_memory for item in items):
        found.append("RAM")
    if any(host.slots is not None for host in hosts):
        found.append("replicas a node")
    if any(item.spread is Spread.REQUIRE for item in items):
        found.append("spread over nodes")
    if len(hosts) > 1 and max(spread.values(), default=0) > 1:
        found.append("the wish for spread")
    if any(item.avoid for item in items):
        found.append("neighbours to be avoided")
    if any(device.slots is not None for host in hosts for device in host.devices):
        found.append("replicas a GPU")
    return tuple(found)


def chosen_cuts(found: Inventory, hosts: Sequence[Host], ways: Sequence[float]) -> tuple[Cut, ...]:
    """The layouts of the devices that may be cut, from how often the linear programme uses each way: whole ones as they
    are, then the largest fractions. What it does not use stays uncut."""
    in_place = {
        (host.name, device.id): device.layouts[0] for host in hosts for device in host.devices if device.layouts
    }
    cuts: list[Cut] = []
    first = 0
    for spots, layouts in found.wholes:
        shares = ways[first : first + len(layouts)]
        first += len(layouts)
        counts = [int(share + 1e-6) for share in shares]
        wanted = min(len(spots), ceil(sum(shares) - 1e-6))
        for place in sorted(range(len(layouts)), key=lambda place: counts[place] - shares[place]):
            if sum(counts) < wanted:
                counts[place] += 1
        layout_of = [layout for layout, count in zip(layouts, counts, strict=True) for _ in range(count)]
        cuts += (
            Cut(host=spot[0], device=spot[1], layout=layout, changed=layout != in_place[spot])
            for spot, layout in zip(spots, layout_of, strict=False)
        )
    return tuple(cuts)
