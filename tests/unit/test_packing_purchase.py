"""The cheapest set of hosts that holds all items."""

import random
from dataclasses import replace
from itertools import product

from hypothesis import given, settings

from tests.unit.packing_builders import gpu, host, item
from tests.unit.test_packing_properties import chances
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.problem import Item, Spread
from vrampack.packing.purchase import Offer, Purchase, hosts_of, purchases

SMALL = Offer(host=host("small", gpu("g0", 24, capacity=24)), price=10)
LARGE = Offer(host=host("large", gpu("g0", 80, capacity=80)), price=25)
WIDE = Offer(host=host("wide", *(gpu(f"g{index}", 80, capacity=80) for index in range(4))), price=90)


def best(items: list[Item], *offers: Offer) -> Purchase | None:
    *_, found = purchases(offers=offers, items=items)
    return found


def counts(items: list[Item], *offers: Offer) -> dict[str, int]:
    found = best(items, *offers)
    assert found is not None
    return dict(found.counts)


def test_one_large_one_is_cheaper_than_three_small_ones() -> None:
    assert counts([item(f"r{number}", 20) for number in range(4)], SMALL, LARGE) == {"large": 1}
    assert counts([item("r", 20)], SMALL, LARGE) == {"small": 1}


def test_what_is_left_over_goes_onto_a_small_one() -> None:
    assert counts([item(f"r{number}", 20) for number in range(5)], SMALL, LARGE) == {"large": 1, "small": 1}


def test_several_gpus_of_one_host_are_bought_with_their_host() -> None:
    assert counts([item("r", 70, gpus=2)], SMALL, LARGE, WIDE) == {"wide": 1}


def test_offers_that_an_item_refuses_do_not_hold_it() -> None:
    picky = item("r", 20, refused={"small": "NodeSelectorMismatch"})
    assert counts([picky], SMALL, LARGE) == {"large": 1}


def test_there_may_be_only_so_many() -> None:
    few = Offer(host=SMALL.host, price=SMALL.price, most=1)
    assert counts([item(f"r{number}", 20) for number in range(2)], few, LARGE) == {"large": 1}
    assert best([item(f"r{number}", 20) for number in range(2)], few) is None


def test_what_fits_nowhere_has_no_price() -> None:
    assert best([item("r", 100)], SMALL, LARGE, WIDE) is None


def test_what_is_proven_is_proven_of_prices_larger_than_a_float_holds() -> None:
    plain = 10**17
    found = best([item(f"r{number}", 24) for number in range(3)], replace(SMALL, price=plain + 1))
    assert found is not None
    assert found.price == found.least == 3 * (plain + 1)


def test_an_offer_of_any_number_is_not_tried_in_any_number() -> None:
    many = replace(SMALL, most=10**12)
    assert counts([item("r", 30)], many, LARGE) == {"large": 1}


def test_it_may_be_ended_between_any_two_packings() -> None:
    """The answer only ever gets better, and many steps lie between the first and the last of a larger question."""
    items = [item(f"r{number:02}", 4 + number) for number in range(40)]
    found = list(purchases(offers=(SMALL, LARGE, WIDE), items=items))
    prices = [each.price for each in found if each is not None]
    assert len(prices) > 20
    assert prices == sorted(prices, reverse=True)
    assert all(each is None for each in found[: len(found) - len(prices)])


@settings(max_examples=30, deadline=None)
@given(draw=chances)
def test_it_holds_everything_and_costs_no_less_than_the_bound_nor_the_optimum(draw: random.Random) -> None:
    items = [
        item(f"r{number}", draw.randint(4, 70), gpus=draw.choice([1, 1, 1, 2])) for number in range(draw.randint(1, 5))
    ]
    found = best(items, SMALL, LARGE, WIDE)
    assert found is not None
    bought = hosts_of(found.counts, (SMALL, LARGE, WIDE))
    assert violations(hosts=bought, items=items, packing=found.packing) == []
    cheapest = min(
        10 * small + 25 * large + 90 * wide
        for small, large, wide in product(range(6), range(6), range(3))
        if not pack(
            hosts=hosts_of({"small": small, "large": large, "wide": wide}, (SMALL, LARGE, WIDE)), items=items
        ).unplaced
    )
    assert found.least <= min(cheapest, found.price)


@settings(max_examples=200, deadline=None)
@given(draw=chances)
def test_of_single_gpus_the_bound_is_never_above_the_cheapest(draw: random.Random) -> None:
    sizes = [draw.randint(4, 70) for _ in range(draw.randint(1, 6))]
    items = [item(f"r{number}", size, spread=draw.choice(list(Spread)[::2])) for number, size in enumerate(sizes)]
    found = best(items, SMALL, LARGE)
    assert found is not None

    def cheapest(rest: list[int], bins: tuple[int, ...]) -> int:
        """Each size into each bin so far, or a new one."""
        if not rest:
            return sum(10 if total <= 24 else 25 for total in bins)
        first, *others = rest
        grown = [
            (*bins[:place], total + first, *bins[place + 1 :])
            for place, total in enumerate(bins)
            if total + first <= 80
        ]
        return min(cheapest(others, each) for each in (*grown, (*bins, first)))

    assert found.least <= cheapest(sizes, ()) <= found.price


def test_the_bound_knows_which_gpus_hold_what() -> None:
    """No two of them share a GPU, which the bytes alone do not tell."""
    found = best([item(f"r{number}", 50) for number in range(6)], SMALL, LARGE)
    assert found is not None
    assert (found.least, found.price) == (150, 150)
