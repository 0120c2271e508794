"""Which GPU is filled: prices of shares, what free devices are worth, scarce products, and the rule made of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.packing_builders import gpu, host, item, where
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.fragmentation import LeastFragmentation, Worth, scarcity
from vrampack.packing.knapsack import filled
from vrampack.packing.mix import Typical, typical
from vrampack.packing.prices import share_prices
from vrampack.packing.problem import Criterion

FEW = settings(max_examples=100, deadline=None)


def mix(*classes: tuple[int, float]) -> tuple[Typical, ...]:
    """Classes of one GPU: bytes and weight."""
    return tuple(Typical(gpus=1, memory=memory, weight=weight) for memory, weight in classes)


class TestPrices:
    def test_halves_thirds_and_what_leaves_a_gap_that_nothing_fills(self) -> None:
        prices = share_prices(mix((500, 1), (320, 1), (810, 1)), {"a": 1000})
        assert prices == pytest.approx([500, 1000 / 3, 1000])

    def test_small_ones_are_free_while_there_are_gaps_for_all_of_them(self) -> None:
        assert share_prices(mix((810, 9), (160, 1)), {"a": 1000}) == pytest.approx([1000, 0])

    def test_and_cost_what_they_take_once_there_are_not(self) -> None:
        assert share_prices(mix((810, 1), (100, 9)), {"a": 1000}) == pytest.approx([900, 100])

    def test_the_product_on_which_it_opens_least_counts(self) -> None:
        assert share_prices(mix((60, 1)), {"large": 100, "small": 64}) == pytest.approx([64])
        only_large = replace(mix((60, 1))[0], products=frozenset({"large"}))
        assert share_prices([only_large], {"large": 100, "small": 64}) == pytest.approx([100])

    def test_what_no_product_admits_has_none(self) -> None:
        assert share_prices(mix((60, 1), (200, 1)), {"a": 100}) == pytest.approx([100, 0])
        assert share_prices([], {"a": 100}).size == 0

    @FEW
    @given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6, unique=True))
    def test_no_device_can_be_filled_with_more_than_it_costs(self, sizes: list[int]) -> None:
        prices = share_prices(mix(*((size, 1.0) for size in sizes)), {"a": 40})
        most = filled(sizes=np.array(sizes), values=prices.reshape(-1, 1), steps=40).best[40, 0]
        assert most == pytest.approx(40, abs=1e-4)


def test_equal_items_are_one_class_of_the_mix() -> None:
    items = [item("a", 10), item("b", 10), item("c", 10, cpu=2), item("d", 10, products={"H100"})]
    assert typical(items) == typical(items[::-1])
    assert sorted(each.weight for each in typical(items)) == [1.0, 1.0, 2.0]


class TestKnapsack:
    @FEW
    @given(
        pieces=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 9)), min_size=1, max_size=5),
        steps=st.integers(0, 30),
    )
    def test_it_is_the_best_of_all_fillings(self, pieces: list[tuple[int, int]], steps: int) -> None:
        best = [0] * (steps + 1)
        for room in range(1, steps + 1):
            offers = [best[room - size] + value for size, value in pieces if size <= room]
            best[room] = max([best[room - 1], *offers])
        sizes = np.array([size for size, _ in pieces])
        values = np.array([[float(value)] for _, value in pieces])
        found = filled(sizes=sizes, values=values, steps=steps)
        assert found.best[:, 0].tolist() == best
        parts = found.parts(steps, 0)
        assert sum(number * pieces[piece][0] for piece, number in parts.items()) <= steps
        assert sum(number * pieces[piece][1] for piece, number in parts.items()) == best[steps]


class TestScarcity:
    def test_what_all_can_use_is_not_scarce(self) -> None:
        assert scarcity(mix((10, 1)), {"a": 100, "b": 300}) == {"a": 0.0, "b": 0.0}

    def test_what_some_depend_on_is_scarcer_the_more_they_ask_for(self) -> None:
        def with_share(bound: float) -> float:
            classes = (replace(mix((10, bound))[0], products=frozenset({"a"})), *mix((10, 1 - bound)))
            found = scarcity(classes, {"a": 100, "b": 100})
            assert found["b"] == 0.0
            return found["a"]

        assert with_share(0.4) == 0.0  # the others leave it to them
        assert 0 < with_share(0.6) < with_share(0.7)

    def test_a_product_without_room_is_none(self) -> None:
        classes = (replace(mix((10, 1))[0], products=frozenset({"a"})), *mix((10, 1)))
        assert scarcity(classes, {"a": 0, "b": 100}) == {"a": 0.0, "b": 0.0}
        assert scarcity((), {"a": 5}) == {"a": 0.0}


class TestRule:
    def test_what_belongs_together_comes_together(self) -> None:
        """A gap of a third is left for a third, though best fit would break it."""
        classes = mix((470, 5), (320, 5))
        rule = LeastFragmentation(Worth(classes, {"L40S": 1000}))
        fleet = [
            host("n", gpu("0", 680, capacity=1000, tenants={"m/x"}), gpu("1", 530, capacity=1000, tenants={"m/y"}))
        ]
        third = pack(hosts=fleet, items=[item("x", 320)], rule=rule)
        assert where(third) == {"x": "n/0"}
        assert where(pack(hosts=fleet, items=[item("x", 320)])) == {"x": "n/1"}
        assert third.placed[0].why is not None
        assert third.placed[0].why.criterion is Criterion.LEAST_FRAGMENTATION
        assert where(pack(hosts=fleet, items=[item("x", 470)], rule=rule)) == {"x": "n/1"}

    def test_a_scarce_product_is_spared(self) -> None:
        classes = mix((10, 1))
        fleet = [host("n", gpu("0", 48), gpu("1", 48, product="H100"))]
        worth = Worth(classes, {"L40S": 48, "H100": 48})
        for scarce, chosen in (("L40S", "n/1"), ("H100", "n/0")):
            rule = LeastFragmentation(worth, scarce={scarce: 0.5})
            assert where(pack(hosts=fleet, items=[item("x", 10)], rule=rule)) == {"x": chosen}

    def test_gpus_are_not_left_without_the_cpu_that_their_replicas_need(self) -> None:
        classes = (Typical(gpus=1, memory=24, cpu=4, weight=1),)
        rule = LeastFragmentation(Worth(classes, {"L40S": 48}))
        fleet = [host("bare", gpu("0", 48), cpu=8), host("rich", gpu("0", 48), cpu=64)]
        assert where(pack(hosts=fleet, items=[item("x", 24, cpu=6)], rule=rule)) == {"x": "rich/0"}

    def test_a_product_of_which_the_mix_knows_nothing_comes_last(self) -> None:
        rule = LeastFragmentation(Worth(mix((10, 1)), {"H100": 48}))
        fleet = [host("n", gpu("0", 48), gpu("1", 48, product="H100"))]
        assert where(pack(hosts=fleet, items=[item("x", 10)], rule=rule)) == {"x": "n/1"}
        assert where(pack(hosts=fleet[:1], items=[item("x", 10, products={"L40S"})], rule=rule)) == {"x": "n/0"}

    @FEW
    @given(
        sizes=st.lists(st.integers(1, 48), max_size=12),
        free=st.lists(st.integers(0, 48), min_size=1, max_size=6),
        used_first=st.booleans(),
    )
    def test_it_never_changes_what_fits(self, sizes: list[int], free: list[int], used_first: bool) -> None:
        fleet = [host(f"n{number}", gpu("0", size), gpu("1", 48)) for number, size in enumerate(free)]
        items = [item(f"x{number}", size) for number, size in enumerate(sizes)]
        rule = LeastFragmentation(Worth(typical(items) or mix((1, 1)), {"L40S": 48}), used_first=used_first)
        packing = pack(hosts=fleet, items=items, rule=rule)
        assert violations(hosts=fleet, items=items, packing=packing) == []
        assert packing == pack(hosts=fleet[::-1], items=items[::-1], rule=rule)
