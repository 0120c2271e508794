"""Pipeline stages: which layers of every group a stage holds, and how large a block is on the widest."""

from collections.abc import Iterator

from vrampack.errors import InvalidInputError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import LayerRun, Mixer, PagedAttention
from vrampack.memory.vllm.drafting import drafting_mixers
from vrampack.memory.vllm.groups import Group
from vrampack.memory.vllm.pages import LayerCache
from vrampack.memory.workload import Workload


def stages(layers: int, pipeline: int) -> list[range]:
    """Layers of each pipeline stage: what does not split evenly goes to the stages before the last.

    Source: ``get_pp_indices`` of vLLM.
    """
    if pipeline > layers:
        raise InvalidInputError(
            field="spec.parallelism.pipeline", value=pipeline, allowed=f"at most the model's {layers} layers"
        )
    even, rest = divmod(layers, pipeline)
    sizes = [even] * pipeline
    for stage in range(2, rest + 2):
        sizes[-stage] += 1
    bounds, first = [], 0
    for size in sizes:
        bounds.append(range(first, first + size))
        first += size
    return bounds


def widest_stage(
    architecture: Architecture, workload: Workload, groups: tuple[Group, ...], of_mixer: dict[Mixer, list[LayerCache]]
) -> int:
    """Groups are formed of the whole model, and each stage holds its own layers of every group."""
    positions: dict[LayerCache, list[int]] = {}
    for index, mixer in _placed_mixers(architecture, workload):
        for cache in of_mixer.get(mixer, ()):  # an encoder keeps nothing
            positions.setdefault(cache, []).append(index)
    last = sum(run.count for run in architecture.layer_runs)
    bounds = stages(last, workload.pipeline)
    # Layers that draft are on the last stage.
    bounds[-1] = range(bounds[-1].start, last + 1)
    return max((_pool_bytes(group, positions, stage) for stage in bounds for group in groups), default=0)


def _pool_bytes(group: Group, positions: dict[LayerCache, list[int]], stage: range) -> int:
    """Of the group's widest pool on one stage. A cache whose page was enlarged is found by its shape."""
    totals = [0] * group.pools
    for cache, _ in group.parts:
        layers = sorted(
            index
            for other, indices in positions.items()
            if (other.keeps, other.window, other.shape) == (cache.keeps, cache.window, cache.shape)
            for index in indices
        )
        for pool in range(group.pools):
            totals[pool] += cache.page * sum(1 for index in layers[pool :: group.pools] if index in stage)
    return max(totals)


def _placed_mixers(architecture: Architecture, workload: Workload) -> Iterator[tuple[int, Mixer]]:
    index = 0
    for run in architecture.layer_runs:
        for _ in range(run.count):
            yield from ((index, mixer) for mixer in _kept(run))
            index += 1
    for mixer, drafted in drafting_mixers(architecture, workload):
        yield from ((index, mixer) for _ in range(drafted))


def _kept(run: LayerRun) -> Iterator[Mixer]:
    return (mixer for mixer in run.mixers if not (isinstance(mixer, PagedAttention) and mixer.shares_cache))
