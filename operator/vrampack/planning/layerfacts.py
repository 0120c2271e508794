"""The layers of a ModelProfile as the estimate takes them."""

from vrampack.api.modellayers import (
    AttentionSpan,
    AttentionSpec,
    LatentSpec,
    LayerKind,
    LayerRunSpec,
    MixerSpec,
    StateName,
)
from vrampack.api.modelprofile import ArchitectureSpec
from vrampack.errors import InvalidInputError
from vrampack.memory.layers import (
    FeedForward,
    LatentAttention,
    LayerRun,
    Mixer,
    PagedAttention,
    RecurrentState,
    Span,
    StateKind,
)

SPANS = {each: Span[each.name] for each in AttentionSpan}
STATES = {each: StateKind[each.name] for each in StateName}


def layer_runs(spec: ArchitectureSpec) -> tuple[LayerRun, ...]:
    """The layers in their order; empty where all are alike.

    Raises InvalidInputError for names that are not described and counts that do not add up.
    """
    kinds = {kind.name: kind for kind in spec.layer_kinds}
    total = sum(run.count for run in spec.layer_order)
    if spec.layer_order and total != spec.layers:
        raise InvalidInputError(
            field="spec.architecture.layerOrder", value=f"{total} layers", allowed=f"all {spec.layers} layers"
        )
    return tuple(_run(run, kinds) for run in spec.layer_order)


def _run(run: LayerRunSpec, kinds: dict[str, LayerKind]) -> LayerRun:
    kind = kinds.get(run.kind)
    if kind is None:
        raise InvalidInputError(
            field="spec.architecture.layerOrder.kind",
            value=run.kind,
            allowed=f"a name in layerKinds: {', '.join(kinds) or 'there is none'}",
        )
    part = kind.feed_forward
    feed_forward = None if part is None else FeedForward(**part.model_dump())
    return LayerRun(count=run.count, mixers=tuple(map(_mixer, kind.mixers)), feed_forward=feed_forward)


def _mixer(mixer: MixerSpec) -> Mixer:
    match mixer:
        case MixerSpec(attention=AttentionSpec() as attention, latent=None, state=None):
            if attention.heads % attention.kv_heads:
                raise InvalidInputError(
                    field="spec.architecture.layerKinds.mixers.attention.kvHeads",
                    value=attention.kv_heads,
                    allowed=f"a divisor of heads, {attention.heads}",
                )
            return PagedAttention(**attention.model_dump() | {"span": SPANS[attention.span]})
        case MixerSpec(attention=None, latent=LatentSpec() as latent, state=None):
            return LatentAttention(**latent.model_dump())
        case MixerSpec(attention=None, latent=None, state=state) if state is not None:
            return RecurrentState(**state.model_dump() | {"kind": STATES[state.kind]})
        case _:
            raise InvalidInputError(
                field="spec.architecture.layerKinds.mixers",
                value="several or none",
                allowed="exactly one of attention, latent and state in each entry",
            )
