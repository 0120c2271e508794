"""Identical replicas are one class."""

from dataclasses import fields, replace

import pytest

from tests.unit.packing_builders import item
from vrampack.packing.classes import Likeness, classes_of
from vrampack.packing.problem import Item, Spread

ALIKE = item("a", 10, group="ns/m", refused={"n": "Taint"})
OTHERWISE = {
    "group": "ns/x",
    "gpus": 2,
    "memory": 11,
    "cpu": 1,
    "host_memory": 1,
    "exclusive": True,
    "products": frozenset({"H100"}),
    "avoid": frozenset({"ns/x"}),
    "spread": Spread.IGNORE,
    "priority": 1,
    "rank": 0,
    "refused": {"n": "NodeSelectorMismatch"},
    "preempts": False,
}


def test_key_and_age_make_no_difference() -> None:
    twin = replace(ALIKE, key="b", waited=9, refused={"n": "Taint"})
    (one,) = classes_of([ALIKE, twin])
    assert (one.items, one.count, one.item) == ((twin, ALIKE), 2, twin)


@pytest.mark.parametrize("name", sorted(OTHERWISE))
def test_everything_else_does(name: str) -> None:
    assert len(classes_of([ALIKE, replace(ALIKE, key="b", **{name: OTHERWISE[name]})])) == 2


def test_nothing_is_forgotten() -> None:
    assert {field.name for field in fields(Item)} == OTHERWISE.keys() | {"key", "waited"}


def test_the_order_of_the_items_does_not_matter() -> None:
    items = [replace(ALIKE, key=f"{name}-{number}", group=name) for name in "yxz" for number in range(3)]
    assert classes_of(items) == classes_of(items[::-1])
    assert [each.item.key for each in classes_of(items)] == ["x-0", "y-0", "z-0"]


def test_a_shared_mapping_is_read_once() -> None:
    class Counted(dict[str, str]):
        reads = 0

        def items(self):  # type: ignore[no-untyped-def]
            Counted.reads += 1
            return super().items()

    refused = Counted(n="Taint")
    likeness = Likeness()
    assert len({likeness(replace(ALIKE, key=str(number), refused=refused)) for number in range(5)}) == 1
    assert Counted.reads == 1
