"""How large an item could be: the packer's own answer, turned round."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.unit.packing_builders import gpu, host, item
from tests.unit.test_packing_properties import chances, fleet, queue
from vrampack.errors import InvalidInputError
from vrampack.packing.firstfit import pack
from vrampack.packing.problem import Host, Item
from vrampack.packing.room import Rooms


def test_one_device_has_what_the_roomiest_has_free() -> None:
    rooms = Rooms([host("a", gpu("0", 20), gpu("1", 48)), host("b", gpu("0", 30, product="H100"))])
    assert rooms.products == ("H100", "L40S")
    assert rooms.most(item("x", 100)) == {"H100": 30, "L40S": 48}
    assert rooms.most(item("x", 100, products={"H100"})) == {"H100": 30}


def test_several_devices_have_what_the_last_of_them_has_free() -> None:
    rooms = Rooms([host("a", gpu("0", 20), gpu("1", 48)), host("b", gpu("0", 30), gpu("1", 30))])
    assert rooms.most(item("x", 0, gpus=2)) == {"L40S": 30}
    assert rooms.most(item("x", 0, gpus=3)) == {}


def test_what_rules_a_device_out_besides_memory_leaves_no_room_on_it() -> None:
    rooms = Rooms(
        [
            host("a", gpu("0", 48, closed="Cordoned"), gpu("1", 40, tenants={"ns/y"}), gpu("2", 30)),
            host("b", gpu("0", 47), cpu=100),
        ]
    )
    assert rooms.most(item("x", 0, cpu=200)) == {"L40S": 40}
    assert rooms.most(item("x", 0, cpu=200, exclusive=True)) == {"L40S": 30}
    assert rooms.most(item("x", 0, refused={"a": "UntoleratedTaint"})) == {"L40S": 47}
    assert rooms.most(item("x", 0, cpu=200, refused={"a": "UntoleratedTaint"})) == {}


def test_more_taken_than_there_is_leaves_no_room() -> None:
    assert Rooms([host("a", gpu("0", -4))]).most(item("x", 0)) == {}


def test_a_host_that_comes_twice_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        Rooms([host("a"), host("a")])


@given(chances)
@settings(max_examples=250, deadline=None)
def test_an_item_is_placed_up_to_its_room_and_not_beyond(draw: random.Random) -> None:
    hosts = fleet(draw)
    rooms = Rooms(hosts)
    for each in queue(draw):
        if each.gpus == 0:
            continue
        most = rooms.most(each)
        for product in rooms.products:
            if each.products is None or product in each.products:
                room = most.get(product, 0)
                alone = replace(each, products=frozenset({product}))
                assert room == 0 or _placed(hosts, replace(alone, memory=room))
                assert not _placed(hosts, replace(alone, memory=room + 1))
        assert set(most) <= set(each.products or rooms.products)


def _placed(hosts: list[Host], each: Item) -> bool:
    return bool(pack(hosts=hosts, items=[each]).placed)
