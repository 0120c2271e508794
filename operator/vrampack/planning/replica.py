"""One replica of a ModelDeployment: what its pod is made of, whoever said how much memory it needs."""

from vrampack.api.gpupool import Startup
from vrampack.api.modeldeployment import ModelDeploymentSpec, Sharing
from vrampack.api.source import ModelSource, SourceKind
from vrampack.engines.base import ClaimModel, EngineContainer, HubModel, SecretKey
from vrampack.errors import InvalidInputError
from vrampack.planning.need import Need
from vrampack.planning.podtemplate import pod_template
from vrampack.planning.snapshot import Json, ModelView, PoolView
from vrampack.planning.verdict import Settings
from vrampack.sharing.base import Mutation, Request
from vrampack.sharing.registry import mechanism


def weights_at(source: ModelSource, commit: str) -> HubModel | ClaimModel:
    """Where the engine loads them from."""
    if source.kind is SourceKind.CLAIM:
        return ClaimModel(claim=source.name, path=source.path)
    return HubModel(repository=source.name, commit=commit)


def secret_of(spec: ModelDeploymentSpec) -> SecretKey | None:
    """The token of the hub, where the spec names one."""
    token = spec.model.token_secret_ref
    return SecretKey(name=token.name, key=token.key) if token is not None else None


def template_of(
    model: ModelView,
    spec: ModelDeploymentSpec,
    pool: PoolView,
    container: EngineContainer,
    need: Need,
    settings: Settings,
    mutation: Mutation,
) -> Json:
    """The pod template."""
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


def exclusive(spec: ModelDeploymentSpec, pool: PoolView, container: EngineContainer) -> bool:
    """Whether the replica's GPUs are its own. Raises InvalidInputError for an engine that can't have them shared."""
    shares = mechanism(pool.spec.mechanism.value)
    alone = spec.placement.sharing is Sharing.EXCLUSIVE
    if container.alone and shares.total_is_share:
        raise InvalidInputError(
            field="spec.engine.name",
            value=container.engine,
            allowed=f"{container.alone}; a pool that shares by {shares.name} shows it a part: choose another engine",
        )
    if container.alone and not (alone or shares.sliced):
        raise InvalidInputError(
            field="spec.placement.sharing",
            value=spec.placement.sharing.value,
            allowed=f"{container.alone}: write Exclusive, or choose a pool that shares by MIG",
        )
    return alone


def request_of(model: ModelView, pool: PoolView, need: Need) -> Request:
    """What the pool's mechanism is told of it."""
    return Request(
        name=model.name,
        gpus=need.gpus,
        claim_bytes=need.bytes,
        queue=pool.spec.queue,
        device_class=pool.spec.device_class,
        resource_claim=pool.spec.resource_claim,
    )
