"""Which GPU to fill, told in no time: the one on which the least becomes useless to what is typical."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.packing_builders import gpu, host, item, where
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.fragments import FewestFragments
from vrampack.packing.mix import Typical, typical
from vrampack.packing.problem import Criterion, Host, Item


def mix(*classes: tuple[int, float]) -> tuple[Typical, ...]:
    return tuple(Typical(gpus=1, memory=memory, weight=weight) for memory, weight in classes)


def chosen(rule: FewestFragments, hosts: list[Host], memory: int, **fields: object) -> str:
    packing = pack(hosts=hosts, items=[item("x", memory, **fields)], rule=rule)
    assert packing.placed[0].why is not None
    assert packing.placed[0].why.criterion is Criterion.LEAST_FRAGMENTATION
    return where(packing)["x"]


USED = {"tenants": {"m/y"}}


@pytest.mark.parametrize(
    ("classes", "free", "memory", "expected"),
    [
        pytest.param(((16, 3), (30, 1)), (31, 46), 16, "n/1", id="the one large gap is left for a large one"),
        pytest.param(((16, 3),), (33, 46), 16, "n/0", id="17 left take another one, and so do 30: the tighter of both"),
        pytest.param(((16, 3), (10, 3)), (20, 33), 16, "n/1", id="4 left are of no use, 17 are"),
        pytest.param(((16, 1),), (16, 40), 16, "n/0", id="what is filled up leaves nothing"),
        pytest.param(((40, 1),), (30, 20), 10, "n/1", id="of two that are useless anyway the tighter one"),
    ],
)
def test_the_gpu_on_which_the_least_becomes_useless(
    classes: tuple[tuple[int, float], ...], free: tuple[int, int], memory: int, expected: str
) -> None:
    there = [host("n", *(gpu(str(number), size, **USED) for number, size in enumerate(free)))]
    assert chosen(FewestFragments(mix(*classes)), there, memory) == expected


def test_gpus_in_use_come_before_empty_ones() -> None:
    there = [host("n", gpu("0", 48), gpu("1", 20, **USED))]
    assert chosen(FewestFragments(mix((20, 1), (10, 1))), there, 10) == "n/1"


def test_a_product_that_others_depend_on_is_spared() -> None:
    """Who may go anywhere takes what the fewest can use."""
    choosy = replace(mix((20, 1))[0], products=frozenset({"H100"}))
    there = [host("n", gpu("0", 48, product="H100"), gpu("1", 48))]
    assert chosen(FewestFragments((*mix((20, 1)), choosy)), there, 20) == "n/1"


def test_of_an_exclusive_one_and_of_the_last_slot_all_that_is_left_is_useless() -> None:
    rule = FewestFragments(mix((10, 1)))
    assert chosen(rule, [host("n", gpu("0", 48), gpu("1", 24, capacity=24))], 10, exclusive=True) == "n/1"
    slots = [host("n", gpu("0", 48, slots=1, **USED), gpu("1", 30, slots=5, **USED))]
    assert chosen(rule, slots, 10) == "n/1"


def test_with_prices_the_cheapest_bytes_come_first() -> None:
    there = [host("n", gpu("0", 48, price=480), gpu("1", 80, capacity=80, product="H100", price=2400))]
    assert chosen(FewestFragments(mix((8, 1))), there, 8) == "n/0"
    dear = [replace(there[0], devices=(replace(there[0].devices[0], price=4800), there[0].devices[1]))]
    assert chosen(FewestFragments(mix((8, 1))), dear, 8) == "n/1"


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 48), max_size=10),
    free=st.lists(st.integers(0, 48), min_size=1, max_size=6),
    used=st.integers(0, 63),
)
def test_it_never_changes_what_is_right_and_knows_no_order(sizes: list[int], free: list[int], used: int) -> None:
    fleet = [
        host(f"n{number}", gpu("0", size, tenants={"m/y"} if used >> number & 1 else set()), gpu("1", 48))
        for number, size in enumerate(free)
    ]
    items = [item(f"x{number}", size) for number, size in enumerate(sizes)]
    rule = FewestFragments(typical(items))
    packing = pack(hosts=fleet, items=items, rule=rule)
    assert violations(hosts=fleet, items=items, packing=packing) == []
    assert packing == pack(hosts=fleet[::-1], items=items[::-1], rule=FewestFragments(typical(items[::-1])))
    if len(items) == 1 and packing.placed:
        (placement,) = packing.placed
        assert placement.why is not None
        assert not placement.why.opened or not _fits_in_use(fleet, items[0])


def _fits_in_use(fleet: list[Host], asked: Item) -> bool:
    return any(device.in_use and device.free >= asked.memory for each in fleet for device in each.devices)


def test_without_a_mix_it_is_the_tightest() -> None:
    there = [host("n", gpu("0", 40, **USED), gpu("1", 30, **USED))]
    assert chosen(FewestFragments(()), there, 10) == "n/1"
