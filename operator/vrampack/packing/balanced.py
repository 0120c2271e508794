"""Placing for even headroom: each item goes where the most is free, so equal items go round the devices."""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np

from vrampack.packing.arrays import IntArray
from vrampack.packing.board import Board
from vrampack.packing.fill import Batch, booked, fitting, limits, passes, quota
from vrampack.packing.problem import Criterion, Item


def spread_out(board: Board, item: Item, count: int) -> Iterator[Batch]:
    """Places up to ``count`` of ``item``, which needs one device or more, and books them. Ties go by row."""
    for elsewhere in passes(item):
        if item.gpus == 1:
            batches = _singles(board, item, count, elsewhere=elsewhere)
        else:
            batches = _gangs(board, item, count, elsewhere=elsewhere)
        for batch in batches:
            count -= batch.count
            yield batch
        if not count:
            return


def _singles(board: Board, item: Item, count: int, *, elsewhere: bool) -> Iterator[Batch]:
    most = limits(board, item, elsewhere=elsewhere)
    rows = np.flatnonzero(fitting(board, item, most))
    if not len(rows):
        return
    room = quota(board, item, rows)
    heap = list(zip((-board.free[rows]).tolist(), rows.tolist(), room.tolist(), strict=True))
    heapify(heap)
    left = most.tolist()
    host = board.host.tolist()
    taken: dict[int, int] = {}
    while count and heap:
        free, row, more = heap[0]
        if left[host[row]] <= 0:
            heappop(heap)
            continue
        left[host[row]] -= 1
        taken[row] = taken.get(row, 0) + 1
        count -= 1
        if more > 1:
            heapreplace(heap, (free + item.memory, row, more - 1))
        else:
            heappop(heap)
    lines = np.fromiter(taken, np.int64)
    yield booked(
        board,
        item,
        rows=lines.reshape(-1, 1),
        hosts=board.host[lines],
        amounts=np.fromiter(taken.values(), np.int64),
        fits=len(rows),
        criterion=Criterion.MOST_FREE,
    )


def _gangs(board: Board, item: Item, count: int, *, elsewhere: bool) -> Iterator[Batch]:
    """The freest devices of the set in which the least free of them has the most."""
    for sets in (board.domain, board.set) if board.linked else (board.set,):
        most = limits(board, item, elsewhere=elsewhere)
        fits = fitting(board, item, most) & board.whole
        rows = np.flatnonzero(fits)
        rows = rows[np.argsort(sets[rows], kind="stable")]
        heap: list[tuple[int, int, IntArray]] = []
        for members in np.split(rows, np.flatnonzero(np.diff(sets[rows])) + 1):
            _offer(heap, board, item, members)
        while count and heap:
            _, _, members = heappop(heap)
            team = members[: item.gpus]
            place = board.host[team[:1]]
            if most[place[0]] <= 0:
                continue
            most[place[0]] -= 1
            count -= 1
            one = np.ones(1, np.int64)
            yield booked(
                board,
                item,
                rows=team.reshape(1, -1),
                hosts=place,
                amounts=one,
                fits=len(rows),
                criterion=Criterion.MOST_FREE,
            )
            again = members[board.takes[members] & (board.free[members] >= item.memory)]
            if item.group in item.avoid or item.exclusive:
                again = again[~np.isin(again, team)]
            _offer(heap, board, item, again)


def _offer(heap: list[tuple[int, int, IntArray]], board: Board, item: Item, members: IntArray) -> None:
    if len(members) >= item.gpus:
        members = members[np.argsort(-board.free[members], kind="stable")]
        heappush(heap, (-int(board.free[members[item.gpus - 1]]), int(members.min()), members))
