"""The cheapest set of hosts, from a price list, that holds all of the items.

What is bought is whole hosts. The search starts from the cheapest plan of each offer alone and of all offers together,
then gives hosts back and changes them for cheaper ones as long as all items still find their place; and the devices of
all offers, each at its share of its host's price, are refined as one fleet. That is a heuristic; how far it can be from
the cheapest is proven by the bound that comes with it.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations_with_replacement
from math import ceil

from vrampack.packing.firstfit import pack
from vrampack.packing.problem import Device, Host, Item, Objective, Packing, Spread, Work
from vrampack.packing.refine import refinements

_WORK = Work(rounds=400, dives=40, nodes=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A kind of host that can be had. ``price``: of one, in any unit. ``most``: how many there are; None: any number.

    ``host``: as it comes, empty; its name is the offer's.
    """

    host: Host
    price: int
    most: int | None = None

    @property
    def name(self) -> str:
        """The offer's name."""
        return self.host.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """How many of each offer, by name, what that costs, and how the items are packed on them. ``least``: no purchase
    costs less, as far as single devices can tell."""

    counts: Mapping[str, int]
    price: int
    packing: Packing
    least: int


def purchases(*, offers: Sequence[Offer], items: Sequence[Item]) -> Iterator[Purchase | None]:
    """The best so far, after each packing that was tried: None as long as there is none, and at the end where the items
    fit on no purchase at all.

    ``items`` refuse offers by name, as they refuse hosts.
    """
    search = _Search(offers, items)
    for _ in search.steps():
        yield search.best
    yield search.best


