"""A measured run as the estimate takes it, and what comes out of holding the two against each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.measurements import KNOWN_ENGINES, Row, UnusableError
from vrampack.errors import VrampackError
from vrampack.memory.batchdefaults import BatchDefaults
from vrampack.memory.workload import Workload

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One row's term: what the estimate says against what was printed, in the same unit."""

    row: int
    engine: str
    estimated: float
    printed: float
    within_rounding: bool


def asked(row: Row, estimated: Callable[[Row], _Answer]) -> _Answer:
    """What the estimate refuses is a reason too."""
    if row.engine not in KNOWN_ENGINES:
        raise UnusableError(f"engine {row.engine[:40]!r} is not known")
    try:
        return estimated(row)
    except VrampackError as error:
        raise UnusableError(str(error)) from None


def only_vllm(row: Row, term: str) -> None:
    if row.engine != "vllm":
        raise UnusableError(f"{term} of {row.engine} is not modelled from these columns")


def workload_of(row: Row, batch: BatchDefaults) -> Workload:
    """The row's run, as the estimate takes it."""
    context = row.whole("max_model_len", row.architecture().max_context or 1)
    return Workload(
        context_length=context,
        concurrency=batch.max_sequences,
        tokens_per_sequence=context,
        max_batched_tokens=batch.max_batched_tokens,
        tensor=row.tensor,
        pipeline=row.pipeline,
        decode_context=row.decode_context,
        kv_cache_precision=row.kv_precision,
        engine_version=row.version,
    )


def graph_batch(row: Row) -> BatchDefaults:
    """Where the GPU is not known: with each of its defaults the engine captures the same sizes."""
    try:
        return row.batch()
    except UnusableError:
        return BatchDefaults(
            max_sequences=row.whole("max_num_seqs", 256), max_batched_tokens=row.whole("max_num_batched_tokens", 2048)
        )
