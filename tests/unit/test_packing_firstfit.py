"""The packer's rules, one by one."""

import pytest

from tests.unit.packing_builders import gpu, host, item, where
from vrampack.errors import InvalidInputError
from vrampack.packing.firstfit import pack
from vrampack.packing.problem import Closest, Host, Item, Objective, Packing, Reason, Spread, Unplaced

IGNORE, REQUIRE = Spread.IGNORE, Spread.REQUIRE


def order(packing: Packing) -> list[str]:
    return [placement.item.key for placement in packing.placed]


def only(packing: Packing) -> Unplaced:
    (unplaced,) = packing.unplaced
    return unplaced


def test_nothing_to_place_and_nowhere_to_place_it() -> None:
    assert pack(hosts=[], items=[]) == Packing(placed=(), unplaced=())
    assert only(pack(hosts=[], items=[item("a", 1)])) == Unplaced(item=item("a", 1), rejected={}, closest=None)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (item("z", 1, priority=1), item("a", 40, rank=0)),
        (item("z", 1, rank=0), item("a", 40)),
        (item("z", 2, gpus=2), item("a", 40)),
        (item("z", 21, gpus=2), item("a", 10, gpus=4)),
        (item("z", 41), item("a", 40, exclusive=True)),
        (item("z", 40, exclusive=True), item("a", 40)),
        (item("a", 40), item("z", 40)),
        (item("z", 1), item("a", 40, gpus=0)),
    ],
    ids=["priority", "rank", "several GPUs", "bytes over all GPUs", "bytes", "exclusive", "key", "without GPU last"],
)
def test_who_is_taken_first(first: Item, second: Item) -> None:
    hosts = [host(f"n{number}", *(gpu(f"g{index}", 48) for index in range(4))) for number in range(3)]
    assert order(pack(hosts=hosts, items=[second, first])) == [first.key, second.key]


@pytest.mark.parametrize(
    ("hosts", "taken"),
    [
        ([host("n", gpu("empty", 20, capacity=20), gpu("used", 40, tenants={"x"}))], "n/used"),
        ([host("n", gpu("roomy", 40, tenants={"x"}), gpu("tight", 12, tenants={"x"}))], "n/tight"),
        ([host("n", gpu("a-small", 48), gpu("large", 80, capacity=80))], "n/a-small"),
        ([host("n", gpu("foreign", 30), gpu("used", 40, tenants={"x"}))], "n/used"),
        ([host("a", gpu("0", 48), gpu("1", 48)), host("b", gpu("0", 48), gpu("1", 9, tenants={"x"}))], "b/0"),
        ([host("b", gpu("1", 48)), host("a", gpu("1", 48), gpu("0", 9, tenants={"x"}))], "a/1"),
        ([host("b", gpu("0", 48)), host("a", gpu("0", 48))], "a/0"),
    ],
    ids=[
        "in use before empty",
        "of those in use the tightest",
        "of the empty ones the one that is just large enough",
        "a foreign process does not make it in use",
        "whole hosts stay whole",
        "then by host",
        "then by host, not by place in the list",
    ],
)
def test_fewest_gpus_takes(hosts: list[Host], taken: str) -> None:
    assert where(pack(hosts=hosts, items=[item("a", 10)])) == {"a": taken}


def test_fewest_gpus_opens_a_device_only_when_no_open_one_has_room() -> None:
    hosts = [host("n", *(gpu(str(number), 48) for number in range(3)))]
    items = [item("a", 30), item("b", 20), item("c", 18), item("d", 28), item("e", 1)]
    assert where(pack(hosts=hosts, items=items)) == {"a": "n/0", "d": "n/1", "b": "n/1", "c": "n/0", "e": "n/2"}


def test_balanced_takes_the_freest() -> None:
    hosts = [host("a", gpu("0", 40), gpu("1", 47, tenants={"x"})), host("b", gpu("0", 48), gpu("1", 48))]
    items = [item(name, 5, spread=IGNORE) for name in "cdef"]
    placed = where(pack(hosts=hosts, items=items, objective=Objective.BALANCED))
    assert placed == {"c": "b/0", "d": "b/1", "e": "a/1", "f": "b/0"}


def test_balanced_takes_the_set_whose_tightest_device_is_freest() -> None:
    hosts = [host("a", gpu("0", 48), gpu("1", 20)), host("b", gpu("0", 30), gpu("1", 30), gpu("2", 25))]
    packing = pack(hosts=hosts, items=[item("tp", 10, gpus=2)], objective=Objective.BALANCED)
    assert where(packing) == {"tp": "b/0+1"}


