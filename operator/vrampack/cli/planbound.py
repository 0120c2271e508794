"""How good a plan's packing is: what is proven of each pool, and whether a better one is known."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from vrampack.cli.planview import BoundRow
from vrampack.packing.problem import Work
from vrampack.packing.refine import Refined, refinements
from vrampack.planning.candidates import Eligibility, objective_of
from vrampack.planning.cases import cases
from vrampack.planning.inventory import inventory
from vrampack.planning.placing import place
from vrampack.planning.rehearsal import Rehearsal
from vrampack.planning.verdict import Settings
from vrampack.planning.whole import Whole, proven, said

_WORK = Work(rounds=1_000_000, dives=1_000_000, nodes=1_000_000)
"""More than anybody waits for: what ends the search is the caller."""


def searches(
    found: Rehearsal, *, seed: int, until: float, clock: Callable[[], float]
) -> Iterator[tuple[int, BoundRow]]:
    """For one pool after another the number of its row, and the row as it gets better. ``until``: of ``clock``."""
    snapshot, settings = found.snapshot, Settings()
    stock = inventory(snapshot)
    given = cases(snapshot, settings, stock=stock)
    placed = place(snapshot, stock, given, Eligibility(snapshot), patience=settings.patience_seconds, everywhere=True)
    pools = {pool.name: pool for pool in snapshot.pools}
    for number, (name, asked) in enumerate(sorted(placed.questions.items())):
        question = asked.whole
        if not question.items:
            continue
        for best in refinements(
            hosts=question.hosts,
            items=question.items,
            objective=objective_of(pools[name]),
            start=question.packing,
            seed=seed,
            work=_WORK,
        ):
            yield number, _row(name, question, best)
            if clock() > until:
                break


def _row(pool: str, question: Whole, best: Refined) -> BoundRow:
    """What is proven is proven of every packing, so of the operator's too."""
    other = replace(question, packing=best.packing)
    words = proven(question, best.bound)
    if len(best.packing.unplaced) < len(question.packing.unplaced):
        fewer = len(question.packing.unplaced) - len(best.packing.unplaced)
        words += f"; packed anew as a whole, {fewer} more of those that wait would fit"
    elif other.used < question.used:
        words += f"; packed anew as a whole, it would be {said(best.bound, question=other)}"
    return BoundRow(pool=pool, least=best.bound.opened, used=question.used, words=words, relaxes=best.bound.relaxes)
