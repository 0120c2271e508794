"""Who has to go for a replica of higher priority: never an equal, never more than it takes, never for nothing."""

import random
from dataclasses import replace
from itertools import combinations

from hypothesis import given, settings

from tests.unit.packing_builders import gpu, host, item
from tests.unit.test_packing_properties import chances
from vrampack.packing.firstfit import pack
from vrampack.packing.preempt import victims
from vrampack.packing.problem import Host, Item, Placement, Resident, Spread
from vrampack.packing.residents import vacated

MANY = settings(max_examples=400, deadline=None)


def resident(key: str, memory: int, *, on: str = "n/g0", priority: int = 0, movable: bool = True, **fields: object):  # type: ignore[no-untyped-def]
    """``on``: ``host/device``, several devices joined by ``+``."""
    name, _, devices = on.partition("/")
    ids = tuple(devices.split("+"))
    mine = item(key, memory, priority=priority, gpus=len(ids), **fields)
    return Resident(item=mine, host=name, devices=ids, movable=movable)


def names(found: tuple[Resident, ...] | None) -> list[str] | None:
    return None if found is None else [each.item.key for each in found]


def full(free: int, *residents: Resident, devices: int = 1, **fields: object) -> Host:
    """A host ``n`` on which these hold their devices and ``free`` is left on each."""
    groups = frozenset(each.item.group for each in residents)
    return host(
        "n",
        *(
            gpu(
                f"g{index}",
                free,
                tenants=frozenset(each.item.group for each in residents if f"g{index}" in each.devices),
                exclusive=any(each.item.exclusive for each in residents if f"g{index}" in each.devices),
            )
            for index in range(devices)
        ),
        tenants=groups,
        **fields,
    )


def test_one_that_fits_sends_nobody_away() -> None:
    assert victims(hosts=[host("n", gpu("g0", 48))], residents=[], item=item("big", 40, priority=5)) == ()


def test_the_one_whose_going_suffices_goes() -> None:
    some = [resident("a", 10), resident("b", 20), resident("c", 16)]
    found = victims(hosts=[full(2, *some)], residents=some, item=item("big", 20, priority=5))
    assert names(found) == ["b"]


def test_of_equally_few_the_lower_priority_and_then_the_fewer_bytes() -> None:
    some = [resident("a", 20, priority=3), resident("b", 20, priority=1), resident("c", 22, priority=1)]
    found = victims(hosts=[full(0, *some)], residents=some, item=item("big", 20, priority=5))
    assert names(found) == ["b"]


def test_equal_priority_is_left_alone() -> None:
    some = [resident("a", 20, priority=5), resident("b", 20, priority=7)]
    assert victims(hosts=[full(0, *some)], residents=some, item=item("big", 20, priority=5)) is None


def test_one_that_may_not_move_is_left_alone() -> None:
    some = [resident("a", 30, movable=False), resident("b", 10)]
    found = victims(hosts=[full(0, *some)], residents=some, item=item("big", 20, priority=5))
    assert found is None


def test_nobody_goes_where_it_would_not_help() -> None:
    some = [resident("a", 20)]
    big = item("big", 20, priority=5)
    assert victims(hosts=[full(0, *some)], residents=some, item=replace(big, refused={"n": "UntoleratedTaint"})) is None
    assert victims(hosts=[full(0, *some)], residents=some, item=replace(big, products=frozenset({"H100"}))) is None
    assert victims(hosts=[full(0, *some, cpu=1)], residents=some, item=replace(big, cpu=2)) is None


def test_an_exclusive_one_needs_its_device_empty() -> None:
    some = [resident("a", 5), resident("b", 5), resident("c", 5, on="n/g1")]
    big = item("big", 10, priority=5, exclusive=True)
    assert names(victims(hosts=[full(38, *some, devices=2)], residents=some, item=big)) == ["c"]


def test_several_devices_on_one_host_are_freed_together() -> None:
    some = [resident("wide", 30, on="n/g0+g1"), resident("a", 30, on="n/g2"), resident("b", 30, on="n/g3")]
    found = victims(hosts=[full(10, *some, devices=4)], residents=some, item=item("big", 30, priority=5, gpus=2))
    assert names(found) == ["wide"]


def test_cpu_that_is_missing_is_freed_too() -> None:
    some = [resident("a", 20, cpu=1), resident("b", 4, on="n/g1", cpu=4)]
    hosts = [full(28, *some, devices=2, cpu=0)]
    found = victims(hosts=hosts, residents=some, item=item("big", 20, priority=5, cpu=4))
    assert names(found) == ["b"]


