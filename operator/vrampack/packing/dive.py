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
_NEARLY = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Where a dive stands: bins fixed so far, and what they leave."""

    fixed: Counter[Pattern]
    cost: int
    demand: _INTS
    supply: tuple[int | None, ...]
    banned: frozenset[int] = frozenset()


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
    master: Master, *, target: int, draw: np.random.Generator, discrepancies: int, pricer: Pricer | None, eager: float
) -> Iterator[Node]:
    """Nodes on the way down; the last one with no demand left is a solution within ``target``.

    Every linear programme that is solved is one node. ``eager``: from which share of a bin on a pattern is rounded up
    together with others; above 1 never.
    """
    node = root(master)
    choices: list[tuple[Node, int]] = []
    while True:
        relaxed = _solved(master, node, target, pricer)
        if relaxed is not None:
            node, choice = _deeper(master, node, relaxed, draw, eager)
            if choice is not None:
                choices.append(choice)
            yield node
            if not node.demand.any():
                return
            continue
        if not choices or discrepancies == 0:
            return
        discrepancies -= 1
        before, banned = choices.pop()
        node = replace(before, banned=before.banned | {banned})
        yield node


def _solved(master: Master, node: Node, target: int, pricer: Pricer | None) -> Relaxed | None:
    """The linear programme of the node, priced until it is within the target; None where it can't be."""
    while True:
        upper = master.fitting(node.demand)
        if node.banned:
            upper[list(node.banned)] = 0
        master.restrict(demand=node.demand, supply=node.supply, upper=upper)
        relaxed = master.solve()
        if relaxed is not None and node.cost + relaxed.value <= target + _NEARLY:
            return relaxed
        if pricer is None or relaxed is None or not pricer.improve(master, relaxed, node.demand):
            return None


def _deeper(
    master: Master, node: Node, relaxed: Relaxed, draw: np.random.Generator, eager: float
) -> tuple[Node, tuple[Node, int] | None]:
    """The node with whole parts fixed, or else one pattern that was chosen, with what would undo the choice."""
    whole = np.floor(relaxed.times + _NEARLY).astype(np.int64)
    certain = [(int(column), int(whole[column])) for column in np.flatnonzero(whole)]
    fixed = _fix(master, node, certain)
    if fixed is not node:
        return fixed, None
    fractions = relaxed.times - whole
    columns = np.flatnonzero(fractions > _NEARLY)
    scores = fractions[columns] * (1 - 0.3 * draw.random(len(columns)))
    ordered = [int(columns[place]) for place in np.argsort(-scores, kind="stable")]
    chosen = [ordered[0], *(column for column in ordered[1:] if fractions[column] >= eager)]
    return _fix(master, node, [(column, 1) for column in chosen]), (node, ordered[0])


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
