"""Which empty GPUs are opened: what a byte in use costs decides, with what is still to come in mind."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings

from tests.unit.packing_builders import gpu, host, item, where
from tests.unit.test_packing_properties import chances, fleet, queue
from vrampack.packing.board import Board
from vrampack.packing.firstfit import pack
from vrampack.packing.objective import cost
from vrampack.packing.opening import Opening
from vrampack.packing.portfolio import Member
from vrampack.packing.problem import Host, Item, Spread
from vrampack.packing.turn import in_turn


def fresh(**sizes: int) -> list[Host]:
    """Two nodes with four empty GPUs for each name, of this size."""
    return [
        host(f"{name}-{number}", *(gpu(str(index), size, capacity=size, product=name) for index in range(4)))
        for name, size in sizes.items()
        for number in range(2)
    ]


def alike(count: int, memory: int, **fields: object) -> list[Item]:
    return [item(f"m-{number}", memory, group="ns/m", spread=Spread.IGNORE, **fields) for number in range(count)]


@pytest.mark.parametrize(
    ("items", "opened"),
    [
        (alike(1, 20), 24),
        (alike(3, 20), 24 + 48),
        (alike(4, 20), 80),
        (alike(5, 20), 80 + 24),
        (alike(10, 45), 10 * 48 - 2 * 48 + 2 * 80),
        ([*alike(4, 45), *(item(f"small-{number}", 7, spread=Spread.IGNORE) for number in range(20))], 4 * 80),
        (alike(2, 20, exclusive=True), 2 * 24),
        (alike(1, 20, gpus=2), 2 * 24),
        (alike(1, 20, products={"h100"}), 80),
    ],
    ids=[
        "one: the one that is just large enough",
        "three: none is left half empty",
        "four: the one that they fill",
        "five: the last one by itself",
        "nothing to put beside them: the size of which the least is left over, as long as there are any",
        "much to put beside them: the large ones",
        "nobody may be beside them",
        "several GPUs",
        "one product only",
    ],
)
def test_what_is_opened(items: Sequence[Item], opened: int) -> None:
    hosts = fresh(l4=24, l40s=48, h100=80)
    assert cost(hosts=hosts, packing=pack(hosts=hosts, items=items)).opened == opened


def test_a_price_stands_for_the_memory() -> None:
    hosts = [host("n", gpu("large-and-cheap", 80, capacity=80, price=3), gpu("small-and-dear", 48, price=4))]
    assert where(pack(hosts=hosts, items=[item("a", 20)])) == {"a": "n/large-and-cheap"}


def test_what_gaps_wait_for_does_not_fill_another_gpu() -> None:
    """The second 45 could have the 80 for itself and the small ones; but those have a place already."""
    hosts = [host("used", gpu("0", 32, capacity=80, tenants={"x"})), *fresh(l40s=48, h100=80)]
    items = [item("large", 45), *(item(f"small-{number}", 16, spread=Spread.IGNORE) for number in range(2))]
    assert where(pack(hosts=hosts, items=items)) == {"large": "l40s-0/0", "small-0": "used/0", "small-1": "used/0"}


def test_one_that_asks_for_more_than_there_is_anywhere_disturbs_nobody() -> None:
    absurd = [item(f"absurd-{number}", (1 << 62) - 1, gpus=8) for number in range(3)]
    packing = pack(hosts=fresh(l4=24, h100=80), items=[*absurd, item("a", 20), item("b", 70)])
    assert where(packing) == {"a": "l4-0/0", "b": "h100-0/0"}


@settings(max_examples=200, deadline=None)
@given(draw=chances)
def test_all_devices_are_offered_once(draw: random.Random) -> None:
    hosts, items = fleet(draw), queue(draw)
    board, lots = Board(hosts), in_turn(items)
    opening = Opening(board, lots)
    empty = board.turn[~board.in_use[board.turn]]
    for lot in lots:
        if lot.item.gpus and len(empty):
            most = board.room.clip(0)
            parts = opening.order(board, lot.item, empty, count=len(lot.items), most=most)
            assert sorted(row for part in parts for row in part.tolist()) == sorted(empty.tolist())


@settings(max_examples=200, deadline=None)
@given(draw=chances)
def test_a_single_item_opens_what_costs_least(draw: random.Random) -> None:
    sizes = {f"p{number}": draw.randint(10, 100) for number in range(draw.randint(1, 4))}
    hosts, one = fresh(**sizes), item("one", draw.randint(1, 100))
    packing = pack(hosts=hosts, items=[one], members=[Member.FIRST_FIT_DECREASING])
    able = [size for size in sizes.values() if size >= one.memory]
    assert cost(hosts=hosts, packing=packing).opened == min(able, default=0)
