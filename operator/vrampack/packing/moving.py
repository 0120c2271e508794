"""What moves cost and gain, and how they are taken back."""

from collections.abc import Sequence
from typing import NamedTuple

from vrampack.packing.board import Board
from vrampack.packing.problem import Move, Resident
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
