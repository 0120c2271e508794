"""What the estimate says of a measured run, term by term, to be held against what the engine printed.

Only what the row itself gives is taken: its model's configuration, its arguments, and its GPU where the engine's
defaults hang on it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.measurements import KNOWN_ENGINES, LLAMA_CPP, Printed, Row, UnusableError
from vrampack.errors import VrampackError
from vrampack.memory.activations import activation_bytes
from vrampack.memory.batchdefaults import BatchDefaults
from vrampack.memory.constants import KV_BLOCK_TOKENS
from vrampack.memory.kv import blocks_of, kv_bytes_per_token
from vrampack.memory.overheads import communication_bytes, cuda_graph_bytes
from vrampack.memory.workload import Workload
from vrampack.units import GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One row's term: what the estimate says against what was printed, in the same unit."""

    row: int
    engine: str
    estimated: float
    printed: float
    within_rounding: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A term of the report. ``compare`` raises UnusableError, with the reason, for a row that says nothing about it."""

    name: str
    unit: str
    compare: Callable[[Row], Compared]


def terms() -> tuple[Term, ...]:
    """In the order of the report."""
    return (
        Term(name="kv_tokens", unit="tokens", compare=_kv_tokens),
        Term(name="weights", unit="GiB", compare=_gib("weights_gib", weights_bytes)),
        Term(name="activations", unit="GiB", compare=_gib("activation_peak_gib", activations_bytes)),
        Term(name="cuda_graphs", unit="GiB", compare=_gib("cuda_graph_gib", graphs_bytes)),
        Term(name="non_torch", unit="GiB", compare=_gib("non_torch_gib", non_torch_bytes)),
        Term(name="non_kv", unit="GiB", compare=_non_kv),
        Term(name="max_concurrency", unit="requests", compare=_max_concurrency),
    )


def _gib(column: str, estimated: Callable[[Row], int]) -> Callable[[Row], Compared]:
    def compare(row: Row) -> Compared:
        printed = row.printed(column)
        return _compared(row, estimated=_asked(row, estimated) / GIB, printed=printed)

    return compare


def _asked(row: Row, estimated: Callable[[Row], int]) -> int:
    """What the estimate refuses is a reason too."""
    if row.engine not in KNOWN_ENGINES:
        raise UnusableError(f"engine {row.engine[:40]!r} is not known")
    try:
        return estimated(row)
    except VrampackError as error:
        raise UnusableError(str(error)) from None


def _compared(row: Row, *, estimated: float, printed: Printed) -> Compared:
    """Growth that was measured as negative is memory that the allocator gave back: nothing is needed then."""
    target = max(0.0, printed.value)
    return Compared(
        row=row.number,
        engine=row.engine,
        estimated=estimated,
        printed=target,
        within_rounding=abs(estimated - target) <= printed.half_digit * (1 + 1e-9),
    )


def _only_vllm(row: Row, term: str) -> None:
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


def weights_bytes(row: Row) -> int:
    """Per GPU."""
    row.architecture()
    raise UnusableError("the tensors of the checkpoint are not known from its configuration alone")


def activations_bytes(row: Row) -> int:
    """Per GPU."""
    _only_vllm(row, "the activation peak")
    return activation_bytes(row.architecture(), workload_of(row, row.batch()))


def graphs_bytes(row: Row) -> int:
    """Per GPU."""
    _only_vllm(row, "graph memory")
    batch = _graph_batch(row)
    return cuda_graph_bytes(
        row.architecture(), max_sequences=batch.max_sequences, max_batched_tokens=batch.max_batched_tokens
    )


def _graph_batch(row: Row) -> BatchDefaults:
    """Where the GPU is not known: with each of its defaults the engine captures the same sizes."""
    try:
        return row.batch()
    except UnusableError:
        return BatchDefaults(
            max_sequences=row.whole("max_num_seqs", 256), max_batched_tokens=row.whole("max_num_batched_tokens", 2048)
        )


def non_torch_bytes(row: Row) -> int:
    """Per GPU."""
    _only_vllm(row, "non-torch memory")
    return communication_bytes(tensor=row.tensor)


_PARTS: Mapping[str, Callable[[Row], int]] = {
    "weights_gib": weights_bytes,
    "activation_peak_gib": activations_bytes,
    "cuda_graph_gib": graphs_bytes,
    "non_torch_gib": non_torch_bytes,
}


def _non_kv(row: Row) -> Compared:
    """All that the row prints besides the KV cache, against the estimate of just these terms."""
    found = {column: row.printed(column) for column in _PARTS if row.cells.get(column, "").strip()}
    if "weights_gib" not in found or len(found) < 2:
        raise UnusableError("the weights and a second term were not printed")
    estimated = sum(_asked(row, _PARTS[column]) for column in found)
    printed = Printed(
        value=sum(max(0.0, one.value) for one in found.values()),
        half_digit=sum(one.half_digit for one in found.values()),
    )
    return _compared(row, estimated=estimated / GIB, printed=printed)


def _kv_tokens(row: Row) -> Compared:
    """Tokens that the rule of the engine finds room for in the bytes that the engine printed."""
    tokens = row.printed("kv_cache_tokens")
    printed = row.printed("kv_cache_gib")
    low, middle, high = (
        _asked(row, lambda row, gib=gib: _tokens_in(row, int(gib * GIB)))  # type: ignore[misc]
        for gib in (printed.value - printed.half_digit, printed.value, printed.value + printed.half_digit)
    )
    return Compared(
        row=row.number,
        engine=row.engine,
        estimated=middle,
        printed=tokens.value,
        within_rounding=low - KV_BLOCK_TOKENS <= tokens.value <= high + KV_BLOCK_TOKENS,
    )


def _tokens_in(row: Row, available: int) -> int:
    architecture = row.architecture()
    if row.kv_precision not in ("bf16", "fp8"):
        raise UnusableError(f"a KV cache in {row.kv_precision} is not modelled")
    per_token = kv_bytes_per_token(architecture, tensor=row.tensor, precision=row.kv_precision)
    if row.engine in LLAMA_CPP:
        return available // per_token
    return available // per_token // KV_BLOCK_TOKENS * KV_BLOCK_TOKENS * row.decode_context


def _max_concurrency(row: Row) -> Compared:
    """Requests of the longest length that fit into the bytes that the engine printed."""
    printed = row.printed("max_concurrency")
    _only_vllm(row, "maximum concurrency")
    pool = row.printed("kv_cache_gib")
    context = row.whole("max_model_len")
    low, middle, high = (
        _asked(row, lambda row, gib=gib: _tokens_in(row, int(gib * GIB))) // KV_BLOCK_TOKENS / blocks_of(context)  # type: ignore[misc]
        for gib in (pool.value - pool.half_digit, pool.value, pool.value + pool.half_digit)
    )
    return Compared(
        row=row.number,
        engine=row.engine,
        estimated=middle,
        printed=printed.value,
        within_rounding=low - printed.half_digit <= printed.value <= high + printed.half_digit,
    )
