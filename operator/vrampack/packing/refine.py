"""Better than the first plan, step by step: column generation over classes of replicas and kinds of GPUs, and dives.

For plans of a whole fleet. Existing claims stay where they are. The answer depends on the input as sets, the seed and
the work only; it is never worse than the plan that it started from, and ends when a bound proves it optimal.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vrampack.packing.assign import assign
from vrampack.packing.columns import Master, Relaxed
from vrampack.packing.dive import dive
from vrampack.packing.generation import Generator
from vrampack.packing.inventory import Inventory, hosts_cut, inventory
from vrampack.packing.lots import Settled, settle
from vrampack.packing.objective import Cost, cost
from vrampack.packing.problem import Bound, Host, Item, Objective, Packing, Spread, Work
from vrampack.packing.stock import Pattern, solution_of

_DISCREPANCIES = 4


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
    cancelled: Callable[[], bool] | None = None,
) -> Refined:
    """The best packing that ``work`` finds, at least as good as ``start``, which must be one of these items.

    ``cancelled`` is asked between steps; where it says so, the best so far is the answer.
    """
    steps = refinements(hosts=hosts, items=items, objective=objective, start=start, seed=seed, work=work)
    best = next(steps)
    while not (cancelled is not None and cancelled()) and (further := next(steps, None)) is not None:
        best = further
    return best


def refinements(
    *, hosts: Sequence[Host], items: Sequence[Item], objective: Objective, start: Packing, seed: int, work: Work
) -> Iterator[Refined]:
    """The same step by step: a step is a pricing round or a linear programme of a dive. The first is ``start``."""
    search = _Search(hosts, items, objective, start, seed, work)
    yield search.refined
    if objective is Objective.FEWEST_GPUS:
        for _ in search.steps():
            yield search.refined
            if search.refined.bound.optimal:
                return


class _Search:
    def __init__(
        self,
        hosts: Sequence[Host],
        items: Sequence[Item],
        objective: Objective,
        start: Packing,
        seed: int,
        work: Work,
    ) -> None:
        self._hosts = hosts
        self._objective = objective
        self._cut_hosts = hosts_cut(hosts, start.cuts)
        self._start = start
        self._others = sorted((item for item in items if not item.gpus), key=lambda item: item.key)
        self._inventory: Inventory = inventory(hosts=self._cut_hosts, items=items)
        self._work = work
        self._draw = np.random.default_rng(seed)
        self._generator = Generator(self._inventory.stock, self._draw)
        self._best = start
        self._cost = self._judge(start)
        self._crowding = _crowding(hosts, start)
        self._proven = 0
        self._dives = 0
        self._nodes = 0
        self._spent = 0
        self._current: Generator | None = None
        self._value = self._worth()

    def _judge(self, packing: Packing) -> Cost:
        return cost(hosts=self._hosts, packing=packing, objective=self._objective)

    @property
    def refined(self) -> Refined:
        done = Work(rounds=self._rounds, dives=self._dives, nodes=self._nodes)
        whole = not any(count for count, _ in self._cost.unplaced)
        bound = Bound(
            opened=self._proven if whole else 0,
            unplaced=0,
            optimal=whole and self._cost.opened <= self._proven,
            relaxes=self._inventory.relaxes,
        )
        return Refined(packing=self._best, bound=bound, done=done)

    def steps(self) -> Iterator[None]:
        stock = self._inventory.stock
        if not stock.sizes or not stock.kinds:
            return
        master = Master(stock)
        master.add(self._inventory.patterns(self._start))
        hidden = 1
        while hidden:
            yield from self._relax(master, self._generator)
            hidden = self._generator.prove(master, self._relaxed)
            self._proven = max(self._proven, self._generator.bound)
            yield
        whole = self._relaxed
        while self._dives < self._work.dives and self._nodes < self._work.nodes:
            self._dives += 1
            yield from self._descend(master, whole)

    def _relax(self, master: Master, generator: Generator) -> Iterator[None]:
        """The linear programme, priced to its end."""
        demand = np.array(master.stock.counts, dtype=np.int64)
        while True:
            relaxed = master.solve()
            assert relaxed is not None  # everything may be left out
            self._relaxed = relaxed
            if self._rounds >= self._work.rounds or not generator.improve(master, relaxed, demand):
                return
            yield

    def _descend(self, master: Master, relaxed: Relaxed) -> Iterator[None]:
        """Lots are settled, the largest first, each with a linear programme of its own; then single pieces."""
        settled = Settled(stock=master.stock, groups=self._inventory.groups())
        while settled.largest > 1:
            before, settled = settled, settle(settled, master.patterns, relaxed, self._draw)
            patterns = settled.carry(master.patterns, before)
            master = Master(settled.stock)
            master.add(patterns)
            self._spent += self._current.rounds if self._current is not None else 0
            self._current = Generator(settled.stock, self._draw)
            yield from self._relax(master, self._current)
            relaxed = self._relaxed
            if settled.cost + relaxed.value * master.unit >= self._value:
                return
        fixed: Counter[Pattern] = Counter()
        target = (self._value - 1 - settled.cost) / master.unit
        for node in dive(master, target=target, draw=self._draw, discrepancies=_DISCREPANCIES, pricer=self, rounds=1):
            self._nodes += 1
            fixed = node.fixed
            yield
            if self._nodes >= self._work.nodes:
                break
        self._offer(settled, fixed)
        yield

    @property
    def _rounds(self) -> int:
        return self._generator.rounds + self._spent + (self._current.rounds if self._current is not None else 0)

    def improve(self, master: Master, relaxed: Relaxed, demand: NDArray[np.int64]) -> int:
        """Prices while there is work left for it."""
        if self._rounds >= self._work.rounds or self._current is None:
            return 0
        return self._current.improve(master, relaxed, demand)

    def _offer(self, settled: Settled, patterns: Counter[Pattern]) -> None:
        found = assign(
            inventory=self._inventory,
            hosts=self._cut_hosts,
            others=self._others,
            settled=settled,
            patterns=solution_of(settled.stock, patterns).patterns,
        )
        found = replace(found, cuts=(*self._start.cuts, *found.cuts))
        judged = self._judge(found)
        if judged < self._cost and _crowding(self._hosts, found) <= self._crowding:
            self._best, self._cost = found, judged
            self._value = self._worth()

    def _worth(self) -> int:
        """The best packing as a cost of the stock."""
        left = {each.item.key for each in self._best.unplaced}
        total = self._cost.opened
        for members, cost_of_piece in zip(self._inventory.classes, self._inventory.stock.penalties or (), strict=True):
            total += cost_of_piece * sum(item.gpus for item in members.items if item.key in left)
        return total


def _crowding(hosts: Sequence[Host], packing: Packing) -> int:
    """How many replicas that would rather be spread share a host with another of their group."""
    tenants = {(host.name, group) for host in hosts for group in host.tenants}
    here = Counter((placement.host, placement.item.group) for placement in packing.placed)
    return sum(
        placement.item.spread is Spread.PREFER
        and (here[placement.host, placement.item.group] > 1 or (placement.host, placement.item.group) in tenants)
        for placement in packing.placed
    )
