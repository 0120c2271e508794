"""MIG layouts that suit what is to be served: a change for the admin to review, never one that is made.

A GPU is cut into eight parts of memory and seven of compute; each size of slice has the places where it can begin. So
not every sum of sizes that fits does: the search is over the places. Sizes, places and memory are those that
``nvidia-smi mig -lgipp`` prints, and the memory is what a slice really has, which is less than its name says.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.units import MIB, human_bytes

CONFIG_LABEL: Final = "nvidia.com/mig.config"
"""Of a node: the name of the layout that NVIDIA's MIG manager sets up; how far it is says the label with ``.state``."""

_PLACES: Final[Mapping[str, tuple[tuple[int, ...], int, int]]] = MappingProxyType(
    {
        "1g": ((0, 1, 2, 3, 4, 5, 6), 1, 1),
        "1g.2x": ((0, 2, 4, 6), 2, 1),
        "2g": ((0, 2, 4), 2, 2),
        "3g": ((0, 4), 4, 3),
        "4g": ((0,), 4, 4),
        "7g": ((0,), 8, 7),
    }
)
"""By size: the parts of memory where it can begin, how many it takes, and its parts of compute, of seven."""
_COMPUTE: Final = 7
_PARTS: Final = 8
_LOST: Final = 256 * MIB
"""A slice has so much less than its part of the GPU at most: 9.75, 19.62 and 39.50 GiB are what slices of an eighth, a
quarter and a half of 79.25 GiB have (H100 80GB)."""

NAMES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        product: MappingProxyType(dict(zip(("1g", "1g.2x", "2g", "3g", "4g", "7g"), words.split(), strict=True)))
        for product, words in {
            "A100-40": "1g.5gb 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb",
            "A100-80": "1g.10gb 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb",
            "H100-80": "1g.10gb 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb",
            "H200": "1g.18gb 1g.35gb 2g.35gb 3g.71gb 4g.71gb 7g.141gb",
            "B200": "1g.23gb 1g.45gb 2g.45gb 3g.90gb 4g.90gb 7g.180gb",
        }.items()
    }
)
"""By product: what the driver calls each size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One size of slice that a product has."""

    name: str
    """As the MIG manager writes it: ``3g.40gb``."""
    size: str
    memory: int
    """Usable bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What one GPU is cut into, by name of size; and the replicas that it takes, by their place in the demand."""

    slices: Mapping[str, int]
    serves: tuple[int, ...]
    stranded: int
    """Bytes of slices beyond what their replicas need."""


def sizes_of(memory: int, *, names: Mapping[str, str]) -> tuple[Slice, ...]:
    """The sizes of a GPU of ``memory`` usable bytes, smallest first. ``names``: by size, as the driver names them."""
    return tuple(
        Slice(name=names[size], size=size, memory=memory * parts // 8 - (_LOST if parts < _PARTS else 0))
        for size, (_, parts, _) in sorted(_PLACES.items(), key=lambda each: (each[1][1], each[1][2]))
        if size in names
    )


def layouts(sizes: Sequence[Slice], demand: Sequence[int], *, gpus: int) -> tuple[Layout, ...]:
    """A layout for each of ``gpus`` equal GPUs that together serve the most of ``demand`` (bytes of replicas, each on
    one slice), the largest first, and leave the least unused. Deterministic.

    Raises InvalidInputError for a replica that no slice holds.
    """
    largest = max(each.memory for each in sizes)
    for index, need in enumerate(demand):
        if need > largest:
            raise InvalidInputError(
                field=f"demand[{index}]",
                value=human_bytes(need),
                allowed=f"the largest slice has {human_bytes(largest)}: serve it on whole GPUs, in another pool",
            )
    left = sorted(range(len(demand)), key=lambda index: (-demand[index], index))
    found = []
    for _ in range(gpus):
        chosen = max(
            (_served(cut, sizes, demand, left) for cut in cuts(tuple(each.size for each in sizes))),
            key=lambda each: (sum(demand[index] for index in each.serves), -each.stranded),
        )
        found.append(chosen)
        left = [index for index in left if index not in chosen.serves]
    return tuple(found)


@cache
def cuts(sizes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Every way to cut a GPU as far as it goes, by size; each once, in order."""
    found = {tuple(sorted(cut)) for cut in _cuts(sizes, frozenset(range(_PARTS)), _COMPUTE)}
    return tuple(sorted(found))


def _cuts(sizes: tuple[str, ...], free: frozenset[int], compute: int) -> Iterator[tuple[str, ...]]:
    """From the first free part on: what can begin there, or nothing."""
    if not free:
        yield ()
        return
    first = min(free)
    for size in sizes:
        begins, parts, cores = _PLACES[size]
        taken = frozenset(range(first, first + parts))
        if first in begins and taken <= free and cores <= compute:
            for rest in _cuts(sizes, free - taken, compute - cores):
                yield (size, *rest)
    yield from _cuts(sizes, free - {first}, compute)


def _served(cut: tuple[str, ...], sizes: Sequence[Slice], demand: Sequence[int], left: Sequence[int]) -> Layout:
    """The replicas that a cut takes: the largest first, each into the smallest slice that holds it."""
    by_size = {each.size: each for each in sizes}
    free = sorted((by_size[size] for size in cut), key=lambda each: (each.memory, each.name))
    serves, stranded, used = [], 0, []
    for index in left:
        fitting = next((each for each in free if each.memory >= demand[index]), None)
        if fitting is not None:
            free.remove(fitting)
            used.append(fitting)
            serves.append(index)
            stranded += fitting.memory - demand[index]
    counts: dict[str, int] = {}
    for each in sorted((*used, *free), key=lambda each: (-each.memory, each.name)):
        counts[each.name] = counts.get(each.name, 0) + 1
    return Layout(slices=counts, serves=tuple(serves), stranded=stranded)


def mig_config(name: str, found: Sequence[Layout]) -> dict[str, object]:
    """The layouts as a configuration of the MIG manager (mig-parted), under a name of their own."""
    devices = [
        {"devices": [index], "mig-enabled": True, "mig-devices": dict(layout.slices)}
        for index, layout in enumerate(found)
    ]
    return {"version": "v1", "mig-configs": {name: devices}}
