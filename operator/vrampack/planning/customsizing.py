"""What a replica of the user's own engine needs: what the user says."""

from typing import Final

from vrampack.api.modeldeployment import ModelDeploymentSpec, Sharing, SpreadPolicy, WeightsPrecision
from vrampack.api.modeldeploymentstatus import EstimateMethod, EstimateStatus, ModelFacts
from vrampack.api.source import parse_source
from vrampack.engines.base import EngineInput
from vrampack.engines.registry import engine
from vrampack.errors import InvalidInputError
from vrampack.planning.need import Need
from vrampack.planning.replica import request_of, secret_of, template_of, weights_at
from vrampack.planning.snapshot import ModelView, PoolView
from vrampack.planning.verdict import Settings, Sized
from vrampack.sharing.registry import mechanism
from vrampack.units import GIB, human_bytes

_HOST_MEMORY: Final = 4 * GIB
"""RAM request: nothing is known of it, and an overlay that names another one wins."""


def custom_size(model: ModelView, spec: ModelDeploymentSpec, pool: PoolView, settings: Settings) -> Sized:
    """Raises InvalidInputError where the spec does not say it."""
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
        apart=spec.placement.spread is SpreadPolicy.REQUIRE or None,
    )
    source = parse_source(spec.model.source)
    precision = "" if spec.precision.weights is WeightsPrecision.AUTO else spec.precision.weights.value
    container = engine(spec.engine.name.value)(
        EngineInput(
            model=weights_at(source, spec.model.revision),
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
            host_memory=_HOST_MEMORY,
            shared_memory=GIB,
            tensor=spec.parallelism.tensor,
            pipeline=spec.parallelism.pipeline,
            data=spec.parallelism.data,
            args=spec.engine.args,
            token=secret_of(spec),
            hub_endpoint=settings.hub_endpoint,
        )
    )
    mutation = mechanism(pool.spec.mechanism.value).mutation(request_of(model, pool, need))
    return Sized(
        need=need,
        template=template_of(model, spec, pool, container, need, settings, mutation),
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
