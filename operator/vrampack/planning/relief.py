"""Which running replicas would have to move, or to go, so that one that waits finds room."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from vrampack.packing.moves import room_for
from vrampack.packing.preempt import victims
from vrampack.packing.problem import Host, Item, Move, Resident

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
