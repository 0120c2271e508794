"""Layouts: the legal ways to cut a GPU into hardware slices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vrampack.packing.problem import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceProfile:
    """A kind of slice that a GPU offers, as its driver reports it. ``memory``: bytes that a slice has, measured and not
    read off its name. ``starts``: the memory units at which it may begin; ``size``: how many of them it takes."""

    memory: int
    starts: tuple[int, ...]
    size: int


def legal_layouts(
    profiles: Sequence[SliceProfile], *, taken: Sequence[tuple[int, int]] = ()
) -> tuple[tuple[int, ...], ...]:
    """All layouts to which nothing can be added, each as the bytes of its slices, the largest first; fewest slices
    first. ``taken``: start and size of slices that are in use and stay.

    GPUs have eight units at most, so these are a few dozen.
    """
    places = sorted((start, profile.size, profile.memory) for profile in profiles for start in profile.starts)
    found = {tuple(sorted(layout, reverse=True)) for layout in _maximal(places, tuple(taken))}
    return tuple(sorted((each for each in found if each), key=lambda layout: (len(layout), [-size for size in layout])))


def _maximal(places: Sequence[tuple[int, int, int]], taken: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, ...]]:
    """Each set of places that exclude one another and leave room for no other, once by its starts."""

    def extend(first: int, used: tuple[tuple[int, int], ...], sizes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if not any(_free(start, size, used) for start, size, _ in places):
            yield sizes
        for number in range(first, len(places)):
            start, size, memory = places[number]
            if _free(start, size, used):
                yield from extend(number + 1, (*used, (start, size)), (*sizes, memory))

    return extend(0, taken, ())


def _free(start: int, size: int, used: Sequence[tuple[int, int]]) -> bool:
    return all(start + size <= other or other + length <= start for other, length in used)


def parts(device: Device, layout: Sequence[int]) -> list[Device]:
    """The slices into which ``layout`` cuts an empty ``device``; each has its share of the price."""
    whole = max(sum(layout), 1)
    return [
        Device(
            id=f"{device.id}/{number}",
            product=device.product,
            capacity=size,
            free=size,
            closed=device.closed,
            slots=device.slots,
            slice_of=device.id,
            price=None if device.price is None else device.price * size // whole,
        )
        for number, size in enumerate(layout)
    ]