class TestTensorParallelism:
    def test_one_product_on_one_host(self) -> None:
        hosts = [
            host("a", gpu("0", 48), gpu("1", 80, product="H100")),
            host("b", gpu("0", 48), gpu("1", 80, product="H100"), gpu("2", 80, product="H100")),
        ]
        assert where(pack(hosts=hosts, items=[item("tp", 10, gpus=2)])) == {"tp": "b/1+2"}

    def test_opens_as_few_devices_as_possible(self) -> None:
        hosts = [
            host("a", gpu("0", 48), gpu("1", 20, tenants={"x"})),
            host("b", gpu("0", 30, tenants={"x"}), gpu("1", 30, tenants={"y"})),
        ]
        assert where(pack(hosts=hosts, items=[item("tp", 20, gpus=2)])) == {"tp": "b/0+1"}

    def test_breaks_the_host_that_has_the_fewest_that_fit(self) -> None:
        hosts = [
            host("a", gpu("0", 48), gpu("1", 48), gpu("2", 48)),
            host("b", gpu("0", 48), gpu("1", 48), gpu("2", 9)),
        ]
        assert where(pack(hosts=hosts, items=[item("tp", 20, gpus=2)])) == {"tp": "b/0+1"}

    def test_joins_what_the_same_run_opened(self) -> None:
        hosts = [host("a", gpu("0", 48), gpu("1", 48), gpu("2", 48)), host("b", gpu("0", 48), gpu("1", 48))]
        items = [item("first", 30, gpus=2, refused={"b": "Taint"}), item("second", 15, gpus=2)]
        assert where(pack(hosts=hosts, items=items)) == {"first": "a/0+1", "second": "a/0+1"}

    def test_single_gpu_replicas_fill_what_it_leaves(self) -> None:
        hosts = [host("a", gpu("0", 48), gpu("1", 48))]
        packing = pack(hosts=hosts, items=[item("one", 30), item("tp", 20, gpus=2), item("two", 28)])
        assert where(packing) == {"tp": "a/0+1", "two": "a/0"}

    def test_equal_replicas_fill_host_after_host(self) -> None:
        hosts = [host(name, gpu("0", 48), gpu("1", 48)) for name in "ab"]
        items = [item(f"tp-{number}", 20, group="ns/tp", gpus=2, spread=IGNORE) for number in range(5)]
        packing = pack(hosts=hosts, items=items)
        assert list(where(packing).values()) == ["a/0+1", "a/0+1", "b/0+1", "b/0+1"]
        assert only(packing).rejected == {Reason.INSUFFICIENT_GPU_MEMORY: 4}


class TestSpread:
    hosts = (host("a", gpu("0", 48, tenants={"ns/m"}), tenants={"ns/m"}), host("b", gpu("0", 80, capacity=80)))
    replicas = tuple(item(f"m-{number}", 10, group="ns/m") for number in range(3))

    def with_spread(self, spread: Spread) -> list[Item]:
        return [item(replica.key, 10, group="ns/m", spread=spread) for replica in self.replicas]

    def test_prefer_goes_elsewhere_even_if_that_opens_a_gpu_and_comes_back_when_it_must(self) -> None:
        packing = pack(hosts=self.hosts, items=self.with_spread(Spread.PREFER))
        assert where(packing) == {"m-0": "b/0", "m-1": "a/0", "m-2": "a/0"}
        full = host("b", gpu("0", 9, capacity=80))
        packing = pack(hosts=[self.hosts[0], full], items=self.with_spread(Spread.PREFER))
        assert where(packing) == {"m-0": "a/0", "m-1": "a/0", "m-2": "a/0"}

    def test_require_stays_unplaced_rather_than_share_a_host(self) -> None:
        packing = pack(hosts=self.hosts, items=self.with_spread(REQUIRE))
        assert where(packing) == {"m-0": "b/0"}
        assert [unplaced.rejected for unplaced in packing.unplaced] == [{Reason.SPREAD: 2}] * 2

    def test_nobody_of_the_group_joins_one_that_requires_it(self) -> None:
        items = [item("m-0", 10, group="ns/m", spread=REQUIRE), item("m-1", 9, group="ns/m", spread=IGNORE)]
        packing = pack(hosts=[host("n", gpu("0", 48))], items=items)
        assert where(packing) == {"m-0": "n/0"}

    def test_ignore_follows_the_objective(self) -> None:
        assert set(where(pack(hosts=self.hosts, items=self.with_spread(IGNORE))).values()) == {"a/0"}


