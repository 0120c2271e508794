"""What would make a waiting replica fit now: the smallest change of each kind, sized and looked for in the fleet.

Every candidate is the user's spec with one value changed, sized by the very code that sizes the spec itself, so what
the engine refuses is no suggestion. The precision of the weights is a contract and is never among them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypedDict

from vrampack.api.modeldeployment import KVCachePrecision, ModelDeploymentSpec
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.inverse import largest, largest_batch, largest_concurrency, longest_context
from vrampack.memory.workload import Workload
from vrampack.packing.problem import Item
from vrampack.packing.room import Rooms
from vrampack.planning.podtemplate import requested
from vrampack.planning.verdict import Blocked, Sized

Resize = Callable[[ModelDeploymentSpec], Sized | Blocked]

_LEAST_BATCHED: Final = 512
"""With fewer tokens a step, an engine that reads prompts crawls: no advice."""
_LEAST_CONTEXT: Final = 1024
"""A context below this serves hardly any request: no advice."""
_KV_PRECISIONS: Final = tuple(each for each in KVCachePrecision if each is not KVCachePrecision.AUTO)
_TENSOR_SIZES: Final = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
"""A replica is on one node, and no node has more GPUs."""
_MOST_PRODUCTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A replica that waits: its spec, what came of sizing it, and what the packer was asked for."""

    spec: ModelDeploymentSpec
    sized: Sized
    item: Item


def would_fit_if(question: Question, *, rooms: Rooms, resize: Resize) -> tuple[str, ...]:
    """Changes of one value each that let a replica fit now, in words; where none does, changes of two."""
    search = _Search(question, rooms, resize)
    return tuple(search.single()) or tuple(search.pairs())


