"""Better than the first plan, step by step: column generation over classes of replicas and kinds of GPUs, and dives.

For plans of a whole fleet. Existing claims stay where they are. The answer depends on the input as sets, the seed and
the work only; it is never worse than the plan that it started from, and ends when a bound proves it optimal.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from vrampack.packing.assign import assign
from vrampack.packing.bounds import cheap_bound, rounded
from vrampack.packing.columns import Master, Relaxed
from vrampack.packing.dive import Node, dive
from vrampack.packing.inventory import Inventory, chosen_cuts, hosts_cut, inventory
from vrampack.packing.lots import Settled, settle
from vrampack.packing.objective import Cost, cost
from vrampack.packing.problem import Bound, Cut, Host, Item, Objective, Packing, Spread, Work
from vrampack.packing.proof import Proof
from vrampack.packing.stock import Pattern, solution_of
from vrampack.packing.tally import Tally

_DISCREPANCIES = 4
_NOTHING = Work(rounds=0, dives=0, nodes=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """The best so far, what is proven of it, and the work that was done."""

    packing: Packing
    bound: Bound
    done: Work


def refine(
    *,
    hosts: Sequence[Host],
    items: Sequence[Item],
    objective: Objective,
    start: Packing,
    seed: int,
    work: Work,
    keep: Collection[str] = (),
    cancelled: Callable[[], bool] | None = None,
) -> Refined:
    """The best packing that ``work`` finds, at least as good as ``start``, which must be one of these items.

    ``keep``: keys of items (those that have waited long, say) that must not lose the place that they have in ``start``
    to others; items of rank 0 never do. A start that reserves places for some that wait is a matter of age and stays as
    it is. ``cancelled`` is asked between steps; where it says so, the best so far is the answer.
    """
    steps = refinements(hosts=hosts, items=items, objective=objective, start=start, seed=seed, work=work, keep=keep)
    best = next(steps)
    while not (cancelled is not None and cancelled()) and (further := next(steps, None)) is not None:
        best = further
    return best


def bound(
    *, hosts: Sequence[Host], items: Sequence[Item], objective: Objective, packing: Packing, work: Work = _NOTHING
) -> Bound:
    """What no packing of these items can beat, beside ``packing``.

    Without ``work`` it costs next to nothing: L2 on equal GPUs, bytes on others; rounds of pricing make it the linear
    programme's.
    """
    limited = replace(work, dives=0, nodes=0)
    return refine(hosts=hosts, items=items, objective=objective, start=packing, seed=0, work=limited).bound


def refinements(
    *,
    hosts: Sequence[Host],
    items: Sequence[Item],
    objective: Objective,
    start: Packing,
    seed: int,
    work: Work,
    keep: Collection[str] = (),
) -> Iterator[Refined]:
    """The same step by step: a step is a pricing round or a linear programme of a dive. The first is ``start``."""
    search = _Search(hosts, items, objective, start, seed, work)
    placed = {placement.item.key for placement in start.placed}
    search.keep |= placed.intersection(keep)
    yield search.refined
    if not search.refined.bound.optimal:
        for _ in search.steps():
            yield search.refined
            if search.refined.bound.optimal:
                return


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """The fleet with some of the devices that may be cut cut."""

    inventory: Inventory
    cuts: tuple[Cut, ...]

    def worth(self, packing: Packing, opened: int) -> int:
        """A packing as a cost of the stock; ``opened``: the cost of what it opens."""
        left = {each.item.key for each in packing.unplaced}
        stock = self.inventory.stock
        return opened + sum(
            penalty * sum(item.gpus for item in members.items if item.key in left)
            for members, penalty in zip(self.inventory.classes, stock.penalties or (), strict=True)
        )


class _Search:
    def __init__(
        self, hosts: Sequence[Host], items: Sequence[Item], objective: Objective, start: Packing, seed: int, work: Work
    ) -> None:
        self._hosts = hosts
        self._objective = objective
        self._start = start
        self._fleet = _Variant(inventory=inventory(hosts=hosts_cut(hosts, start.cuts), items=items), cuts=start.cuts)
        self._relaxed = self._fleet.inventory
        """What bounds are of: with the choice between layouts, where there are any."""
        self._has_layouts = any(device.layouts for host in hosts for device in host.devices)
        if self._has_layouts:
            self._relaxed = inventory(hosts=hosts, items=items, layouts=True)
        self._items = items
        self.keep = {placement.item.key for placement in start.placed if placement.item.rank == 0}
        """Who must not lose its place."""
        self._draw = np.random.default_rng(seed)
        self._tally = Tally(work)
        self._best = start
        self._cost = self._judge(start)
        self._crowding = _crowding(hosts, start)
        self._opened = cheap_bound(self._relaxed.stock)
        self._unplaced = sum(item.gpus * item.memory for item in self._relaxed.hopeless)

    def _judge(self, packing: Packing) -> Cost:
        return cost(hosts=self._hosts, packing=packing, objective=self._objective)

    @property
    def refined(self) -> Refined:
        never = {item.key for item in self._relaxed.hopeless}
        whole = all(each.item.key in never for each in self._best.unplaced)
        fewest = self._objective is Objective.FEWEST_GPUS
        bound = Bound(
            opened=self._opened if whole and fewest else 0,
            unplaced=self._unplaced,
            optimal=whole and fewest and self._cost.opened <= self._opened,
            relaxes=self._relaxed.relaxes,
        )
        return Refined(packing=self._best, bound=bound, done=self._tally.done)

    def steps(self) -> Iterator[None]:
        if not self._relaxed.stock.sizes:
            return
        if self._objective is Objective.BALANCED:  # its second term is not known here
            if self._start.unplaced:
                yield from self._prove_unplaced(())
            return
        known = () if self._has_layouts else self._relaxed.patterns(self._start)
        proof = Proof(self._relaxed.stock, self._draw, self._tally)
        for _ in proof.steps(known):
            self._note(proof)
            yield
        self._note(proof)
        yield
        if len(self._start.unplaced) > len(self._relaxed.hopeless):
            yield from self._prove_unplaced(proof.master.patterns)
        if self._start.reserved:
            return
        variants = [(self._fleet, proof)]
        if self._has_layouts:
            variants = [(each, Proof(each.inventory.stock, self._draw, self._tally)) for each in self._variants(proof)]
            for each, own in variants:
                yield from own.relax(each.inventory.patterns(self._start) if each is self._fleet else ())
        while self._tally.dives_on:
            variant, own = variants[self._tally.dives % len(variants)]
            self._tally.dives += 1
            if own.relaxed is not None:
                yield from self._descend(variant, own.master, own.relaxed)
            yield

    def _note(self, proof: Proof) -> None:
        """What is opened where all pieces are placed is a multiple of what all bins cost multiples of; the proof is of
        pieces that are left out at a penalty too, of which there are no such multiples."""
        self._opened = max(self._opened, rounded(self._relaxed.stock, Fraction(proof.bound), penalties=False))

    def _variants(self, proof: Proof) -> list[_Variant]:
        """The fleet cut as the start cuts it, and as the linear programme does."""
        ways = [] if proof.relaxed is None else proof.relaxed.ways.tolist()
        cuts = chosen_cuts(self._relaxed, self._hosts, ways) if ways else ()
        if set(cuts) == set(self._start.cuts):
            return [self._fleet]
        cut = inventory(hosts=hosts_cut(self._hosts, cuts), items=self._items)
        return [self._fleet, _Variant(inventory=cut, cuts=cuts)]

    def _prove_unplaced(self, patterns: Sequence[Pattern]) -> Iterator[None]:
        """The bytes that must stay without a place: bins cost nothing, pieces that are left out their bytes."""
        stock = self._relaxed.stock
        kinds = tuple(replace(kind, cost=0) for kind in stock.kinds)
        proof = Proof(replace(stock, kinds=kinds, penalties=stock.sizes), self._draw, self._tally)
        hopeless = self._unplaced
        for _ in proof.steps(patterns):
            self._unplaced = max(self._unplaced, hopeless + proof.bound)
            yield
        self._unplaced = max(self._unplaced, hopeless + proof.bound)

    def _descend(self, fleet: _Variant, master: Master, relaxed: Relaxed) -> Iterator[None]:
        """Lots are settled, the largest first, each with a linear programme of its own; then single pieces."""
        settled = Settled(stock=master.stock, groups=fleet.inventory.groups())
        value = fleet.worth(self._best, self._cost.opened)
        patterns = master.patterns
        while True:
            proof = Proof(settled.stock, self._draw, self._tally)
            yield from proof.relax(patterns)
            if proof.relaxed is None or settled.cost + proof.relaxed.value * proof.master.unit >= value:
                return
            if settled.largest == 1:
                break
            before, settled = settled, settle(settled, proof.master.patterns, proof.relaxed, self._draw)
            patterns = list(settled.carry(proof.master.patterns, before))
        best: Node | None = None
        for node in dive(
            proof.master,
            target=(value - 1 - settled.cost) / proof.master.unit,
            draw=self._draw,
            discrepancies=_DISCREPANCIES,
            pricer=proof.generator,
            rounds=1,
        ):
            self._tally.nodes += 1
            if best is None or node.demand.sum() < best.demand.sum():
                best = node
            yield
            if self._tally.nodes >= self._tally.most.nodes:
                break
        if best is not None:
            self._offer(fleet, settled, best.fixed)

    def _offer(self, fleet: _Variant, settled: Settled, patterns: Counter[Pattern]) -> None:
        never = {item.key for item in fleet.inventory.hopeless}
        others = (item for item in self._items if not item.gpus or item.key in never)
        found = assign(
            inventory=fleet.inventory,
            hosts=self._hosts,
            cuts=fleet.cuts,
            others=sorted(others, key=lambda item: item.key),
            settled=settled,
            patterns=solution_of(settled.stock, patterns).patterns,
        )
        judged = self._judge(found)
        if not self.keep.isdisjoint(each.item.key for each in found.unplaced) or _scattered(self._hosts, found):
            return
        if judged < self._cost and _crowding(self._hosts, found) <= self._crowding:
            self._best, self._cost = found, judged


def _scattered(hosts: Sequence[Host], packing: Packing) -> bool:
    """Whether a replica is on several domains of fast links though some domain has as many GPUs as it needs."""
    domain = {(host.name, device.id): (device.product, device.link) for host in hosts for device in host.devices}
    sizes = Counter((name, *domain[name, device]) for name, device in domain)
    largest: dict[str, int] = {}
    for (_, product, _), size in sizes.items():
        largest[product] = max(largest.get(product, 0), size)
    for placement in packing.placed:
        item = placement.item
        if (
            item.gpus > 1
            and len({domain[placement.host, device] for device in placement.devices}) > 1
            and any(
                size >= item.gpus
                for product, size in largest.items()
                if item.products is None or product in item.products
            )
        ):
            return True
    return False


def _crowding(hosts: Sequence[Host], packing: Packing) -> int:
    """How many replicas that would rather be spread share a host with another of their group."""
    tenants = {(host.name, group) for host in hosts for group in host.tenants}
    here = Counter((placement.host, placement.item.group) for placement in packing.placed)
    return sum(
        placement.item.spread is Spread.PREFER
        and (here[placement.host, placement.item.group] > 1 or (placement.host, placement.item.group) in tenants)
        for placement in packing.placed
    )
