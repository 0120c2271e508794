"""The measurements of a ModelProfile, as the estimate takes them."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from vrampack.api.common import Quantity
from vrampack.api.engine import CudaGraphs, EngineName, Parallelism
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.api.modelprofile import Measurement
from vrampack.engines.vllm_flags import FLAGS
from vrampack.memory.calibration import Observation, Setup

MAX_MEASUREMENTS: Final = 64
_MAX_ARGUMENTS: Final = 64
_MAX_CHARACTERS: Final = 4096
TERMS: Final = ("weights", "activations", "cuda_graphs", "communication", "runtime_context")
_SIZES: Final = (*TERMS, "besides_cache")


def observation_of(measurement: Measurement) -> Observation:
    """One entry of ``status.measurements``."""
    shape = measurement.parallelism
    sizes: dict[str, Quantity | None] = {name: getattr(measurement, _field(name)) for name in _SIZES}
    return Observation(
        setup=Setup(
            engine=measurement.engine.value,
            version=measurement.version,
            product=measurement.gpu_product,
            max_sequences=measurement.max_sequences,
            max_batched_tokens=measurement.max_batched_tokens,
            context_length=measurement.context_length,
            kv_cache=measurement.kv_cache,
            tensor=shape.tensor,
            pipeline=shape.pipeline,
            data=shape.data,
            expert=shape.expert,
            decode_context=shape.decode_context,
            cuda_graphs=measurement.cuda_graphs != CudaGraphs.DISABLED,
            args=memory_arguments(measurement.engine, measurement.args),
        ),
        samples=measurement.samples,
        **{term: size.bytes for term, size in sizes.items() if size is not None},
    )


def recordable(found: Observation) -> bool:
    """Whether a measurement has room for the arguments of this run; a ModelProfile holds many."""
    args = found.setup.args
    return len(args) <= _MAX_ARGUMENTS and sum(map(len, args)) <= _MAX_CHARACTERS


def measurement_of(found: Observation, *, at: float) -> Measurement:
    """The record, as it stands in ``status.measurements``. ``at``: seconds since 1970."""
    setup = found.setup
    sizes = {name: getattr(found, name) for name in _SIZES}
    return Measurement.model_validate(
        {
            "engine": setup.engine,
            "version": setup.version,
            "gpu_product": setup.product,
            "parallelism": Parallelism(
                tensor=setup.tensor,
                pipeline=setup.pipeline,
                data=setup.data,
                expert=setup.expert,
                decode_context=setup.decode_context,
            ),
            "kv_cache": setup.kv_cache,
            "max_sequences": setup.max_sequences,
            "max_batched_tokens": setup.max_batched_tokens,
            "context_length": setup.context_length,
            "cuda_graphs": (CudaGraphs.AUTO if setup.cuda_graphs else CudaGraphs.DISABLED).value,
            "args": setup.args,
            "samples": found.samples,
            "observed_at": datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **{_field(name): Quantity.of(size) for name, size in sizes.items() if size is not None},
        }
    )


def most_of(one: Observation, other: Observation) -> Observation:
    """Two observations of one setup as one, with the samples of ``other``: of each term the most."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in _SIZES}
    both = {name: max((size for size in pair if size is not None), default=None) for name, pair in pairs.items()}
    return Observation(setup=other.setup, samples=other.samples, **both)


def _field(term: str) -> str:
    return "graphs" if term == "cuda_graphs" else term


def setup_of(spec: ModelDeploymentSpec, *, product: str, kv_cache: str, draft_commit: str = "") -> Setup:
    """How a ModelDeployment is served on one product. ``kv_cache``: the resolved precision; ``draft_commit``: of the
    model that drafts."""
    shape = spec.parallelism
    return Setup(
        engine=spec.engine.name.value,
        version=spec.engine.version,
        product=product,
        max_sequences=-(-spec.serving.concurrency // shape.data),  # what one rank's engine is told
        max_batched_tokens=spec.engine.max_batched_tokens,
        context_length=spec.serving.context_length,
        kv_cache=kv_cache,
        tensor=shape.tensor,
        pipeline=shape.pipeline,
        data=shape.data,
        expert=shape.expert,
        decode_context=shape.decode_context,
        cuda_graphs=spec.engine.cuda_graphs is CudaGraphs.AUTO,
        args=tuple(
            sorted((*memory_arguments(spec.engine.name, spec.engine.args), *_own_arguments(spec, draft_commit)))
        ),
    )


def _own_arguments(spec: ModelDeploymentSpec, draft_commit: str) -> Iterator[str]:
    """What a spec says elsewhere and a measurement has no field for, in the words of vLLM, one form of each."""
    if (speculation := spec.speculation) is not None:
        draft = f"/{speculation.draft_model}@{draft_commit}" if speculation.draft_model else ""
        yield f"--speculative-config={speculation.method.value}/{speculation.tokens}{draft}"
    if spec.adapters is not None:
        yield f"--max-lora-rank={spec.adapters.max_rank}"
        yield f"--max-loras={spec.adapters.max}"
    if spec.engine.image is not None:
        yield f"--image={spec.engine.image}"  # whatever is in it speaks for itself alone
    if spec.engine.images_per_prompt != 1:
        yield f"--limit-mm-per-prompt={spec.engine.images_per_prompt}"


def memory_arguments(engine: EngineName, args: Sequence[str]) -> tuple[str, ...]:
    """Those of a user's arguments that may change memory, each flag with its values as one text.

    All but the ones that are known to be harmless: of an engine whose flags are not known, every one.
    """
    found = _flags(args)
    if engine is EngineName.VLLM:
        harmless = FLAGS.values | FLAGS.lists | FLAGS.switches
        found = (each for each in found if _name(each) not in harmless)
    return tuple(sorted(found))


def _flags(args: Iterable[str]) -> Iterator[str]:
    """``--a b`` and ``--a=b`` are the same."""
    flag = ""
    for argument in args:
        if argument.startswith("-") and not argument[1:2].isdigit():
            if flag:
                yield flag
            name, equals, value = argument.partition("=")
            flag = name.replace("_", "-") + equals + value
        else:
            flag = f"{flag}={argument}" if flag and "=" not in flag else f"{flag} {argument}".strip()
    if flag:
        yield flag


def _name(flag: str) -> str:
    name = flag.partition("=")[0].partition(".")[0]
    return "--" + name.removeprefix("--no-") if name.startswith("--no-") else name
