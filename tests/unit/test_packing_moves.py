"""Moves of running replicas: what they gain, and that each of a list can be carried out after those before it."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.unit.packing_builders import gpu, host, item
from tests.unit.test_packing_properties import chances, fleet, queue
from vrampack.errors import InvalidInputError
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.moves import consolidate, room_for
from vrampack.packing.occupied import occupied
from vrampack.packing.problem import Host, Item, Move, Packing, Placement, Resident, Spread

FEW = settings(max_examples=200, deadline=None)


def resident(key: str, memory: int, at: str, *, movable: bool = True, **fields: object) -> Resident:
    """``at``: host/device, several devices joined by ``+``."""
    name, _, devices = at.partition("/")
    return Resident(item=item(key, memory, **fields), host=name, devices=tuple(devices.split("+")), movable=movable)


def running(hosts: Sequence[Host], residents: Sequence[Resident]) -> list[Host]:
    """``hosts`` with ``residents`` in place."""
    return list(occupied(hosts, [placement(each) for each in residents]))


def placement(each: Resident) -> Placement:
    return Placement(item=each.item, host=each.host, devices=each.devices)


def where(moves: Sequence[Move] | None) -> dict[str, str]:
    assert moves is not None
    return {move.resident.item.key: f"{move.host}/{'+'.join(move.devices)}" for move in moves}


class TestRoomFor:
    def test_nothing_moves_where_there_is_room(self) -> None:
        hosts = [host("a", gpu("0", 48))]
        assert room_for(hosts=hosts, residents=[], item=item("x", 40), limit=2) == ()

    def test_the_cheapest_that_makes_room_moves_to_where_the_least_is_left(self) -> None:
        bare = [host("a", gpu("0", 48), gpu("1", 48)), host("b", gpu("0", 48), gpu("1", 48))]
        residents = [
            resident("big", 30, "a/0"),
            resident("small", 10, "a/0"),
            resident("left", 34, "a/1"),
            resident("full", 40, "b/0"),
            resident("half", 30, "b/1"),
        ]
        hosts = running(bare, residents)
        moves = room_for(hosts=hosts, residents=residents, item=item("x", 18), limit=1)
        assert moves == ()  # b/1 has 18
        moves = room_for(hosts=hosts, residents=residents, item=item("x", 24), limit=1)
        assert moves is None
        moves = room_for(hosts=hosts, residents=residents, item=item("x", 38), limit=2)
        assert moves is None
        moves = room_for(hosts=hosts, residents=residents[:2] + residents[3:], item=item("x", 18), limit=0)
        assert moves == ()

    def test_one_move(self) -> None:
        bare = [host("a", gpu("0", 48), gpu("1", 48))]
        residents = [resident("one", 20, "a/0"), resident("two", 24, "a/1")]
        moves = room_for(hosts=running(bare, residents), residents=residents, item=item("x", 30), limit=1)
        assert where(moves) == {"one": "a/1"}
        assert moves is not None
        assert [(move.gain, move.cost) for move in moves] == [(30, 20)]

    def test_two_moves_where_one_does_not_suffice(self) -> None:
        bare = [host("a", gpu("0", 48), gpu("1", 48), gpu("2", 48))]
        residents = [
            resident("one", 14, "a/0"),
            resident("two", 16, "a/0"),
            resident("three", 30, "a/1"),
            resident("four", 33, "a/2"),
        ]
        hosts = running(bare, residents)
        assert room_for(hosts=hosts, residents=residents, item=item("x", 48), limit=1) is None
        moves = room_for(hosts=hosts, residents=residents, item=item("x", 48), limit=2)
        assert where(moves) == {"two": "a/1", "one": "a/2"}

    def test_what_may_not_be_moved_stays(self) -> None:
        bare = [host("a", gpu("0", 48), gpu("1", 48))]
        residents = [resident("one", 20, "a/0", movable=False), resident("two", 24, "a/1", movable=False)]
        hosts = running(bare, residents)
        assert room_for(hosts=hosts, residents=residents, item=item("x", 30), limit=2) is None

    def test_for_the_cpu_of_a_host(self) -> None:
        bare = [host("a", gpu("0", 48), cpu=8), host("b", gpu("0", 20), cpu=8)]
        residents = [resident("one", 10, "a/0", cpu=6)]
        hosts = running(bare, residents)
        moves = room_for(hosts=hosts, residents=residents, item=item("x", 30, cpu=4), limit=1)
        assert where(moves) == {"one": "b/0"}

    def test_for_two_gpus_at_once(self) -> None:
        bare = [host("a", gpu("0", 48), gpu("1", 48), gpu("2", 48))]
        residents = [resident("one", 20, "a/0"), resident("two", 24, "a/1")]
        hosts = running(bare, residents)
        moves = room_for(hosts=hosts, residents=residents, item=item("x", 40, gpus=2), limit=1)
        assert where(moves) == {"one": "a/1"}

    def test_for_an_exclusive_one_all_others_must_go(self) -> None:
        bare = [host("a", gpu("0", 48)), host("b", gpu("0", 48))]
        residents = [resident("one", 10, "a/0"), resident("two", 10, "a/0"), resident("three", 20, "b/0")]
        hosts = running(bare, residents)
        wanted = item("x", 20, exclusive=True)
        assert where(room_for(hosts=hosts, residents=residents, item=wanted, limit=1)) == {"three": "a/0"}

    def test_a_refused_host_is_none(self) -> None:
        bare = [host("a", gpu("0", 48)), host("b", gpu("0", 48))]
        residents = [resident("one", 20, "a/0"), resident("two", 24, "b/0")]
        hosts = running(bare, residents)
        wanted = replace(item("x", 30), refused={"a": "NodeAffinity"})
        assert where(room_for(hosts=hosts, residents=residents, item=wanted, limit=1)) == {"two": "a/0"}


class TestConsolidate:
    def test_a_device_that_is_hardly_used_is_closed(self) -> None:
        bare = [host("a", gpu("0", 48), gpu("1", 48))]
        residents = [resident("one", 20, "a/0"), resident("two", 24, "a/1")]
        moves = consolidate(hosts=running(bare, residents), residents=residents, limit=3)
        assert where(moves) == {"one": "a/1"}
        assert [(move.gain, move.cost) for move in moves] == [(48, 20)]

    def test_nothing_moves_to_an_empty_device_as_large(self) -> None:
        bare = [host("a", gpu("0", 48), gpu("1", 48), gpu("2", 48))]
        residents = [resident("one", 30, "a/0"), resident("two", 30, "a/1")]
        assert consolidate(hosts=running(bare, residents), residents=residents, limit=3) == ()

    def test_a_smaller_device_is_a_gain_where_it_is_worth_the_loading(self) -> None:
        bare = [host("a", gpu("0", 48)), host("b", gpu("0", 24, capacity=24))]
        residents = [resident("one", 20, "a/0")]
        moves = consolidate(hosts=running(bare, residents), residents=residents, limit=1)
        assert where(moves) == {"one": "b/0"}
        assert [(move.gain, move.cost) for move in moves] == [(24, 20)]
        residents = [resident("one", 20, "a/0")]
        bare = [host("a", gpu("0", 48)), host("b", gpu("0", 40, capacity=40))]
        assert consolidate(hosts=running(bare, residents), residents=residents, limit=1) == ()

    def test_the_limit_holds(self) -> None:
        bare = [host("a", *(gpu(str(number), 48) for number in range(4)))]
        residents = [resident(f"r{number}", 12, f"a/{number}") for number in range(4)]
        hosts = running(bare, residents)
        assert len(consolidate(hosts=hosts, residents=residents, limit=2)) == 2
        assert len(consolidate(hosts=hosts, residents=residents, limit=9)) == 3

    def test_a_device_with_a_claim_of_another_is_not_closed(self) -> None:
        bare = [host("a", gpu("0", 38, tenants={"ns/other"}), gpu("1", 48))]
        residents = [resident("one", 8, "a/0"), resident("two", 30, "a/1", movable=False)]
        assert consolidate(hosts=running(bare, residents), residents=residents, limit=3) == ()


def test_a_device_that_its_host_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"residents\[one\]\.devices: '7'"):
        consolidate(hosts=[host("a", gpu("0", 48))], residents=[resident("one", 20, "a/7")], limit=1)


def test_a_replica_that_comes_twice_is_refused() -> None:
    twice = [resident("one", 2, "a/0"), resident("one", 2, "a/0")]
    with pytest.raises(InvalidInputError, match="each replica is listed once"):
        consolidate(hosts=running([host("a", gpu("0", 48))], twice), residents=twice, limit=1)


# Foreign claims are of other groups than the replicas that run, as those are all the claims of theirs; and veto none.
FOREIGN = {"ns/c", "ns/d"}
OWN = {"ns/a", "ns/b"}


def world(draw: random.Random) -> tuple[list[Host], list[Resident], Item]:
    """Hosts without their replicas, the replicas, and one more that waits."""
    bare = [
        replace(
            host,
            tenants=host.tenants & FOREIGN,
            devices=tuple(
                replace(device, tenants=device.tenants & FOREIGN, avoided_by=frozenset(), layouts=(), exclusive=False)
                for device in host.devices
            ),
        )
        for host in fleet(draw)
    ]
    items = [replace(each, group=draw.choice(sorted(OWN))) for each in queue(draw)]
    placed = pack(hosts=bare, items=items).placed
    residents = [
        Resident(item=each.item, host=each.host, devices=each.devices, movable=draw.random() < 0.8)
        for each in placed
        if draw.random() < 0.7
    ]
    return bare, residents, replace(item("wanted", draw.randint(4, 32)), gpus=draw.choice([1, 1, 1, 2]))


def assert_executable(bare: Sequence[Host], residents: Sequence[Resident], moves: Sequence[Move]) -> list[Resident]:
    """Carries ``moves`` out one after another: the new claim is made while the old one stands."""
    now = {each.item.key: each for each in residents}
    for move in moves:
        old = now[move.resident.item.key]
        assert old == move.resident
        assert old.movable
        new = replace(old, host=move.host, devices=move.devices)
        second = replace(new, item=replace(new.item, key=f"{new.item.key} again"))
        assert_sound(bare, [*now.values(), second])
        now[old.item.key] = new
        assert_sound(bare, list(now.values()))
    return list(now.values())


def assert_sound(bare: Sequence[Host], residents: Sequence[Resident]) -> None:
    packing = Packing(placed=tuple(map(placement, residents)), unplaced=())
    # One domain of links is a wish, granted or not when a replica came; others have left since.
    bare = [replace(host, devices=tuple(replace(device, link=None) for device in host.devices)) for host in bare]
    assert violations(hosts=bare, items=[each.item for each in residents], packing=packing) == []


def opened(hosts: Sequence[Host]) -> int:
    return sum(device.capacity for host in hosts for device in host.devices if device.in_use)


@given(draw=chances)
@FEW
def test_moves_for_one_that_is_blocked_are_executable(draw: random.Random) -> None:
    bare, residents, wanted = world(draw)
    hosts = running(bare, residents)
    limit = draw.randint(0, 3)
    fits = bool(pack(hosts=hosts, items=[wanted]).placed)
    moves = room_for(hosts=hosts, residents=residents, item=wanted, limit=limit)
    assert (moves == ()) == fits
    if moves is not None:
        assert len(moves) <= limit
        after = assert_executable(bare, residents, moves)
        assert pack(hosts=running(bare, after), items=[wanted]).placed
        assert len({move.resident.item.key for move in moves}) == len(moves)
        assert not moves or sum(move.gain for move in moves) == wanted.gpus * wanted.memory
        assert all(move.cost == move.resident.item.gpus * move.resident.item.memory for move in moves)


@given(draw=chances)
@FEW
def test_consolidation_is_executable_and_opens_less(draw: random.Random) -> None:
    bare, residents, _ = world(draw)
    limit = draw.randint(0, 6)
    hosts = running(bare, residents)
    moves = consolidate(hosts=hosts, residents=residents, limit=limit)
    assert len(moves) <= limit
    after = assert_executable(bare, residents, moves)
    closed = opened(hosts) - opened(running(bare, after))
    assert sum(move.gain for move in moves) == closed
    assert closed >= sum(move.cost for move in moves)
    assert all(move.gain > 0 for move in moves)
    assert len({move.resident.item.key for move in moves}) == len(moves)


@given(draw=chances)
@FEW
def test_the_same_question_has_the_same_answer(draw: random.Random) -> None:
    bare, residents, wanted = world(draw)
    hosts = running(bare, residents)
    turned = [replace(each, devices=each.devices[::-1]) for each in reversed(hosts)]
    shuffled = draw.sample(residents, len(residents))
    assert room_for(hosts=hosts, residents=residents, item=wanted, limit=2) == room_for(
        hosts=turned, residents=shuffled, item=wanted, limit=2
    )
    assert consolidate(hosts=hosts, residents=residents, limit=4) == consolidate(
        hosts=turned, residents=shuffled, limit=4
    )


SPREAD = [host("a", gpu("0", 48), gpu("1", 48)), host("b", gpu("0", 48))]


@pytest.mark.parametrize(("spread", "expected"), [(Spread.PREFER, {}), (Spread.IGNORE, {"one": "a/1"})])
def test_replicas_that_would_rather_be_spread_are_not_brought_together(
    spread: Spread, expected: dict[str, str]
) -> None:
    residents = [
        resident("one", 10, "b/0", group="ns/m", spread=spread),
        resident("two", 20, "a/1", group="ns/m", spread=spread),
    ]
    moves = consolidate(hosts=running(SPREAD, residents), residents=residents, limit=4)
    assert where(moves) == expected
    apart = [*residents[:1], resident("other", 20, "a/1")]
    assert where(consolidate(hosts=running(SPREAD, apart), residents=apart, limit=4)) == {"one": "a/1"}


def test_gpus_of_one_replica_are_not_taken_from_their_fast_links() -> None:
    bare = [
        host("a", gpu("0", 48, link="x"), gpu("1", 48, link="x")),
        host("b", gpu("0", 48, link="x"), gpu("1", 48, link="y")),
    ]
    residents = [
        resident("wide", 10, "a/0+1", gpus=2),
        resident("left", 20, "b/0", movable=False),
        resident("right", 20, "b/1", movable=False),
    ]
    assert where(consolidate(hosts=running(bare, residents), residents=residents, limit=1)) == {}
