"""The checker finds each kind of broken promise: one packing that is right, and what it says when one thing changes."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.packing_builders import gpu, host, item
from vrampack.packing.check import violations
from vrampack.packing.problem import Closest, Host, Item, Packing, Placement, Reason, Spread, Unplaced

BIG = Unplaced(
    item=item("big", 90),
    rejected={Reason.INSUFFICIENT_SLOTS: 3, Reason.INSUFFICIENT_GPU_MEMORY: 1},
    closest=Closest(host="m", device="0", free=5, short=85),
)


def node(*, first: dict[str, Any] | None = None, **fields: Any) -> Host:
    """The host that takes everything; ``first``: what is different about its first GPU."""
    gpus = (gpu("0", **{"free": 40, **(first or {})}), gpu("1", 40), gpu("2", 80, product="H100"))
    return host("n", *gpus, **{"cpu": 10, "memory": 10, "slots": 3, **fields})


def check(
    *,
    on: Host | None = None,
    a: dict[str, Any] | None = None,
    tp_on: tuple[str, ...] = ("0", "1"),
    tp_host: str = "n",
    asked: list[Item] | None = None,
    big: Unplaced | None = BIG,
) -> list[str]:
    """Violations of: a, b and a pair placed on one host; a big one unplaced beside a second host that is too small."""
    first = replace(item("a", 30), **(a or {}))
    second, pair = item("b", 10), item("tp", 10, gpus=2)
    placed = (
        Placement(item=pair, host=tp_host, devices=tp_on),
        Placement(item=first, host="n", devices=("0",)),
        Placement(item=second, host="n", devices=("1",)),
    )
    return violations(
        hosts=[on or node(), host("m", gpu("0", 5, tenants={"ns/old"}), tenants={"ns/old"})],
        items=[first, second, pair, BIG.item] if asked is None else asked,
        packing=Packing(placed=placed, unplaced=() if big is None else (big,)),
    )


def test_a_right_packing_has_none() -> None:
    assert check() == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"on": node(first={"free": 39})}, "n/0: 40 bytes taken of 39"),
        ({"on": node(slots=2)}, "n: slots: 3 taken of 2"),
        ({"a": {"cpu": 11}}, "n: CPU: 11 taken of 10"),
        ({"a": {"host_memory": 11}}, "n: memory: 11 taken of 10"),
        ({"on": node(closed="NodeNotReady")}, "a: n is closed to it: NodeNotReady"),
        ({"on": node(first={"closed": "Cordoned"})}, "a: n is closed to it: Cordoned"),
        ({"a": {"refused": {"n": "Taint"}}}, "a: n is closed to it: Taint"),
        ({"a": {"products": frozenset({"H100"})}}, "a: L40S is not among its products"),
        ({"tp_on": ("0", "2")}, "tp: its devices are of several products: H100, L40S"),
        ({"tp_on": ("0",)}, "tp: needs 2 devices, has 0"),
        ({"tp_on": ("0", "0")}, "tp: needs 2 devices, has 0, 0"),
        ({"tp_on": ("0", "9")}, "tp: n has no device 9"),
        ({"tp_host": "x"}, "tp: host x does not exist"),
        ({"on": node(first={"exclusive": True})}, "n/0: tp joins an exclusive tenant"),
        ({"a": {"exclusive": True}}, "n/0: a is exclusive and not alone"),
        ({"a": {"avoid": frozenset({"ns/tp"})}}, "n/0: a and tp avoid each other"),
        ({"on": node(first={"avoided_by": {"ns/a"}})}, "n/0: a joins a tenant to be avoided"),
        (
            {"on": node(first={"tenants": {"x"}}), "a": {"avoid": frozenset({"x"})}},
            "n/0: a joins a tenant to be avoided",
        ),
        ({"on": node(tenants={"ns/a"}), "a": {"spread": Spread.REQUIRE}}, "a: another of ns/a is on n"),
        ({"a": {"spread": Spread.REQUIRE, "group": "ns/b"}}, "a: another of ns/b is on n"),
        ({"big": None}, "big: is answered 0 times"),
        ({"big": replace(BIG, item=item("a", 30))}, "a: is answered 2 times"),
        ({"asked": []}, "a: was not asked for"),
        ({"big": replace(BIG, item=replace(BIG.item, cpu=1))}, "big: is not the item that was asked for"),
        ({"big": replace(BIG, rejected={Reason.INSUFFICIENT_GPU_MEMORY: 4})}, "big: is said to be rejected for"),
        ({"big": replace(BIG, closest=None)}, "big: closest is None, the least shortfall 85"),
        ({"big": replace(BIG, closest=replace(BIG.closest, short=84))}, "big: closest is Closest("),
        ({"big": replace(BIG, closest=replace(BIG.closest, device="1"))}, "big: closest is Closest("),
        ({"big": replace(BIG, closest=replace(BIG.closest, free=6))}, "big: closest is Closest("),
        ({"on": node(slots=4, first={"free": 130})}, "big: is unplaced, yet fits on n: 0"),
    ],
)
def test_what_breaks_is_said(change: dict[str, Any], sentence: str) -> None:
    found = check(**change)
    assert any(violation.startswith(sentence) for violation in found), found


def test_an_item_without_gpus_is_checked_against_hosts() -> None:
    waiting = Unplaced(item=item("cpu", 0, gpus=0), rejected={}, closest=None)
    assert violations(hosts=[host("n")], items=[waiting.item], packing=Packing(placed=(), unplaced=(waiting,))) == [
        "cpu: is unplaced, yet fits on n"
    ]
