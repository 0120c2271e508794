"""What holds of every packing: constraints, determinism, reasons, and how far from the optimum it can be."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.packing_builders import gpu, host, item
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.problem import Device, Host, Item, Objective, Packing, Reason, Reservation, Spread

GROUPS = ["ns/a", "ns/b", "ns/c", "ns/d"]
PRODUCTS = ["L40S", "H100"]
FEW = settings(max_examples=250, deadline=None)

# Uniform draws: with its own draws Hypothesis likes extremes, and then next to nothing is ever placed.
chances = st.randoms(use_true_random=True)


def fleet(draw: random.Random) -> list[Host]:
    """Up to five nodes of up to five GPUs on which most things are allowed."""
    return [
        Host(
            name=f"node-{number}",
            devices=tuple(device(draw, f"gpu-{index}") for index in range(draw.randint(0, 5))),
            cpu=draw.choice([None, None, None, draw.randint(-1, 8)]),
            memory=draw.choice([None, None, None, draw.randint(-1, 8)]),
            slots=draw.choice([None, None, None, draw.randint(0, 5)]),
            tenants=groups(draw, one_in=6),
            closed=draw.choice([None] * 9 + ["NodeNotReady"]),
        )
        for number in range(draw.randint(0, 5))
    ]


def device(draw: random.Random, name: str) -> Device:
    capacity = draw.choice([16, 24, 32])
    if draw.random() < 0.08:
        return Device(
            id=name,
            product="H100",
            capacity=24,
            free=24,
            layouts=draw.choice([((24,), (12, 12), (12, 6, 6)), ((), (8, 8))]),
        )
    return Device(
        id=name,
        product=draw.choice(PRODUCTS),
        capacity=capacity,
        free=draw.choice([capacity, capacity, draw.randint(-2, capacity)]),
        tenants=groups(draw, one_in=3),
        avoided_by=groups(draw, one_in=8),
        exclusive=draw.random() < 0.1,
        closed=draw.choice([None] * 9 + ["Cordoned"]),
        slots=draw.choice([None] * 4 + [draw.randint(0, 3)]),
        link=draw.choice([None, None, "0", "1"]),
        slice_of=draw.choice([None] * 9 + ["gpu"]),
    )


def groups(draw: random.Random, *, one_in: int) -> frozenset[str]:
    return frozenset(draw.sample(GROUPS, draw.randint(1, 2))) if draw.randrange(one_in) == 0 else frozenset()


def queue(draw: random.Random) -> list[Item]:
    """Up to 20 replicas of up to five classes."""
    classes = [
        Item(
            key="",
            group=draw.choice(GROUPS),
            gpus=draw.choice([0, 1, 1, 1, 1, 1, 2, 2, 3]),
            memory=draw.randint(0, 20),
            cpu=draw.randint(0, 2),
            host_memory=draw.randint(0, 2),
            exclusive=draw.random() < 0.1,
            products=draw.choice([None, None, None, frozenset({"H100"})]),
            avoid=groups(draw, one_in=4),
            spread=draw.choice(list(Spread)),
            priority=draw.randint(0, 1),
            rank=draw.randint(0, 1),
            refused=draw.choice([{}, {}, {}, {"node-0": "UntoleratedTaint"}]),
            waited=draw.choice([0, 0, 50, 100, 200]),
        )
        for _ in range(draw.randint(1, 5))
    ]
    return [replace(draw.choice(classes), key=f"r-{number}") for number in range(draw.randint(0, 20))]


def reservation(draw: random.Random, hosts: list[Host], item: Item) -> Reservation:
    """Room that the caller keeps for a replica; as many devices as it needs, or as the node has."""
    host = draw.choice(hosts)
    names = [device.id for device in draw.sample(host.devices, min(item.gpus, len(host.devices)))]
    return Reservation(item=item, host=host.name, devices=tuple(names))


@FEW
@given(draw=chances, objective=st.sampled_from(Objective), patience=st.sampled_from([None, 60]))
def test_every_promise_is_kept(draw: random.Random, objective: Objective, patience: int | None) -> None:
    hosts, items = fleet(draw), queue(draw)
    reserve = [reservation(draw, hosts, item) for item in items[:2] if draw.random() < 0.3 and hosts]
    packing = pack(hosts=hosts, items=items, objective=objective, patience=patience, reserve=reserve)
    assert violations(hosts=hosts, items=items, packing=packing, reserve=reserve) == []


@FEW
@given(draw=chances, objective=st.sampled_from(Objective))
def test_the_order_of_the_input_does_not_matter(draw: random.Random, objective: Objective) -> None:
    hosts, items = fleet(draw), queue(draw)
    mixed = [replace(host, devices=tuple(draw.sample(host.devices, len(host.devices)))) for host in hosts]
    again = pack(hosts=draw.sample(mixed, len(mixed)), items=draw.sample(items, len(items)), objective=objective)
    assert again == pack(hosts=hosts, items=items, objective=objective)


@FEW
@given(draw=chances)
def test_the_shortfall_is_exactly_what_was_missing(draw: random.Random) -> None:
    hosts, items = [whole(host) for host in fleet(draw)], queue(draw)
    packing = pack(hosts=hosts, items=items)
    for unplaced in packing.unplaced:
        waiting, closest = unplaced.item, unplaced.closest
        if closest is None:
            assert not fits_with(waiting, extra=10**6, hosts=hosts, packing=packing)
        else:
            assert fits_with(waiting, extra=closest.short, hosts=hosts, packing=packing)
            assert not fits_with(waiting, extra=closest.short - 1, hosts=hosts, packing=packing)


def fits_with(waiting: Item, *, extra: int, hosts: list[Host], packing: Packing) -> bool:
    """Whether ``waiting`` finds its devices behind all that were placed, once each GPU has ``extra`` bytes more."""
    roomier = [
        replace(host, devices=tuple(replace(device, free=device.free + extra) for device in host.devices))
        for host in booked(hosts, packing)
    ]
    alone = {
        (placement.host, placement.item.group)
        for placement in packing.placed
        if placement.item.spread is Spread.REQUIRE
    }
    crowded = {host: "SpreadRequired" for host, group in alone if group == waiting.group}
    return bool(pack(hosts=roomier, items=[replace(waiting, refused={**crowded, **waiting.refused})]).placed)


def whole(host: Host) -> Host:
    """The host without devices that may still be cut: bytes can't be added to slices that do not exist."""
    return replace(host, devices=tuple(device for device in host.devices if not device.layouts))


