"""Which running replicas would have to move, or to go, so that one that waits finds room."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from vrampack.packing.moves import room_for
from vrampack.packing.preempt import victims
from vrampack.packing.problem import Host, Item, Move, Resident
from vrampack.planning.inventory import Inventory

_ABOVE_ALL: Final = 1 << 60
"""A priority that no PriorityClass has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relief:
    """``moves``: to other places, None where none help; ``leaves``: the fewest whose going would do, whatever their
    priority; None where nobody's going would."""

    moves: tuple[Move, ...] | None
    leaves: tuple[Resident, ...] | None


def relief(
    item: Item, *, hosts: Sequence[Host], movers: Sequence[Resident], residents: Sequence[Resident], limit: int
) -> Relief:
    """``movers``: all residents, movable where a move costs nobody anything; ``residents``: where an eviction would be
    possible at all. ``limit``: most moves."""
    return Relief(
        moves=room_for(hosts=hosts, residents=movers, item=item, limit=limit),
        leaves=victims(hosts=hosts, residents=residents, item=replace(item, priority=_ABOVE_ALL)),
    )


def move_words(moves: Sequence[Move], stock: Inventory) -> str:
    """``chat/llama-0 moves from gpu-2/1 to gpu-3/0``; several are one change."""
    return " and ".join(
        f"{each.resident.item.key} moves from {_where(each.resident.host, each.resident.devices, stock)} "
        f"to {_where(each.host, each.devices, stock)}"
        for each in moves
    )


def leave_words(leaves: Sequence[Resident], stock: Inventory) -> str:
    """``chat/llama-0 (priority 0) leaves gpu-2/1``."""
    return " and ".join(
        f"{each.item.key} (priority {each.item.priority}) leaves {_where(each.host, each.devices, stock)}"
        for each in leaves
    )


def told(room: Mapping[str, tuple[Move, ...]], key: str, stock: Inventory) -> tuple[str, ...]:
    """The moves that were found for a replica, as a line of what would help."""
    moves = room.get(key)
    return (move_words(moves, stock),) if moves else ()


def _where(host: str, devices: Sequence[str], stock: Inventory) -> str:
    return f"{host}/{'+'.join(str(stock.gpus[each].index) for each in devices)}"
