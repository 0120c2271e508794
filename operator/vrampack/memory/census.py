"""Tensors of many layers, counted: a sum over a few kinds instead of over each layer."""

from collections import Counter
from collections.abc import Iterable, Iterator

from vrampack.memory.architecture import LayerWeights, LoadedTensor, Split, WeightPart
from vrampack.memory.constants import ALLOCATOR_LARGE

Census = tuple[tuple[int, LoadedTensor], ...]
"""How many there are of each tensor."""


def census_of(tensors: Iterable[tuple[int, LoadedTensor]]) -> Census:
    """Alike tensors are counted together; those too small for a segment of their own become one, split as before."""
    large = Counter[LoadedTensor]()
    small = Counter[tuple[Split, int]]()
    for count, tensor in tensors:
        if tensor.small or _is_small(tensor):
            for part in tensor.parts:
                small[part.split, part.units] += count * part.bytes
        else:
            large[tensor] += count
    parts = tuple(WeightPart(bytes=size, split=split, units=units) for (split, units), size in sorted(small.items()))
    rest = ((1, LoadedTensor(parts=parts, small=True)),) if parts else ()
    return (*((count, tensor) for tensor, count in large.items()), *rest)


def tensors_between(layers: Iterable[LayerWeights], *, start: int, end: int) -> Iterator[tuple[int, LoadedTensor]]:
    """The tensors of the layers from ``start`` to before ``end``, with how many there are of each."""
    first = 0
    for run in layers:
        count = min(end, first + run.count) - max(start, first)
        first += run.count
        if count > 0:
            for tensor in run.tensors:
                yield count, tensor


def _is_small(tensor: LoadedTensor) -> bool:
    """On any rank: no rank has more of it than the whole, and padded ones are never taken for small."""
    if any(part.align for part in tensor.parts):
        return False
    return sum(part.bytes for part in tensor.parts) < ALLOCATOR_LARGE
