"""One run over all lots, in their turn, with one rule for the devices; and its answer in the caller's words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np

from vrampack.packing.balanced import spread_out
from vrampack.packing.board import Board
from vrampack.packing.cutting import cut_for
from vrampack.packing.explain import explain
from vrampack.packing.fill import Batch, Openings, booked, fill, fitting, limits
from vrampack.packing.gangs import fill_gangs
from vrampack.packing.objective import Cost
from vrampack.packing.problem import Criterion, Item, Objective, Packing, Placement, Spread, Unplaced, Why
from vrampack.packing.reserve import Kept, given, nearest, places
from vrampack.packing.rules import FirstFit, Rule
from vrampack.packing.turn import Lot


@dataclass(slots=True, kw_only=True)
class Outcome:
    """A lot, the batches in which it was placed, and how many of it were not, always its last ones. ``kept``: the
    places reserved for the first of these."""

    lot: Lot
    batches: list[Batch] = field(default_factory=list)
    left: int
    kept: list[Kept] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of each lot, and the board behind it."""

    board: Board
    outcomes: tuple[Outcome, ...]

    @property
    def complete(self) -> bool:
        """Whether every item has its place."""
        return not any(outcome.left for outcome in self.outcomes)


def run(board: Board, lots: Sequence[Lot], rule: Rule | None, opening: Openings | None = None) -> Run:
    """Places ``lots`` one after another and books them on ``board``. ``rule``: None for even headroom. ``opening``: the
    order of the empty devices; None: the rule's own."""
    return Run(board=board, outcomes=tuple(outcomes(board, lots, rule, opening)))


def outcomes(
    board: Board, lots: Sequence[Lot], rule: Rule | None, opening: Openings | None = None
) -> Iterator[Outcome]:
    """The same lot by lot."""
    starved = False
    for number, lot in enumerate(lots):
        outcome = Outcome(lot=lot, left=len(lot.items))
        for batch in _batches(board, lot, lots[number:], rule, opening):
            outcome.batches.append(batch)
            outcome.left -= batch.count
        if outcome.left and lot.reserved is not None:
            _keep(board, outcome, given(board, lot.reserved))
        elif outcome.left and lot.patience is not None and not starved:
            owner = lot.items[-outcome.left]
            for _ in range(places(owner.waited, lot.patience)):
                _keep(board, outcome, nearest(board, owner))
            starved = bool(outcome.kept)
        yield outcome


def _keep(board: Board, outcome: Outcome, place: Kept | None) -> None:
    if place is not None:
        place.keep(board)
        outcome.kept.append(place)


def _batches(
    board: Board, lot: Lot, lots: Sequence[Lot], rule: Rule | None, opening: Openings | None
) -> Iterator[Batch]:
    """Places one lot, the first of ``lots``."""
    item, left = lot.item, len(lot.items)
    if lot.reserved is not None and (batch := _in_reserved(board, lot)) is not None:
        yield batch
        return
    while left:
        if item.gpus and rule is None:
            found = spread_out(board, item, left)
        elif item.gpus > 1:
            found = fill_gangs(board, item, left, opening)
        else:
            found = fill(board, item, left, rule or FirstFit(), opening)
        for batch in found:
            left -= batch.count
            yield batch
        if not (left and item.gpus == 1 and cut_for(board, lots, left)):
            return


def _in_reserved(board: Board, lot: Lot) -> Batch | None:
    assert lot.reserved is not None
    item, kept = lot.item, given(board, lot.reserved)
    if kept is None or len(kept.rows) != item.gpus:
        return None
    if item.gpus > 1 and not (board.whole[kept.rows].all() and np.ptp(board.set[kept.rows]) == 0):
        return None
    most = limits(board, item, elsewhere=item.spread is Spread.REQUIRE)
    fits = fitting(board, item, most)
    if most[kept.host] < 1 or board.host_closed[kept.host] or not fits[kept.rows].all():
        return None
    one = np.ones(1, np.int64)
    return booked(
        board,
        item,
        rows=kept.rows.reshape(1, -1),
        hosts=np.array([kept.host]),
        amounts=one,
        fits=int(fits.sum()),
        criterion=Criterion.RESERVED,
    )


