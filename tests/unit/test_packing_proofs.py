"""Proofs of mixed fleets, attacked by another enumeration: sizes as GPUs have them, several GPUs, slots, slices,
spread, prices and GPUs in use, all at once. It goes by what is free and not packing by packing, and shares no code with
the one of ``packing_optimum``."""

import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from math import inf

from hypothesis import given, settings

from tests.unit.test_packing_properties import chances
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.objective import cost
from vrampack.packing.problem import Device, Host, Item, Objective, Spread, Work
from vrampack.packing.refine import bound, refine

MIB = 1 << 20
SIZES = {"L4": 22563 * MIB, "L40S": 45459 * MIB, "A100": 40326 * MIB, "H100": 81079 * MIB, "H200": 143167 * MIB}
"""Usable bytes as cards report them: no size is a multiple of another one."""
SLICES = {"1g.10gb": 9856 * MIB, "2g.20gb": 20096 * MIB, "3g.40gb": 40448 * MIB}


def fleet(draw: random.Random, *, priced: bool) -> list[Host]:
    """Two to four nodes with one product each, some of them cut."""
    return [_host(draw, f"n{number}", priced=priced) for number in range(draw.randint(2, 4))]


def _host(draw: random.Random, name: str, *, priced: bool) -> Host:
    product = draw.choice(list(SIZES))
    price = draw.randint(0, 9) * 7 if priced else None
    slots = draw.choice([None, None, draw.randint(0, 3)])
    devices = []
    for number in range(draw.choice([1, 2, 2, 4])):
        size = SIZES[product]
        used = draw.random() < 0.15
        free = size - draw.randint(0, size) if used or draw.random() < 0.1 else size
        tenants = frozenset({"ns/other"}) if used else frozenset()
        if product == "H100" and draw.random() < 0.3:
            for part, label in enumerate(draw.sample(list(SLICES), 2)):
                devices.append(
                    Device(
                        id=f"g{number}/{part}",
                        product=f"H100-{label}",
                        capacity=SLICES[label],
                        free=SLICES[label],
                        slice_of=f"g{number}",
                        price=price,
                    )
                )
            continue
        devices.append(
            Device(
                id=f"g{number}",
                product=product,
                capacity=size,
                free=free,
                tenants=tenants,
                slots=slots,
                price=price,
            )
        )
    return Host(name=name, devices=tuple(devices), slots=draw.choice([None, None, draw.randint(1, 4)]))


def queue(draw: random.Random) -> list[Item]:
    """Up to seven replicas of up to four models, whose sizes like to be halves and thirds of a GPU."""
    models = [_model(draw, f"ns/m{number}") for number in range(draw.randint(1, 4))]
    found = []
    for number in range(draw.randint(1, 7)):
        model = draw.choice(models)
        found.append(_named(model, f"r{number}"))
    return found


