"""Domains of fast links, and GPUs that take so many replicas and no more."""

from tests.unit.packing_builders import gpu, host, item, where
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.problem import Host, Item, Objective, Packing, Reason, Spread


def checked(hosts: list[Host], items: list[Item], objective: Objective = Objective.FEWEST_GPUS) -> Packing:
    packing = pack(hosts=hosts, items=items, objective=objective)
    assert violations(hosts=hosts, items=items, packing=packing) == []
    return packing


class TestLinks:
    crossed = host("a", gpu("0", 48, link="x"), gpu("1", 48, link="y"))
    linked = host("b", *(gpu(str(number), 48, link="x" if number % 2 else "y") for number in range(4)))

    def test_several_gpus_are_of_one_domain_where_one_has_them(self) -> None:
        for objective in Objective:
            assert where(checked([self.crossed, self.linked], [item("tp", 10, gpus=2)], objective))["tp"] in (
                "b/0+2",
                "b/1+3",
            )

    def test_even_where_that_opens_more_of_them(self) -> None:
        used = host("a", gpu("0", 48, link="x", tenants={"t"}), gpu("1", 48, link="y", tenants={"t"}))
        assert where(checked([used, self.linked], [item("tp", 10, gpus=2)])) == {"tp": "b/0+2"}

    def test_they_cross_domains_before_they_wait(self) -> None:
        assert where(checked([self.crossed], [item("tp", 10, gpus=2)])) == {"tp": "a/0+1"}
        assert where(checked([self.crossed, self.linked], [item("tp", 10, gpus=4)])) == {"tp": "b/0+1+2+3"}

    def test_where_none_are_reported_a_host_is_one_domain(self) -> None:
        plain = host("b", gpu("0", 48), gpu("1", 48))
        assert where(checked([self.crossed, plain], [item("tp", 10, gpus=2)])) == {"tp": "b/0+1"}

    def test_a_wish_for_spread_comes_first(self) -> None:
        beside = host("b", gpu("0", 48, link="x"), gpu("1", 48, link="x"), tenants={"ns/tp"})
        assert where(checked([self.crossed, beside], [item("tp", 10, gpus=2)])) == {"tp": "a/0+1"}
        ignored = item("tp", 10, gpus=2, spread=Spread.IGNORE)
        assert where(checked([self.crossed, beside], [ignored])) == {"tp": "b/0+1"}


class TestSlots:
    def test_a_gpu_takes_so_many_more_replicas(self) -> None:
        items = [item(f"r-{number}", 10, group="ns/m", spread=Spread.IGNORE) for number in range(4)]
        for objective in Objective:
            packing = checked([host("n", gpu("0", 48, slots=2), gpu("1", 48, slots=1))], items, objective)
            assert sorted(where(packing).values()) == ["n/0", "n/0", "n/1"]
            (waiting,) = packing.unplaced
            assert waiting.rejected == {Reason.GPU_FULL: 2}
            assert waiting.closest is None

    def test_so_does_each_of_several(self) -> None:
        items = [item(f"tp-{number}", 10, gpus=2, group="ns/m", spread=Spread.IGNORE) for number in range(3)]
        packing = checked([host("n", gpu("0", 48, slots=5), gpu("1", 48, slots=2))], items)
        assert [waiting.item.key for waiting in packing.unplaced] == ["tp-2"]
        assert packing.unplaced[0].rejected == {Reason.GPU_FULL: 1, Reason.TOO_FEW_GPUS: 1}