class TestNeighbours:
    def test_avoids_a_tenant(self) -> None:
        hosts = [host("n", gpu("0", 48, tenants={"ns/hot"}), gpu("1", 48))]
        assert where(pack(hosts=hosts, items=[item("a", 1, avoid={"ns/hot"})])) == {"a": "n/1"}

    def test_is_avoided_by_a_tenant(self) -> None:
        hosts = [host("n", gpu("0", 48, tenants={"ns/x"}, avoided_by={"ns/hot"}), gpu("1", 48))]
        assert where(pack(hosts=hosts, items=[item("hot", 1)])) == {"hot": "n/1"}

    @pytest.mark.parametrize("sizes", [(10, 5), (5, 10)], ids=["who avoids comes first", "who avoids comes last"])
    def test_replicas_that_wait_avoid_each_other(self, sizes: tuple[int, int]) -> None:
        items = [item("a", sizes[0], avoid={"ns/b"}), item("b", sizes[1])]
        assert len(set(where(pack(hosts=[host("n", gpu("0", 48), gpu("1", 48))], items=items)).values())) == 2

    def test_exclusive_needs_a_device_without_tenants_and_keeps_it(self) -> None:
        hosts = [host("n", gpu("0", 10, tenants={"x"}), gpu("1", 48), gpu("2", 48, tenants={"y"}, exclusive=True))]
        packing = pack(hosts=hosts, items=[item("whole", 40, exclusive=True), item("small", 1), item("other", 48)])
        assert where(packing) == {"other": "n/1", "small": "n/0"}
        assert only(packing).rejected == {Reason.GPU_NOT_EMPTY: 2, Reason.GPU_EXCLUSIVE: 1}
        packing = pack(hosts=hosts, items=[item("whole", 40, exclusive=True), item("small", 1), item("mid", 8)])
        assert where(packing) == {"whole": "n/1", "mid": "n/0", "small": "n/0"}


class TestHosts:
    def test_cpu_ram_and_slots_run_out(self) -> None:
        items = [item(f"m-{number}", 1, cpu=2000, host_memory=10) for number in range(3)]
        for short in ({"cpu": 4500}, {"memory": 25}, {"slots": 2}):
            packing = pack(hosts=[host("n", gpu("0", 48), **short)], items=items)
            assert list(where(packing)) == ["m-0", "m-1"]

    def test_who_asks_for_no_cpu_is_welcome_on_an_overcommitted_host(self) -> None:
        packing = pack(hosts=[host("n", gpu("0", 48), cpu=-1, memory=-1)], items=[item("a", 1), item("b", 1, cpu=1)])
        assert where(packing) == {"a": "n/0"}

    def test_an_overcommitted_gpu_takes_nothing(self) -> None:
        packing = pack(hosts=[host("n", gpu("0", -1))], items=[item("a", 0)])
        assert only(packing).closest == Closest(host="n", device="0", free=-1, short=1)

    def test_without_gpus_an_item_needs_only_a_host_and_leaves_those_with_gpus_alone(self) -> None:
        hosts = [host("a", gpu("0", 48)), host("b", slots=1), host("c", slots=0)]
        items = [item(name, 0, gpus=0, group="ns/m", spread=IGNORE) for name in "xy"]
        assert where(pack(hosts=hosts, items=items)) == {"x": "b/", "y": "a/"}
        packing = pack(hosts=[*hosts[2:], host("d", gpu("0", 48), closed="NodeNotReady")], items=items[:1])
        assert only(packing) == Unplaced(item=items[0], rejected={"NodeNotReady": 1}, closest=None)


@pytest.mark.parametrize(
    "hindrance",
    [
        {"group": "ns/hot"},
        {"gpus": 3},
        {"memory": 49},
        {"cpu": 9},
        {"host_memory": 9},
        {"exclusive": True},
        {"products": {"A10"}},
        {"avoid": {"x"}},
        {"spread": REQUIRE},
        {"refused": {"n": "UntoleratedTaint"}},
    ],
    ids=lambda hindrance: next(iter(hindrance)),
)
def test_one_that_is_hindered_does_not_hinder_one_that_is_otherwise_alike(hindrance: dict[str, object]) -> None:
    gpus = [gpu(name, 48, tenants={"x"}, avoided_by={"ns/hot"}) for name in "01"]
    fields: dict[str, object] = {"group": "ns/m", "gpus": 2, "memory": 10, "spread": IGNORE}
    first = item("first", **{**fields, **hindrance, "priority": 1})
    packing = pack(hosts=[host("n", *gpus, cpu=1, memory=1, tenants={"ns/m"})], items=[first, item("second", **fields)])
    assert where(packing) == {"second": "n/0+1"}


