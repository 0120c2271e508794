"""Weights: the bytes that one rank holds in memory, and what the allocator takes for them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Final

from vrampack.memory.architecture import Architecture, LoadedTensor, Split, WeightPart, Weights
from vrampack.memory.census import census_of, tensors_between
from vrampack.memory.constants import (
    ALLOCATOR_LARGE,
    ALLOCATOR_SEGMENT,
    ALLOCATOR_UNSPLIT,
    DTYPE_BYTES,
    VOCABULARY_PADDING,
)
from vrampack.memory.draft import draft_of, draft_workload
from vrampack.memory.tensorlayout import weights_from_architecture
from vrampack.memory.vllm.pipeline import stages
from vrampack.memory.workload import Workload
from vrampack.units import round_up

__all__ = [
    "laid_out",
    "largest_tensor_bytes",
    "loaded_bytes",
    "padded_vocabulary",
    "reserved_bytes",
    "stage_bytes",
    "weights_from_architecture",
]


_NEAR: Final = Fraction(1, 50)


def padded_vocabulary(architecture: Architecture) -> int:
    """Rows of the embedding table after the engine's padding."""
    return round_up(architecture.vocab_size, VOCABULARY_PADDING)


def loaded_bytes(architecture: Architecture, weights: Weights, workload: Workload) -> int:
    """What the engine prints as taken by model loading, on the rank that has most: rests that the allocator does not
    give back included.

    Reproduces vLLM's "Model loading took" line of dense bf16 models within its rounding.
    """
    return max(stage_bytes(architecture, weights, workload, largest_rest=ALLOCATOR_UNSPLIT))


def reserved_bytes(architecture: Architecture, weights: Weights, workload: Workload) -> int:
    """What the weights take from the GPU: whole segments of the allocator. Never less than ``loaded_bytes``."""
    return max(stage_bytes(architecture, weights, workload))


def stage_bytes(
    architecture: Architecture, weights: Weights, workload: Workload, *, largest_rest: int = ALLOCATOR_SEGMENT
) -> tuple[int, ...]:
    """The same for a rank of each pipeline stage. Rests of an allocator's segment count up to ``largest_rest``."""
    layout = laid_out(architecture, weights)
    held: list[int] = []
    ranges = stages(sum(run.count for run in layout.layers), workload.pipeline)
    for stage, layers in enumerate(ranges):
        tensors = list(
            layout.census
            if workload.pipeline == 1 and layout.census
            else tensors_between(layout.layers, start=layers.start, end=layers.stop)
        )
        if stage == 0:
            tensors += [(1, tensor) for tensor in layout.before]
            if not workload.text_only and layout.tower:
                tensors += [(1, tensor) for tensor in layout.towers or (_split(layout.tower),)]
        if stage == workload.pipeline - 1:
            tensors += [(1, tensor) for tensor in layout.after]
            if stage and architecture.tied_embeddings:  # the last stage needs the table as its output head
                tensors.append((1, _vocabulary(architecture, weights.embedding)))
            if workload.speculation == "mtp" and layout.predict:
                tensors.append((1, _split(layout.predict)))
        if rotary := _rotary_bytes(architecture):
            tensors.append((1, _whole(rotary)))
        held.append(_held(tensors, workload, largest_rest=largest_rest))
    if draft := draft_of(workload):  # loaded on the ranks of the last stage, split as they are
        load = draft_workload(workload)
        held[-1] += stage_bytes(draft.architecture, draft.weights, load, largest_rest=largest_rest)[0]
    return tuple(held)


def largest_tensor_bytes(layout: Weights, workload: Workload) -> int:
    """The largest tensor of the layers on the fullest rank."""
    tensors = (tensor for _, tensor in layout.census if not tensor.small)
    return max((sum(_rank_bytes(part, workload) for part in tensor.parts) for tensor in tensors), default=0)


def laid_out(architecture: Architecture, weights: Weights) -> Weights:
    """The weights with their tensors named; where they are not, those of the architecture's shapes, scaled to what
    is known of the bytes. Worth keeping where many estimates are asked of one model; the latest are kept here."""
    return weights if weights.layers else _from_shapes(architecture, weights)


