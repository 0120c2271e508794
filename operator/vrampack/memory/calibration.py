"""From what an engine was seen to use to the next estimate: measured terms instead of computed ones.

A measurement speaks only for runs of its own kind (`Setup.alike`): the same engine and version, GPU product, split over
GPUs, KV precision, graph mode and arguments that change memory. What drives a term (sequences, batched tokens, tokens
of one sequence) may differ, and memory grows with each of them. So a run whose drivers were all at least as large as
those that are asked for bounds the term from above, and replaces the computed one; a run whose drivers were all at most
as large bounds it from below, and no estimate goes below it. In between nothing is known.

A run with much more to do would replace the term by far too much. So what is computed for both loads tells them apart:
the term is what is computed for the load that is asked for, and on top what the run took beyond what is computed for
its own load, but never more than the run took. It is below the computed term only where the run itself was, so nothing
rests on how well the computed term scales.

What the driver counts of a process is a whole, and short peaks escape whoever looks now and then. So that figure is a
floor for the sum of all terms, and replaces none of them; only of an engine that holds all its memory from its start is
it also the most, and takes the place of the allowance.
"""

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from vrampack.memory.estimate import Estimate
from vrampack.units import MIB, round_up

FEW_SAMPLES: Final = 3
"""Below it a term that varies from start to start gets SPREAD on top."""
SPREAD: Final = 0.02
"""Share of a term by which two starts of one configuration differ: allocator and driver, not the model."""
LEAST_FOR_OUTLIERS: Final = 5
"""With fewer runs than this nothing is called an outlier."""
OUTLIER: Final = 0.1
"""Share of the median beyond which a single high run is left out of many."""
OUTLIER_FLOOR: Final = 256 * MIB
"""No difference below this is an outlier, however small the median."""
WEIGHTS_SHARE: Final = 0.5
"""Weights that come to less than this share of the files' are those of something else, and are not believed."""

