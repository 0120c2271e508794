"""Moves that were found, for people."""

from vrampack.api.gpupool import SuggestedMove
from vrampack.planning.findings import Findings
from vrampack.planning.inventory import Inventory
from vrampack.planning.moves import suggestion
from vrampack.units import counted


def as_suggestions(findings: Findings, stock: Inventory) -> tuple[SuggestedMove, ...]:
    """Each replica once: the moves that make room first, then those that close GPUs."""
    pods = {f"{pod.namespace}/{pod.name}": pod for tenants in stock.tenants.values() for pod in tenants}
    purposes = [(f"room for {key}", move) for key, moves in findings.room.items() for move in moves]
    purposes += [(f"{counted(len(move.resident.devices), 'GPU')} less in use", move) for move in findings.closing]
    told: dict[str, SuggestedMove] = {}
    for because, move in purposes:
        key = move.resident.item.key
        if key not in told and key in pods:
            told[key] = suggestion(move, pod=pods[key], because=because)
    return tuple(told.values())