class _Search:
    """Step by step; a step is a packing, or one of the refinement."""

    def __init__(self, offers: Sequence[Offer], items: Sequence[Item]) -> None:
        self._offers = offers
        self._items = items
        self._bound = _least(offers, items)
        self._found: Purchase | None = None

    @property
    def best(self) -> Purchase | None:
        """With what is proven by now."""
        return None if self._found is None else replace(self._found, least=self._bound)

    def steps(self) -> Iterator[None]:
        for counts in self._starts():
            if counts is None:
                yield
                continue
            yield from self._improve(counts)
            if self._proven():
                return
        if self._found is not None:
            yield from self._refine()

    def _proven(self) -> bool:
        return self._found is not None and self._found.price <= self._bound

    def _offer(self, counts: Mapping[str, int], packing: Packing) -> None:
        price = _price(counts, self._offers)
        if self._found is None or price < self._found.price:
            held = {name: count for name, count in sorted(counts.items()) if count}
            self._found = Purchase(counts=held, price=price, packing=packing, least=self._bound)

    def _packed(self, counts: Mapping[str, int]) -> Packing | None:
        """None where something finds no place."""
        packing = pack(hosts=hosts_of(counts, self._offers), items=_wanted(counts, self._items))
        return None if packing.unplaced else packing

    def _starts(self) -> Iterator[Counter[str] | None]:
        """Of each offer alone as many as it takes, the offers by price for a byte; then all of them together. None
        after each packing that was tried on the way."""
        ordered = sorted(self._offers, key=lambda offer: (offer.price / max(1, _bytes(offer)), offer.name))
        alone: list[Counter[str]] = []
        for offer in ordered:
            count = yield from self._fewest(offer)
            if count is not None:
                found = Counter({offer.name: count})
                alone.append(found)
                yield found
        many = len(self._items)
        plenty = Counter({offer.name: min(many, offer.most or many) for offer in ordered})
        if (packing := self._packed(plenty)) is not None:
            yield _used(packing)
        for one, other in combinations_with_replacement(alone, 2):
            if one is not other:
                yield one | other

    def _fewest(self, offer: Offer) -> Generator[None, None, int | None]:
        asked = sum(item.gpus * item.memory for item in self._items)
        low = high = max(1, -(-asked // max(1, _bytes(offer))))
        many = max(1, len(self._items))
        most = many if offer.most is None else min(many, offer.most)
        while self._packed(Counter({offer.name: min(high, most)})) is None:
            yield
            if high >= most:
                return None
            low, high = high + 1, 2 * high
        high = min(high, most)
        while low < high:
            yield
            middle = (low + high) // 2
            if self._packed(Counter({offer.name: middle})) is None:
                low = middle + 1
            else:
                high = middle
        return high

    def _improve(self, counts: Counter[str]) -> Iterator[None]:
        """Hosts are given back, or changed for cheaper ones, as long as all items find a place."""
        packing = self._packed(counts)
        changed = packing is not None
        if packing is not None:
            self._offer(counts, packing)
        yield
        while changed:
            changed = False
            for other in _cheaper(counts, self._offers):
                found = self._packed(other)
                yield
                if found is not None:
                    counts, changed = other, True
                    self._offer(counts, found)
                    break

    def _refine(self) -> Iterator[None]:
        """The same search from another side: what the linear programme over the devices of all offers opens."""
        many = len(self._items)
        counts = {offer.name: many if offer.most is None else min(many, offer.most) for offer in self._offers}
        hosts = tuple(
            replace(host, devices=tuple(replace(each, price=_share(offer)) for each in host.devices))
            for offer in self._offers
            for host in hosts_of({offer.name: counts[offer.name]}, self._offers)
        )
        free = [
            replace(each, spread=Spread.IGNORE if each.spread is Spread.PREFER else each.spread)
            for each in _wanted(counts, self._items)
        ]
        packing = start = pack(hosts=hosts, items=free)
        yield
        if start.unplaced:
            return
        for found in refinements(
            hosts=hosts, items=free, objective=Objective.FEWEST_GPUS, start=start, seed=0, work=_WORK
        ):
            self._bound = max(self._bound, found.bound.opened)
            if found.packing is not packing:
                packing = found.packing
                yield from self._improve(_used(packing))
                self._offer(*_bought(packing, self._items))
            yield
            if self._proven():
                return


def _bought(packing: Packing, items: Sequence[Item]) -> tuple[Counter[str], Packing]:
    """The hosts that ``packing`` uses, numbered anew."""
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    for name in sorted({placement.host for placement in packing.placed}):
        offer = name.rpartition("-")[0]
        names[name] = f"{offer}-{counts[offer]}"
        counts[offer] += 1
    own = {item.key: item for item in _wanted(counts, items)}
    placed = tuple(
        replace(placement, item=own[placement.item.key], host=names[placement.host]) for placement in packing.placed
    )
    return counts, replace(packing, placed=placed)


def _share(offer: Offer) -> int:
    """Of a device, rounded down, so that a bound is not too high."""
    return offer.price // len(offer.host.devices)


def hosts_of(counts: Mapping[str, int], offers: Sequence[Offer]) -> tuple[Host, ...]:
    """The hosts of a purchase: offer NAME gives NAME-0, NAME-1, …"""
    by_name = {offer.name: offer for offer in offers}
    return tuple(
        replace(by_name[name].host, name=f"{name}-{number}", devices=_priced(by_name[name]))
        for name in sorted(counts)
        for number in range(counts[name])
    )


def _priced(offer: Offer) -> tuple[Device, ...]:
    """Devices at their share of the host's price, so that the packer opens the cheapest."""
    devices = offer.host.devices
    return tuple(replace(device, price=-(-offer.price // len(devices))) for device in devices)


def _wanted(counts: Mapping[str, int], items: Sequence[Item]) -> list[Item]:
    """``items`` refuse the hosts of the offers that they refuse."""
    wanted = []
    names = {name: [f"{name}-{number}" for number in range(count)] for name, count in counts.items()}
    masks: dict[int, dict[str, str]] = {}
    for item in items:
        if id(item.refused) not in masks:
            masks[id(item.refused)] = {
                host: reason for name, reason in item.refused.items() for host in names.get(name, ())
            }
        wanted.append(replace(item, refused=masks[id(item.refused)]))
    return wanted


def _price(counts: Mapping[str, int], offers: Sequence[Offer]) -> int:
    by_name = {offer.name: offer.price for offer in offers}
    return sum(by_name[name] * count for name, count in counts.items())


def _cheaper(counts: Counter[str], offers: Sequence[Offer]) -> Iterator[Counter[str]]:
    """One host less, or one or two for one that is cheaper: the largest saving first."""
    found: list[tuple[int, tuple[tuple[str, int], ...]]] = []
    price = {offer.name: offer.price for offer in offers}
    most = {offer.name: offer.most for offer in offers if offer.most is not None}
    exchanges = [(), *((offer.name,) for offer in offers)]
    given = [*((name,) for name in counts), *combinations_with_replacement(sorted(counts), 2)]
    for gone in given:
        for new in exchanges:
            saving = sum(price[name] for name in gone) - sum(price[name] for name in new)
            other = Counter(counts)
            other.subtract(gone)
            other.update(new)
            legal = all(0 <= count <= most.get(name, count) for name, count in other.items())
            if saving > 0 and legal and +other:
                found.append((-saving, tuple(sorted((+other).items()))))
    for _, pairs in sorted(set(found)):
        yield Counter(dict(pairs))


def _used(packing: Packing) -> Counter[str]:
    return Counter(host.rpartition("-")[0] for host in {placement.host for placement in packing.placed})


def _bytes(offer: Offer) -> int:
    return sum(device.capacity for device in offer.host.devices)


def _least(offers: Sequence[Offer], items: Sequence[Item]) -> int:
    """Each byte at least at the lowest price for a byte of those offers that could take it at all. In fractions: prices
    may have more digits than a float."""
    asked: Counter[Fraction] = Counter()
    for item in items:
        rates = [
            Fraction(offer.price, _bytes(offer))
            for offer in offers
            if offer.name not in item.refused and _could(offer.host, item)
        ]
        asked[min(rates, default=Fraction(0))] += item.gpus * item.memory
    total = sum(rate * memory for rate, memory in asked.items())
    cheapest = min((offer.price for offer in offers), default=0)
    return max(ceil(total), cheapest if items else 0)


def _could(host: Host, item: Item) -> bool:
    fitting = sum(
        device.capacity >= item.memory and (item.products is None or device.product in item.products)
        for device in host.devices
    )
    return fitting >= item.gpus
