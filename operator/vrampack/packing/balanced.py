"""Placing for even headroom: each item goes where the most is free, so equal items go round the devices."""

from collections.abc import Iterator
from heapq import heappop, heappush

import numpy as np

from vrampack.packing.arrays import IntArray, sizes, starts
from vrampack.packing.board import Board
from vrampack.packing.fill import Batch, booked, fitting, limits, passes, quota
from vrampack.packing.problem import Criterion, Item

_Offer = tuple[int, int]
"""What is free, negative, and a row: the least is the best."""


def spread_out(board: Board, item: Item, count: int) -> Iterator[Batch]:
    """Places up to ``count`` of ``item``, which needs one device or more, and books them. Ties go by row."""
    for elsewhere in passes(item):
        if item.gpus > 1:
            batches = _gangs(board, item, count, elsewhere=elsewhere)
        elif elsewhere:
            batches = _one_a_host(board, item, count)
        else:
            batches = _singles(board, item, count)
        for batch in batches:
            count -= batch.count
            yield batch
        if not count:
            return


def _one_a_host(board: Board, item: Item, count: int) -> Iterator[Batch]:
    """The freest device of each host that has none of the item's group, the freest host first."""
    rows = np.flatnonzero(fitting(board, item, limits(board, item, elsewhere=True)))
    if not len(rows):
        return
    start = starts(board.host[rows])
    best = np.maximum.reduceat(board.free[rows], start)
    rows_of_best = np.flatnonzero(board.free[rows] == best.repeat(sizes(start, len(rows))))
    first = rows[rows_of_best[starts(board.host[rows[rows_of_best]])]]
    lines = first[np.lexsort((first, -best))][:count]
    yield _booked(board, item, lines.reshape(-1, 1), np.ones(len(lines), np.int64), fits=len(rows))


def _singles(board: Board, item: Item, count: int) -> Iterator[Batch]:
    most = limits(board, item, elsewhere=False)
    rows = np.flatnonzero(fitting(board, item, most))
    if not len(rows):
        return
    best = rows[np.argsort(-board.free[rows], kind="stable")]
    queue = _Queue(list(zip((-board.free[best]).tolist(), best.tolist(), strict=True)))
    more = dict(zip(best.tolist(), quota(board, item, best).tolist(), strict=True))
    left = most.tolist()
    taken: dict[int, int] = {}
    while count and (offer := queue.pop()) is not None:
        free, row = offer
        place = int(board.host[row])
        if left[place] < 1:
            continue
        left[place] -= 1
        count -= 1
        taken[row] = taken.get(row, 0) + 1
        if taken[row] < more[row]:
            queue.push((free + item.memory, row))
    lines = np.fromiter(taken, np.int64)
    yield _booked(board, item, lines.reshape(-1, 1), np.fromiter(taken.values(), np.int64), fits=len(rows))


def _gangs(board: Board, item: Item, count: int, *, elsewhere: bool) -> Iterator[Batch]:
    """The freest devices of the set in which the least free of them has the most."""
    for sets in (board.domain, board.set) if board.linked else (board.set,):
        most = limits(board, item, elsewhere=elsewhere)
        rows = np.flatnonzero(fitting(board, item, most) & board.whole)
        rows = rows[np.lexsort((-board.free[rows], sets[rows]))]
        start = starts(sets[rows])
        size = sizes(start, len(rows))
        start, size = start[size >= item.gpus], size[size >= item.gpus]
        last = board.free[rows[start + item.gpus - 1]]
        best = np.lexsort((start, -last))
        members = {first: (first, first + many) for first, many in zip(start.tolist(), size.tolist(), strict=True)}
        queue = _Queue(list(zip((-last[best]).tolist(), start[best].tolist(), strict=True)))
        while count and (offer := queue.pop()) is not None:
            begin, end = members[offer[1]]
            team = rows[begin:end][: item.gpus].reshape(1, -1).copy()  # rows are sorted anew below
            place = int(board.host[team[0, 0]])
            if most[place] < 1:
                continue
            most[place] -= 1
            count -= 1
            yield _booked(board, item, team, np.ones(1, np.int64), fits=len(rows))
            again = rows[begin:end]
            again = again[board.takes[again] & (board.free[again] >= item.memory)]
            if item.group in item.avoid:
                again = again[~np.isin(again, team)]
            if len(again) >= item.gpus:
                again = np.sort(again)
                rows[begin : begin + len(again)] = again[np.argsort(-board.free[again], kind="stable")]
                members[offer[1]] = (begin, begin + len(again))
                queue.push((-int(board.free[rows[begin + item.gpus - 1]]), offer[1]))


class _Queue:
    """Offers, the best first: those that have not been taken yet, and those that were put back."""

    def __init__(self, offers: list[_Offer]) -> None:
        """``offers`` are in order."""
        self._fresh = offers[::-1]
        self._back: list[_Offer] = []

    def pop(self) -> _Offer | None:
        """The best; None where there is none."""
        if self._back and (not self._fresh or self._back[0] < self._fresh[-1]):
            return heappop(self._back)
        return self._fresh.pop() if self._fresh else None

    def push(self, offer: _Offer) -> None:
        """Put one back."""
        heappush(self._back, offer)


def _booked(board: Board, item: Item, rows: IntArray, amounts: IntArray, *, fits: int) -> Batch:
    return booked(
        board,
        item,
        rows=rows,
        hosts=board.host[rows[:, 0]],
        amounts=amounts,
        fits=fits,
        criterion=Criterion.MOST_FREE,
    )
