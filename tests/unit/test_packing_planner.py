"""A fleet that is asked again and again answers as one that is looked at anew each time."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.packing_builders import gpu, host, item
from tests.unit.test_packing_properties import chances, fleet, queue
from vrampack.errors import InvalidInputError
from vrampack.packing.firstfit import pack
from vrampack.packing.planner import Planner
from vrampack.packing.problem import Device, Host, Objective, Placement, Reason, Unplaced

FEW = settings(max_examples=250, deadline=None)


def changed(draw: random.Random, each: Host) -> Host:
    """The host after some of what was on it has left, and something else has come."""
    return replace(
        each,
        cpu=draw.choice([None, draw.randint(0, 8)]),
        tenants=frozenset(draw.sample(sorted(each.tenants), draw.randint(0, len(each.tenants)))),
        closed=draw.choice([None, None, "NodeNotReady"]),
        devices=tuple(device if device.layouts else _changed(draw, device) for device in each.devices),
    )


def _changed(draw: random.Random, device: Device) -> Device:
    return replace(
        device,
        free=draw.randint(-2, 32),
        tenants=frozenset(draw.sample(sorted(device.tenants), draw.randint(0, len(device.tenants)))),
        avoided_by=draw.choice([frozenset(), device.avoided_by]),
        exclusive=draw.random() < 0.1,
        closed=draw.choice([None, None, "Cordoned"]),
        slots=draw.choice([None, 1]),
    )


@FEW
@given(draw=chances, objective=st.sampled_from(Objective))
def test_it_says_what_pack_says_to_the_hosts_as_they_stand(draw: random.Random, objective: Objective) -> None:
    planner = Planner(fleet(draw), objective=objective)
    for each in queue(draw):
        now = planner.hosts()
        packing = pack(hosts=now, items=[each], objective=objective)
        assert planner.place(each) == (packing.placed or packing.unplaced)[0]
        if now and draw.random() < 0.3:
            new = changed(draw, draw.choice(planner.hosts()))
            planner.update([new])
            assert new in planner.hosts()


def test_what_was_placed_stays_booked() -> None:
    planner = Planner([host("n", gpu("0", 48))])
    assert isinstance(planner.place(item("a", 30)), Placement)
    waiting = planner.place(item("b", 30))
    assert isinstance(waiting, Unplaced)
    assert waiting.rejected == {Reason.INSUFFICIENT_GPU_MEMORY: 1}
    assert planner.hosts()[0].devices[0].free == 18


def test_a_host_that_is_told_anew_is_as_told() -> None:
    planner = Planner([host("n", gpu("0", 48)), host("m", gpu("0", 10))])
    planner.place(item("a", 30))
    planner.update([host("n", gpu("0", 40))])
    assert isinstance(planner.place(item("b", 40)), Placement)


def test_hosts_and_gpus_come_and_go() -> None:
    planner = Planner([host("n", gpu("0", 48))])
    planner.update([host("m", gpu("0", 60), gpu("1", 60)), host("n", gpu("1", 20))])
    assert [len(each.devices) for each in planner.hosts()] == [2, 1]
    assert isinstance(planner.place(item("a", 60)), Placement)
    planner.remove(["m"])
    assert isinstance(planner.place(item("b", 60)), Unplaced)


def test_a_host_that_can_not_be_changes_nothing() -> None:
    planner = Planner([host("n", gpu("0", 48))])
    for wrong in (host("n", gpu("0", 9), closed=""), host("n", gpu("0", 9), gpu("0", 8))):
        with pytest.raises(InvalidInputError):
            planner.update([wrong])
    assert isinstance(planner.place(item("a", 40)), Placement)


def test_a_reservation_holds_for_its_own_call() -> None:
    planner = Planner([host("n", gpu("0", 20, tenants={"x"}))])
    large = item("large", 40, waited=60)
    packing = planner.place_all([large, item("small", 10)], patience=60)
    assert (packing.placed, len(packing.reserved)) == ((), 1)
    assert isinstance(planner.place(item("small", 10)), Placement)
