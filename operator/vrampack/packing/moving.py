"""What moves cost and gain, and how they are taken back."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from vrampack.packing.board import Board
from vrampack.packing.problem import Device, Move, Resident, Spread
from vrampack.packing.tenancy import Tenancy

Done = list[tuple[Resident, Resident]]
"""Each replica as it was, and where it is now, in the order in which they were moved."""


class Opened(NamedTuple):
    """What is open: by the objective, and in bytes."""

    weight: int
    memory: int


def opened(board: Board) -> Opened:
    """As things stand."""
    return Opened(int(board.weight()[board.in_use].sum()), int(board.capacity[board.in_use].sum()))


def undo(tenancy: Tenancy, done: Done) -> None:
    """All of them are where they were."""
    for old, new in reversed(done):
        tenancy.revert(old, new)


def load_of(resident: Resident) -> int:
    """Bytes that must be loaded anew where it is moved."""
    return resident.item.gpus * resident.item.memory


def worth(before: Opened, after: Opened, done: Done) -> int:
    """What moves gain, in bytes; 0 where that is less than what they load anew, or nothing by the objective."""
    gain = before.memory - after.memory
    enough = after.weight < before.weight and gain >= max(1, sum(load_of(old) for old, _ in done))
    return gain if enough else 0


def unkind(tenancy: Tenancy, done: Done) -> bool:
    """Whether moves that were made cost what no closed device is worth: a replica that would rather be spread has come
    to a host with another of its group, or one with several devices has left its domain of fast links."""
    links = [{_link(tenancy, each, name) for name in each.devices} for pair in done for each in pair]
    if any(len(old) < len(new) for old, new in zip(links[::2], links[1::2], strict=True)):
        return True
    moved = [(old, new) for old, new in done if old.host != new.host and old.item.spread is Spread.PREFER]
    groups = {old.item.group for old, _ in moved}
    hosts = sorted({each.host for pair in moved for each in pair})
    after = Counter((host, each.item.group) for host in hosts for each in tenancy.on(host) if each.item.group in groups)
    before = Counter(after)
    before.update((old.host, old.item.group) for old, _ in moved)
    before.subtract((new.host, new.item.group) for _, new in moved)
    return _crowd(after) > _crowd(before)


def _crowd(counts: Counter[tuple[str, str]]) -> int:
    return sum(count for count in counts.values() if count > 1)


def _link(tenancy: Tenancy, resident: Resident, name: str) -> str | None:
    (row,) = tenancy.rows(replace(resident, devices=(name,))).tolist()
    device: Device = tenancy.board.devices[row]
    return device.link


def told(done: Done, gains: Sequence[int]) -> tuple[Move, ...]:
    """The moves, each with its part of the gain."""
    return tuple(
        Move(resident=old, host=new.host, devices=new.devices, gain=gain, cost=load_of(old))
        for (old, new), gain in zip(done, gains, strict=True)
    )


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` in proportion to ``weights``, at least 1 each where it suffices; the parts add up to it."""
    spare = max(0, total - len(weights))
    whole = max(sum(weights), 1)
    parts = [min(1, total) + spare * weight // whole for weight in weights]
    parts[0] += total - sum(parts)
    return parts
