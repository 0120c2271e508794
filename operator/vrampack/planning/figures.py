"""The memory of a ModelDeployment, product by product, and what its status says of it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from vrampack.api.common import Quantity
from vrampack.api.engine import CudaGraphs, PrefixCaching, SpeculationMethod
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.api.modeldeploymentstatus import EstimateMethod, EstimateStatus, PendingEstimate, ProductEstimate
from vrampack.api.modelprofile import Measurement
from vrampack.errors import InvalidInputError
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.calibration import Setup, calibrated
from vrampack.memory.draft import Draft
from vrampack.memory.estimate import Estimate, estimate
from vrampack.memory.gpus import context_bytes
from vrampack.memory.workload import Workload
from vrampack.planning.measurements import observation_of, setup_of
from vrampack.units import each_of, human_bytes

PREFIX_CACHING: Final[Mapping[PrefixCaching, bool | None]] = {
    PrefixCaching.AUTO: None,
    PrefixCaching.ENABLED: True,
    PrefixCaching.DISABLED: False,
}
"""None: as the engine does by default."""

_MAX_PRODUCTS = 16
_WORDS = {
    "weights": "weights",
    "kv_cache": "KV cache",
    "activations": "activations",
    "cuda_graphs": "CUDA graphs",
    "communication": "communication",
    "runtime_context": "runtime context",
    "allowance": "allowance",
    "headroom": "headroom",
}
_SUMS = frozenset({"per_gpu", "explanation", "pending"})
_MEASURABLE = frozenset(
    {
        "weights",
        "activations",
        "cuda_graphs",
        "communication",
        "runtime_context",
        "allowance",
        "headroom",
        "method",
        "by_product",
    }
)
"""What changes in an estimate when a measurement comes or goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """``estimate``: of the product that needs the most. ``by_product``: of each one, where they differ."""

    workload: Workload
    estimate: Estimate
    by_product: tuple[tuple[str, Estimate], ...] = ()


def figures(
    spec: ModelDeploymentSpec,
    *,
    architecture: Architecture,
    weights: Weights,
    kv_precision: str,
    headroom_percent: float,
    measurements: Iterable[Measurement] = (),
    products: Collection[str] = (),
    draft: Draft | None = None,
    draft_commit: str = "",
) -> Figures:
    """What a replica needs on any GPU that it may get: ``products`` of the pool, or those that the spec names.

    ``draft``: the model that drafts, where the spec names one, at ``draft_commit``. A claim is made before its GPU is
    known, so it is the largest. Raises InvalidInputError for a workload that the engine would refuse,
    UnsupportedModelError for what is not known.
    """
    serving = spec.serving
    _check_drafting(spec, architecture)
    workload = Workload(
        context_length=serving.context_length,
        concurrency=serving.concurrency,
        tokens_per_sequence=serving.tokens_per_sequence or serving.context_length,
        max_batched_tokens=spec.engine.max_batched_tokens,
        tensor=spec.parallelism.tensor,
        pipeline=spec.parallelism.pipeline,
        data=spec.parallelism.data,
        expert=spec.parallelism.expert,
        decode_context=spec.parallelism.decode_context,
        text_only=spec.engine.images_per_prompt == 0,
        kv_cache_precision=kv_precision,
        cuda_graphs=spec.engine.cuda_graphs is CudaGraphs.AUTO,
        headroom_percent=headroom_percent,
        engine=spec.engine.name.value,
        engine_version=spec.engine.version,
        prefix_caching=PREFIX_CACHING[spec.engine.prefix_caching],
        speculation=spec.speculation.method.value if spec.speculation else "",
        speculative_tokens=spec.speculation.tokens if spec.speculation else 0,
        draft=draft,
        lora_adapters=spec.adapters.max if spec.adapters else 0,
        lora_rank=spec.adapters.max_rank if spec.adapters else 0,
        videos=False,  # the engine is told to refuse them
    )
    eligible = sorted(set(spec.placement.gpu_products) or set(products)) or [""]
    computed: dict[int, Estimate] = {}  # few products differ, so few estimates are made
    for product in eligible:
        if (context := context_bytes(product)) not in computed:
            there = replace(workload, product=product)
            computed[context] = estimate(architecture=architecture, weights=weights, workload=there)

    @cache
    def computed_for(setup: Setup) -> Estimate | None:
        load = replace(
            workload,
            concurrency=setup.max_sequences * workload.data,
            max_batched_tokens=setup.max_batched_tokens,
            context_length=setup.context_length,
            tokens_per_sequence=setup.context_length,
        )
        try:
            return estimate(architecture=architecture, weights=weights, workload=load)
        except InvalidInputError:
            return None

    observations = [observation_of(each) for each in measurements]
    each = tuple(
        (
            product,
            calibrated(
                computed[context_bytes(product)],
                observations=observations,
                asked=setup_of(spec, product=product, kv_cache=kv_precision, draft_commit=draft_commit),
                headroom_percent=headroom_percent,
                computed_for=computed_for,
            ),
        )
        for product in eligible
    )
    neediest, largest = max(each, key=lambda found: found[1].per_gpu)
    differ = len({found.per_gpu for _, found in each}) > 1
    return Figures(workload=replace(workload, product=neediest), estimate=largest, by_product=each if differ else ())


