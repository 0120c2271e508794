"""Which of the GPUs that fit a replica gets: by what is typical of its pool."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from vrampack.packing.fragments import FewestFragments
from vrampack.packing.mix import Typical
from vrampack.packing.problem import Objective
from vrampack.packing.rules import Rule
from vrampack.planning.candidates import demand, objective_of
from vrampack.planning.cases import Case
from vrampack.planning.need import Need
from vrampack.planning.snapshot import PoolView
from vrampack.planning.verdict import Sized

FEW: Final = 32
"""Replicas that wait at once. More of them are a plan of their own, for which first-fit decreasing opens less."""


def rule_of(given: Iterable[Case], pool: PoolView, *, waiting: int) -> Rule | None:
    """The order in which GPUs are filled for so many replicas; None: the packer's own. It depends on the models alone,
    not on who runs and who waits, so it stays the same while they are placed."""
    if not 0 < waiting <= FEW or objective_of(pool) is Objective.BALANCED:
        return None
    mix = mix_of(each for each in given if each.pool == pool.name)
    return FewestFragments(mix) if mix else None


def mix_of(given: Iterable[Case]) -> tuple[Typical, ...]:
    """What these models ask for, each as often as it has replicas. CPU is left out: of GPU nodes it is hardly ever what
    is short."""
    asked: Counter[tuple[int, int, frozenset[str] | None]] = Counter()
    for case in given:
        need = _need(case)
        if need is not None and case.replicas and case.model.spec is not None:
            products = frozenset(case.model.spec.placement.gpu_products) or None
            asked[demand(need.gpus), demand(need.bytes), products] += case.replicas
    return tuple(
        Typical(gpus=gpus, memory=memory, products=products, weight=float(weight))
        for (gpus, memory, products), weight in sorted(asked.items(), key=_order)
    )


def _need(case: Case) -> Need | None:
    if (live := case.live_need) is not None:
        return live
    return case.sized.need if isinstance(case.sized, Sized) else None


def _order(asked: tuple[tuple[int, int, frozenset[str] | None], int]) -> tuple[int, int, list[str]]:
    (gpus, memory, products), _ = asked
    return gpus, memory, sorted(products or ())
