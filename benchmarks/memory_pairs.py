"""What the estimate says of a run once it was calibrated on another run of the same kind.

Two rows are a pair where a measurement of one speaks for the other: the same model, engine, version, GPU, split over
GPUs, KV precision and graph mode, as far as the rows say. One of them becomes an observation, as a ModelProfile would
hold it; the other is estimated with it, and all that it prints besides the KV cache is compared. Each pair is tried in
both directions. Where the observed run had less to do than the other (``smaller``), its terms are only a lower bound;
where it had more (``larger``), they replace the computed ones, less what is computed for the difference in load;
``same``: neither.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Final

from benchmarks.measurements import Row, UnusableError
from benchmarks.memory_runs import asked, graph_batch, workload_of
from benchmarks.memory_terms import GRAPHS_IN_PEAK, weights_of
from vrampack.memory.batchdefaults import BatchDefaults
from vrampack.memory.calibration import Observation, Setup, calibrated
from vrampack.memory.constants import CUDA_CONTEXT, NON_TORCH
from vrampack.memory.estimate import Estimate, estimate
from vrampack.memory.releases import release_of
from vrampack.memory.workload import Workload
from vrampack.units import GIB

_DRIVERS: Final = ("max_sequences", "max_batched_tokens", "context_length")
_COLUMNS: Final = ("weights_gib", "activation_peak_gib", "cuda_graph_gib", "non_torch_gib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A row that prints enough to learn from. ``printed``: GiB by column, growth that was negative as none."""

    row: Row
    setup: Setup
    workload: Workload
    printed: dict[str, float]

    @property
    def kind(self) -> tuple[str, ...]:
        """The model, and how its weights were loaded."""
        return tuple(self.row.cells.get(name, "").strip().lower() for name in ("model", "dtype", "quantization"))


def pairs(rows: Sequence[Row]) -> dict[str, Any]:
    """Every ordered pair with its error, percent of what was printed; the figures of all, and why rows are of none."""
    runs, unusable = _runs(rows)
    found: list[dict[str, Any]] = []
    paired: set[int] = set()
    for seen, other in permutations(runs, 2):
        if seen.kind != other.kind or not seen.setup.alike(other.setup):
            continue
        try:
            error, measured = _error(seen, other)
        except UnusableError as reason:
            unusable.append({"row": other.row.number, "reason": str(reason)})
            continue
        paired |= {seen.row.number, other.row.number}
        found.append(
            {
                "calibrated_on": seen.row.number,
                "row": other.row.number,
                "observed": _relation(seen.setup, other.setup),
                "measured": list(measured),
                "error_percent": round(error, 4),
            }
        )
    listed = {one["row"] for one in unusable}
    unusable += [
        {"row": run.row.number, "reason": "no other row has the same model and key"}
        for run in runs
        if run.row.number not in paired | listed
    ]
    return {
        "unit": "GiB",
        **_figures(found),
        "observed": {
            relation: _figures([one for one in found if one["observed"] == relation])
            for relation in sorted({one["observed"] for one in found})
        },
        "pairs": found,
        "unusable": sorted(unusable, key=lambda one: int(one["row"])),
    }


