"""The kinds of attention and state in a model, and how many layers have each."""

from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import Mixer


def mixer_counts(architecture: Architecture) -> dict[Mixer, int]:
    """In the order in which the layers have them. Runs are many and kinds few: equal ones are told by identity first,
    because to compare them by value is what an estimate of many layers would spend its time on."""
    by_identity: dict[int, list[int]] = {}
    known: dict[int, Mixer] = {}
    for run in architecture.layer_runs:
        for mixer in run.mixers:
            key = id(mixer)
            if key in known:
                by_identity[key][0] += run.count
            else:
                known[key], by_identity[key] = mixer, [run.count]
    counts: dict[Mixer, int] = {}
    for key, mixer in known.items():
        counts[mixer] = counts.get(mixer, 0) + by_identity[key][0]
    return counts