def _check_drafting(spec: ModelDeploymentSpec, architecture: Architecture) -> None:
    """Raises InvalidInputError for tokens that nothing drafts."""
    if spec.speculation is None or spec.speculation.method is not SpeculationMethod.MTP:
        return
    if not architecture.predict_layers:
        raise InvalidInputError(
            field="spec.speculation.method",
            value=spec.speculation.method.value,
            allowed="this model has no layers that predict further tokens: write ngram, or leave speculation out",
        )


def declared_kv(computed: Estimate, declared: int) -> int:
    """The KV cache that a declared claim leaves, in whole blocks and never more than the load needs.

    Raises InvalidInputError where not even what the engine demands at start is left: one sequence of contextLength.
    """
    least = computed.kv_least_blocks * computed.kv_block_bytes
    others = computed.per_gpu - computed.kv_cache - computed.headroom
    if "allowance" in computed.measured:
        others -= computed.allowance  # what other replicas took besides is no obstacle to what a user declares
    left = declared - others
    if left < least:
        raise InvalidInputError(
            field="spec.memory.perGPU",
            value=str(Quantity.of(declared)),
            allowed=f"weights and the rest take {human_bytes(others)}, and one sequence of contextLength "
            f"{human_bytes(least)}: write at least {Quantity.of(others + least)}",
        )
    return min(left - left % (computed.kv_block_bytes or 1), computed.kv_cache_bytes)


def estimate_status(found: Figures, *, declared: int | None) -> EstimateStatus:
    """``declared``: bytes on each GPU that the spec names instead of the sum."""
    computed = found.estimate
    per_gpu = computed.per_gpu if declared is None else declared
    method = EstimateMethod.MEASURED if computed.measured else EstimateMethod.COMPUTED
    return EstimateStatus(
        weights=Quantity.of(computed.weights),
        kv_cache=Quantity.of(computed.kv_cache),
        activations=Quantity.of(computed.activations),
        cuda_graphs=Quantity.of(computed.cuda_graphs),
        communication=Quantity.of(computed.communication),
        runtime_context=Quantity.of(computed.runtime_context),
        allowance=Quantity.of(computed.allowance),
        headroom=Quantity.of(computed.headroom),
        per_gpu=Quantity.of(per_gpu),
        gpus_per_replica=computed.gpus,
        kv_bytes_per_token=computed.kv_bytes_per_token,
        max_concurrency_at_context=computed.max_concurrency_at_context,
        host_memory=Quantity.of(computed.host_memory),
        shared_memory=Quantity.of(computed.shared_memory),
        by_product=_by_product(found.by_product) if declared is None else (),
        method=method if declared is None else EstimateMethod.DECLARED,
        explanation=_explanation(computed, declared),
    )


def with_pending(in_force: EstimateStatus, newer: EstimateStatus) -> EstimateStatus:
    """The estimate that a template was made from, and beside it the newer one, which waits to be asked for."""
    before, after = in_force.model_dump(), newer.model_dump()
    differing = {name for name, value in after.items() if before[name] != value} - _SUMS
    because = "EstimateChanged"
    if differing <= {"headroom"}:
        because = "PoolChanged"
    elif EstimateMethod.MEASURED in (in_force.method, newer.method) and differing <= _MEASURABLE:
        because = "CalibrationChanged"
    pending = PendingEstimate(per_gpu=newer.per_gpu or Quantity("0"), because=because)
    return in_force.model_copy(update={"pending": pending})


def _by_product(found: Sequence[tuple[str, Estimate]]) -> tuple[ProductEstimate, ...]:
    """The neediest, where there are too many to name."""
    named = sorted(found, key=lambda each: (-each[1].per_gpu, each[0]))[:_MAX_PRODUCTS]
    return tuple(ProductEstimate(product=name, per_gpu=Quantity.of(each.per_gpu)) for name, each in sorted(named))


def _explanation(computed: Estimate, declared: int | None) -> str:
    terms = []
    for term, name in _WORDS.items():
        value: int = getattr(computed, term)
        if value:
            terms.append(f"{human_bytes(value)} {name}{' (measured)' if term in computed.measured else ''}")
    words = f"{' + '.join(terms)} = {human_bytes(computed.per_gpu)} on {each_of(computed.gpus, 'GPU')}"
    for assumption in computed.assumptions:
        words += f"; assumed: {assumption}"
    if declared is not None:
        words += f"; spec.memory.perGPU declares {human_bytes(declared)} instead"
    return words
