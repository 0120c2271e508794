"""The tensors of a model in the form of the API."""

from collections.abc import Iterable

from vrampack.api.weightlayout import (
    MAX_LAYOUT_KINDS,
    MAX_LAYOUT_TENSORS,
    MAX_TENSOR_TEXT,
    LayoutRun,
    WeightLayout,
)
from vrampack.memory.architecture import LoadedTensor, WeightPart, Weights


def weight_layout(weights: Weights) -> WeightLayout | None:
    """None where the tensors are not known one by one, or are more than an object may list."""
    if not weights.layers:
        return None
    kinds: dict[tuple[LoadedTensor, ...], str] = {}
    order = tuple(
        LayoutRun(kind=kinds.setdefault(run.tensors, f"k{len(kinds)}"), count=run.count) for run in weights.layers
    )
    texts = {name: _texts(tensors) for tensors, name in kinds.items()}
    before, towers, after = (_texts(tensors) for tensors in (weights.before, weights.towers, weights.after))
    lists = (*texts.values(), before, towers, after)
    if len(texts) > MAX_LAYOUT_KINDS or any(len(each) > MAX_LAYOUT_TENSORS for each in lists):
        return None
    if any(len(text) > MAX_TENSOR_TEXT for each in lists for text in each):
        return None
    return WeightLayout(kinds=texts, order=order, before=before, towers=towers, after=after)


def _texts(tensors: Iterable[LoadedTensor]) -> tuple[str, ...]:
    return tuple(("~ " if tensor.small else "") + " + ".join(map(_part, tensor.parts)) for tensor in tensors)


def _part(part: WeightPart) -> str:
    figures = [part.units, part.width, part.align]
    while figures and not figures[-1]:
        figures.pop()
    return "/".join((f"{part.bytes} {part.split.value}", *map(str, figures)))
