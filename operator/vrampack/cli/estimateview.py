"""An estimate as its picture and its JSON need it: the terms, and what becomes of them on each GPU product."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from vrampack.cli.estimatesubject import Subject
from vrampack.errors import VrampackError
from vrampack.estimator import TERMS, gpu_bytes
from vrampack.memory.architecture import WeightsMethod
from vrampack.memory.estimate import estimate
from vrampack.memory.gpus import GPUS, gpu_named
from vrampack.memory.inverse import Reach, largest_concurrency, longest_context
from vrampack.packing.problem import Device, Host, Item
from vrampack.packing.room import Rooms
from vrampack.planning.verdict import Sized
from vrampack.planning.whatif import Question, would_fit_if

GPUS_OF_A_NODE: Final = 8
"""How many of a product may stand in one node, where a change of the split is looked for."""


class StalledError(VrampackError):
    """A cluster would not serve this ModelDeployment, and says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A GPU that is asked about: its name, and the bytes of it that an engine can have."""

    name: str
    label: str
    """As the node label nvidia.com/gpu.product has it; of a card that was given in bytes, its name."""
    usable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CardView:
    """An empty GPU of one product under this load. Bytes; ``room``: what a pool's reserve leaves of it."""

    gpu: str
    usable: int
    room: int
    claim: int
    fits: bool
    allowed: bool
    """Whether the ModelDeployment may be placed on this product at all."""
    free: int
    """Negative: what is missing."""
    largest_concurrency: Reach | None
    """At this context length. None: of a custom engine nothing is known."""
    longest_context: Reach | None
    """At this concurrency."""
    would_fit_if: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateView:
    """One ModelDeployment. Bytes on each GPU; ``terms`` are empty where the claim is the user's word alone."""

    name: str
    model: str
    revision: str
    model_type: str
    parameters: int | None
    precision: str
    kv_cache_precision: str
    weights_known_by: WeightsMethod | None
    """None: of a custom engine nothing is known."""
    method: str
    assumptions: tuple[str, ...]
    context_length: int
    concurrency: int
    tokens_per_sequence: int
    max_batched_tokens: int
    gpus: int
    terms: dict[str, int]
    claim: int
    computed: int | None
    """The sum of the terms, where the claim is another one."""
    kv_bytes_per_token: int | None
    kv_cache_bytes: int | None
    """What the engine is told: whole blocks."""
    kv_blocks: int | None
    kv_tokens: int | None
    """As the engine itself prints it at start."""
    max_concurrency_at_context: str
    """As the engine itself prints it at start."""
    kv_why: str
    """In words, what asks for so many blocks."""
    host_memory: int | None
    shared_memory: int | None
    cards: tuple[CardView, ...]
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether at least one of the products has room."""
        return any(card.fits for card in self.cards)


def cards_of(names: Sequence[str]) -> tuple[Card, ...]:
    """GPUs by product or by memory; of none given, every product that is known. Raises InvalidInputError."""
    return tuple(map(_card, names or tuple(GPUS)))


def view_of(subject: Subject, cards: Sequence[Card], *, what_if: bool) -> EstimateView:
    """The estimate of one ModelDeployment. Raises StalledError where it would be Stalled, with its message."""
    sized = subject.sized(products=_eligible(subject, cards))
    if not isinstance(sized, Sized):
        raise StalledError(f"{subject.name}: {sized.message}")
    spec, basis = subject.spec, sized.basis
    computed = None
    if basis is not None:
        computed = estimate(architecture=basis.architecture, weights=basis.weights, workload=basis.workload)
    status = sized.estimate
    terms = _terms(sized) if basis is not None else {}
    summed = sum(terms.values())
    return EstimateView(
        name=subject.name,
        model=subject.model,
        revision=sized.commit,
        model_type=basis.architecture.model_type if basis is not None else "",
        parameters=sized.facts.parameters,
        precision=sized.facts.precision,
        kv_cache_precision=sized.facts.kv_cache_precision,
        weights_known_by=basis.weights.method if basis is not None else None,
        method=status.method.value if status.method is not None else "",
        assumptions=(*basis.architecture.assumptions, *computed.assumptions) if basis and computed else (),
        context_length=spec.serving.context_length,
        concurrency=spec.serving.concurrency,
        tokens_per_sequence=spec.serving.tokens_per_sequence or spec.serving.context_length,
        max_batched_tokens=spec.engine.max_batched_tokens,
        gpus=sized.need.gpus,
        terms=terms,
        claim=sized.need.bytes,
        computed=summed if basis is not None and summed != sized.need.bytes else None,
        kv_bytes_per_token=computed.kv_bytes_per_token if computed is not None else None,
        kv_cache_bytes=computed.kv_cache_bytes if computed is not None else None,
        kv_blocks=computed.kv_blocks if computed is not None else None,
        kv_tokens=computed.kv_tokens if computed is not None else None,
        kv_why=computed.kv_why if computed is not None else "",
        max_concurrency_at_context=computed.max_concurrency_at_context if computed is not None else "",
        host_memory=computed.host_memory if computed is not None else None,
        shared_memory=computed.shared_memory if computed is not None else None,
        cards=tuple(_card_view(subject, sized, card, what_if=what_if) for card in cards),
        notes=tuple(_notes(subject, sized)),
    )


def to_json(views: Sequence[EstimateView]) -> dict[str, Any]:
    """For scripts; memory in bytes."""
    return {
        "fits": all(view.fits for view in views),
        "estimates": [{**asdict(view), "fits": view.fits} for view in views],
    }


def _card(name: str) -> Card:
    known = gpu_named(name)
    if known is not None:
        short = next(short for short, gpu in GPUS.items() if gpu is known)
        return Card(name=short, label=known.label, usable=known.usable)
    return Card(name=name, label=name, usable=gpu_bytes(name, field="--gpu"))


def _eligible(subject: Subject, cards: Sequence[Card]) -> list[str]:
    return list(subject.spec.placement.gpu_products) or [card.label for card in cards]


def _notes(subject: Subject, sized: Sized) -> Iterator[str]:
    if sized.precision is not None and not sized.precision.holds:
        yield sized.precision.message


def _terms(sized: Sized) -> dict[str, int]:
    """As the status tells them: measured ones where a profile has them."""
    values = {name: getattr(sized.estimate, name, None) for name in TERMS}
    return {name: value.bytes for name, value in values.items() if value is not None}


def _card_view(subject: Subject, sized: Sized, card: Card, *, what_if: bool) -> CardView:
    allowed = not subject.spec.placement.gpu_products or card.label in subject.spec.placement.gpu_products
    alone = subject.sized(products=[card.label])
    claim = alone.need.bytes if isinstance(alone, Sized) else sized.need.bytes
    room = max(0, card.usable - subject.pool.spec.reserve_per_gpu.bytes)
    fits = allowed and claim <= room
    concurrency = context = None
    if (basis := sized.basis) is not None:
        known, weights = basis.architecture, basis.weights
        workload = replace(basis.workload, product=card.label)
        concurrency = largest_concurrency(architecture=known, weights=weights, workload=workload, available=room)
        context = longest_context(architecture=known, weights=weights, workload=workload, available=room)
    return CardView(
        gpu=card.name,
        usable=card.usable,
        room=room,
        claim=claim,
        fits=fits,
        allowed=allowed,
        free=room - claim,
        largest_concurrency=concurrency,
        longest_context=context,
        would_fit_if=() if fits or not what_if else _what_if(subject, sized, card, room),
    )


def _what_if(subject: Subject, sized: Sized, card: Card, room: int) -> tuple[str, ...]:
    devices = tuple(
        Device(id=str(index), product=card.label, capacity=card.usable, free=room) for index in range(GPUS_OF_A_NODE)
    )
    item = Item(
        key=subject.name,
        group=subject.name,
        gpus=sized.need.gpus,
        memory=sized.need.bytes,
        products=frozenset(subject.spec.placement.gpu_products) or None,
    )
    question = Question(spec=subject.spec, sized=sized, item=item)
    rooms = Rooms([Host(name=card.name, devices=devices)])
    return would_fit_if(question, rooms=rooms, resize=lambda spec: subject.sized(spec, products=[card.label]))