_SEQUENCES, _TOKENS, _CONTEXT = "max_sequences", "max_batched_tokens", "context_length"
_DRIVERS: Final[Mapping[str, tuple[str, ...]]] = {
    "weights": (),
    "activations": (_SEQUENCES, _TOKENS, _CONTEXT),  # attention workspaces follow the longest sequence
    "cuda_graphs": (_SEQUENCES, _TOKENS),
    "communication": (_TOKENS,),
    "runtime_context": (),
}
"""Terms that a measurement may replace, by their name in the estimate, and what each grows with."""
_STEADY: Final = frozenset({"weights"})
"""Terms that no two starts differ in."""
_FITTED: Final = frozenset({"cuda_graphs", "runtime_context"})
_OF_WHOLE: Final = (_SEQUENCES, _TOKENS, _CONTEXT)
_AT_ONCE: Final = frozenset({"llamacpp"})
"""Engines that take all their memory before they answer, and no more later: what they were seen to hold is all."""
_VERSION: Final = re.compile(r"v?(?P<release>[^+]*)(\+.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How an engine was run, or is to be: what a term of memory depends on besides the model."""

    engine: str
    version: str
    product: str
    """GPU product, as in the node label nvidia.com/gpu.product."""
    max_sequences: int
    max_batched_tokens: int
    context_length: int
    kv_cache: str
    """Resolved precision: bf16, fp8, …"""
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False
    decode_context: int = 1
    cuda_graphs: bool = True
    args: tuple[str, ...] = ()
    """Arguments that change memory, in any order."""

    def alike(self, other: "Setup") -> bool:
        """Whether one speaks for the other: all but the drivers is the same."""
        return self._kind() == other._kind()

    def _kind(self) -> tuple[object, ...]:
        return (
            self.engine,
            release(self.version),
            self.product,
            (self.tensor, self.pipeline, self.data, self.expert, self.decode_context),
            self.kv_cache,
            self.cuda_graphs,
            tuple(sorted(self.args)),
        )


ComputedFor = Callable[[Setup], Estimate | None]
"""The estimate of the same model for another load of the same kind; None: the engine would refuse that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Bytes on the GPU that used the most, of one or more runs of a setup. None: that term was not seen."""

    setup: Setup
    weights: int | None = None
    activations: int | None = None
    cuda_graphs: int | None = None
    communication: int | None = None
    runtime_context: int | None = None
    besides_cache: int | None = None
    """All of these and whatever else the processes held, but for the KV cache: as the driver counts it."""
    samples: int = 1


def calibrated(
    estimate: Estimate,
    *,
    observations: Iterable[Observation],
    asked: Setup,
    headroom_percent: float,
    computed_for: ComputedFor | None = None,
) -> Estimate:
    """The estimate with measured terms where there are any; ``measured`` names them, and the sum is exact again.

    Unchanged where no observation speaks for ``asked``. The KV cache is never measured: the engine is told its bytes.
    ``computed_for``: how a run with more to do is told apart; without it such a run's figures count as they are.
    """
    known = [each for each in observations if each.setup.alike(asked)]
    found = {
        term: value
        for term in _DRIVERS
        if (value := _term(term, estimate, known, asked, computed_for or _unknown)) is not None
    }
    exact = {term for term, value in found.items() if not value.carried}
    fitted = not (exact >= _FITTED and (estimate.gpus == 1 or "communication" in exact))
    allowance = estimate.allowance if fitted else 0  # it is there for how far fitted terms may be off
    changes: dict[str, Any] = {term: round_up(value.bytes, MIB) for term, value in found.items()}
    terms = {term: changes.get(term, getattr(estimate, term)) for term in _DRIVERS}
    seen = _left_over(known, asked, terms=terms, allowance=allowance)
    if not changes and seen is None:
        return estimate
    measured = tuple(sorted(changes if seen is None else (*changes, "allowance")))
    changes["allowance"] = allowance if seen is None else seen
    before = sum(getattr(estimate, term) for term in changes)
    total = estimate.per_gpu - estimate.headroom - before + sum(changes.values())
    headroom = math.ceil(total // MIB * headroom_percent / 100) * MIB
    return replace(estimate, **changes, headroom=headroom, per_gpu=total + headroom, measured=measured)


def merged(runs: Sequence[Observation]) -> Observation:
    """One observation of several of one setup: of each term the most that was seen, single outliers aside.

    Raises ValueError where there is none, or where setups differ.
    """
    if not runs or any(each.setup != runs[0].setup for each in runs):
        raise ValueError("runs of one setup are merged, and there is at least one")
    terms = {
        term: _most([(value, each.samples) for each in runs if (value := getattr(each, term)) is not None])
        for term in (*_DRIVERS, "besides_cache")
    }
    return Observation(setup=runs[0].setup, **terms, samples=sum(each.samples for each in runs))


def release(version: str) -> str:
    """A version without the ``v`` of tags and without what a builder adds behind ``+``."""
    match = _VERSION.fullmatch(version.strip())
    return match["release"] if match is not None else version.strip()


def _most(values: Sequence[tuple[int, int]]) -> int | None:
    """The largest value. With enough runs a single one far above the median is left out: something else was on that
    GPU. A second such run brings it back."""
    if not values:
        return None
    found = sorted(value for value, samples in values for _ in range(min(samples, LEAST_FOR_OUTLIERS)))
    if len(found) < LEAST_FOR_OUTLIERS:
        return found[-1]
    middle = statistics.median_low(found)
    far = middle + max(math.ceil(OUTLIER * middle), OUTLIER_FLOOR)
    return found[-2] if found[-1] > far >= found[-2] else found[-1]


@dataclass(frozen=True, slots=True, order=True)
class _Figure:
    """``carried``: over from a run that had more to do, and less than that run took."""

    bytes: int
    carried: bool = False


def _unknown(setup: Setup) -> None:
    """Nothing is known of what is computed for another load."""


def _term(
    term: str, estimate: Estimate, known: Sequence[Observation], asked: Setup, computed_for: ComputedFor
) -> _Figure | None:
    """A term by what was seen; None: the computed one stands."""
    computed = getattr(estimate, term)
    above: list[_Figure] = []
    below: list[int] = []
    for each in known:
        value = getattr(each, term)
        if value is None or value < 0 or (term == "weights" and value < WEIGHTS_SHARE * computed):
            continue
        pairs = [(getattr(each.setup, driver), getattr(asked, driver)) for driver in _DRIVERS[term]]
        if all(seen >= wanted for seen, wanted in pairs):
            most = _with_spread(term, value, each.samples)
            there = None if pairs == [(wanted, wanted) for _, wanted in pairs] else computed_for(each.setup)
            beyond = computed + max(0, most - getattr(there, term)) if there is not None else most
            above.append(_Figure(min(most, beyond), carried=beyond < most))
        if all(seen <= wanted for seen, wanted in pairs):
            below.append(value)
    least = max(below, default=0)
    if above:
        return max(min(above), _Figure(least))
    return _Figure(least) if least > computed else None


def _left_over(known: Sequence[Observation], asked: Setup, *, terms: Mapping[str, int], allowance: int) -> int | None:
    """What processes were seen to hold beside all terms, in whole MiB; None: ``allowance`` stands."""
    above: list[int] = []
    below: list[int] = []
    for each in known:
        value = each.besides_cache
        if value is None:
            continue
        pairs = [(getattr(each.setup, driver), getattr(asked, driver)) for driver in _OF_WHOLE]
        # Less than the weights alone can't be all that it held.
        if asked.engine in _AT_ONCE and value >= terms["weights"] and all(seen >= wanted for seen, wanted in pairs):
            above.append(_with_spread("besides_cache", value, each.samples))
        if all(seen <= wanted for seen, wanted in pairs):
            below.append(value)
    accounted = sum(terms.values())
    least = max(0, max(below, default=0) - accounted)
    if above:
        return round_up(max(0, min(above) - accounted, least), MIB)
    return round_up(least, MIB) if least > allowance else None


def _with_spread(term: str, value: int, samples: int) -> int:
    if term in _STEADY or samples >= FEW_SAMPLES:
        return value
    return math.ceil(value * (1 + SPREAD))
