"""Which plan is taken where not everything fits, and what plans are judged by."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.packing_builders import gpu, host, item, where
from tests.unit.test_packing_properties import chances, fleet, queue
from vrampack.errors import InvalidInputError
from vrampack.packing.arrays import IntArray
from vrampack.packing.board import Board
from vrampack.packing.firstfit import pack
from vrampack.packing.objective import Cost, cost
from vrampack.packing.portfolio import Member, best_run
from vrampack.packing.problem import Criterion, Item, Objective, Spread, Why
from vrampack.packing.run import cost_of
from vrampack.packing.turn import in_turn

FEW = settings(max_examples=250, deadline=None)


class TestMembers:
    def test_first_fit_decreasing_is_taken_as_long_as_everything_fits(self) -> None:
        hosts = [host("n", gpu("small", 24, capacity=24), gpu("large", 80, capacity=80))]
        packing = pack(hosts=hosts, items=[item("a", 20), item("b", 30)])
        assert where(packing) == {"b": "n/large", "a": "n/large"}
        assert {placement.why.criterion for placement in packing.placed if placement.why} == {Criterion.FIRST_FIT}

    def test_the_tightest_gpu_takes_over_where_that_places_more(self) -> None:
        """First fit keeps to its turn though the third is the tightest by then, and is short of 5 at last."""
        gpus = [gpu(str(number), free, capacity=80, tenants={"x"}) for number, free in enumerate((20, 30, 60))]
        items = [item(name, memory) for name, memory in zip("abcde", (45, 25, 15, 10, 10), strict=True)]
        alone = pack(hosts=[host("n", *gpus)], items=items, members=[Member.FIRST_FIT_DECREASING])
        assert [waiting.item.key for waiting in alone.unplaced] == ["e"]
        packing = pack(hosts=[host("n", *gpus)], items=items)
        assert where(packing) == {"a": "n/2", "b": "n/1", "c": "n/2", "d": "n/0", "e": "n/0"}
        assert {placement.why.criterion for placement in packing.placed if placement.why} == {Criterion.TIGHTEST}

    def test_who_can_go_to_the_fewest_gpus_goes_first(self) -> None:
        """By size the pair is first, and takes the only GPUs on which the single ones of 70 fit: they are in use."""
        hosts = [
            host("a", *(gpu(str(number), 80, capacity=90, tenants={"x"}) for number in range(2))),
            host("b", *(gpu(str(number), 48) for number in range(2))),
        ]
        items = [item("pair", 40, gpus=2), item("one", 70), item("two", 70)]
        only_first = pack(hosts=hosts, items=items, members=[Member.FIRST_FIT_DECREASING])
        assert len(only_first.unplaced) == 2
        packing = pack(hosts=hosts, items=items)
        assert where(packing) == {"one": "a/0", "two": "a/1", "pair": "b/0+1"}

    def test_the_oldest_first_where_that_places_more(self) -> None:
        hosts = [host("n", gpu("0", 48))]
        items = [item("large", 40), *(item(f"small-{number}", 12, waited=9) for number in range(4))]
        assert len(pack(hosts=hosts, items=items).placed) == 4

    def test_priority_comes_before_numbers(self) -> None:
        hosts = [host("n", gpu("0", 48))]
        items = [item("large", 40, priority=1), *(item(f"small-{number}", 12, waited=9) for number in range(4))]
        assert where(pack(hosts=hosts, items=items)) == {"large": "n/0"}

    @FEW
    @given(draw=chances, objective=st.sampled_from(Objective))
    def test_no_member_alone_is_better(self, draw: random.Random, objective: Objective) -> None:
        hosts, items = fleet(draw), queue(draw)
        board, lots = Board(hosts), in_turn(items)
        best = cost_of(best_run(board, lots, objective), board, objective)
        first, *others = Member
        if best_run(board, lots, objective).complete:  # the members after it were not asked
            others.clear()
        alone = best_run(board, lots, objective, members=[first])
        assert best <= cost_of(alone, board, objective)
        if not alone.complete:
            for member in others:
                assert best <= cost_of(best_run(board, lots, objective, members=[first, member]), board, objective)


class TestRule:
    class Emptiest:
        """The other way round: a rule of the caller's own."""

        criterion = Criterion.LEAST_FRAGMENTATION
        orders_empty = True

        def order(self, board: Board, item: Item, rows: IntArray) -> IntArray:
            return rows[(-board.free[rows]).argsort(kind="stable")]

    def test_decides_which_gpu_is_filled(self) -> None:
        hosts = [host("n", gpu("used", 20, tenants={"x"}), gpu("empty", 48))]
        packing = pack(hosts=hosts, items=[item("a", 10)], rule=self.Emptiest())
        assert where(packing) == {"a": "n/empty"}
        assert packing.placed[0].why == Why(criterion=Criterion.LEAST_FRAGMENTATION, fits=2, left=38, opened=1)