def booked(hosts: list[Host], packing: Packing) -> list[Host]:
    """The hosts with one placement after another booked on them."""
    state = {host.name: host for host in hosts}
    for placement in packing.placed:
        before, guest = state[placement.host], placement.item
        state[before.name] = replace(
            before,
            cpu=None if before.cpu is None else before.cpu - guest.cpu,
            memory=None if before.memory is None else before.memory - guest.host_memory,
            slots=None if before.slots is None else before.slots - 1,
            tenants=before.tenants | {guest.group},
            devices=tuple(
                replace(
                    device,
                    free=device.free - guest.memory,
                    tenants=device.tenants | {guest.group},
                    avoided_by=device.avoided_by | guest.avoid,
                    exclusive=device.exclusive or guest.exclusive,
                    slots=None if device.slots is None else device.slots - 1,
                )
                if device.id in placement.devices
                else device
                for device in before.devices
            ),
        )
    return list(state.values())


def identical_bins(*, size: int, count: int, per_host: int) -> list[Host]:
    return [
        host(f"n{number:03}", *(gpu(f"g{index}", size, capacity=size) for index in range(per_host)))
        for number in range(-(-count // per_host))
    ]


def opened(packing: Packing) -> int:
    return len({(placement.host, device) for placement in packing.placed for device in placement.devices})


def textbook(sizes: list[int], size: int) -> int:
    """Bins that first-fit decreasing opens, as the textbook has it."""
    bins: list[int] = []
    for need in sorted(sizes, reverse=True):
        place = next((number for number, free in enumerate(bins) if free >= need), None)
        if place is None:
            bins.append(size - need)
        else:
            bins[place] -= need
    return len(bins)


def optimum(sizes: list[int], size: int) -> int:
    """The fewest bins, by trying everything: each item into each different bin so far, or a new one."""

    def best(rest: list[int], bins: tuple[int, ...], bound: int) -> int:
        if len(bins) >= bound:
            return bound
        if not rest:
            return len(bins)
        for free in sorted({free for free in bins if free >= rest[0]}):
            place = bins.index(free)
            bound = best(rest[1:], (*bins[:place], free - rest[0], *bins[place + 1 :]), bound)
        return best(rest[1:], (*bins, size - rest[0]), bound)

    return best(sorted(sizes, reverse=True), (), len(sizes) + 1)


@FEW
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=9), per_host=st.sampled_from([1, 4]))
def test_it_is_first_fit_decreasing_within_its_bound_of_the_optimum(sizes: list[int], per_host: int) -> None:
    items = [item(f"r-{number}", need, spread=Spread.IGNORE) for number, need in enumerate(sizes)]
    packing = pack(hosts=identical_bins(size=30, count=len(sizes), per_host=per_host), items=items)
    assert packing.unplaced == ()
    assert opened(packing) == textbook(sizes, 30)
    assert 9 * opened(packing) <= 11 * optimum(sizes, 30) + 6


def test_triplets_cost_a_seventh_more_bins_than_the_optimum_and_never_fit_into_it() -> None:
    """Falkenauer's triplets: each optimal bin holds exactly three items, which first fit can't see."""
    draw = random.Random(7)
    sizes: list[int] = []
    for _ in range(40):
        first = draw.randint(380, 490)
        second = draw.randint(250, (1000 - first) // 2)
        sizes += [first, second, 1000 - first - second]
    items = [item(f"r-{number:03}", need) for number, need in enumerate(sizes)]
    ample = pack(hosts=identical_bins(size=1000, count=60, per_host=4), items=items)
    assert ample.unplaced == ()
    assert 40 < opened(ample) <= (11 * 40 + 6) // 9
    exact = identical_bins(size=1000, count=40, per_host=4)
    tight = pack(hosts=exact, items=items)
    assert violations(hosts=exact, items=items, packing=tight) == []
    assert tight.unplaced
    for unplaced in tight.unplaced:
        assert unplaced.rejected == {Reason.INSUFFICIENT_GPU_MEMORY: 40}
        assert unplaced.closest is not None
        assert unplaced.closest.short > 0
