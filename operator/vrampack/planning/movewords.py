"""Moves and evictions in words."""

from collections.abc import Mapping, Sequence

from vrampack.packing.problem import Move, Resident
from vrampack.planning.inventory import Inventory


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
