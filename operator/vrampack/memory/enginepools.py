"""What every engine's allocation rule answers: what to claim for the cache, and what the engine prints of it."""

from dataclasses import dataclass

from vrampack.errors import InvalidInputError
from vrampack.memory.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolClaim:
    """The cache of one GPU: of the worst one, where they differ."""

    bytes: int
    """Exactly what the engine allocates when it is told ``tokens``."""
    tokens: int
    """Tokens of the pool: what the engine is told, and prints."""
    state_bytes: int = 0
    """Within ``bytes``: states of recurrent layers, which do not grow with the tokens."""
    why: str
    """In whole words, what sets the size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedPool:
    """What the engine prints at start of a pool of given bytes."""

    tokens: int
    max_concurrency: float
    """Sequences of context_length that the pool holds."""
    lines: tuple[str, ...]
    """As in its log, without time and place."""


def refuse_splits(workload: Workload, *, engine: str, fields: tuple[str, ...], use: str = "") -> None:
    """Raise InvalidInputError for ways of splitting a replica that the engine does not have, by fields of Workload.
    ``use``: what it has instead."""
    for name in fields:
        if (value := getattr(workload, name)) != 1:
            field = f"spec.parallelism.{'decodeContext' if name == 'decode_context' else name}"
            raise InvalidInputError(field=field, value=value, allowed=f"1: {engine} has no such ranks{use}")


def refuse_drafts(workload: Workload, *, engine: str) -> None:
    """Raise InvalidInputError for speculation that needs layers, or a model, beside the engine's own."""
    if workload.speculation not in ("", "ngram"):
        raise InvalidInputError(
            field="spec.speculation.method",
            value=workload.speculation,
            allowed=f"ngram: what else {engine} keeps for drafts is not written out",
        )
