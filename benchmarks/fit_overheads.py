"""The constants of graphs and communication that are fitted, from measurements, and how far they are off on families
that they were not fitted to.

    python -m benchmarks.fit_overheads --measurements FILE.csv --configs DIR

Graphs: bytes of one layer in the graph of one captured batch size, by kind of layer, after what capturing costs at
least. A kind's constant is the median of its runs where there are many that agree, else the largest; cross-validated by
leaving out each family of models in turn. Runs that print a negative figure are left out: the allocator gave back more
than the graphs took, so they say nothing about graphs.

Non-torch: what one GPU prints, and what several print beyond that. Errors are in GiB, under is positive.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measurements import Row, UnusableError, read_rows
from benchmarks.memory_runs import graph_batch
from benchmarks.memory_terms import graph_kind, non_torch_bytes
from vrampack.memory.constants import GRAPH_BASE, NON_TORCH
from vrampack.memory.overheads import captured_sizes
from vrampack.units import GIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One run: what one unit of its term took, and how many units there were."""

    row: int
    family: str
    kind: str
    units: int
    bytes_each: float

    @property
    def total(self) -> float:
        return self.units * self.bytes_each


def graph_samples(rows: Sequence[Row]) -> list[Sample]:
    """Runs that print what graphs took, and capture more than a handful of sizes."""
    found = []
    for row in rows:
        try:
            printed = row.printed("cuda_graph_gib").value * GIB
            kind = graph_kind(row)
            batch = graph_batch(row)
        except UnusableError:
            continue
        sizes = captured_sizes(
            max_sequences=batch.max_sequences, max_batched_tokens=batch.max_batched_tokens, version=row.version
        )
        named = row.cells.get("version", "").strip()  # an unknown release captured an unknown number of sizes
        if printed <= GRAPH_BASE or sizes < 8 or not named:
            continue
        architecture = row.architecture()
        found.append(
            Sample(
                row=row.number,
                family=architecture.model_type,
                kind=kind,
                units=architecture.layers * sizes,
                bytes_each=(printed - GRAPH_BASE) / (architecture.layers * sizes),
            )
        )
    return found


def non_torch_samples(rows: Sequence[Row]) -> list[Sample]:
    """Runs that print the memory that is not PyTorch's, as growth."""
    found = []
    for row in rows:
        try:
            printed = row.printed("non_torch_gib").value * GIB
            non_torch_bytes(row)
        except UnusableError:
            continue
        alone = row.tensor == 1
        found.append(
            Sample(
                row=row.number,
                family=row.architecture().model_type,
                kind="one GPU" if alone else "several GPUs, beyond one",
                units=1,
                bytes_each=printed if alone else printed - NON_TORCH,
            )
        )
    return found


def show(name: str, samples: Sequence[Sample], *, choose: Callable[[Sequence[float]], float]) -> None:
    """A kind's constant from all runs, and the errors of those from all families but the run's own."""
    kinds: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        kinds[sample.kind].append(sample)
    for kind, runs in sorted(kinds.items()):
        values = [sample.bytes_each for sample in runs]
        families = sorted({sample.family for sample in runs})
        print(f"{name}, {kind}: {len(runs)} runs of {len(families)} families, rows {[one.row for one in runs]}")
        print(f"  {min(values) / MIB:.3f} to {max(values) / MIB:.3f} MiB; constant {choose(values) / MIB:.3f} MiB")
        errors = []
        for family in families:
            others = [sample.bytes_each for sample in runs if sample.family != family]
            if not others:
                continue
            constant = choose(others)
            errors += [one.units * constant - one.total for one in runs if one.family == family]
        if not errors:
            print("  one family alone: no error on another is known")
            continue
        print(f"  other families: under by {max(0.0, -min(errors)) / GIB:.2f}, over by {max(errors) / GIB:.2f} GiB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--measurements", type=Path, required=True)
    parser.add_argument("--configs", type=Path, required=True)
    asked = parser.parse_args(arguments)
    rows = read_rows(asked.measurements, asked.configs)
    graphs = graph_samples(rows)
    plain = [sample for sample in graphs if sample.kind.startswith("plain")]
    show("graphs", plain, choose=statistics.median)
    show("graphs", [sample for sample in graphs if sample not in plain], choose=max)
    show("non-torch", non_torch_samples(rows), choose=max)
    return 0


if __name__ == "__main__":
    sys.exit(main())