def _model(draw: random.Random, group: str) -> Item:
    whole = draw.choice(list(SIZES.values()))
    memory = max(1, whole // draw.choice([1, 2, 2, 3]) + draw.choice([0, 0, -1, 1, -(512 * MIB)]))
    return Item(
        key="",
        group=group,
        gpus=draw.choice([1, 1, 1, 1, 2, 4]),
        memory=draw.choice([memory, draw.randint(1, 80000) * MIB]),
        spread=draw.choice([Spread.IGNORE, Spread.IGNORE, Spread.PREFER, Spread.REQUIRE]),
        exclusive=draw.random() < 0.1,
        products=draw.choice([None, None, None, frozenset({"H100", "L40S"})]),
    )


def _named(model: Item, key: str) -> Item:
    return Item(
        key=key,
        group=model.group,
        gpus=model.gpus,
        memory=model.memory,
        spread=model.spread,
        exclusive=model.exclusive,
        products=model.products,
    )


def best(hosts: Sequence[Host], items: Sequence[Item]) -> tuple[float, int]:
    """The least that is opened where all are placed (infinite where that can't be), and the fewest bytes unplaced."""
    devices = [(place, device) for place, host in enumerate(hosts) for device in host.devices]
    weight = [
        0 if device.tenants else (device.capacity if device.price is None else device.price) for _, device in devices
    ]

    def spots(
        item: Item, state: tuple[tuple[int, int, bool], ...], groups: tuple[tuple[str, ...], ...]
    ) -> Iterator[tuple[int, ...]]:
        for place, host in enumerate(hosts):
            if host.slots is not None and len(groups[place]) >= host.slots:
                continue
            if item.spread is Spread.REQUIRE and item.group in groups[place]:
                continue
            able = []
            for number, (where, device) in enumerate(devices):
                free, guests, shut = state[number]
                fits = where == place and not shut and free >= item.memory
                fits = fits and (device.slots is None or guests < device.slots)
                fits = fits and (item.products is None or device.product in item.products)
                fits = fits and not (item.exclusive and (guests or device.tenants))
                fits = fits and not (item.gpus > 1 and device.slice_of is not None)
                if fits:
                    able.append(number)
            seen = set()
            for team in combinations(able, item.gpus):
                if len({devices[number][1].product for number in team}) == 1:
                    alike = tuple(
                        sorted((devices[n][1].product, devices[n][1].slots, state[n], weight[n]) for n in team)
                    )
                    if repr(alike) not in seen:
                        seen.add(repr(alike))
                        yield team

    @cache
    def search(
        number: int, state: tuple[tuple[int, int, bool], ...], groups: tuple[tuple[str, ...], ...]
    ) -> tuple[float, int]:
        if number == len(items):
            return 0, 0
        item = items[number]
        _, left = search(number + 1, state, groups)
        opened, unplaced = inf, left + item.gpus * item.memory
        for team in spots(item, state, groups):
            after = list(state)
            fresh = 0
            for each in team:
                free, guests, _ = state[each]
                fresh += 0 if guests else weight[each]
                after[each] = (free - item.memory, guests + 1, item.exclusive)
            place = devices[team[0]][0]
            told = list(groups)
            told[place] = tuple(sorted((*groups[place], item.group)))
            more, left = search(number + 1, tuple(after), tuple(told))
            opened, unplaced = min(opened, fresh + more), min(unplaced, left)
        return opened, unplaced

    return search(0, tuple((device.free, 0, False) for _, device in devices), tuple(() for _ in hosts))


def attack(draw: random.Random) -> bool:
    """One question; whether its packing was proven optimal."""
    hosts, items = fleet(draw, priced=draw.random() < 0.4), queue(draw)
    start = pack(hosts=hosts, items=items)
    opened, unplaced = best(hosts, items)
    work = draw.choice([Work(rounds=1, dives=0, nodes=0), Work(rounds=60, dives=3, nodes=40)])
    fewest = Objective.FEWEST_GPUS
    found = refine(hosts=hosts, items=items, objective=fewest, start=start, seed=draw.randint(0, 3), work=work)
    assert violations(hosts=hosts, items=items, packing=found.packing) == []
    for each in (found.bound, bound(hosts=hosts, items=items, objective=fewest, packing=start)):
        assert each.opened <= opened
        assert each.unplaced <= unplaced
    here = cost(hosts=hosts, packing=found.packing).opened
    if found.bound.optimal:
        assert here == best(hosts, [each.item for each in found.packing.placed])[0]
        for waits in found.packing.unplaced:  # only what fits nowhere, whoever else is there
            assert best(hosts, [waits.item])[0] == inf
    if not found.packing.unplaced:
        assert here >= opened
    return found.bound.optimal


@settings(max_examples=150, deadline=None)
@given(draw=chances)
def test_no_bound_is_above_the_best_and_no_proof_is_wrong(draw: random.Random) -> None:
    attack(draw)


def test_many_of_these_questions_are_proven() -> None:
    """Else the attack would be on nothing."""
    assert sum(attack(random.Random(seed)) for seed in range(60)) > 15
