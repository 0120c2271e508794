"""Why an item has no device: every device by the first reason that rules it out, and the one that came nearest."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from vrampack.packing.arrays import IntArray, sizes, starts
from vrampack.packing.board import CODES, Board
from vrampack.packing.fill import allowed
from vrampack.packing.problem import Closest, Item, Reason, Spread

_LACK: Final = CODES[Reason.INSUFFICIENT_GPU_MEMORY]


def verdicts(board: Board, item: Item) -> IntArray:
    """By device, the code of the first reason why it can't take its share of ``item`` by itself; 0 where it can.

    First means the order of Reason, so what is tested first is written last. Rows that sleep are to be left out.
    """
    codes = np.where(board.free < item.memory, _LACK, np.where(board.kept > 0, CODES[Reason.RESERVED], 0))
    shortage, spread, early = _of_hosts(board, item)
    _overrule(codes, shortage, board.host)
    codes[board.slots <= 0] = CODES[Reason.GPU_FULL]
    if item.exclusive:
        codes[board.occupied] = CODES[Reason.GPU_NOT_EMPTY]
    codes[board.exclusive] = CODES[Reason.GPU_EXCLUSIVE]
    _overrule(codes, spread, board.host)
    codes[board.shut(item.group, item.avoid)] = CODES[Reason.AVOIDED_NEIGHBOUR]
    if item.gpus > 1:
        codes[~board.whole] = CODES[Reason.SLICE]
    if item.products is not None:
        codes[~allowed(board, item)] = CODES[Reason.PRODUCT_MISMATCH]
    if (refused := board.refusals(item)) is not None:
        _overrule(codes, refused, board.host)
    np.copyto(codes, board.closed, where=board.closed > 0)
    _overrule(codes, early, board.host)
    return codes


def explain(board: Board, item: Item) -> tuple[Mapping[str, int], Closest | None]:
    """How many devices each reason rules out for ``item``, as the board stands, and the device that came nearest."""
    names = {code: str(reason) for reason, code in board.reasons.items()}
    names[0] = str(Reason.TOO_FEW_GPUS)  # a device without an obstacle of its own has too few like it beside it
    if not item.gpus:
        shortage, spread, early = _of_hosts(board, item)
        refused = board.refusals(item)
        codes = np.where(spread > 0, spread, shortage)
        codes = codes if refused is None else np.where(refused > 0, refused, codes)
        count = np.bincount(np.where(early > 0, early, codes), weights=board.size_of_host).astype(np.int64)
        return _by_name(count, names), None
    codes = verdicts(board, item)
    rows = np.flatnonzero(~board.asleep)
    codes = codes[rows]
    return _by_name(np.bincount(codes), names), _closest(board, item, rows, codes)


def _closest(board: Board, item: Item, rows: IntArray, codes: IntArray) -> Closest | None:
    """The device that decides for devices of one product on one host, where they lack nothing but memory.

    With several GPUs that is the k-th best: once it has room, those before it have too. Ties go by row.
    """
    able = rows[codes == _LACK] if item.gpus == 1 else rows[(codes == _LACK) | (codes == 0)]
    if not len(able):
        return None
    free = board.free[able]
    if item.gpus == 1:
        best = int(np.argmax(free))
    else:
        start = starts(board.set[able])
        size = sizes(start, len(able))
        number = np.arange(len(able)) - np.repeat(start, size)
        table = np.full((len(start), int(size.max())), -(1 << 62))
        table[np.repeat(np.arange(len(start)), size), number] = free
        if item.gpus > table.shape[1]:
            return None
        decisive = np.partition(table, -item.gpus, axis=1)[:, -item.gpus]
        decisive[size < item.gpus] = -(1 << 62)
        line = int(np.argmax(decisive))
        if size[line] < item.gpus:
            return None
        best = int(start[line] + np.flatnonzero(table[line] == decisive[line])[0])
    row = int(able[best])
    left = int(board.free[row])
    return Closest(
        host=board.names[int(board.host[row])], device=board.devices[row].id, free=left, short=item.memory - left
    )


def _of_hosts(board: Board, item: Item) -> tuple[IntArray, IntArray, IntArray]:
    """By host: the reason for which its CPU, RAM or slots do not suffice; the one of spread; why it is closed."""
    shortage = np.where(board.room < 1, CODES[Reason.INSUFFICIENT_SLOTS], 0)
    if item.host_memory:
        shortage[board.ram < item.host_memory] = CODES[Reason.INSUFFICIENT_MEMORY]
    if item.cpu:
        shortage[board.cpu < item.cpu] = CODES[Reason.INSUFFICIENT_CPU]
    spread = np.zeros(len(board.names), np.int64)
    apart = board.guests if item.spread is Spread.REQUIRE else board.alone
    spread[apart.of(item.group)] = CODES[Reason.SPREAD]
    return shortage, spread, board.host_closed


def _overrule(codes: IntArray, of_hosts: IntArray, host: IntArray) -> None:
    """What holds of a host holds of each of its devices."""
    if of_hosts.any():
        found = of_hosts.take(host)
        np.copyto(codes, found, where=found > 0)


def _by_name(counts: IntArray, names: Mapping[int, str]) -> Mapping[str, int]:
    found = {names[code]: count for code, count in enumerate(counts.tolist()) if count}
    return dict(sorted(found.items()))
