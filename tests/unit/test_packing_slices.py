"""Hardware slices that exist, and GPUs that may still be cut."""

import random
from dataclasses import replace

import pytest

from tests.unit.packing_builders import gpu, host, item, where
from tests.unit.test_packing_properties import fleet, queue
from vrampack.errors import InvalidInputError
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.layouts import SliceProfile, legal_layouts
from vrampack.packing.objective import cost
from vrampack.packing.problem import Cut, Host, Item, Packing, Reason, Spread

MIB = 1 << 20
H100_80 = (
    SliceProfile(memory=9_984 * MIB, starts=(0, 1, 2, 3, 4, 5, 6), size=1),  # 1g.10gb
    SliceProfile(memory=20_096 * MIB, starts=(0, 2, 4), size=2),  # 2g.20gb
    SliceProfile(memory=40_448 * MIB, starts=(0, 4), size=4),  # 3g.40gb
    SliceProfile(memory=81_152 * MIB, starts=(0,), size=8),  # 7g.80gb
)


def uncut(name: str = "0", *layouts: tuple[int, ...]) -> Host:
    """A GPU of which each slice is for one replica alone."""
    return host("n", gpu(name, 80, capacity=80, slots=1, layouts=layouts or ((80,), (40, 40), (40, 20, 10, 10))))


def checked(hosts: list[Host], items: list[Item]) -> Packing:
    packing = pack(hosts=hosts, items=items)
    assert violations(hosts=hosts, items=items, packing=packing) == []
    return packing


class TestSlices:
    def test_is_a_device_of_its_own_size(self) -> None:
        hosts = [host("n", gpu("s0", 40, capacity=40, slice_of="g"), gpu("s1", 20, capacity=20, slice_of="g"))]
        assert where(checked(hosts, [item("a", 30), item("b", 20)])) == {"a": "n/s0", "b": "n/s1"}

    def test_is_never_one_of_several(self) -> None:
        hosts = [host("n", *(gpu(f"s{number}", 40, slice_of="g") for number in range(2)), gpu("whole", 40))]
        (waiting,) = checked(hosts, [item("tp", 10, gpus=2)]).unplaced
        assert waiting.rejected == {Reason.SLICE: 2, Reason.TOO_FEW_GPUS: 1}
        assert waiting.closest is None

    def test_counts_with_the_others_of_its_gpu_as_one_that_is_opened(self) -> None:
        hosts = [host("n", *(gpu(f"s{number}", 40, capacity=40, slice_of="g") for number in range(2)))]
        spent = cost(hosts=hosts, packing=checked(hosts, [item("a", 30), item("b", 30)]))
        assert (spent.opened, spent.gpus) == (80, 1)