class _Search:
    """One question, and the fleet that it is asked of."""

    def __init__(self, question: Question, rooms: Rooms, resize: Resize) -> None:
        self._spec = question.spec
        self._sized = question.sized
        self._item = question.item
        self._rooms = rooms
        self._resize = resize
        self._computed = question.sized.basis is not None and question.spec.memory.per_gpu is None

    def single(self) -> Iterator[str]:
        spec = self._spec
        if self._computed:
            yield from self._loads(spec)
            if (kv := next(filter(self._fits, self._smaller_caches()), None)) is not None:
                yield _kv_words(kv)
            for sizes in self._splits():
                if (split := next(filter(self._fits, sizes), None)) is not None:
                    yield _split_words(split)
        elif self._sized.basis is not None and self._fits(changed(spec, "memory", per_gpu=None)):
            yield "memory.perGPU left out"
        yield from self._products()

    def pairs(self) -> Iterator[str]:
        """Another KV cache or another split first, and then less load."""
        if not self._computed:
            return
        for words, choices in ((_kv_words, self._smaller_caches()), *((_split_words, each) for each in self._splits())):
            for spec in choices:
                found = [f"{words(spec)} and {load}" for load in self._loads(spec)]
                yield from found
                if found:
                    return

    def _loads(self, spec: ModelDeploymentSpec) -> Iterator[str]:
        """Less of what is asked for: fewer sequences, shorter ones, smaller steps."""
        sized = self._resize(spec)
        if not isinstance(sized, Sized) or sized.basis is None:
            return
        room = max(self._rooms.most(self._as(sized)).values(), default=0)
        given: _Given = {
            "architecture": sized.basis.architecture,
            "weights": sized.basis.weights,
            "workload": sized.basis.workload,
            "available": room,
        }
        serving, batched = spec.serving, spec.engine.max_batched_tokens
        if serving.concurrency > 1 and (guess := largest_concurrency(**given).value):
            most = largest(
                lambda value: self._fits(changed(spec, "serving", concurrency=value)),
                most=serving.concurrency - 1,
                guess=guess,
            )
            if most:
                yield f"concurrency ≤ {most}"
        if serving.context_length > _LEAST_CONTEXT and (guess := longest_context(**given).value) >= _LEAST_CONTEXT:
            most = largest(
                lambda value: self._fits(_with_context(spec, value)),
                least=_LEAST_CONTEXT,
                most=serving.context_length - 1,
                guess=guess,
            )
            expected = serving.tokens_per_sequence
            if most:
                yield f"contextLength{' and tokensPerSequence' if expected and expected > most else ''} ≤ {most}"
        least = max(-(-serving.concurrency // spec.parallelism.data), _LEAST_BATCHED)
        if batched > least and (guess := largest_batch(**given).value) >= least:
            most = largest(
                lambda value: self._fits(changed(spec, "engine", max_batched_tokens=value)),
                least=least,
                most=batched - 1,
                guess=guess,
            )
            if most:
                yield f"maxBatchedTokens ≤ {most}"

    def _smaller_caches(self) -> Iterator[ModelDeploymentSpec]:
        """The largest first."""
        sizes: list[tuple[int, int, ModelDeploymentSpec]] = []
        for precision in _KV_PRECISIONS:
            spec = changed(self._spec, "precision", kv_cache=precision)
            sized = self._resize(spec)
            if isinstance(sized, Sized) and sized.need.bytes < self._sized.need.bytes:
                sizes.append((-sized.need.bytes, len(sizes), spec))
        yield from (spec for *_, spec in sorted(sizes, key=lambda each: each[:2]))

    def _splits(self) -> tuple[list[ModelDeploymentSpec], list[ModelDeploymentSpec]]:
        """Over more GPUs, the fewest first; and over fewer, the most first. The model's heads must allow it."""
        now = self._spec.parallelism.tensor
        more = [size for size in _TENSOR_SIZES if size > now]
        fewer = [size for size in reversed(_TENSOR_SIZES) if size < now]
        return self._split_over(more), self._split_over(fewer)

    def _split_over(self, sizes: Sequence[int]) -> list[ModelDeploymentSpec]:
        stages = self._spec.parallelism.pipeline * self._spec.parallelism.data
        possible = [size for size in sizes if self._rooms.most(replace(self._item, gpus=size * stages))]
        return [changed(self._spec, "parallelism", tensor=size) for size in possible]

    def _products(self) -> Iterator[str]:
        """GPUs that the fleet has and the user did not allow, the tightest first."""
        if not (allowed := self._spec.placement.gpu_products):
            return
        found = []
        for product in self._rooms.products:
            if product not in allowed:
                sized = self._resize(changed(self._spec, "placement", gpu_products=(product,)))
                if not isinstance(sized, Sized):
                    continue
                room = self._rooms.most(replace(self._as(sized), products=frozenset({product}))).get(product, 0)
                if room >= sized.need.bytes:
                    found.append((room, product))
        yield from (f"gpuProducts: {product}" for _, product in sorted(found)[:_MOST_PRODUCTS])

    def _fits(self, spec: ModelDeploymentSpec) -> bool:
        sized = self._resize(spec)
        if not isinstance(sized, Sized):
            return False
        return any(room >= sized.need.bytes for room in self._rooms.most(self._as(sized)).values())

    def _as(self, sized: Sized) -> Item:
        """The waiting replica as it would be with this template: what it needs of the host changes too."""
        cpu, memory = requested(self._sized.template)
        new_cpu, new_memory = requested(sized.template)
        return replace(
            self._item,
            gpus=sized.need.gpus,
            memory=sized.need.bytes,
            cpu=max(0, self._item.cpu + new_cpu - cpu),
            host_memory=max(0, self._item.host_memory + new_memory - memory),
        )


class _Given(TypedDict):
    architecture: Architecture
    weights: Weights
    workload: Workload
    available: int


def changed(spec: ModelDeploymentSpec, part: str, **values: object) -> ModelDeploymentSpec:
    """The spec with other values in one of its parts."""
    return spec.model_copy(update={part: getattr(spec, part).model_copy(update=values)})


def _with_context(spec: ModelDeploymentSpec, tokens: int) -> ModelDeploymentSpec:
    expected = spec.serving.tokens_per_sequence
    shorter = None if expected is None else min(expected, tokens)
    return changed(spec, "serving", context_length=tokens, tokens_per_sequence=shorter)


def _kv_words(spec: ModelDeploymentSpec) -> str:
    return f"kvCache: {spec.precision.kv_cache.value}"


def _split_words(spec: ModelDeploymentSpec) -> str:
    return f"parallelism.tensor: {spec.parallelism.tensor}"
