"""Placing many equal items at once: each device, in the order of a rule, takes as many of them as it can.

The outcome is what one item after another would get, since equal items fill a device before the next one is touched.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vrampack.packing.arrays import PLENTY, BoolArray, IntArray, upto, within
from vrampack.packing.board import Board
from vrampack.packing.problem import Criterion, Item, Spread
from vrampack.packing.rules import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Equal items that were placed together, one line for each set of devices.

    ``rows``: the devices, one column for each of the item's; ``amounts``: how many items a line took, which are booked;
    ``free``: bytes that the fullest of its devices had before; ``opened``: how many of them were empty before.
    ``fits``: how many devices (hosts, for items without) could have taken the first of these items. ``count``: the sum
    of ``amounts``.
    """

    rows: IntArray
    hosts: IntArray
    amounts: IntArray
    free: IntArray
    opened: IntArray
    fits: int
    criterion: Criterion
    count: int


def passes(item: Item) -> tuple[bool, ...]:
    """Whether to look only at hosts without the item's group, in each pass over the fleet.

    A wish for spread comes before the objective: what the user wishes for one model outweighs what the pool prefers for
    all.
    """
    if item.spread is Spread.IGNORE:
        return (False,)
    return (True,) if item.spread is Spread.REQUIRE else (True, False)


def limits(board: Board, item: Item, *, elsewhere: bool) -> IntArray:
    """How many of ``item`` each host can take by its CPU, RAM and slots, and by what the item asks of hosts."""
    most = np.maximum(board.room, 0)
    # As in Kubernetes, who asks for no CPU or RAM is welcome even where more is promised than there is.
    if item.cpu:
        np.minimum(most, board.cpu // item.cpu, out=most)
    if item.host_memory:
        np.minimum(most, board.ram // item.host_memory, out=most)
    if (refused := board.refusals(item)) is not None:
        most[refused > 0] = 0
    if elsewhere:
        np.minimum(most, 1, out=most)
        most[board.guests.of(item.group)] = 0
    most[board.alone.of(item.group)] = 0
    return most


def allowed(board: Board, item: Item) -> BoolArray:
    """Which devices are of a product that ``item`` may have."""
    if item.products is None:
        return np.ones(len(board.product), np.bool_)
    codes = np.zeros(len(board.products), np.bool_)
    codes[[board.products[name] for name in item.products if name in board.products]] = True
    return codes.take(board.product)


def fitting(board: Board, item: Item, most: IntArray) -> BoolArray:
    """Which devices can take their share of ``item`` now, on hosts that take ``most`` of it."""
    fits = board.free >= item.memory
    fits &= board.takes
    if item.products is not None:
        fits &= allowed(board, item)
    if most.min(initial=PLENTY) <= 0:
        fits &= (most > 0).take(board.host)
    if item.exclusive:
        fits &= ~board.occupied
    shut = board.shut(item.group, item.avoid)
    if len(shut):
        fits[shut] = False
    return fits


def quota(board: Board, item: Item, rows: IntArray) -> IntArray:
    """How many of ``item`` each of ``rows`` can take."""
    if item.exclusive or item.group in item.avoid:
        return np.ones(len(rows), np.int64)
    if item.memory == 0:
        return board.slots[rows]
    most: IntArray = board.free[rows] // item.memory
    return np.minimum(most, board.slots[rows]) if board.counted else most


class Openings(Protocol):
    """The order in which empty devices are opened."""

    def order(self, board: Board, item: Item, rows: IntArray, *, count: int, most: IntArray) -> Iterator[IntArray]:
        """``rows``, empty devices that can take ``item``, in the order in which ``count`` items open them, part by
        part. ``most``: how many items each host takes."""


def fill(board: Board, item: Item, count: int, rule: Rule, opening: Openings | None = None) -> Iterator[Batch]:
    """Places up to ``count`` of ``item``, which needs one device or none, and books them. ``opening``: the order of the
    empty devices, with a rule that takes those in use first; None: the rule's own."""
    for elsewhere in passes(item):
        most = limits(board, item, elsewhere=elsewhere)
        if item.gpus == 0:
            lines = _hosts(board, item, count, most)
        else:
            lines = _devices(board, item, count, most, rule, opening)
        for batch in lines:
            count -= batch.count
            yield batch
        if not count:
            return


def _hosts(board: Board, item: Item, count: int, most: IntArray) -> Iterator[Batch]:
    """Hosts with the fewest devices first, so that CPU stays beside GPUs; then by name."""
    able = np.flatnonzero((most > 0) & (board.host_closed == 0))
    hosts = able[np.argsort(board.size_of_host[able], kind="stable")][:count]
    if len(hosts):
        amounts = upto(count, np.minimum(most[hosts], count))
        hosts, amounts = hosts[amounts > 0], amounts[amounts > 0]
        yield booked(
            board,
            item,
            rows=np.empty((len(hosts), 0), np.int64),
            hosts=hosts,
            amounts=amounts,
            fits=len(able),
            criterion=Criterion.FIRST_FIT,
        )


def _devices(
    board: Board, item: Item, count: int, most: IntArray, rule: Rule, opening: Openings | None
) -> Iterator[Batch]:
    fits = fitting(board, item, most)
    turn = board.turn
    rows = turn[fits.take(turn)]
    found = len(rows)
    if not found:
        return
    rows = rule.order(board, item, rows)
    used = found if opening is None else int(np.count_nonzero(board.in_use[rows]))
    if used:
        for batch in _along(board, item, count, most, rows[:used], fits=found, criterion=rule.criterion):
            count -= batch.count
            yield batch
    if count and opening is not None and used < found:
        for part in opening.order(board, item, rows[used:], count=count, most=most):
            for batch in _along(board, item, count, most, part, fits=found, criterion=rule.criterion):
                count -= batch.count
                yield batch
            if not count:
                return


def _along(
    board: Board, item: Item, count: int, most: IntArray, rows: IntArray, *, fits: int, criterion: Criterion
) -> Iterator[Batch]:
    """Fills ``rows`` one after another; what their hosts take less is written into ``most``."""
    start, size = 0, 2 * count + 64
    while count and start < len(rows):
        lot = rows[start : start + size]
        start, size = start + size, 2 * size
        amounts = np.minimum(quota(board, item, lot), count)
        hosts = board.host[lot]
        if most[hosts].min() < count:
            amounts = within(most, amounts, hosts)
        amounts = upto(count, amounts)
        taken = amounts > 0
        lot, hosts, amounts = lot[taken], hosts[taken], amounts[taken]
        if len(lot):
            batch = booked(
                board,
                item,
                rows=lot.reshape(-1, 1),
                hosts=hosts,
                amounts=amounts,
                fits=fits,
                criterion=criterion,
            )
            count -= batch.count
            if count:
                np.subtract.at(most, hosts, amounts)
            yield batch


def booked(
    board: Board, item: Item, *, rows: IntArray, hosts: IntArray, amounts: IntArray, fits: int, criterion: Criterion
) -> Batch:
    """Books these lines, and notes how it was before."""
    if item.gpus == 1:  # the same, in a third of the time
        flat = rows[:, 0]
        free, opened = board.free[flat], (~board.in_use[flat]).astype(np.int64)
    else:
        free, opened = board.free[rows].min(axis=1, initial=PLENTY), (~board.in_use[rows]).sum(axis=1)
    batch = Batch(
        rows=rows,
        hosts=hosts,
        amounts=amounts,
        free=free,
        opened=opened,
        fits=fits,
        criterion=criterion,
        count=int(amounts.sum()),
    )
    board.book(item, rows=rows, hosts=hosts, amounts=amounts)
    return batch