class TestLayouts:
    def test_is_chosen_for_what_comes(self) -> None:
        packing = checked([uncut()], [item("a", 38), item("b", 39)])
        assert where(packing) == {"a": "n/0/1", "b": "n/0/0"}
        assert packing.cuts == (Cut(host="n", device="0", layout=(40, 40), changed=True),)
        packing = checked([uncut()], [item("a", 38), item("b", 9), item("c", 18), item("d", 8)])
        assert packing.cuts == (Cut(host="n", device="0", layout=(40, 20, 10, 10), changed=True),)
        assert packing.unplaced == ()

    def test_slices_are_shared_where_nothing_forbids_it(self) -> None:
        hosts = [host("n", gpu("0", 80, capacity=80, layouts=((40, 40), (80,))))]
        packing = checked(hosts, [item("a", 38), item("b", 42)])
        assert where(packing) == {"a": "n/0/0", "b": "n/0/0"}
        assert packing.cuts == (Cut(host="n", device="0", layout=(80,), changed=True),)

    def test_stays_as_it_is_where_that_is_as_good(self) -> None:
        assert checked([uncut()], [item("a", 30)]).cuts == (Cut(host="n", device="0", layout=(80,), changed=False),)
        packing = checked([uncut("0", (), (40, 40))], [item("a", 30)])
        assert packing.cuts == (Cut(host="n", device="0", layout=(40, 40), changed=True),)

    def test_nothing_is_cut_while_something_whole_or_a_slice_has_room(self) -> None:
        hosts = [host("n", *uncut().devices, gpu("1", 48), gpu("2", 10, slice_of="g"))]
        packing = checked(hosts, [item("a", 40), item("b", 10)])
        assert (where(packing), packing.cuts) == ({"a": "n/1", "b": "n/2"}, ())

    def test_what_is_larger_than_any_slice_waits(self) -> None:
        (waiting,) = checked([uncut("0", (40, 40), (40, 20, 10, 10))], [item("a", 50)]).unplaced
        assert waiting.rejected == {Reason.INSUFFICIENT_GPU_MEMORY: 1}
        assert waiting.closest is not None
        assert (waiting.closest.free, waiting.closest.short) == (40, 10)

    def test_is_never_one_of_several_even_as_a_whole(self) -> None:
        hosts = [host("n", gpu("0", 48, layouts=((48,),)), gpu("1", 48, layouts=((48,),)))]
        (waiting,) = checked(hosts, [item("tp", 10, gpus=2)]).unplaced
        assert waiting.rejected == {Reason.SLICE: 2}

    def test_many_are_cut_for_many(self) -> None:
        hosts = [
            replace(uncut(), name=f"n{number}", devices=tuple(replace(each, id=name) for name in "abcd"))
            for number in range(10)
            for each in uncut().devices
        ]
        items = [item(f"r-{number:02}", 35, group="ns/m", spread=Spread.IGNORE) for number in range(80)]
        packing = checked(hosts, items)
        assert packing.unplaced == ()
        assert {cut.layout for cut in packing.cuts} == {(40, 40)}
        assert len(packing.cuts) == 40

    @pytest.mark.parametrize(
        "fields",
        [{"free": 40}, {"tenants": {"x"}}, {"layouts": ((90,),)}, {"layouts": ((0, 40),)}, {"layouts": ((),)}],
        ids=["partly used", "with a tenant", "larger than the GPU", "an empty slice", "no layout at all"],
    )
    def test_what_can_not_be_is_refused(self, fields: dict[str, object]) -> None:
        wrong = gpu("0", **{"free": 80, "capacity": 80, "layouts": ((40, 40),), **fields})
        with pytest.raises(InvalidInputError, match=r"hosts\[n\]\.devices\[0\]\.layouts"):
            pack(hosts=[host("n", wrong)], items=[])


class TestLegalLayouts:
    def test_of_an_h100(self) -> None:
        small, medium, large, whole = (profile.memory for profile in H100_80)
        layouts = legal_layouts(H100_80)
        assert (whole,) in layouts
        assert (large, large) in layouts
        assert (medium, medium, medium, small) in layouts
        assert (small,) * 7 in layouts
        # A slice of three units of compute takes half of the memory, and seven small ones become four or three.
        assert (large, *(small,) * 3) in layouts
        assert (large, *(small,) * 4) in layouts
        assert (large, medium, small) in layouts
        assert all(sum(layout) <= whole for layout in layouts)
        assert len(layouts) < 40

    def test_around_slices_that_are_in_use(self) -> None:
        small, medium, large, _ = (profile.memory for profile in H100_80)
        assert set(legal_layouts(H100_80, taken=[(0, 4)])) == {
            (large,),
            (medium, small),
            (small, small, small),
        }
        assert legal_layouts(H100_80, taken=[(0, 8)]) == ()


def test_what_was_cut_and_then_taken_by_nobody_is_whole_again() -> None:
    draw = random.Random(246710)
    hosts, items = fleet(draw), queue(draw)
    packing = pack(hosts=hosts, items=items)
    assert packing.placed
    assert violations(hosts=hosts, items=items, packing=packing) == []