def world(draw: random.Random) -> tuple[list[Host], list[Resident], Item]:
    """A small fleet on which replicas of random priority were packed, and one that asks for room."""
    hosts = [
        host(
            f"n{number}",
            *(
                gpu(f"g{index}", draw.choice([16, 24]), product=draw.choice(["L40S", "L40S", "H100"]))
                for index in range(draw.randint(1, 3))
            ),
            cpu=draw.choice([None, draw.randint(4, 12)]),
            slots=draw.choice([None, draw.randint(2, 6)]),
        )
        for number in range(draw.randint(1, 3))
    ]

    def replica(key: str) -> Item:
        return item(
            key,
            draw.randint(2, 16),
            group=f"ns/{draw.choice('abcd')}",
            gpus=draw.choice([0, 1, 1, 1, 1, 2]),
            cpu=draw.randint(0, 3),
            priority=draw.randint(0, 3),
            exclusive=draw.random() < 0.1,
            avoid=frozenset({f"ns/{draw.choice('abcd')}"}) if draw.random() < 0.1 else frozenset(),
            spread=draw.choice(list(Spread)),
        )

    packing = pack(hosts=hosts, items=[replica(f"r{number}") for number in range(draw.randint(0, 14))])
    residents = [
        Resident(item=each.item, host=each.host, devices=each.devices, movable=draw.random() < 0.85)
        for each in packing.placed
    ]
    asked = replace(replica("asked"), memory=draw.randint(4, 24), priority=draw.randint(0, 4))
    return booked(hosts, packing.placed), residents, asked


def booked(hosts: list[Host], placed: tuple[Placement, ...]) -> list[Host]:
    found = []
    for each in hosts:
        mine = [placement for placement in placed if placement.host == each.name]
        found.append(
            replace(
                each,
                cpu=None if each.cpu is None else each.cpu - sum(guest.item.cpu for guest in mine),
                slots=None if each.slots is None else each.slots - len(mine),
                tenants=frozenset(guest.item.group for guest in mine),
                devices=tuple(
                    replace(
                        device,
                        free=device.free - sum(guest.item.memory for guest in on),
                        tenants=frozenset(guest.item.group for guest in on),
                        avoided_by=frozenset().union(*(guest.item.avoid for guest in on)),
                        exclusive=any(guest.item.exclusive for guest in on),
                    )
                    for device in each.devices
                    for on in [[guest for guest in mine if device.id in guest.devices]]
                ),
            )
        )
    return found


def fits(hosts: list[Host], residents: list[Resident], gone: tuple[Resident, ...], asked: Item) -> bool:
    left = [vacated(each, residents=residents, leaving=gone) for each in hosts]
    return bool(pack(hosts=left, items=[asked]).placed)


@MANY
@given(draw=chances)
def test_it_never_evicts_equal_or_higher_priority_nor_more_than_it_takes(draw: random.Random) -> None:
    hosts, residents, asked = world(draw)
    found = victims(hosts=hosts, residents=residents, item=asked)
    lower = tuple(each for each in residents if each.movable and each.item.priority < asked.priority)
    if found is None:
        assert not fits(hosts, residents, lower, asked)
        return
    assert all(each in lower for each in found)
    assert fits(hosts, residents, found, asked)
    for spared in found:
        assert not fits(hosts, residents, tuple(each for each in found if each is not spared), asked)
    assert len({each.host for each in found}) <= 1


@MANY
@given(draw=chances)
def test_no_smaller_set_would_do(draw: random.Random) -> None:
    hosts, residents, asked = world(draw)
    found = victims(hosts=hosts, residents=residents, item=asked)
    lower = [each for each in residents if each.movable and each.item.priority < asked.priority]
    for count in range(len(found or ())):
        assert not any(fits(hosts, residents, some, asked) for some in combinations(lower, count))


@MANY
@given(draw=chances)
def test_the_order_of_the_input_does_not_matter(draw: random.Random) -> None:
    hosts, residents, asked = world(draw)
    again = victims(hosts=draw.sample(hosts, len(hosts)), residents=draw.sample(residents, len(residents)), item=asked)
    assert again == victims(hosts=hosts, residents=residents, item=asked)


@MANY
@given(draw=chances)
def test_a_host_that_all_residents_leave_is_as_it_was_before_they_came(draw: random.Random) -> None:
    hosts, residents, _ = world(draw)
    for each in hosts:
        left = vacated(each, residents=residents, leaving=residents)
        assert not left.tenants
        assert not any(device.tenants or device.exclusive or device.avoided_by for device in left.devices)