@lru_cache(maxsize=256)
def _from_shapes(architecture: Architecture, weights: Weights) -> Weights:
    shapes = weights_from_architecture(architecture, precision=weights.precision)
    replicated = weights.replicated or shapes.replicated
    embedding = weights.embedding or shapes.embedding
    known = {
        Split.WHOLE: (replicated, shapes.replicated),
        Split.VOCABULARY: (embedding, shapes.embedding),
        Split.TENSOR: (
            max(0, weights.total - weights.tower - replicated - embedding),
            shapes.total - shapes.tower - shapes.replicated - shapes.embedding,
        ),
    }
    scales = {split: Fraction(*pair) if _far(*pair) else Fraction(1) for split, pair in known.items()}
    rests = [
        LoadedTensor(parts=(WeightPart(bytes=pair[0] - pair[1], split=split, units=architecture.vocab_size),))
        for split, pair in known.items()
        if pair[0] != pair[1] and not _far(*pair)
    ]
    layers = tuple(replace(run, tensors=_scaled(run.tensors, scales)) for run in shapes.layers)
    return replace(
        weights,
        layers=layers,
        census=census_of((run.count, tensor) for run in layers for tensor in run.tensors),
        before=_scaled(shapes.before, scales) + tuple(rests),
        after=_scaled(shapes.after, scales),
    )


def _far(known: int, shaped: int) -> bool:
    """Whether shapes are another thing than what is known, instead of lacking a bias here and there. Near ones keep
    their sizes, which the allocator rounds up one by one, and what they lack is added in one piece."""
    return shaped > 0 and abs(known - shaped) > shaped * _NEAR


def _scaled(tensors: tuple[LoadedTensor, ...], scales: Mapping[Split, Fraction]) -> tuple[LoadedTensor, ...]:
    return tuple(
        LoadedTensor(
            parts=tuple(
                replace(part, bytes=round(part.bytes * scales.get(part.split, scales[Split.TENSOR])))
                for part in tensor.parts
            )
        )
        for tensor in tensors
    )


def _held(tensors: Iterable[tuple[int, LoadedTensor]], workload: Workload, *, largest_rest: int) -> int:
    """Bytes of one rank. A large tensor's rest is what lies between its end and its last segment's end."""
    held = 0
    for count, tensor in tensors:
        size = sum(_rank_bytes(part, workload) for part in tensor.parts)
        if size >= ALLOCATOR_LARGE and not tensor.small:
            rest = round_up(size, ALLOCATOR_SEGMENT) - size
            size += rest if rest <= largest_rest else 0
        held += count * size
    return held


def _rank_bytes(part: WeightPart, workload: Workload) -> int:
    """What the fullest rank has of a part."""
    tensor = workload.tensor
    match part.split:
        case Split.WHOLE:
            return part.bytes
        case Split.TENSOR:
            return -(-part.bytes // tensor)
        case Split.HEADS:
            return -(-part.bytes * max(1, -(-part.units // tensor)) // part.units)
        case Split.SHARED:
            own_tokens = workload.expert and tensor > 1 and workload.data > 1
            return part.bytes if own_tokens else -(-part.bytes // tensor)
        case Split.VOCABULARY:
            return -(-part.bytes * round_up(part.units, VOCABULARY_PADDING) // (part.units * tensor))
        case Split.EXPERT:
            ranks = tensor * workload.data
            split, dealt = (1, ranks) if workload.expert else (ranks, 1)
            size = -(-part.bytes * -(-part.units // dealt) // part.units)
            if not part.align:
                return -(-size // split)
            return -(-size * round_up(-(-part.width // split), part.align) // part.width)


def _whole(size: int) -> LoadedTensor:
    return LoadedTensor(parts=(WeightPart(bytes=size, split=Split.WHOLE),))


def _split(size: int) -> LoadedTensor:
    return LoadedTensor(parts=(WeightPart(bytes=size, split=Split.TENSOR),))


def _vocabulary(architecture: Architecture, size: int) -> LoadedTensor:
    return LoadedTensor(parts=(WeightPart(bytes=size, split=Split.VOCABULARY, units=architecture.vocab_size),))


def _rotary_bytes(architecture: Architecture) -> int:
    """The cos/sin table: made at start, one for all layers, in the computation type."""
    return architecture.rotary_positions * architecture.rotary_dim * DTYPE_BYTES[architecture.dtype]