@pytest.mark.parametrize(
    ("device", "node", "ask", "reason"),
    [
        ({"closed": "Cordoned"}, {"closed": "NodeNotReady"}, {"refused": {"n": "Taint"}}, "NodeNotReady"),
        ({"closed": "Cordoned"}, {}, {"refused": {"n": "Taint"}}, "Cordoned"),
        ({}, {}, {"refused": {"n": "Taint"}, "products": {"H100"}}, "Taint"),
        ({"tenants": {"x"}}, {}, {"products": {"H100"}, "avoid": {"x"}}, Reason.PRODUCT_MISMATCH),
        ({"tenants": {"x"}}, {"tenants": {"ns/a"}}, {"avoid": {"x"}, "spread": REQUIRE}, Reason.AVOIDED_NEIGHBOUR),
        ({"exclusive": True}, {"tenants": {"ns/a"}}, {"spread": REQUIRE}, Reason.SPREAD),
        ({"exclusive": True, "tenants": {"x"}}, {}, {"exclusive": True}, Reason.GPU_EXCLUSIVE),
        ({"tenants": {"x"}}, {"cpu": 1}, {"exclusive": True, "cpu": 2}, Reason.GPU_NOT_EMPTY),
        ({}, {"cpu": 1, "memory": 1}, {"cpu": 2, "host_memory": 2}, Reason.INSUFFICIENT_CPU),
        ({}, {"memory": 1, "slots": 0}, {"host_memory": 2}, Reason.INSUFFICIENT_MEMORY),
        ({}, {"slots": 0}, {"memory": 99}, Reason.INSUFFICIENT_SLOTS),
        ({}, {}, {"memory": 99, "gpus": 2}, Reason.INSUFFICIENT_GPU_MEMORY),
        ({}, {}, {"gpus": 2}, Reason.TOO_FEW_GPUS),
    ],
)
def test_the_first_reason_counts(
    device: dict[str, object], node: dict[str, object], ask: dict[str, object], reason: str
) -> None:
    waiting = item("a", **{"memory": 10, **ask})
    assert only(pack(hosts=[host("n", gpu("0", 48, **device), **node)], items=[waiting])).rejected == {reason: 1}


class TestClosest:
    def test_is_the_smallest_shortfall_where_only_memory_is_missing(self) -> None:
        hosts = [
            host("a", gpu("0", 30), gpu("1", 39, closed="Cordoned")),
            host("b", gpu("0", 35), gpu("1", 35), gpu("2", 38, product="A10")),
            host("c", gpu("0", 35)),
        ]
        unplaced = only(pack(hosts=hosts, items=[item("m", 40, products={"L40S"})]))
        assert unplaced.closest == Closest(host="b", device="0", free=35, short=5)
        assert unplaced.rejected == {"Cordoned": 1, Reason.PRODUCT_MISMATCH: 1, Reason.INSUFFICIENT_GPU_MEMORY: 4}

    def test_counts_what_the_same_run_placed(self) -> None:
        packing = pack(hosts=[host("n", gpu("0", 48))], items=[item("first", 40), item("second", 20)])
        assert only(packing).closest == Closest(host="n", device="0", free=8, short=12)

    def test_of_several_gpus_is_the_last_one_needed(self) -> None:
        hosts = [
            host("a", gpu("0", 48), gpu("1", 20), gpu("2", 10)),
            host("b", gpu("0", 36), gpu("1", 35), gpu("2", 39)),
            host("c", gpu("0", 39)),
        ]
        unplaced = only(pack(hosts=hosts, items=[item("tp", 40, gpus=2)]))
        assert unplaced.closest == Closest(host="b", device="0", free=36, short=4)
        assert unplaced.rejected == {Reason.INSUFFICIENT_GPU_MEMORY: 6, Reason.TOO_FEW_GPUS: 1}

    def test_is_none_where_more_than_memory_is_missing(self) -> None:
        hosts = [host("a", gpu("0", 39), gpu("1", 39, closed="Cordoned"))]
        unplaced = only(pack(hosts=hosts, items=[item("tp", 40, gpus=2)]))
        assert unplaced.closest is None
        assert unplaced.rejected == {"Cordoned": 1, Reason.INSUFFICIENT_GPU_MEMORY: 1}


@pytest.mark.parametrize(
    ("hosts", "items", "field"),
    [
        ([host("n"), host("n")], [], "hosts.name"),
        ([host("n", gpu("0", 1), gpu("0", 2, product="A10"))], [], "hosts[n].devices.id"),
        ([host("n", closed="")], [], "hosts[n].closed"),
        ([host("n", gpu("0", 1, closed=""))], [], "hosts[n].devices[0].closed"),
        ([], [item("a", 1), item("a", 2)], "items.key"),
        ([], [item("a", -1)], "items[a].memory"),
        ([], [item("a", 1, gpus=-1)], "items[a].gpus"),
        ([], [item("a", 1, refused={"n": ""})], "items[a].refused"),
    ],
)
def test_bad_input_is_refused_with_its_path(hosts: list[Host], items: list[Item], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        pack(hosts=hosts, items=items)
    assert caught.value.field == field
