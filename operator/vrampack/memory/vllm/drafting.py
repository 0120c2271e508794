"""Layers that speculation adds to the cache."""

from dataclasses import replace
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention
from vrampack.memory.workload import Workload

_SPECULATION: Final = "spec.engine.speculation"
_NO_CACHE: Final = frozenset({"", "ngram", "medusa"})
"""Ways of drafting tokens without attention layers of their own."""


def drafting_layers(architecture: Architecture, workload: Workload) -> int:
    """Attention layers that speculation adds."""
    match workload.speculation:
        case "mtp":
            return max(1, architecture.predict_layers)
        case "eagle" | "eagle3":
            return 1
        case method if method in _NO_CACHE:
            return 0
        case method:
            raise UnsupportedModelError(
                unknown=f"{_SPECULATION} {method}", detail="the layers of the model that drafts are not known"
            )


def drafting_mixer(architecture: Architecture) -> Mixer:
    """Heads that predict further tokens attend as the last attention layer of the model does."""
    for run in reversed(architecture.layer_runs):
        for mixer in run.mixers:
            if isinstance(mixer, LatentAttention):
                return mixer
            if isinstance(mixer, PagedAttention):
                return replace(mixer, shares_cache=False)
    raise UnsupportedModelError(unknown=_SPECULATION, detail="a model without attention layers drafts no tokens")
