"""From a ModelDeployment and the facts of its model to what a replica needs and the template that asks for it."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from vrampack.api.engine import CudaGraphs, EngineName, PrefixCaching, SpeculationMethod
from vrampack.api.modeldeployment import KVCachePrecision, ModelDeploymentSpec, OnMismatch, SpreadPolicy
from vrampack.api.modeldeploymentstatus import ModelFacts
from vrampack.api.source import parse_source
from vrampack.engines.base import (
    AdapterSlots,
    Budget,
    Drafts,
    EngineInput,
)
from vrampack.engines.registry import engine
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.planning.customsizing import custom_size
from vrampack.planning.drafts import FoundDraft, find_draft
from vrampack.planning.facts import architecture_and_weights
from vrampack.planning.figures import declared_kv, estimate_status, figures
from vrampack.planning.need import Need
from vrampack.planning.precision import verdict
from vrampack.planning.profiles import find_profile
from vrampack.planning.replica import exclusive, request_of, secret_of, template_of, weights_at
from vrampack.planning.resolution import Resolution, ResolveRequest
from vrampack.planning.snapshot import ModelView, PoolView, ProfileView
from vrampack.planning.verdict import Basis, Blocked, Settings, Sized
from vrampack.sharing.registry import mechanism

_DTYPE_PRECISION: Final = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}

_LONG: Final = 1000
"""Characters of a message about something that nobody thought of."""


def size(
    model: ModelView,
    *,
    pool: PoolView | None,
    profiles: Mapping[str, ProfileView],
    resolutions: Mapping[ResolveRequest, Resolution],
    commit: str,
    settings: Settings,
    products: Collection[str] = (),
    draft_commit: str = "",
) -> Sized | Blocked:
    """What one replica needs. ``commit``: the one in force, where there is one; empty: to be resolved; so is
    ``draft_commit`` of the model that drafts. ``products``: what GPUs the pool has."""
    spec = model.spec
    if spec is None:
        return Blocked(stalled=True, reason="InvalidSpec", message=model.problem)
    if pool is None:
        return Blocked(
            stalled=True,
            reason="PoolNotFound",
            message=f"spec.placement.pool: there is no GPUPool {spec.placement.pool!r}; create it, or name another one",
        )
    if pool.problem:
        return Blocked(
            stalled=True,
            reason="InvalidPool",
            message=f"GPUPool {pool.name} can't be read, and nothing is placed in it: {pool.problem}",
        )
    try:
        _check_supported(spec)
        if spec.engine.name is EngineName.CUSTOM:
            return custom_size(model, spec, pool, settings)
        found = find_profile(model, spec, profiles, resolutions, commit, settings)
        if isinstance(found, Blocked):
            return found
        profile, served, request = found
        draft = find_draft(model, spec, profiles, resolutions, draft_commit, settings)
        if isinstance(draft, Blocked):
            return replace(draft, resolve=request)  # the model's own commit stays what it is meanwhile
        sized = _estimated(model, spec, pool, profile, served, settings, products, draft)
        return replace(sized, resolve=request) if isinstance(sized, Sized) else sized
    except InvalidInputError as error:
        return Blocked(stalled=True, reason="InvalidSpec", message=str(error))
    except UnsupportedModelError as error:
        return Blocked(
            stalled=True,
            reason="UnsupportedArchitecture",
            message=f"the memory of this model is not known, and is not guessed: {error}",
        )
    except Exception as error:  # one model that nobody thought of never stops the others
        return Blocked(
            stalled=True,
            reason="EstimateFailed",
            message=f"vrampack failed on this model or its ModelProfile, and goes on with all others: {error!r}"[
                :_LONG
            ],
        )


def _check_supported(spec: ModelDeploymentSpec) -> None:
    """Raises InvalidInputError for what changes memory in a way that this version does not estimate."""
    shape, name = spec.parallelism, spec.engine.name
    ranks_of_their_own = (EngineName.VLLM, EngineName.CUSTOM)
    refused = (
        (
            "spec.parallelism.data",
            shape.data,
            shape.data != 1 and name not in ranks_of_their_own,
            f"with {name.value} write 1, and more replicas",
        ),
        ("spec.speculation.method", *_drafted_by_another(spec), "write mtp or ngram, or leave speculation out"),
    )
    for field, value, holds, allowed in refused:
        if holds:
            raise InvalidInputError(
                field=field, value=value, allowed=f"this version does not estimate its memory: {allowed}"
            )


def _drafted_by_another(spec: ModelDeploymentSpec) -> tuple[str, bool]:
    """The method, and whether it loads a second model into an engine that is not told of one, or is not told at all."""
    if spec.speculation is None:
        return "", False
    method, name = spec.speculation.method, spec.engine.name
    own = method in (SpeculationMethod.MTP, SpeculationMethod.NGRAM)
    return method.value, name is EngineName.CUSTOM or not (own or name is EngineName.VLLM)


def _drafts(spec: ModelDeploymentSpec, draft: FoundDraft | None) -> Drafts | None:
    if spec.speculation is None:
        return None
    model = weights_at(parse_source(draft.pinned.source), draft.pinned.commit) if draft is not None else None
    return Drafts(method=spec.speculation.method.value, tokens=spec.speculation.tokens, model=model)


def _estimated(
    model: ModelView,
    spec: ModelDeploymentSpec,
    pool: PoolView,
    profile: ProfileView,
    commit: str,
    settings: Settings,
    products: Collection[str],
    draft: FoundDraft | None,
) -> Sized | Blocked:
    if profile.spec is None:
        return Blocked(stalled=True, reason="InvalidProfile", message=f"ModelProfile {profile.name}: {profile.problem}")
    facts = profile.spec
    contract = verdict(spec, facts)
    if not contract.holds and spec.precision.on_mismatch is OnMismatch.STALL:
        return Blocked(stalled=True, reason=contract.reason, message=contract.message)
    architecture, weights = architecture_and_weights(facts)
    kv_precision = spec.precision.kv_cache.value
    if spec.precision.kv_cache is KVCachePrecision.AUTO:
        kv_precision = _DTYPE_PRECISION[architecture.dtype]
    serving = spec.serving
    headroom = spec.memory.headroom if spec.memory.headroom is not None else pool.spec.headroom
    found = figures(
        spec,
        architecture=architecture,
        weights=weights,
        kv_precision=kv_precision,
        headroom_percent=headroom.percent,
        measurements=profile.measurements,
        products=products,
        draft=draft.draft if draft is not None else None,
        draft_commit=draft.pinned.commit if draft is not None else "",
    )
    computed = found.estimate
    per_gpu, kv_bytes = computed.per_gpu, computed.kv_cache_bytes
    declared = spec.memory.per_gpu
    if declared is not None:
        per_gpu = declared.bytes
        kv_bytes = declared_kv(computed, per_gpu)
    where = parse_source(facts.source)
    container = engine(spec.engine.name.value)(
        EngineInput(
            model=weights_at(where, commit),
            served_name=model.name,
            context_length=serving.context_length,
            concurrency=serving.concurrency,
            max_batched_tokens=spec.engine.max_batched_tokens,
            weights_precision=facts.precision.value,
            checkpoint_precision=facts.precision.value,
            checkpoint_dtype=architecture.dtype,
            kv_cache_precision=kv_precision,
            version=spec.engine.version,
            image=spec.engine.image,
            port=spec.service.port,
            weight_bytes=weights.total + (draft.draft.weights.total if draft is not None else 0),
            host_memory=computed.host_memory,
            shared_memory=computed.shared_memory,
            tensor=spec.parallelism.tensor,
            pipeline=spec.parallelism.pipeline,
            data=spec.parallelism.data,
            expert=spec.parallelism.expert,
            decode_context=spec.parallelism.decode_context,
            drafts=_drafts(spec, draft),
            images_per_prompt=spec.engine.images_per_prompt if architecture.multimodal else None,
            cuda_graphs=spec.engine.cuda_graphs is CudaGraphs.AUTO,
            prefix_caching={PrefixCaching.ENABLED: True, PrefixCaching.DISABLED: False}.get(spec.engine.prefix_caching),
            args=spec.engine.args,
            adapters=AdapterSlots(count=spec.adapters.max, rank=spec.adapters.max_rank) if spec.adapters else None,
            token=secret_of(spec),
            hub_endpoint=settings.hub_endpoint,
            file=facts.file,
            architecture=architecture,
            workload=found.workload,
            budget=Budget(
                weights=computed.weights,
                kv_cache=kv_bytes,
                working=computed.activations + computed.cuda_graphs,
                claim=per_gpu,
                slack=min(computed.allowance + computed.headroom, per_gpu // 10),
            ),
        )
    )
    need = Need(
        gpus=computed.gpus,
        bytes=per_gpu,
        kv=kv_bytes,
        context=computed.runtime_context,
        comm=computed.communication,
        fraction=container.fraction_bytes,
        exclusive=exclusive(spec, pool, container),
        avoid=spec.placement.avoid_models,
        apart=spec.placement.spread is SpreadPolicy.REQUIRE or None,
    )
    mutation = mechanism(pool.spec.mechanism.value).mutation(request_of(model, pool, need))
    return Sized(
        need=need,
        template=template_of(model, spec, pool, container, need, settings, mutation),
        device_request=mutation.device_request,
        estimate=estimate_status(found, declared=None if declared is None else per_gpu),
        facts=ModelFacts(
            profile=profile.name,
            revision=commit,
            weights_digest=facts.weights_digest,
            parameters=facts.parameters,
            precision=facts.precision.value,
            kv_cache_precision=kv_precision,
        ),
        commit=commit,
        draft=draft.pinned if draft is not None else None,
        draft_resolve=draft.resolve if draft is not None else None,
        precision=contract,
        basis=Basis(architecture=architecture, weights=weights, workload=found.workload),
    )
