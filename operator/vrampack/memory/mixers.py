"""The kinds of attention and state in a model, and how many layers have each."""

from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import Mixer


def mixer_counts(architecture: Architecture) -> dict[Mixer, int]:
    """In the order in which the layers first have them."""
    counts: dict[Mixer, int] = {}
    for run in architecture.kinds:
        for mixer in run.mixers:
            counts[mixer] = counts.get(mixer, 0) + run.count
    return counts
