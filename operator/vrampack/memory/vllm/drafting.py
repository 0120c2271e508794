"""Layers that speculation adds to the cache."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention
from vrampack.memory.workload import Workload

_SPECULATION: Final = "spec.speculation.method"
_NO_CACHE: Final = frozenset({"", "ngram", "medusa"})
"""Ways of drafting tokens without attention layers of their own."""


def drafting_mixers(architecture: Architecture, workload: Workload) -> tuple[tuple[Mixer, int], ...]:
    """What speculation adds: attention layers by kind, with how many there are of each."""
    if workload.draft is not None and workload.speculation not in _NO_CACHE:
        return tuple(_cached(workload.draft.architecture))
    layers = drafting_layers(architecture, workload)
    return ((drafting_mixer(architecture), layers),) if layers else ()


def drafting_layers(architecture: Architecture, workload: Workload) -> int:
    """Attention layers that speculation adds."""
    match workload.speculation:
        case method if method in _NO_CACHE:
            return 0
        case "mtp":
            return max(1, architecture.predict_layers)
        case _ if workload.draft is not None:
            return sum(layers for _, layers in _cached(workload.draft.architecture))
        case "eagle" | "eagle3":
            return 1
        case method:
            raise UnsupportedModelError(
                unknown=f"{_SPECULATION} {method}", detail="the layers of the model that drafts are not known"
            )


def retained_tokens(architecture: Architecture, workload: Workload) -> int:
    """Tokens beyond a window that are kept for heads that predict one after the other."""
    return max(0, drafting_layers(architecture, workload) - 1) if workload.speculation == "mtp" else 0


def drafting_mixer(architecture: Architecture) -> Mixer:
    """Heads that predict further tokens attend as the last attention layer of the model does."""
    for run in reversed(architecture.layer_runs):
        for mixer in run.mixers:
            if isinstance(mixer, LatentAttention):
                return mixer
            if isinstance(mixer, PagedAttention):
                return replace(mixer, shares_cache=False)
    raise UnsupportedModelError(unknown=_SPECULATION, detail="a model without attention layers drafts no tokens")


def _cached(draft: Architecture) -> Iterator[tuple[Mixer, int]]:
    """The attention layers of a model that drafts; one that keeps states can't take a rejected token back."""
    for run in draft.kinds:
        for mixer in run.mixers:
            if isinstance(mixer, LatentAttention):
                yield mixer, run.count
            elif isinstance(mixer, PagedAttention):
                if not mixer.shares_cache:
                    yield mixer, run.count
            else:
                raise UnsupportedModelError(
                    unknown="spec.speculation.draftModel",
                    detail="a model with recurrent layers drafts no tokens: its states can't go back",
                )
