"""What replicas are to be expected: the typical mix, by which a free byte is worth more on one GPU than on another."""

from collections.abc import Sequence
from dataclasses import dataclass

from vrampack.packing.problem import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Typical:
    """A class of replicas that is to be expected. ``memory``: bytes on each of ``gpus`` devices; ``cpu``: thousandths
    of a core; ``weight``: how often, in any unit."""

    gpus: int
    memory: int
    cpu: int = 0
    products: frozenset[str] | None = None
    weight: float = 1.0


def typical(items: Sequence[Item]) -> tuple[Typical, ...]:
    """The mix of ``items``: those that run, those that wait, or both."""
    found: dict[tuple[int, int, int, frozenset[str] | None], int] = {}
    for item in items:
        key = (item.gpus, item.memory, item.cpu, item.products)
        found[key] = found.get(key, 0) + 1
    return tuple(
        Typical(gpus=gpus, memory=memory, cpu=cpu, products=products, weight=float(found[gpus, memory, cpu, products]))
        for gpus, memory, cpu, products in sorted(found, key=_order)
    )


def _order(key: tuple[int, int, int, frozenset[str] | None]) -> tuple[object, ...]:
    gpus, memory, cpu, products = key
    return gpus, memory, cpu, products is not None, sorted(products or ())
