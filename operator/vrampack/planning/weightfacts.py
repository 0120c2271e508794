"""The tensors of a ModelProfile as the estimate takes them."""

from collections.abc import Iterable
from functools import lru_cache

from vrampack.api.weightlayout import WeightLayout
from vrampack.errors import InvalidInputError
from vrampack.memory.architecture import LayerWeights, LoadedTensor, Split, WeightPart

_FIELD = "spec.weightFiles.layout"


def layer_weights(layout: WeightLayout, *, layers: int) -> tuple[LayerWeights, ...]:
    """The tensors of the layers in their order.

    Raises InvalidInputError for a kind that is not described, and for counts that do not add up to ``layers``.
    """
    kinds = {name: loaded_tensors(texts) for name, texts in layout.kinds.items()}
    for run in layout.order:
        if run.kind not in kinds:
            raise InvalidInputError(field=f"{_FIELD}.order", value=run.kind, allowed=f"a kind of {_FIELD}.kinds")
    if (total := sum(run.count for run in layout.order)) != layers:
        raise InvalidInputError(field=f"{_FIELD}.order", value=f"{total} layers", allowed=f"all {layers} layers")
    return tuple(LayerWeights(count=run.count, tensors=kinds[run.kind]) for run in layout.order)


def loaded_tensors(texts: Iterable[str]) -> tuple[LoadedTensor, ...]:
    """From their words; the API has checked the form of each."""
    return tuple(_tensor(text) for text in texts)


@lru_cache(maxsize=4096)
def _tensor(text: str) -> LoadedTensor:
    """Kept, since the profiles of a cluster are read in every pass."""
    small = text.startswith("~")
    return LoadedTensor(parts=tuple(_part(part) for part in text.lstrip("~ ").split(" + ")), small=small)


def _part(text: str) -> WeightPart:
    size, _, rest = text.partition(" ")
    split, *figures = rest.split("/")
    units, width, align = (*map(int, figures), 0, 0, 0)[:3]
    return WeightPart(bytes=int(size), split=Split(split), units=units, width=width, align=align)
