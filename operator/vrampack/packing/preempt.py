"""Which running replicas have to go, so that one of higher priority finds its devices.

The fewest, then the cheapest. Only of strictly lower priority, only on one host, and only where the one that waits then
fits: nobody goes for nothing, and nobody who need not.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from typing import Final

from vrampack.packing.firstfit import pack
from vrampack.packing.problem import Host, Item, Resident
from vrampack.packing.residents import vacated

_TRIES: Final = 600
"""Sets of victims that are tried on one host beyond the first; with more, what is found is still minimal, but another
set may have been smaller."""

Cost = tuple[int, int, int, tuple[str, ...]]


def victims(*, hosts: Sequence[Host], residents: Sequence[Resident], item: Item) -> tuple[Resident, ...] | None:
    """Who has to go, in the order of their keys; empty where ``item`` fits as it is, None where nobody's going helps.

    ``residents``: all that hold a claim on these hosts. None of equal or higher priority, and none that may not move,
    is ever among the victims, and without any one of them ``item`` would not fit. Of several such sets that with the
    fewest victims counts, then that of the lowest priorities, then that with the fewest bytes to be loaded anew.

    Whether ``item`` may preempt at all is the caller's to know. Raises InvalidInputError as the packer does.
    """
    at: dict[str, list[Resident]] = defaultdict(list)
    for each in residents:
        at[each.host].append(each)
    places = [
        place
        for host in sorted(hosts, key=lambda host: host.name)
        if host.closed is None and host.name not in item.refused
        if (place := _place(host, at[host.name], item)) is not None
    ]
    best: tuple[Cost, tuple[Resident, ...]] | None = None
    for place in sorted(places, key=lambda place: (place.least, place.host.name)):
        if best is not None and place.least > len(best[1]):
            break
        found = _cheapest(place, item, most=None if best is None else len(best[1]))
        if found is not None and (best is None or _cost(found) < best[0]):
            best = _cost(found), found
    return None if best is None else best[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A host, who may be sent away from it, and the fewest that must be."""

    host: Host
    residents: Sequence[Resident]
    lower: Sequence[Resident]
    least: int


def _place(host: Host, residents: Sequence[Resident], item: Item) -> _Place | None:
    """None where the bytes do not suffice even if all of lower priority go."""
    lower = sorted(
        (each for each in residents if each.movable and each.item.priority < item.priority),
        key=lambda each: each.item.key,
    )
    on: dict[str, list[int]] = defaultdict(list)
    for each in lower:
        for name in each.devices:
            on[name].append(each.item.memory)
    needed: dict[str, list[int]] = defaultdict(list)
    for device in host.devices:
        if device.closed is None and (item.products is None or device.product in item.products):
            count = _fewest(device.free, on[device.id], item.memory)
            if count is not None:
                needed[device.product].append(count)
    counts = [sorted(each)[item.gpus - 1] for each in needed.values() if len(each) >= item.gpus] if item.gpus else [0]
    return _Place(host=host, residents=residents, lower=lower, least=min(counts)) if counts else None


def _fewest(free: int, sizes: Sequence[int], memory: int) -> int | None:
    """How many of ``sizes`` must be added to ``free`` at least; None where all are too few."""
    sums = accumulate(sorted(sizes, reverse=True), initial=free)
    return next((count for count, total in enumerate(sums) if total >= memory), None)


def _cheapest(place: _Place, item: Item, *, most: int | None) -> tuple[Resident, ...] | None:
    """The best set on one host; ``most``: one with more victims is of no use."""
    best: tuple[Resident, ...] | None = None
    for relevant in _relevant(place, item):
        found = _minimal(place, item, relevant)
        if found is None:
            continue
        least = min(len(found), len(found) if most is None else most)
        tries = 0
        for count in range(place.least, least + 1):
            better = None
            for some in combinations(relevant, count):
                tries += 1
                if tries > _TRIES:
                    break
                if (better is None or _cost(some) < _cost(better)) and _fits(place, item, some):
                    better = some
            if better is not None:
                found = min(found, better, key=_cost)
                break
        if best is None or _cost(found) < _cost(best):
            best = found
    return best


def _relevant(place: _Place, item: Item) -> Iterator[Sequence[Resident]]:
    """Sets of which some may have to go: for one device those on it, unless the host itself lacks something."""
    host = place.host
    short = (
        (host.cpu is not None and item.cpu > host.cpu)
        or (host.memory is not None and item.host_memory > host.memory)
        or (host.slots is not None and host.slots < 1)
        or item.group in host.tenants
    )
    if item.gpus != 1 or short:
        yield place.lower
        return
    by_device: Mapping[str, list[Resident]] = {device.id: [] for device in host.devices}
    for each in place.lower:
        for device in each.devices:
            by_device[device].append(each)
    # Devices with the same residents, as of replicas over several of them, are one question.
    yield from {tuple(each.item.key for each in some): some for some in by_device.values()}.values()


def _minimal(place: _Place, item: Item, relevant: Sequence[Resident]) -> tuple[Resident, ...] | None:
    """All of them but whoever can be spared: the small ones first, so that few large ones are left."""
    if not _fits(place, item, relevant):
        return None
    chosen = list(relevant)
    for each in sorted(relevant, key=lambda each: (_bytes(each), -each.item.priority, each.item.key)):
        without = [other for other in chosen if other is not each]
        if _fits(place, item, without):
            chosen = without
    return tuple(chosen)


def _fits(place: _Place, item: Item, gone: Sequence[Resident]) -> bool:
    if not _enough(place, item, gone):  # what most sets fail by, without a look at anything else
        return False
    host = vacated(place.host, residents=place.residents, leaving=gone)
    return bool(pack(hosts=[host], items=[item]).placed)


def _enough(place: _Place, item: Item, gone: Sequence[Resident]) -> bool:
    """Whether the bytes suffice."""
    back: dict[str, int] = defaultdict(int)
    for each in gone:
        for name in each.devices:
            back[name] += each.item.memory
    roomy = sum(device.free + back[device.id] >= item.memory for device in place.host.devices)
    return roomy >= item.gpus


def _cost(some: Sequence[Resident]) -> Cost:
    return (
        len(some),
        max((each.item.priority for each in some), default=0),
        sum(map(_bytes, some)),
        tuple(sorted(each.item.key for each in some)),
    )


def _bytes(resident: Resident) -> int:
    return resident.item.memory * resident.item.gpus
