"""Placing many equal items that need several devices each, all of one product on one host.

A set of devices is filled before the next one is touched: the set of which the fewest must be opened first, then the
one with the fewest that fit, so that whole hosts stay whole; then in the order of ``Board.turn``. Where fast links are
reported, sets within one domain of them come before all others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vrampack.packing.arrays import IntArray, upto, within
from vrampack.packing.board import Board
from vrampack.packing.fill import Batch, Openings, booked, fitting, limits, passes, quota
from vrampack.packing.problem import Criterion, Item


@dataclass(frozen=True, slots=True)
class _Teams:
    """Disjoint teams of as many devices as an item needs, one a line, the best first."""

    rows: IntArray
    amounts: IntArray


def fill_gangs(board: Board, item: Item, count: int, opening: Openings | None = None) -> Iterator[Batch]:
    """Places up to ``count`` of ``item``, which needs several devices, and books them. ``opening``: the order of the
    empty devices; None: that of ``Board.turn``."""
    for elsewhere in passes(item):
        for sets in (board.domain, board.set) if board.linked else (board.set,):
            while count:
                most = limits(board, item, elsewhere=elsewhere)
                batch = _round(board, item, count, sets, most, opening)
                if batch is None:
                    break
                count -= batch.count
                yield batch


def _round(
    board: Board, item: Item, count: int, sets: IntArray, most: IntArray, opening: Openings | None
) -> Batch | None:
    fits = fitting(board, item, most)
    fits &= board.whole
    turn = board.turn
    rows = turn[fits.take(turn)]
    used = board.in_use[rows]
    empty = rows[~used]
    parts = (empty,) if opening is None or not len(empty) else opening.order(board, item, empty, count=count, most=most)
    rows = np.concatenate((rows[used], *parts))
    teams = _teams(board, item, rows, sets, count)
    if teams is None:
        return None
    hosts = board.host[teams.rows[:, 0]]
    amounts = np.minimum(teams.amounts, count)
    if most[hosts].min() < count:
        amounts = within(most, amounts, hosts)
    amounts = upto(count, amounts)
    taken = amounts > 0
    return booked(
        board,
        item,
        rows=teams.rows[taken],
        hosts=hosts[taken],
        amounts=amounts[taken],
        fits=len(rows),
        criterion=Criterion.FIRST_FIT,
    )


def _teams(board: Board, item: Item, rows: IntArray, sets: IntArray, count: int) -> _Teams | None:
    """The teams from the best ``count`` sets; ``rows``: all devices that fit, the best first."""
    size = item.gpus
    owner = sets[rows]
    fit = np.bincount(owner)
    able = np.flatnonzero(fit >= size)
    if not len(able):
        return None
    in_use = np.bincount(owner[board.in_use[rows]], minlength=len(fit))
    first = np.full(len(fit), len(rows))
    first[owner[::-1]] = np.arange(len(rows) - 1, -1, -1)
    # Three numbers in one, the first the most significant; what must be opened for the first team of the set.
    opened = np.maximum(size - in_use[able], 0)
    score = (((opened << 15) + np.minimum(fit[able], (1 << 15) - 1)) << 32) + first[able]
    best = np.argpartition(score, count)[:count] if count < len(able) else np.arange(len(able))
    best = able[best[np.argsort(score[best])]]
    rank = np.full(len(fit), -1)
    rank[best] = np.arange(len(best))
    # The devices of these sets, set by set; in each set those in use first.
    chosen = rank[owner] >= 0
    rows, place = rows[chosen], rank[owner[chosen]]
    order = np.argsort(place, kind="stable")
    rows, place = rows[order], place[order]
    start = np.cumsum(fit[best]) - fit[best]
    number = np.arange(len(rows)) - start[place]
    whole = number < (fit[best] // size * size)[place]
    lines = rows[whole].reshape(-1, size)
    # Of all teams those that open the fewest come first, whichever set they are of.
    lines = lines[np.argsort((~board.in_use[lines]).sum(axis=1), kind="stable")]
    amounts = quota(board, item, lines.ravel()).reshape(-1, size).min(axis=1)
    return _Teams(lines, amounts)
