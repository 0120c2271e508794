"""The way to a better packing: what stays, what moves, and that each move can be carried out after those before it."""

import random
from collections.abc import Mapping, Sequence

from hypothesis import given

from tests.unit.packing_builders import gpu, host
from tests.unit.test_packing_moves import (
    FEW,
    assert_executable,
    chances,
    opened,
    placement,
    resident,
    running,
    where,
    world,
)
from vrampack.packing.moves import consolidate
from vrampack.packing.problem import Host, Objective, Packing, Placement, Resident, Work
from vrampack.packing.refine import refine
from vrampack.packing.transition import transition

THREE = [host("a", *(gpu(str(number), 48) for number in range(3)))]


def packed(residents: Sequence[Resident], places: Mapping[str, str]) -> Packing:
    """``places``: host/device by key."""
    found = []
    for each in residents:
        name, _, device = places[each.item.key].partition("/")
        found.append(Placement(item=each.item, host=name, devices=(device,)))
    return Packing(placed=tuple(found), unplaced=())


def test_what_may_stay_stays_whatever_the_gpus_are_called() -> None:
    residents = [
        resident("one", 30, "a/0"),
        resident("two", 18, "a/0"),
        resident("three", 30, "a/1"),
        resident("four", 18, "a/2"),
    ]
    target = packed(residents, {"three": "a/0", "two": "a/0", "one": "a/2", "four": "a/2"})
    moves = transition(hosts=running(THREE, residents), residents=residents, target=target, limit=4)
    assert where(moves) == {"two": "a/1", "four": "a/0"}
    assert [move.resident.item.key for move in moves] == ["two", "four"], "there is no room for four before two is gone"
    assert (sum(move.gain for move in moves), sum(move.cost for move in moves)) == (48, 36)


def test_equal_replicas_stand_for_one_another() -> None:
    residents = [resident(key, 20, f"a/{number}", group="ns/m") for number, key in enumerate("xyz")]
    target = packed(residents, {"x": "a/2", "y": "a/2", "z": "a/1"})
    moves = transition(hosts=running(THREE, residents), residents=residents, target=target, limit=4)
    assert len(moves) == 1
    assert transition(hosts=running(THREE, residents), residents=residents, target=target, limit=0) == ()


def test_the_packing_that_is_there_needs_no_move() -> None:
    residents = [resident("one", 24, "a/0"), resident("two", 16, "a/1")]
    now = Packing(placed=tuple(map(placement, residents)), unplaced=())
    assert transition(hosts=running(THREE, residents), residents=residents, target=now, limit=4) == ()


def test_what_loads_more_than_it_closes_is_left() -> None:
    small = [host("a", gpu("0", 48), gpu("1", 48)), host("b", gpu("0", 44, capacity=44))]
    residents = [resident("one", 30, "a/0")]
    target = packed(residents, {"one": "b/0"})
    assert transition(hosts=running(small, residents), residents=residents, target=target, limit=4) == ()


def test_parts_are_ways_of_their_own() -> None:
    """One part is longer than there may be moves, the other is made."""
    bare = [
        host("a", *(gpu(str(number), 48) for number in range(4))),
        host("b", gpu("0", 80, capacity=80), gpu("1", 80, capacity=80)),
    ]
    residents = [
        *(resident(f"r{number}", 12, f"a/{number}") for number in range(4)),
        resident("big", 40, "b/0"),
        resident("bigger", 30, "b/1"),
    ]
    places = {f"r{number}": "a/0" for number in range(4)} | {"big": "b/0", "bigger": "b/0"}
    hosts, target = running(bare, residents), packed(residents, places)
    assert where(transition(hosts=hosts, residents=residents, target=target, limit=2)) == {"bigger": "b/0"}
    assert len(transition(hosts=hosts, residents=residents, target=target, limit=4)) == 4


def test_who_may_not_be_moved_stays_and_so_do_those_that_would_need_its_place() -> None:
    residents = [
        resident("one", 24, "a/0"),
        resident("two", 16, "a/0", movable=False),
        resident("three", 32, "a/1"),
        resident("four", 24, "a/2"),
    ]
    target = packed(residents, {"three": "a/0", "two": "a/0", "one": "a/2", "four": "a/2"})
    assert transition(hosts=running(THREE, residents), residents=residents, target=target, limit=4) == ()


def whole(bare: Sequence[Host], residents: Sequence[Resident]) -> Packing:
    """The best packing that a little work finds."""
    return refine(
        hosts=bare,
        items=[each.item for each in residents],
        objective=Objective.FEWEST_GPUS,
        start=Packing(placed=tuple(map(placement, residents)), unplaced=()),
        seed=0,
        work=Work(rounds=20, dives=2, nodes=40),
    ).packing


@given(draw=chances)
@FEW
def test_the_way_is_executable_and_opens_less(draw: random.Random) -> None:
    bare, residents, _ = world(draw)
    target = whole(bare, residents)
    hosts, limit = running(bare, residents), draw.randint(0, 8)
    moves = transition(hosts=hosts, residents=residents, target=target, limit=limit)
    assert len(moves) <= limit
    after = assert_executable(bare, residents, moves)
    closed = opened(hosts) - opened(running(bare, after))
    assert sum(move.gain for move in moves) == closed
    assert closed >= sum(move.cost for move in moves)
    assert all(move.gain > 0 for move in moves)
    assert len({move.resident.item.key for move in moves}) == len(moves)
    turned = [
        host(
            each.name,
            *each.devices[::-1],
            cpu=each.cpu,
            memory=each.memory,
            slots=each.slots,
            tenants=each.tenants,
            closed=each.closed,
        )
        for each in reversed(hosts)
    ]
    shuffled = draw.sample(residents, len(residents))
    assert moves == transition(hosts=turned, residents=shuffled, target=target, limit=limit)


def test_it_goes_further_than_one_gpu_after_another() -> None:
    """Triplets: each GPU is filled to the last byte, and no GPU can be closed before others change places."""
    draw = random.Random(7)
    better = 0
    for _ in range(12):
        bare = [host("a", *(gpu(str(number), 100, capacity=100) for number in range(7)))]
        triplets = [sorted(draw.sample(range(1, 99), 2)) for _ in range(5)]
        sizes = [size for low, high in triplets for size in (low, high - low, 100 - high)]
        items = sorted(sizes, reverse=True)
        residents: list[Resident] = []
        room = [100] * 7
        for number, size in enumerate(items):
            device = next((each for each in range(7) if room[each] >= size and draw.random() < 0.6), None)
            if device is None:
                device = next(each for each in range(7) if room[each] >= size)
            room[device] -= size
            residents.append(resident(f"r{number:02}", size, f"a/{device}"))
        hosts = running(bare, residents)
        moves = transition(hosts=hosts, residents=residents, target=whole(bare, residents), limit=16)
        assert_executable(bare, residents, moves)
        greedy = consolidate(hosts=hosts, residents=residents, limit=16)
        better += sum(move.gain for move in moves) > sum(move.gain for move in greedy)
    assert better
