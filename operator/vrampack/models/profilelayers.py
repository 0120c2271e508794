"""The layers of a model in the form of the API: every kind once, under a name that says what it is."""

from dataclasses import asdict

from vrampack.api.modellayers import (
    AttentionSpan,
    AttentionSpec,
    FeedForwardSpec,
    LatentSpec,
    LayerKind,
    LayerRunSpec,
    MixerSpec,
    StateName,
    StateSpec,
)
from vrampack.memory.layers import FeedForward, LatentAttention, LayerRun, Mixer, PagedAttention, RecurrentState

Alike = tuple[tuple[Mixer, ...], FeedForward | None]


def layer_specs(runs: tuple[LayerRun, ...]) -> tuple[tuple[LayerKind, ...], tuple[LayerRunSpec, ...]]:
    """The kinds of these layers, and their order."""
    names: dict[Alike, str] = {}
    kinds: list[LayerKind] = []
    order: list[LayerRunSpec] = []
    for run in runs:
        alike = (run.mixers, run.feed_forward)
        if alike not in names:
            name = _free(_name(run), set(names.values()))
            names[alike] = name
            kinds.append(_kind(name, run))
        order.append(LayerRunSpec(kind=names[alike], count=run.count))
    return tuple(kinds), tuple(order)


def _name(run: LayerRun) -> str:
    """Of what the layer keeps, and of its experts, if it has some."""
    words = [_word(mixer) for mixer in run.mixers]
    part = run.feed_forward
    if not words:
        words = ["nothing" if part is None else "experts" if part.experts else "dense"]
    elif part is not None and part.experts:
        words.append("experts")
    return "-".join(words)[:28]


def _word(mixer: Mixer) -> str:
    match mixer:
        case PagedAttention():
            return mixer.span.value
        case LatentAttention():
            return "latent"
        case RecurrentState():
            return mixer.kind.value.replace("_", "-")


def _free(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    number = next(number for number in range(2, len(taken) + 3) if f"{name}-{number}" not in taken)
    return f"{name}-{number}"


def _kind(name: str, run: LayerRun) -> LayerKind:
    part = run.feed_forward
    return LayerKind(
        name=name,
        mixers=tuple(map(_mixer, run.mixers)),
        feed_forward=None if part is None else FeedForwardSpec(**asdict(part)),
    )


def _mixer(mixer: Mixer) -> MixerSpec:
    match mixer:
        case PagedAttention():
            attention = AttentionSpec(**asdict(mixer) | {"span": AttentionSpan[mixer.span.name]})
            return MixerSpec(attention=attention)
        case LatentAttention():
            return MixerSpec(latent=LatentSpec(**asdict(mixer)))
        case RecurrentState():
            return MixerSpec(state=StateSpec(**asdict(mixer) | {"kind": StateName[mixer.kind.name]}))
