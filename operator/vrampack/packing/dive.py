"""From the linear programme to whole bins: fix, solve again, price again; on a dead end take the last choice back.

A dive fixes the whole part of every pattern and, where there is none, one of the most used ones by lot; what is left is
a smaller problem of the same kind. A node whose linear programme is above the target is left at once, so a dive is a
depth-first search with few discrepancies (Sadykov, Vanderbeck, Pessoa, Tahiri, Uchoa: Primal heuristics for
branch-and-price, INFORMS Journal on Computing 31, 2019).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vrampack.packing.columns import Master, Relaxed
from vrampack.packing.stock import Pattern

_INTS = NDArray[np.int64]
NEARLY = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Where a dive stands: bins fixed so far, and what they leave. ``banned``: columns that led to a dead end;
    ``careful``: one bin at a time, since fixing all whole parts led to one."""

    fixed: Counter[Pattern]
    cost: int
    demand: _INTS
    supply: tuple[int | None, ...]
    banned: frozenset[int] = frozenset()
    careful: bool = False


class Pricer(Protocol):
    """Finds patterns that lower the linear programme."""

    def improve(self, master: Master, relaxed: Relaxed, demand: _INTS) -> int:
        """Adds patterns within ``demand`` to ``master``; how many there were."""


def root(master: Master) -> Node:
    """Nothing fixed yet."""
    stock = master.stock
    return Node(
        fixed=Counter(),
        cost=0,
        demand=np.array(stock.counts, dtype=np.int64),
        supply=tuple(kind.supply for kind in stock.kinds),
    )


def dive(
    master: Master,
    *,
    target: float,
    draw: np.random.Generator,
    discrepancies: int,
    pricer: Pricer | None,
    rounds: int = 0,
) -> Iterator[Node]:
    """Nodes on the way down; the last one with no demand left is a solution within ``target``, in the unit of the
    master. ``discrepancies`` choices at most are taken back; ``rounds`` of pricing at each node, more where the target
    asks for it."""
    node = root(master)
    untried: list[Node] = []
    while True:
        relaxed = _solved(master, node, target, pricer, rounds)
        if relaxed is not None:
            node, other = _deeper(master, node, relaxed, draw)
            untried.append(other)
            yield node
            if not node.demand.any():
                return
        elif not untried or discrepancies == 0:
            return
        else:
            discrepancies -= 1
            node = untried.pop()


def _solved(master: Master, node: Node, target: float, pricer: Pricer | None, rounds: int) -> Relaxed | None:
    """The linear programme of the node, priced until it is within the target; None where it can't be."""
    while True:
        upper = master.fitting(node.demand)
        if node.banned:
            upper[list(node.banned)] = 0
        master.restrict(demand=node.demand, supply=node.supply, upper=upper)
        relaxed = master.solve()
        if relaxed is None:
            return None
        within = node.cost / master.unit + relaxed.value <= target + NEARLY
        if within and rounds <= 0:
            return relaxed
        rounds -= 1
        if pricer is None or not pricer.improve(master, relaxed, node.demand):
            return relaxed if within else None


def _deeper(master: Master, node: Node, relaxed: Relaxed, draw: np.random.Generator) -> tuple[Node, Node]:
    """The node with more fixed, and the one to go on from where that is a dead end."""
    whole = np.floor(relaxed.times + NEARLY).astype(np.int64)
    if whole.any() and not node.careful:
        certain = [(int(column), int(whole[column])) for column in np.flatnonzero(whole)]
        return _fix(master, node, certain), replace(node, careful=True)
    shares = relaxed.times - whole if not node.careful else np.minimum(relaxed.times, 1.0)
    columns = np.flatnonzero(shares > NEARLY)
    if not len(columns):
        return replace(node, demand=np.zeros_like(node.demand)), node
    scores = shares[columns] * (1 - 0.3 * draw.random(len(columns)))
    column = int(columns[np.argmax(scores)])
    return _fix(master, node, [(column, 1)]), replace(node, banned=node.banned | {column})


def _fix(master: Master, node: Node, columns: list[tuple[int, int]]) -> Node:
    """``node`` with these patterns fixed, as often as they fit into what is left."""
    demand = node.demand.copy()
    supply = list(node.supply)
    fixed: Counter[Pattern] = Counter()
    cost = 0
    for column, times in columns:
        pattern = master.patterns[column]
        fits = min(times, *(int(demand[each]) // many for each, many in pattern.parts))
        room = supply[pattern.kind]
        if room is not None:
            fits = min(fits, room)
            supply[pattern.kind] = room - fits
        if fits <= 0:
            continue
        for each, many in pattern.parts:
            demand[each] -= many * fits
        fixed[pattern] += fits
        cost += fits * master.stock.kinds[pattern.kind].cost
    if not fixed:
        return node
    return replace(
        node, fixed=node.fixed + fixed, cost=node.cost + cost, demand=demand, supply=tuple(supply), banned=node.banned
    )
