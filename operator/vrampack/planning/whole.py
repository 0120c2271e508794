"""A pool as one question: all of its replicas, those that run and those that wait, onto its GPUs without any claim.

That is what a whole-fleet plan, its proven bound and consolidation are about.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vrampack.packing.problem import Bound, Device, Host, Item, Packing, Placement, Unplaced
from vrampack.packing.residents import vacate
from vrampack.planning.prices import as_quantity
from vrampack.planning.queueing import Waits
from vrampack.planning.tenancy import Tenants
from vrampack.units import counted, human_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """``hosts`` without the claims of ``items``; ``packing``: how they are packed now."""

    hosts: tuple[Host, ...]
    items: tuple[Item, ...]
    packing: Packing

    @property
    def used(self) -> int:
        """Bytes of the GPUs that hold one of the items, or their price where that counts."""
        return sum(device.capacity if device.price is None else device.price for device in self._devices())

    @property
    def priced(self) -> bool:
        """Whether prices count."""
        return any(device.price is not None for host in self.hosts for device in host.devices)

    @property
    def alike(self) -> bool:
        """Whether all GPUs are of one size: then the least memory is the fewest GPUs."""
        return len({device.capacity for host in self.hosts for device in host.devices}) <= 1

    @property
    def gpus(self) -> int:
        """GPUs that hold one of them."""
        return len(self._devices())

    def _devices(self) -> list[Device]:
        held = {(placement.host, name) for placement in self.packing.placed for name in placement.devices}
        return [device for host in self.hosts for device in host.devices if (host.name, device.id) in held]


def whole(there: Tenants, hosts: Iterable[Host], waits: Iterable[Waits]) -> Whole:
    """``hosts``: of the pool, as they are; ``waits``: who has no GPU of it. Replicas that leave count no more."""
    placed = tuple(
        Placement(item=each.item, host=each.host, devices=each.devices)
        for each in sorted(there.staying, key=lambda each: each.item.key)
    )
    unplaced = tuple(
        Unplaced(item=replace(each.unplaced.item, waited=0), rejected={}, closest=None)
        for each in waits
        if each.unplaced is not None
    )
    return Whole(
        hosts=vacate(hosts, residents=there.residents, leaving=there.residents),
        items=(*(each.item for each in placed), *(each.item for each in unplaced)),
        packing=Packing(placed=placed, unplaced=unplaced),
    )


def said(bound: Bound, *, question: Whole) -> str:
    """How far the packing of ``question`` is from the best one possible, in words: by price where there are prices,
    else by memory. Only where all GPUs are of one size does that say that no packing has fewer of them."""
    used = question.used
    amount = f"at a price of {as_quantity(used)}" if question.priced else f"with {human_bytes(used)}"
    words = f"{counted(question.gpus, 'GPU')} {amount}"
    if bound.optimal:
        less = "costs less" if question.priced else "has fewer" if question.alike else "opens less memory"
        return f"{words}, proven optimal: no packing {less}"
    if bound.opened <= 0:
        return f"{words}, nothing proven"
    share = f"{max(0, used - bound.opened) / bound.opened:.1%}"
    least = "price" if question.priced else "memory"
    relaxed = f" (leaving out {', '.join(bound.relaxes)})" if bound.relaxes else ""
    return f"{words}, within {share} of the least {least} that is possible{relaxed}"


def proven(question: Whole, bound: Bound) -> str:
    """What a bound on all packings says of the one that is."""
    left = sum(each.item.gpus * each.item.memory for each in question.packing.unplaced)
    if left > bound.unplaced:  # the bound is of packings that place more, so this one may use less
        bound = replace(bound, opened=0)
    here = replace(bound, optimal=not question.packing.unplaced and 0 < bound.opened >= question.used)
    return said(here, question=question)
