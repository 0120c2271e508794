"""From a ModelDeployment and the facts of its model to what a replica needs and the template that asks for it."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from vrampack.api.engine import CudaGraphs, EngineName, PrefixCaching, SpeculationMethod
from vrampack.api.gpupool import Startup
from vrampack.api.modeldeployment import KVCachePrecision, ModelDeploymentSpec, OnMismatch, Sharing, WeightsPrecision
from vrampack.api.modeldeploymentstatus import EstimateMethod, EstimateStatus, ModelFacts
from vrampack.api.source import ModelSource, SourceKind, parse_source
from vrampack.engines.base import (
    AdapterSlots,
    Budget,
    ClaimModel,
    Drafts,
    EngineContainer,
    EngineInput,
    HubModel,
    SecretKey,
)
from vrampack.engines.registry import engine
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.planning.drafts import FoundDraft, find_draft
from vrampack.planning.facts import architecture_and_weights
from vrampack.planning.figures import declared_kv, estimate_status, figures
from vrampack.planning.need import Need
from vrampack.planning.podtemplate import pod_template
from vrampack.planning.precision import verdict
from vrampack.planning.profiles import find_profile
from vrampack.planning.resolution import Resolution, ResolveRequest
from vrampack.planning.snapshot import Json, ModelView, PoolView, ProfileView
from vrampack.planning.verdict import Basis, Blocked, Settings, Sized
from vrampack.sharing.base import Mutation, Request
from vrampack.sharing.registry import mechanism
from vrampack.units import GIB, human_bytes

_DTYPE_PRECISION: Final = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_CUSTOM_HOST_MEMORY: Final = 4 * GIB
"""RAM request of a custom engine, of which nothing is known; an overlay that names another one wins."""


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
            return _custom(model, spec, pool, settings)
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
    model = _weights_at(parse_source(draft.pinned.source), draft.pinned.commit) if draft is not None else None
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
            model=_weights_at(where, commit),
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
            token=_secret(spec),
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
        exclusive=_exclusive(spec, pool, container),
        avoid=spec.placement.avoid_models,
    )
    mutation = mechanism(pool.spec.mechanism.value).mutation(_request(model, pool, need))
    return Sized(
        need=need,
        template=_template(model, spec, pool, container, need, settings, mutation),
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


def _custom(model: ModelView, spec: ModelDeploymentSpec, pool: PoolView, settings: Settings) -> Sized | Blocked:
    """An engine of the user's: its memory is what the user says."""
    declared = spec.memory.per_gpu
    if declared is None:
        raise InvalidInputError(
            field="spec.memory.perGPU", value=None, allowed="the memory of a custom engine can't be estimated: name it"
        )
    need = Need(
        gpus=spec.parallelism.tensor * spec.parallelism.pipeline * spec.parallelism.data,
        bytes=declared.bytes,
        kv=0,
        context=0,
        comm=0,
        exclusive=spec.placement.sharing is Sharing.EXCLUSIVE,
        avoid=spec.placement.avoid_models,
    )
    source = parse_source(spec.model.source)
    precision = "" if spec.precision.weights is WeightsPrecision.AUTO else spec.precision.weights.value
    container = engine(spec.engine.name.value)(
        EngineInput(
            model=_weights_at(source, spec.model.revision),
            served_name=model.name,
            context_length=spec.serving.context_length,
            concurrency=spec.serving.concurrency,
            max_batched_tokens=spec.engine.max_batched_tokens,
            weights_precision=precision,
            checkpoint_precision=precision,
            checkpoint_dtype="",
            kv_cache_precision=spec.precision.kv_cache.value,
            version=spec.engine.version,
            image=spec.engine.image,
            port=spec.service.port,
            weight_bytes=declared.bytes,
            host_memory=_CUSTOM_HOST_MEMORY,
            shared_memory=GIB,
            tensor=spec.parallelism.tensor,
            pipeline=spec.parallelism.pipeline,
            data=spec.parallelism.data,
            args=spec.engine.args,
            token=_secret(spec),
            hub_endpoint=settings.hub_endpoint,
        )
    )
    mutation = mechanism(pool.spec.mechanism.value).mutation(_request(model, pool, need))
    return Sized(
        need=need,
        template=_template(model, spec, pool, container, need, settings, mutation),
        device_request=mutation.device_request,
        estimate=EstimateStatus(
            per_gpu=declared,
            gpus_per_replica=need.gpus,
            method=EstimateMethod.DECLARED,
            explanation=f"{human_bytes(need.bytes)} on each GPU, as spec.memory.perGPU says",
        ),
        facts=ModelFacts(revision=spec.model.revision, precision=precision),
        commit=spec.model.revision,
    )


def _weights_at(source: ModelSource, commit: str) -> HubModel | ClaimModel:
    if source.kind is SourceKind.CLAIM:
        return ClaimModel(claim=source.name, path=source.path)
    return HubModel(repository=source.name, commit=commit)


def _secret(spec: ModelDeploymentSpec) -> SecretKey | None:
    token = spec.model.token_secret_ref
    return SecretKey(name=token.name, key=token.key) if token is not None else None


def _template(
    model: ModelView,
    spec: ModelDeploymentSpec,
    pool: PoolView,
    container: EngineContainer,
    need: Need,
    settings: Settings,
    mutation: Mutation,
) -> Json:
    return pod_template(
        name=model.name,
        engine=container,
        need=need,
        overlay=spec.pod_template,
        runtime_class=pool.spec.runtime_class_name or None,
        priority_class=spec.priority_class_name,
        unreachable_seconds=settings.unreachable_seconds,
        mutation=mutation,
        gate=settings.start_gate if pool.spec.startup is Startup.SERIALIZED else None,
    )


def _exclusive(spec: ModelDeploymentSpec, pool: PoolView, container: EngineContainer) -> bool:
    """Whether the replica's GPUs are its own. Raises InvalidInputError for an engine that can't have them shared."""
    shares = mechanism(pool.spec.mechanism.value)
    exclusive = spec.placement.sharing is Sharing.EXCLUSIVE
    if container.alone and shares.total_is_share:
        raise InvalidInputError(
            field="spec.engine.name",
            value=container.engine,
            allowed=f"{container.alone}; a pool that shares by {shares.name} shows it a part: choose another engine",
        )
    if container.alone and not (exclusive or shares.sliced):
        raise InvalidInputError(
            field="spec.placement.sharing",
            value=spec.placement.sharing.value,
            allowed=f"{container.alone}: write Exclusive, or choose a pool that shares by MIG",
        )
    return exclusive


def _request(model: ModelView, pool: PoolView, need: Need) -> Request:
    return Request(
        name=model.name,
        gpus=need.gpus,
        claim_bytes=need.bytes,
        queue=pool.spec.queue,
        device_class=pool.spec.device_class,
        resource_claim=pool.spec.resource_claim,
    )
