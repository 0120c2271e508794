"""Large replicas do not starve behind small ones: the rule of ageing, and room that is kept for somebody."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.unit.packing_builders import gpu, host, item, where
from tests.unit.test_packing_properties import chances, fleet, queue
from vrampack.errors import InvalidInputError
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.occupied import occupied
from vrampack.packing.problem import Criterion, Host, Item, Packing, Placement, Reason, Reservation, Spread

PATIENCE = 60
FEW = settings(max_examples=250, deadline=None)


def checked(hosts: list[Host], items: list[Item], reserve: tuple[Reservation, ...] = ()) -> Packing:
    packing = pack(hosts=hosts, items=items, patience=PATIENCE, reserve=reserve)
    assert violations(hosts=hosts, items=items, packing=packing, reserve=reserve) == []
    return packing


def order(packing: Packing) -> list[str]:
    return [placement.item.key for placement in packing.placed]


class TestOrder:
    hosts = (host("n", *(gpu(str(number), 48) for number in range(4))),)

    def test_the_aged_go_by_age_and_before_the_others(self) -> None:
        items = [item("large", 40), item("old", 1, waited=60), item("older", 2, waited=61), item("young", 9, waited=59)]
        assert order(checked(list(self.hosts), items)) == ["older", "old", "large", "young"]

    def test_priority_and_rank_come_before_age(self) -> None:
        items = [item("old", 1, waited=600), item("vip", 1, priority=1), item("rolling", 1, rank=0)]
        assert order(checked(list(self.hosts), items)) == ["vip", "rolling", "old"]

    def test_of_one_class_the_oldest_is_placed(self) -> None:
        items = [item(f"m-{age}", 30, group="ns/m", waited=age) for age in (5, 70, 20)]
        packing = pack(hosts=[host("n", gpu("0", 48), gpu("1", 48))], items=items)
        assert order(packing) == ["m-70", "m-20"]

    def test_the_oldest_that_is_left_is_older_than_all_others_that_are(self) -> None:
        """Of a class with an old and a young one the old one is placed; the other class is older than what is left."""
        items = [item(f"a-{age}", 30, group="ns/a", waited=age) for age in (500, 100)]
        items.append(item("b", 29, waited=300))
        packing = checked([host("n", gpu("0", 40, capacity=48))], items)
        assert order(packing) == ["a-500"]
        assert packing.reserved[0].item.key == "b"

    def test_without_patience_age_does_not_count(self) -> None:
        items = [item("large", 40), item("old", 1, waited=10**6)]
        assert order(pack(hosts=list(self.hosts), items=items)) == ["large", "old"]


class TestReservation:
    """Two GPUs in use; what needs a whole one waits for either to be given back."""

    hosts = (host("n", gpu("0", 20, tenants={"x"}), gpu("1", 30, tenants={"y"}), cpu=10),)
    large = item("large", 40, waited=PATIENCE, cpu=4)

    def test_is_the_place_of_which_the_fewest_bytes_are_missing(self) -> None:
        packing = checked(list(self.hosts), [self.large])
        assert packing.reserved == (Reservation(item=self.large, host="n", devices=("1",), short=10),)

    def test_keeps_younger_ones_away_and_says_so(self) -> None:
        packing = checked(list(self.hosts), [self.large, item("small", 25), item("tiny", 15)])
        assert where(packing) == {"tiny": "n/0"}
        large, small = packing.unplaced
        assert large.rejected == {Reason.INSUFFICIENT_GPU_MEMORY: 2}
        assert small.rejected == {Reason.INSUFFICIENT_GPU_MEMORY: 1, Reason.RESERVED: 1}

    def test_sets_its_share_of_the_host_aside(self) -> None:
        packing = checked(list(self.hosts), [self.large, item("greedy", 15, cpu=7), item("modest", 14, cpu=6)])
        assert where(packing) == {"modest": "n/0"}
        assert packing.unplaced[1].rejected[Reason.INSUFFICIENT_CPU] == 2

    def test_does_not_bind_a_higher_priority(self) -> None:
        packing = checked(list(self.hosts), [self.large, item("vip", 25, priority=1)])
        assert where(packing) == {"vip": "n/1"}
        assert packing.reserved[0].devices == ("0",)
        assert packing.reserved[0].short == 20

    def test_is_for_one_at_a_time(self) -> None:
        packing = checked(
            list(self.hosts), [self.large, item("second", 41, waited=PATIENCE - 1), item("b", 41, waited=60)]
        )
        assert [each.item.key for each in packing.reserved] == ["b"]

    def test_there_is_one_more_each_time_that_the_waiting_has_doubled(self) -> None:
        hosts = [host("n", *(gpu(str(number), 10 + number, tenants={"x"}) for number in range(5)))]
        for waited, places in ((60, 1), (119, 1), (120, 2), (239, 2), (240, 3), (10**9, 5)):
            packing = checked(hosts, [item("large", 40, waited=waited), item("small", 10)])
            assert [each.devices for each in packing.reserved] == [("4",), ("3",), ("2",), ("1",), ("0",)][:places]
            assert len(packing.placed) == (places < 5)

    def test_is_not_made_where_nothing_could_ever_take_it(self) -> None:
        assert checked(list(self.hosts), [item("huge", 49, waited=600)]).reserved == ()
        assert checked(list(self.hosts), [item("pair", 40, gpus=3, waited=600)]).reserved == ()

    def test_of_several_gpus_is_for_all_of_them(self) -> None:
        pair = item("pair", 40, gpus=2, waited=PATIENCE)
        packing = checked(list(self.hosts), [pair, item("small", 10)])
        assert packing.reserved == (Reservation(item=pair, host="n", devices=("0", "1"), short=20),)
        assert packing.placed == ()

    def test_of_who_must_be_alone_counts_all_that_must_leave(self) -> None:
        packing = checked(list(self.hosts), [item("alone", 10, exclusive=True, waited=PATIENCE)])
        assert (packing.reserved[0].devices, packing.reserved[0].short) == (("1",), 18)

    def test_hosts_that_lack_nothing_but_memory_come_first(self) -> None:
        hosts = [*self.hosts, host("m", gpu("0", 39, tenants={"z"}), cpu=1)]
        assert checked(hosts, [self.large]).reserved[0].host == "n"


class TestGiven:
    """Room that the caller keeps, as for who had others evicted."""

    hosts = TestReservation.hosts
    winner = item("winner", 25)
    kept = (Reservation(item=winner, host="n", devices=("0",)),)

    def test_the_rest_stays_open_to_its_item(self) -> None:
        packing = checked(list(self.hosts), [self.winner, item("other", 26)], self.kept)
        assert where(packing) == {"winner": "n/1"}
        assert packing.reserved == ()

    def test_is_taken_once_there_is_room(self) -> None:
        packing = checked([host("n", gpu("0", 25, tenants={"x"}), gpu("1", 26))], [self.winner], self.kept)
        assert where(packing) == {"winner": "n/0"}
        assert packing.placed[0].why is not None
        assert packing.placed[0].why.criterion is Criterion.RESERVED

    def test_is_kept_until_then(self) -> None:
        packing = checked([host("n", gpu("0", 20, tenants={"x"}))], [self.winner, item("other", 9)], self.kept)
        assert packing.placed == ()
        assert packing.reserved == (Reservation(item=self.winner, host="n", devices=("0",), short=5),)
        assert packing.unplaced[1].rejected == {Reason.RESERVED: 1}

    def test_comes_before_ranks_and_ages_of_its_priority_and_after_higher_ones(self) -> None:
        hosts = [host("n", gpu("0", 25, tenants={"x"}))]
        others = [item("rolling", 20, rank=0), item("old", 20, waited=600)]
        assert where(checked(hosts, [self.winner, *others], self.kept)) == {"winner": "n/0"}
        assert where(checked(hosts, [self.winner, item("vip", 20, priority=1)], self.kept)) == {"vip": "n/0"}

    def test_on_what_is_gone_is_none(self) -> None:
        for lost in ({"host": "m"}, {"devices": ("9",)}):
            kept = Reservation(**{"item": self.winner, "host": "n", "devices": ("0",), **lost})
            packing = checked([host("n", gpu("0", 20))], [self.winner, item("other", 9)], (kept,))
            assert where(packing) == {"other": "n/0"}

    @pytest.mark.parametrize("twice", [True, False])
    def test_is_for_one_of_the_items_and_once(self, twice: bool) -> None:
        with pytest.raises(InvalidInputError, match=r"reserve\.item"):
            pack(hosts=[], items=[self.winner] if twice else [], reserve=self.kept * 2)


def stream(*, patience: int | None, seed: int) -> Iterator[int | None]:
    """Small replicas come and go on a full fleet, one large one waits; yields when it is placed, None until then.

    Every small one stays for a while and another comes at once for each that leaves, so that without a rule some GPU
    has room for a small one at any time, and none ever for the large one.
    """
    draw = random.Random(seed)
    empty = [host(f"n{number}", gpu("0", 48), gpu("1", 48)) for number in range(2)]
    running: list[tuple[int, Placement]] = []
    large = item("large", 44)
    came = 0
    waiting: list[tuple[int, Item]] = []
    for now in range(0, 4000, 10):
        running = [(until, placement) for until, placement in running if until > now]
        while len(waiting) < 2:
            came += 1
            waiting.append((now, item(f"small-{came:05}", draw.randint(10, 14), spread=Spread.IGNORE)))
        hosts = list(occupied(empty, [placement for _, placement in running]))
        asked = [item(each.key, each.memory, spread=each.spread, waited=now - since) for since, each in waiting]
        if now >= 200:
            asked.append(item("large", large.memory, waited=now - 200))
        packing = pack(hosts=hosts, items=asked, patience=patience)
        assert violations(hosts=hosts, items=asked, packing=packing) == []
        if any(placement.item.key == "large" for placement in packing.placed):
            yield now
            return
        placed = {placement.item.key for placement in packing.placed}
        running += [(now + draw.randint(100, 400), placement) for placement in packing.placed]
        waiting = [each for each in waiting if each[1].key not in placed]
        yield None


@pytest.mark.parametrize("seed", range(3))
def test_a_large_one_is_placed_in_a_stream_of_small_ones(seed: int) -> None:
    *_, placed = stream(patience=PATIENCE, seed=seed)
    # At the latest when all have left that were there when it lost its patience.
    assert placed is not None
    assert placed <= 200 + PATIENCE + 10 + 400


def held_for_ever(passes: range) -> Iterator[bool]:
    """The nearest place lacks a byte for ever; on the other GPU two small replicas alternate, so that one is always
    there. Yields for each pass whether the large one is placed."""
    leaves = {"first": passes.start + 25, "second": passes.start + 50}
    for now in passes:
        leaves = {key: until for key, until in leaves.items() if until > now}
        busy = gpu("busy", 48 - 20 * len(leaves), tenants=set(leaves))
        hosts = [host("n", gpu("nearest", 39, tenants={"stays"}), busy)]
        packing = checked(hosts, [item("large", 40, waited=now), item(f"small-{now}", 20)])
        if any(placement.item.key == "large" for placement in packing.placed):
            yield True
            return
        leaves |= {placement.item.key: now + 50 for placement in packing.placed}
        yield False


def test_a_place_that_is_never_given_up_is_not_waited_for_alone() -> None:
    assert set(held_for_ever(range(PATIENCE, 2 * PATIENCE, 20))) == {False}
    *_, placed = held_for_ever(range(PATIENCE, 2 * PATIENCE + 60, 20))
    assert placed


@pytest.mark.parametrize("seed", range(3))
def test_without_the_rule_it_starves(seed: int) -> None:
    assert set(stream(patience=None, seed=seed)) == {None}


@FEW
@given(draw=chances)
def test_what_a_reservation_lacks_never_grows(draw: random.Random) -> None:
    """The reason why nobody starves: as claims end, the same item's place only ever comes nearer."""
    hosts = fleet(draw)
    # What a placed replica requires of spread is known to its own run only.
    items = [replace(each, spread=draw.choice([Spread.PREFER, Spread.IGNORE])) for each in queue(draw)]
    first = pack(hosts=hosts, items=items, patience=PATIENCE)
    if not first.reserved:
        return
    owner = first.reserved[0].item
    then = list(occupied(hosts, first.placed, first.cuts))
    order = [unplaced.item for unplaced in first.unplaced]
    again = pack(hosts=then, items=order[order.index(owner) :], patience=PATIENCE)
    if not any(placement.item == owner for placement in again.placed):
        assert again.reserved[0].item == owner
        assert again.reserved[0].short <= first.reserved[0].short