def cost_of(run: Run, start: Board, objective: Objective) -> Cost:
    """What ``run`` costs, from the arrays; ``start``: the board before it. The same as ``objective.cost``."""
    board = run.board
    unplaced: dict[int, list[int]] = {}
    for outcome in run.outcomes:
        item = outcome.lot.item
        level = unplaced.setdefault(item.priority, [0, 0])
        level[0] += outcome.left
        level[1] += outcome.left * item.gpus * item.memory
    fresh = np.flatnonzero(board.in_use & ~start.in_use)
    opened = int(board.weight()[fresh].sum())
    if objective is Objective.BALANCED:
        rows = np.flatnonzero(~(board.asleep | board.divisible))
        used = np.maximum(board.capacity - board.free, 0)[rows] / np.maximum(board.capacity[rows], 1)
        opened = int(np.floor(used * used * (1 << 20)).sum())
    return Cost(
        unplaced=tuple((count, memory) for _, (count, memory) in sorted(unplaced.items(), reverse=True)),
        opened=opened,
        gpus=int(np.count_nonzero(np.bincount(board.gpu[fresh]))),
        moves=0,
    )


def answer(run: Run) -> Packing:
    """The packing in the words of the problem, with its reasons."""
    run.board.mend()
    placed: list[Placement] = []
    for outcome in run.outcomes:
        items = iter(outcome.lot.items)
        for batch in outcome.batches:
            placed += _placements(run.board, batch, items)
    return Packing(
        placed=tuple(placed),
        unplaced=tuple(_unplaced(run)),
        cuts=run.board.cut_list(),
        reserved=tuple(place.told(run.board) for outcome in run.outcomes for place in outcome.kept),
    )


def _placements(board: Board, batch: Batch, items: Iterator[Item]) -> list[Placement]:
    """The lines of a batch, each with as many of ``items`` as it took."""
    known, names = board.devices, board.names
    found: list[Placement] = []
    whys: dict[tuple[int, int], Why] = {}  # most lines of a batch are alike
    if batch.rows.shape[1] == 1:
        devices = [(known[row].id,) for row in batch.rows[:, 0].tolist()]
    else:
        devices = [tuple([known[row].id for row in rows]) for rows in batch.rows.tolist()]
    columns = (batch.hosts, batch.amounts, batch.free, batch.opened)
    for mine, place, amount, free, new in zip(devices, *(column.tolist() for column in columns), strict=True):
        host, left, opened = names[place], free, new
        for item in islice(items, amount) if amount > 1 else (next(items),):
            left = left - item.memory if mine else 0
            if (why := whys.get((left, opened))) is None:
                why = whys[left, opened] = Why(criterion=batch.criterion, fits=batch.fits, left=left, opened=opened)
            found.append(_placement(item, host, mine, why))
            opened = 0
    return found


def _placement(item: Item, host: str, devices: tuple[str, ...], why: Why) -> Placement:
    """A ``Placement`` without its ``__init__``, which takes three times as long: there is one for each replica."""
    found = _new(Placement)
    _set_item(found, item)
    _set_host(found, host)
    _set_devices(found, devices)
    _set_why(found, why)
    return found


_new: Final = Placement.__new__
_set_item, _set_host, _set_devices, _set_why = (
    getattr(Placement, name).__set__ for name in ("item", "host", "devices", "why")
)


def _unplaced(run: Run) -> list[Unplaced]:
    """The reasons describe the board as it is when everything is placed, with the reservations that bind an item: those
    for items before it. So this goes backwards, and lifts each on its way."""
    found: list[Unplaced] = []
    for outcome in reversed(run.outcomes):
        items = outcome.lot.items[len(outcome.lot.items) - outcome.left :]
        owners, others = (items[:1], items[1:]) if outcome.kept else ((), items)
        for waiting in (others, owners):
            if waiting is owners:
                for place in outcome.kept:
                    place.lift(run.board)
            if waiting:
                rejected, closest = explain(run.board, waiting[0])
                found += (Unplaced(item=item, rejected=rejected, closest=closest) for item in reversed(waiting))
    for outcome in run.outcomes:
        for place in outcome.kept:
            place.keep(run.board)
    return found[::-1]
