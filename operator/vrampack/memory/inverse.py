"""The estimate turned round: how much load given bytes of each GPU can bear.

Every answer is a boundary that was computed on both sides: a replica for it fits, and one for the next larger load does
not, or the model or the engine refuses that one. No formula is inverted, so the answers hold whatever `estimate` knows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.estimate import estimate
from vrampack.memory.weights import laid_out
from vrampack.memory.workload import Workload

LONGEST_CONTEXT: Final = 2**24
"""Tokens: where a checkpoint does not say how long its sequences may be, the search ends here."""

_OF_THE_LOAD: Final = frozenset(
    {
        "spec.serving.contextLength",
        "spec.serving.concurrency",
        "spec.serving.tokensPerSequence",
        "spec.engine.maxBatchedTokens",
    }
)
"""Fields of which a refusal means that the load is too large, and not that the question is wrong."""


class Limit(StrEnum):
    """Why the next larger load is not possible."""

    MEMORY = "memory"
    REFUSED = "refused"
    """By the model or the engine: its context length, its batched tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The largest value that is possible; 0: not even 1. ``limit`` says what the next one runs into."""

    value: int
    limit: Limit


def largest_concurrency(
    *, architecture: Architecture, weights: Weights, workload: Workload, available: int, guess: int = 0
) -> Reach:
    """Most sequences at the workload's context length with ``available`` bytes of each GPU; its own concurrency does
    not matter. Never more than maxBatchedTokens on each data parallel rank, which the engine would refuse.

    Raises InvalidInputError and UnsupportedModelError where not even one sequence could be estimated.
    """

    layout = laid_out(architecture, weights)  # the same for every load

    def claim(concurrency: int) -> int:
        load = replace(workload, concurrency=concurrency)
        return estimate(architecture=architecture, weights=layout, workload=load).per_gpu

    most = workload.max_batched_tokens * workload.data
    return _reach(claim, available=available, most=most, guess=guess or workload.concurrency)


def longest_context(
    *, architecture: Architecture, weights: Weights, workload: Workload, available: int, guess: int = 0
) -> Reach:
    """Most tokens of a sequence at the workload's concurrency with ``available`` bytes of each GPU.

    Where every sequence is expected to be as long as the context, so it stays; else tokensPerSequence stands, as far as
    the context allows. Never more than the model is made for. Raises as `largest_concurrency` does.
    """

    layout = laid_out(architecture, weights)

    def claim(context: int) -> int:
        load = with_context(workload, context)
        return estimate(architecture=architecture, weights=layout, workload=load).per_gpu

    most = architecture.max_context or LONGEST_CONTEXT
    return _reach(claim, available=available, most=most, guess=guess or workload.context_length)


def largest_batch(*, architecture: Architecture, weights: Weights, workload: Workload, available: int) -> Reach:
    """Most tokens of one step, up to the workload's own, with ``available`` bytes of each GPU; 0 where not even one
    token for each sequence is possible. Raises as `largest_concurrency` does."""

    layout = laid_out(architecture, weights)

    def claim(batched: int) -> int:
        load = replace(workload, max_batched_tokens=batched)
        return estimate(architecture=architecture, weights=layout, workload=load).per_gpu

    most = workload.max_batched_tokens
    least = -(-workload.concurrency // workload.data)  # of the rank that has the most sequences
    return _reach(claim, available=available, least=least, most=most, guess=most)


def with_context(workload: Workload, context: int) -> Workload:
    """The same workload with sequences of at most ``context`` tokens."""
    as_long = workload.tokens_per_sequence == workload.context_length
    expected = context if as_long else min(workload.tokens_per_sequence, context)
    return replace(workload, context_length=context, tokens_per_sequence=expected)


def largest(fits: Callable[[int], bool], *, least: int = 1, most: int, guess: int = 1) -> int:
    """A value of ``least`` to ``most`` that fits and whose successor does not (or is beyond ``most``); 0: none does.

    It looks in ever wider steps around ``guess`` first: a good one costs two questions. Where what fits grows and
    shrinks by turns, it is one of the boundaries.
    """
    below, beyond = least - 1, max(most, least - 1) + 1
    low, high = below, beyond
    probe, step = min(max(guess, least), most), 1
    while high - low > 1:
        if fits(probe):
            low = probe
            probe = low + step if high == beyond else (low + high) // 2
        else:
            high = probe
            probe = high - step if low == below else (low + high) // 2
        step *= 2
        probe = min(max(probe, low + 1), high - 1)
    return 0 if low == below else low


def _reach(claim: Callable[[int], int], *, available: int, least: int = 1, most: int, guess: int) -> Reach:
    """Refusals of the smallest load are the caller's mistake; those of a larger one are where the load ends."""
    if most < least:
        return Reach(value=0, limit=Limit.REFUSED)
    if claim(least) > available:
        return Reach(value=0, limit=Limit.MEMORY)
    refused: set[int] = set()

    def fits(value: int) -> bool:
        try:
            return claim(value) <= available
        except InvalidInputError as error:
            if error.field not in _OF_THE_LOAD:
                raise
            refused.add(value)
            return False

    value = largest(fits, least=least, most=most, guess=guess)
    at_end = value == most or value + 1 in refused
    return Reach(value=value, limit=Limit.REFUSED if at_end else Limit.MEMORY)