def _figures(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    errors = [one["error_percent"] for one in found]
    return {
        "rows": len(found),
        "within_5_percent": round(sum(abs(error) <= 5 for error in errors) / len(errors), 4) if errors else None,
        "worst_over_percent": max(0.0, *errors) if errors else None,
        "worst_under_percent": max(0.0, *(-error for error in errors)) if errors else None,
    }


def _runs(rows: Sequence[Row]) -> tuple[list[Run], list[dict[str, Any]]]:
    runs: list[Run] = []
    unusable: list[dict[str, Any]] = []
    for row in rows:
        try:
            runs.append(asked(row, _run))
        except UnusableError as reason:
            unusable.append({"row": row.number, "reason": str(reason)})
        except (ArithmeticError, LookupError, TypeError, ValueError) as fault:
            unusable.append({"row": row.number, "reason": f"the row failed: {type(fault).__name__}: {fault}"})
    return runs, unusable


def _run(row: Row) -> Run:
    if row.engine != "vllm":
        raise UnusableError(f"{row.engine} prints no terms besides the cache that could be calibrated")
    printed = dict(_printed(row))
    if "weights_gib" not in printed or len(printed) < 2:
        raise UnusableError("the weights and a second term were not printed")
    batch = _batch(row)
    workload = workload_of(row, batch)
    return Run(
        row=row,
        workload=workload,
        printed=printed,
        setup=Setup(
            engine=row.engine,
            version=row.cells.get("version", "").strip(),
            product=row.gpu.strip().lower(),
            max_sequences=batch.max_sequences,
            max_batched_tokens=batch.max_batched_tokens,
            context_length=workload.context_length,
            kv_cache=workload.kv_cache_precision,
            tensor=row.tensor,
            pipeline=row.pipeline,
            decode_context=row.decode_context,
            cuda_graphs=not row.eager,
        ),
    )


def _batch(row: Row) -> BatchDefaults:
    batch = graph_batch(row)
    tokens = max(batch.max_batched_tokens, batch.max_sequences)
    return BatchDefaults(max_sequences=batch.max_sequences, max_batched_tokens=tokens)


def _printed(row: Row) -> Iterator[tuple[str, float]]:
    for column in _COLUMNS:
        try:
            one = row.peak() if column == "activation_peak_gib" else row.printed(column)
        except UnusableError:
            if row.cells.get(column, "").strip():
                raise
            continue
        yield column, max(0.0, one.value)


def _error(seen: Run, other: Run) -> tuple[float, tuple[str, ...]]:
    """Percent of what ``other`` prints besides the cache, and the terms that the observation gave."""
    computed = asked(other.row, lambda row: _estimate(row, other.workload))
    found = calibrated(
        computed,
        observations=[_observation(seen)],
        asked=other.setup,
        headroom_percent=0,
        computed_for=lambda setup: _estimate(other.row, _under(other.workload, setup)),
    )
    printed = _terms(other)
    estimated = sum(_estimated(found, column) for column in printed) / GIB
    return 100 * (estimated / sum(printed.values()) - 1), found.measured


def _under(workload: Workload, setup: Setup) -> Workload:
    """The same workload with another run's load."""
    return replace(
        workload,
        concurrency=setup.max_sequences,
        max_batched_tokens=setup.max_batched_tokens,
        context_length=setup.context_length,
        tokens_per_sequence=min(workload.tokens_per_sequence, setup.context_length),
    )


def _estimate(row: Row, workload: Workload) -> Estimate:
    return estimate(architecture=row.architecture(), weights=weights_of(row), workload=workload)


def _terms(run: Run) -> dict[str, float]:
    """Printed terms apart: since 0.21 the peak has the graphs in it, where both are known."""
    terms = dict(run.printed)
    if release_of(run.row.version) >= GRAPHS_IN_PEAK and "activation_peak_gib" in terms:
        if "cuda_graph_gib" not in terms:
            raise UnusableError("the peak includes the graphs, which were not printed")
        terms["activation_peak_gib"] = max(0.0, terms["activation_peak_gib"] - terms["cuda_graph_gib"])
    return terms


def _observation(run: Run) -> Observation:
    terms = {column: int(value * GIB) for column, value in _terms(run).items()}
    several = run.workload.tensor * run.workload.pipeline > 1
    outside = terms.get("non_torch_gib")
    return Observation(
        setup=run.setup,
        weights=terms.get("weights_gib"),
        activations=terms.get("activation_peak_gib"),
        cuda_graphs=terms.get("cuda_graph_gib"),
        # What a row prints as non-torch is libraries on one GPU, and libraries and communication on several.
        communication=max(0, outside - NON_TORCH) if several and outside is not None else None,
        runtime_context=CUDA_CONTEXT + outside if not several and outside is not None else None,
    )


def _estimated(found: Estimate, column: str) -> int:
    match column:
        case "weights_gib":
            return found.weights
        case "activation_peak_gib":
            return found.activations
        case "cuda_graph_gib":
            return found.cuda_graphs
    return found.runtime_context - CUDA_CONTEXT + found.communication


def _relation(seen: Setup, other: Setup) -> str:
    """What the observed run had to do, compared with the other."""
    signs = {
        (getattr(seen, driver) > getattr(other, driver)) - (getattr(seen, driver) < getattr(other, driver))
        for driver in _DRIVERS
    }
    if signs == {0}:
        return "same"
    return "larger" if min(signs) >= 0 else "smaller" if max(signs) <= 0 else "neither"
