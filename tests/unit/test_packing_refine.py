"""Refinement: never worse than its start, valid, decided by its input alone, and right where it says "proven"."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.packing_builders import gpu, host, item
from tests.unit.packing_optimum import least_unplaced_bytes, optimum
from tests.unit.test_packing_properties import fleet, queue
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.layouts import parts
from vrampack.packing.objective import cost
from vrampack.packing.problem import Bound, Criterion, Host, Item, Objective, Packing, Reservation, Spread, Work
from vrampack.packing.refine import Refined, bound, refine, refinements

LITTLE = Work(rounds=60, dives=3, nodes=60)
MANY = settings(max_examples=400, deadline=None)
FEW = settings(max_examples=150, deadline=None)
chances = st.randoms(use_true_random=True)


def refined(hosts: list[Host], items: list[Item], *, work: Work = LITTLE, seed: int = 0) -> Refined:
    start = pack(hosts=hosts, items=items)
    return refine(hosts=hosts, items=items, objective=Objective.FEWEST_GPUS, start=start, seed=seed, work=work)


@MANY
@given(draw=chances, objective=st.sampled_from(Objective))
def test_every_promise_is_kept_and_nothing_gets_worse(draw: random.Random, objective: Objective) -> None:
    hosts, items = fleet(draw), queue(draw)
    start = pack(hosts=hosts, items=items, objective=objective)
    found = refine(hosts=hosts, items=items, objective=objective, start=start, seed=0, work=LITTLE)
    assert violations(hosts=hosts, items=items, packing=found.packing) == []
    before = cost(hosts=hosts, packing=start, objective=objective)
    assert cost(hosts=hosts, packing=found.packing, objective=objective) <= before
    assert found.done.rounds <= LITTLE.rounds
    assert found.done.dives <= LITTLE.dives
    assert found.done.nodes <= LITTLE.nodes


@FEW
@given(draw=chances)
def test_the_order_of_the_input_does_not_matter(draw: random.Random) -> None:
    hosts, items = fleet(draw), queue(draw)
    mixed = [replace(host, devices=tuple(draw.sample(host.devices, len(host.devices)))) for host in hosts]
    again = refined(draw.sample(mixed, len(mixed)), draw.sample(items, len(items)))
    assert again == refined(hosts, items)


def small(draw: random.Random) -> tuple[list[Host], list[Item]]:
    """So little that everything can be tried."""
    size = draw.choice([16, 20, 24])
    hosts = [
        host(
            f"n{number}",
            *(
                gpu(
                    f"g{index}",
                    free,
                    capacity=size,
                    product=draw.choice(["A", "A", "B"]),
                    tenants=draw.choice([set(), set(), {"ns/x"}]),
                    slots=draw.choice([None, None, None, 2]),
                )
                for index in range(draw.randint(1, 3))
                for free in (draw.choice([size, size, draw.randint(0, size)]),)
            ),
            cpu=draw.choice([None, None, 4]),
        )
        for number in range(draw.randint(1, 2))
    ]
    classes = [
        item(
            "",
            draw.randint(1, 18),
            group=draw.choice(["ns/a", "ns/b", "ns/x"]),
            gpus=draw.choice([1, 1, 1, 2]),
            cpu=draw.choice([0, 1, 2]),
            exclusive=draw.random() < 0.1,
            products=draw.choice([None, None, {"A"}]),
            avoid=draw.choice([set(), set(), {"ns/a"}]),
            spread=draw.choice([Spread.IGNORE, Spread.IGNORE, Spread.REQUIRE]),
            priority=draw.choice([0, 0, 1]),
        )
        for _ in range(draw.randint(1, 3))
    ]
    return hosts, [replace(draw.choice(classes), key=f"r{number}") for number in range(draw.randint(1, 5))]


@settings(max_examples=1000, deadline=None)
@given(draw=chances)
def test_the_bound_is_never_above_the_optimum_and_a_proof_never_wrong(draw: random.Random) -> None:
    hosts, items = small(draw)
    found = refined(hosts, items)
    unplaced, opened = optimum(hosts, items)
    least = least_unplaced_bytes(hosts, items)
    assert found.bound.unplaced <= least
    reached = cost(hosts=hosts, packing=found.packing)
    assert (unplaced, opened) <= (reached.unplaced, reached.opened)
    if reached.unplaced == unplaced:
        assert found.bound.opened <= opened
    if found.bound.optimal:
        assert (reached.unplaced, reached.opened) == (unplaced, opened)
    cheap = bound(hosts=hosts, items=items, objective=Objective.FEWEST_GPUS, packing=found.packing)
    assert cheap.unplaced <= least
    if reached.unplaced == unplaced:
        assert cheap.opened <= opened
    if cheap.optimal:
        assert (reached.unplaced, reached.opened) == (unplaced, opened)


def cut_in_every_way(hosts: list[Host]) -> Iterator[list[Host]]:
    """The fleets that the layouts allow."""
    ways = [
        [
            replace(host, devices=tuple(part for pieces in choice for part in pieces))
            for choice in product(
                *(
                    [parts(device, layout) for layout in device.layouts] if device.layouts else [[device]]
                    for device in host.devices
                )
            )
        ]
        for host in hosts
    ]
    return (list(fleet) for fleet in product(*ways))


@settings(max_examples=300, deadline=None)
@given(draw=chances)
def test_with_layouts_the_bound_is_never_above_the_optimum_of_any_cut(draw: random.Random) -> None:
    layouts = draw.choice([((24,), (12, 12)), ((), (8, 8, 8), (16, 8)), ((16, 4), (10, 10))])
    hosts = [
        host(
            f"n{number}",
            gpu("cut", 24, capacity=24, layouts=layouts),
            *([gpu("g", 24, capacity=24)] if draw.random() < 0.5 else []),
        )
        for number in range(draw.randint(1, 2))
    ]
    items = [
        item(f"r{number}", draw.randint(2, 20), group=draw.choice(["ns/a", "ns/b"]), spread=Spread.IGNORE)
        for number in range(draw.randint(1, 4))
    ]
    found = refined(hosts, items)
    assert violations(hosts=hosts, items=items, packing=found.packing) == []
    unplaced, opened = min(optimum(fleet, items) for fleet in cut_in_every_way(hosts))
    assert found.bound.unplaced <= min(least_unplaced_bytes(fleet, items) for fleet in cut_in_every_way(hosts))
    reached = cost(hosts=hosts, packing=found.packing)
    assert (unplaced, opened) <= (reached.unplaced, reached.opened)
    if reached.unplaced == unplaced:
        assert found.bound.opened <= opened
    if found.bound.optimal:
        assert (reached.unplaced, reached.opened) == (unplaced, opened)


def test_layouts_are_chosen_for_all_replicas_together() -> None:
    layouts = ((24,), (12, 12), (8, 8, 8))
    hosts = [host("n", *(gpu(f"g{n}", 24, capacity=24, slots=1, layouts=layouts) for n in range(6)))]
    items = [item(f"a{n}", 24, spread=Spread.IGNORE) for n in range(2)]
    items += [item(f"b{n}", 12, spread=Spread.IGNORE) for n in range(4)]
    items += [item(f"c{n}", 8, spread=Spread.IGNORE) for n in range(6)]
    found = refined(hosts, items)
    assert violations(hosts=hosts, items=items, packing=found.packing) == []
    assert found.bound == Bound(opened=144, unplaced=0, optimal=True, relaxes=("replicas a GPU",))
    assert sorted(cut.layout for cut in found.packing.cuts) == sorted([*layouts, *layouts])


def equal_gpus(count: int, *, size: int = 1000) -> list[Host]:
    return [host(f"n{number:03}", *(gpu(f"g{g}", size, capacity=size) for g in range(4))) for number in range(count)]


def triplets(bins: int) -> list[Item]:
    """Three replicas to a GPU exactly, which first fit can't see."""
    draw = random.Random(bins)
    items = []
    for _ in range(bins):
        first = draw.randint(380, 490)
        second = draw.randint(250, (1000 - first) // 2)
        for size in (first, second, 1000 - first - second):
            items.append(item(f"r-{len(items):03}", size, spread=Spread.IGNORE))
    return items


def test_triplets_are_packed_into_the_optimum_and_that_is_proven() -> None:
    hosts, items = equal_gpus(15), triplets(20)
    found = refined(hosts, items, work=Work(rounds=400, dives=20, nodes=800))
    assert found.bound == Bound(opened=20_000, unplaced=0, optimal=True)
    assert cost(hosts=hosts, packing=found.packing).opened == 20_000
    assert {placement.why.criterion for placement in found.packing.placed if placement.why} == {Criterion.REFINED}


def test_a_proven_start_is_returned_as_it_is() -> None:
    hosts = equal_gpus(2)
    items = [item(f"r-{number}", 400) for number in range(4)]
    start = pack(hosts=hosts, items=[replace(each, spread=Spread.IGNORE) for each in items])
    asked = [placement.item for placement in start.placed]
    found = refine(hosts=hosts, items=asked, objective=Objective.FEWEST_GPUS, start=start, seed=0, work=LITTLE)
    assert found.packing is start
    assert found.bound.optimal
    assert found.done == Work(rounds=0, dives=0, nodes=0)


def test_replicas_with_several_gpus_share_hosts_with_others() -> None:
    """Each pair needs its two GPUs on one host; beside them is room for exactly one single each."""
    hosts = [host(f"n{n}", gpu("g0", 80, capacity=80), gpu("g1", 80, capacity=80)) for n in range(6)]
    items = [item(f"pair-{n}", 50, gpus=2, spread=Spread.IGNORE) for n in range(3)]
    items += [item(f"single-{n}", 30, spread=Spread.IGNORE) for n in range(6)]
    found = refined(hosts, items)
    assert violations(hosts=hosts, items=items, packing=found.packing) == []
    assert found.bound.optimal
    assert cost(hosts=hosts, packing=found.packing).gpus == 6


def test_a_wish_for_spread_is_not_traded_for_memory() -> None:
    hosts = [host(f"n{n}", gpu("g", 80, capacity=80)) for n in range(3)]
    items = [item(f"r{n}", 20, group="ns/a", spread=Spread.PREFER) for n in range(3)]
    found = refined(hosts, items)
    assert {placement.host for placement in found.packing.placed} == {"n0", "n1", "n2"}


def test_what_fits_on_no_gpu_does_not_hide_the_proof_for_the_rest() -> None:
    hosts = [host("n", gpu("g", 80, capacity=80))]
    items = [item("large", 100), item("small", 40)]
    found = refined(hosts, items)
    assert found.bound == Bound(opened=80, unplaced=100, optimal=True)
    assert [each.item.key for each in found.packing.unplaced] == ["large"]


def test_a_full_fleet_takes_more_than_first_fit_finds() -> None:
    hosts, items = equal_gpus(5), triplets(20)
    start = pack(hosts=hosts, items=items)
    found = refined(hosts, items, work=Work(rounds=400, dives=20, nodes=800))
    assert len(start.unplaced) > 0
    assert found.packing.unplaced == ()
    assert found.bound.unplaced == 0


def crowded() -> tuple[list[Host], list[Item]]:
    """One large replica, or three of three smaller ones."""
    hosts = [host("n", gpu("g", 30, capacity=30), gpu("h", 30, capacity=30))]
    items = [item("large", 30), item("a", 25), item("b", 16), item("c", 14)]
    return hosts, [replace(each, spread=Spread.IGNORE) for each in items]


@pytest.mark.parametrize(("keep", "rank"), [(("large",), 1), ((), 0)])
def test_who_is_to_be_kept_does_not_lose_its_place(keep: tuple[str, ...], rank: int) -> None:
    hosts, items = crowded()
    items[0] = replace(items[0], rank=rank)
    start = pack(hosts=hosts, items=items[:1])
    waiting = pack(hosts=[host("n")], items=items[1:]).unplaced
    start = replace(start, unplaced=waiting)
    found = refine(
        hosts=hosts, items=items, objective=Objective.FEWEST_GPUS, start=start, seed=0, work=LITTLE, keep=keep
    )
    assert "large" in {placement.item.key for placement in found.packing.placed}


def test_a_start_that_reserves_places_stays_as_it_is() -> None:
    hosts = [host("n", gpu("g", 30, capacity=40, tenants={"ns/x"}), gpu("h", 40, capacity=40))]
    items = [item("old", 41, waited=100), item("a", 20), item("b", 20)]
    start = pack(hosts=hosts, items=items, patience=50)
    kept = replace(start, reserved=(Reservation(item=items[0], host="n", devices=("h",)),))
    found = refine(hosts=hosts, items=items, objective=Objective.FEWEST_GPUS, start=kept, seed=0, work=LITTLE)
    assert found.packing is kept


def test_prices_decide_where_there_are_any() -> None:
    hosts = [
        host("dear", gpu("g", 80, capacity=80, price=10)),
        host("cheap", gpu("g", 80, capacity=80, price=3), gpu("h", 80, capacity=80, price=3)),
    ]
    items = [item(f"r{n}", 60, spread=Spread.IGNORE) for n in range(2)]
    found = refined(hosts, items)
    assert found.bound.opened == 6
    assert found.bound.optimal


def test_it_stops_between_steps_when_cancelled() -> None:
    hosts, items = equal_gpus(15), triplets(20)
    start = pack(hosts=hosts, items=items)
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    found = refine(
        hosts=hosts,
        items=items,
        objective=Objective.FEWEST_GPUS,
        start=start,
        seed=0,
        work=Work(rounds=1000, dives=100, nodes=1000),
        cancelled=cancelled,
    )
    assert 0 < found.done.rounds <= 3


def test_no_work_is_the_start_with_its_cheap_bound() -> None:
    hosts, items = equal_gpus(15), triplets(20)
    found = refined(hosts, items, work=Work(rounds=0, dives=0, nodes=0))
    assert found.packing == pack(hosts=hosts, items=items)
    assert found.bound.opened == 20_000
    assert not found.bound.optimal


def test_every_step_is_as_good_as_the_one_before() -> None:
    hosts, items = equal_gpus(15), triplets(20)
    steps = refinements(
        hosts=hosts,
        items=items,
        objective=Objective.FEWEST_GPUS,
        start=pack(hosts=hosts, items=items),
        seed=3,
        work=Work(rounds=200, dives=3, nodes=100),
    )
    costs = [cost(hosts=hosts, packing=step.packing) for step in steps]
    assert costs == sorted(costs, reverse=True)


def test_even_headroom_is_left_as_it_is() -> None:
    hosts, items = equal_gpus(2), triplets(2)
    start = pack(hosts=hosts, items=items, objective=Objective.BALANCED)
    found = refine(hosts=hosts, items=items, objective=Objective.BALANCED, start=start, seed=0, work=LITTLE)
    assert found.packing is start
    assert not found.bound.optimal


@pytest.mark.parametrize(
    ("hosts", "groups", "spread", "expected"),
    [
        (2, "xx", Spread.PREFER, ("the wish for spread",)),
        (2, "xx", Spread.REQUIRE, ("spread over nodes",)),
        (2, "xx", Spread.IGNORE, ()),
        (2, "xy", Spread.PREFER, ()),
        (1, "xx", Spread.PREFER, ()),
    ],
)
def test_the_bound_names_the_wish_for_spread_where_it_may_cost_something(
    hosts: int, groups: str, spread: Spread, expected: tuple[str, ...]
) -> None:
    fleet = [host(f"n{number}", gpu("g0", 48)) for number in range(hosts)]
    items = [item(f"{number}", 20, group=group, spread=spread) for number, group in enumerate(groups)]
    found = bound(hosts=fleet, items=items, objective=Objective.FEWEST_GPUS, packing=pack(hosts=fleet, items=items))
    assert found.relaxes == expected


def test_the_bound_names_what_it_does_not_know() -> None:
    hosts = [host("n", gpu("g0", 80, capacity=80), gpu("g1", 80, capacity=80), cpu=4, memory=8, slots=3)]
    items = [
        item("a", 10, gpus=2, cpu=1, host_memory=1, avoid={"ns/b"}),
        item("b", 10, spread=Spread.REQUIRE),
    ]
    start = pack(hosts=hosts, items=items)
    assert set(bound(hosts=hosts, items=items, objective=Objective.FEWEST_GPUS, packing=start).relaxes) == {
        "GPUs of one replica on one node",
        "CPU",
        "RAM",
        "replicas a node",
        "spread over nodes",
        "neighbours to be avoided",
    }


def test_an_empty_problem_is_solved() -> None:
    nothing = Packing(placed=(), unplaced=())
    found = refine(hosts=[], items=[], objective=Objective.FEWEST_GPUS, start=nothing, seed=0, work=LITTLE)
    assert found.packing == nothing
    assert found.bound == Bound(opened=0, unplaced=0, optimal=True)