class TestWhy:
    def test_says_how_many_fit_what_is_left_and_what_was_opened(self) -> None:
        hosts = [host("n", gpu("0", 20, tenants={"x"}), gpu("1", 48), gpu("2", 5))]
        items = [item(f"m-{number}", 9, group="ns/m", spread=Spread.IGNORE) for number in range(3)]
        packing = pack(hosts=hosts, items=items)
        assert [placement.why for placement in packing.placed] == [
            Why(criterion=Criterion.FIRST_FIT, fits=2, left=11, opened=0),
            Why(criterion=Criterion.FIRST_FIT, fits=2, left=2, opened=0),
            Why(criterion=Criterion.FIRST_FIT, fits=2, left=39, opened=1),
        ]

    def test_of_several_gpus_is_of_the_fullest(self) -> None:
        packing = pack(hosts=[host("n", gpu("0", 20, tenants={"x"}), gpu("1", 48))], items=[item("tp", 9, gpus=2)])
        assert packing.placed[0].why == Why(criterion=Criterion.FIRST_FIT, fits=2, left=11, opened=1)

    def test_balanced_goes_by_what_is_free(self) -> None:
        hosts = [host("n", gpu("0", 20), gpu("1", 48))]
        packing = pack(hosts=hosts, items=[item("a", 9)], objective=Objective.BALANCED)
        assert packing.placed[0].why == Why(criterion=Criterion.MOST_FREE, fits=2, left=39, opened=1)


class TestCost:
    hosts = (host("n", gpu("0", 20, tenants={"x"}), gpu("1", 48), gpu("2", 48)),)

    def spent(self, *items: Item, objective: Objective = Objective.FEWEST_GPUS) -> Cost:
        packing = pack(hosts=self.hosts, items=items, objective=objective)
        return cost(hosts=self.hosts, packing=packing, objective=objective, moves=3)

    def test_is_in_this_order(self) -> None:
        high, low = item("high", 49, priority=2), item("low", 50, gpus=2)
        assert self.spent(item("a", 40), high, low) == Cost(unplaced=((1, 49), (1, 100)), opened=48, gpus=1, moves=3)
        ladder = [
            Cost(unplaced=((0, 0), (5, 9)), opened=9, gpus=9, moves=9),
            Cost(unplaced=((1, 1), (0, 0)), opened=0, gpus=0, moves=0),
            Cost(unplaced=((1, 2), (0, 0)), opened=0, gpus=0, moves=0),
            Cost(unplaced=((1, 2), (0, 0)), opened=1, gpus=0, moves=0),
            Cost(unplaced=((1, 2), (0, 0)), opened=1, gpus=1, moves=0),
            Cost(unplaced=((1, 2), (0, 0)), opened=1, gpus=1, moves=1),
        ]
        assert sorted(ladder, reverse=True) == ladder[::-1]

    def test_what_was_in_use_before_costs_nothing(self) -> None:
        assert (self.spent(item("a", 20)).opened, self.spent(item("a", 20)).gpus) == (0, 0)

    def test_a_price_stands_for_the_memory(self) -> None:
        hosts = [host("n", gpu("0", 48, price=7), gpu("1", 48, price=5))]
        assert cost(hosts=hosts, packing=pack(hosts=hosts, items=[item("a", 1)])).opened == 5

    def test_all_have_a_price_or_none_has(self) -> None:
        hosts = [host("n", gpu("0", 48, price=7), gpu("1", 48))]
        with pytest.raises(InvalidInputError, match=r"hosts\[n\]\.devices\[1\]\.price"):
            pack(hosts=hosts, items=[])
        with pytest.raises(InvalidInputError, match=r"hosts\[n\]\.devices\[1\]\.price"):
            cost(hosts=hosts, packing=pack(hosts=[], items=[]))

    def test_balanced_is_the_squares_of_what_is_in_use(self) -> None:
        hosts = [host("n", gpu("0", 36), gpu("1", 48))]
        packing = pack(hosts=hosts, items=[item("a", 24)], objective=Objective.BALANCED)
        assert (
            cost(hosts=hosts, packing=packing, objective=Objective.BALANCED).opened == (1 << 20) // 4 + (1 << 20) // 16
        )

    @FEW
    @given(draw=chances, objective=st.sampled_from(Objective))
    def test_is_the_same_from_the_arrays(self, draw: random.Random, objective: Objective) -> None:
        hosts, items = fleet(draw), queue(draw)
        board = Board(hosts)
        from_arrays = cost_of(best_run(board, in_turn(items), objective), board, objective)
        assert from_arrays == cost(
            hosts=hosts, packing=pack(hosts=hosts, items=items, objective=objective), objective=objective
        )
