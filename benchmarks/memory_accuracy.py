"""How far the estimate is from what engines printed about their memory.

    python -m benchmarks.memory_accuracy --measurements FILE.csv --configs DIR
    python -m benchmarks.memory_accuracy --measurements FILE.csv --configs DIR --peers -o json
    python -m benchmarks.memory_accuracy --measurements FILE.csv --configs DIR --peers -o markdown

``FILE.csv`` has one run a row, ``config`` names the model's file in ``DIR``. Each row is used for each term or listed
there with the reason why not; rows are counted from 1. ``kv_tokens`` and ``max_concurrency`` are computed from the
printed bytes of the KV cache, all other terms from the model and the arguments alone. ``non_kv`` is the sum of the
terms that a row prints besides the cache. Negative growth, which the allocator gave back, counts as zero.

An error is estimated minus printed; percentages are of what was printed, shares are from 0 to 1, worst under is a
positive number. Below 20 rows there is no 95th percentile. ``within_print_rounding``: the printed figure lies within
what the rounding of the printed GiB, and one block of tokens, leave open. ``engines`` breaks a term down; ``--peers``
adds, under ``peers``, what the formulas of other tools make of the same rows. ``calibrated``, of ``non_kv``: the error
on a run once another run of the same kind was measured (`benchmarks.memory_pairs`).
"""

import argparse
import csv
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measurements import Row, UnusableError, read_rows
from benchmarks.memory_pairs import pairs
from benchmarks.memory_peers import peers_of
from benchmarks.memory_runs import Compared
from benchmarks.memory_terms import terms

LEAST_FOR_PERCENTILE = 20
CALIBRATED_TERM = "non_kv"


def report(rows: Sequence[Row], *, peers: bool) -> dict[str, Any]:
    """Every term's errors over all rows, per engine, and of the formulas of peers if asked for."""
    found: dict[str, Any] = {}
    for term in terms():
        compared, unusable = _compare(rows, term.compare)
        entry = {**_statistics(compared, unit=term.unit), "unusable": unusable}
        entry["engines"] = {
            engine: _statistics([one for one in compared if one.engine == engine], unit=term.unit)
            for engine in sorted({one.engine for one in compared})
        }
        if peers:
            usable = {one.row for one in compared}
            entry["peers"] = {
                name: _statistics(_compare([row for row in rows if row.number in usable], compare)[0], unit=term.unit)
                for name, compare in peers_of(term.name).items()
            }
        if term.name == CALIBRATED_TERM:
            entry["calibrated"] = pairs(rows)
        found[term.name] = entry
    return found


def _compare(
    rows: Sequence[Row], compare: Callable[[Row], Compared]
) -> tuple[list[Compared], list[dict[str, int | str]]]:
    compared: list[Compared] = []
    unusable: list[dict[str, int | str]] = []
    for row in rows:
        try:
            compared.append(compare(row))
        except UnusableError as reason:
            unusable.append({"row": row.number, "reason": str(reason)})
        except (
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
        ) as fault:  # of the estimate: one row, not the report
            unusable.append({"row": row.number, "reason": f"the estimate failed: {type(fault).__name__}: {fault}"})
    return compared, unusable


def _statistics(compared: Sequence[Compared], *, unit: str) -> dict[str, Any]:
    """Figures of one term. Where nothing was printed but zero there is no percentage; such rows count in GiB alone."""
    percents = [100 * (one.estimated - one.printed) / one.printed for one in compared if one.printed > 0]
    absolute = [one.estimated - one.printed for one in compared] if unit == "GiB" else []
    sizes = sorted(abs(percent) for percent in percents)

    def share(limit: float) -> float | None:
        return _rounded(sum(size <= limit for size in sizes) / len(sizes)) if sizes else None

    return {
        "unit": unit,
        "rows": len(compared),
        "within_print_rounding": (
            _rounded(sum(one.within_rounding for one in compared) / len(compared)) if compared else None
        ),
        "within_0_1_percent": share(0.1),
        "within_1_percent": share(1),
        "within_5_percent": share(5),
        "median_error_percent": _rounded(statistics.median(sizes)) if sizes else None,
        "p95_error_percent": (
            _rounded(sizes[math.ceil(0.95 * len(sizes)) - 1]) if len(sizes) >= LEAST_FOR_PERCENTILE else None
        ),
        "worst_over_percent": _rounded(max(0.0, *percents)) if percents else None,
        "worst_under_percent": _rounded(max(0.0, *(-percent for percent in percents))) if percents else None,
        "median_error_gib": _rounded(statistics.median(map(abs, absolute))) if absolute else None,
        "worst_over_gib": _rounded(max(0.0, *absolute)) if absolute else None,
        "worst_under_gib": _rounded(max(0.0, *(-error for error in absolute))) if absolute else None,
    }


def _rounded(value: float) -> float:
    return round(value, 4)


def show(found: dict[str, Any], *, rows: int, console: Console) -> None:
    """A table of all terms, and what could not be used, by reason."""
    table = Table(title=f"{rows} runs", header_style="bold")
    headings = ("term", "", "rows", "in print", "≤ 0.1 %", "≤ 1 %", "≤ 5 %", "median", "p95", "most over", "most under")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=True)
    for name, entry in found.items():
        table.add_row(name, "all", *_cells(entry))
        if len(entry["engines"]) > 1:
            for engine, figures in entry["engines"].items():
                table.add_row("", engine, *_cells(figures))
        for peer, figures in entry.get("peers", {}).items():
            table.add_row("", f"[dim]{peer}[/dim]", *_cells(figures))
        table.add_section()
    console.print(table)
    for line in _calibration(found):
        console.print(line, highlight=False)
    for name, entry in found.items():
        reasons: dict[str, list[str]] = {}
        for one in entry["unusable"]:
            reasons.setdefault(one["reason"], []).append(str(one["row"]))
        for reason, numbers in sorted(reasons.items(), key=lambda item: -len(item[1])):
            console.print(f"{name}: {len(numbers)} unusable: {reason} (rows {', '.join(numbers)})", highlight=False)


def _calibration(found: dict[str, Any]) -> Iterator[str]:
    """In a line for each pair: how far a run is off once another one of its kind was measured."""
    calibrated = found[CALIBRATED_TERM]["calibrated"]
    if not calibrated["rows"]:
        yield f"{CALIBRATED_TERM} after calibration: no two runs are of one kind"
        return
    yield (
        f"{CALIBRATED_TERM} after calibration on one run of a pair: {calibrated['rows']} runs, "
        f"most over {calibrated['worst_over_percent']:.2f} %, most under {calibrated['worst_under_percent']:.2f} %"
    )
    for one in calibrated["pairs"]:
        yield (
            f"  row {one['row']} after row {one['calibrated_on']} (drivers: {one['observed']}): "
            f"{one['error_percent']:+.2f} %, measured: {', '.join(one['measured']) or 'nothing'}"
        )


def _cells(entry: dict[str, Any]) -> list[str]:
    def percent(value: float | None, *, share: bool = False) -> str:
        return "-" if value is None else f"{value:.0%}" if share else f"{value:.2f} %"

    def worst(side: str) -> str:
        text = percent(entry[f"worst_{side}_percent"])
        return text if entry[f"worst_{side}_gib"] is None else f"{text}, {entry[f'worst_{side}_gib']:.2f} GiB"

    shares = ("within_print_rounding", "within_0_1_percent", "within_1_percent", "within_5_percent")
    return [
        str(entry["rows"]),
        *(percent(entry[name], share=True) for name in shares),
        percent(entry["median_error_percent"]),
        percent(entry["p95_error_percent"]),
        worst("over"),
        worst("under"),
    ]


def markdown(found: dict[str, Any], *, rows: int) -> str:
    """The table as docs have it: a line for each term, and below it what peers make of the same rows."""
    lines = [
        f"| of {rows} runs | usable | in print | ≤ 1 % | ≤ 5 % | median | most over | most under |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, entry in found.items():
        for label, figures in {f"**{name}**": entry, **entry.get("peers", {})}.items():
            usable, in_print, _, one, five, median, _, over, under = _cells(figures)
            lines.append(f"| {label} | {usable} | {in_print} | {one} | {five} | {median} | {over} | {under} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 where the file or the folder can't be read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--measurements", type=Path, required=True, help="CSV of what engines printed, one run a row")
    parser.add_argument("--configs", type=Path, required=True, help="folder with the config.json files it names")
    parser.add_argument("--peers", action="store_true", help="the formulas of other tools on the same rows")
    parser.add_argument("-o", "--output", choices=("table", "json", "markdown"), default="table")
    asked = parser.parse_args(arguments)
    if not asked.configs.is_dir():
        print(f"{asked.configs} is no folder", file=sys.stderr)
        return 2
    try:
        rows = read_rows(asked.measurements, asked.configs)
    except (OSError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        print(f"{asked.measurements} can't be read: {why}", file=sys.stderr)
        return 2
    found = report(rows, peers=asked.peers)
    if asked.output == "json":
        print(json.dumps(found, indent=2))
    elif asked.output == "markdown":
        print(markdown(found, rows=len(rows)))
    else:
        # Wide enough for the table where the output is a file.
        show(found, rows=len(rows), console=Console(width=None if sys.stdout.isatty() else 180))
    return 0


if __name__ == "__main__":
    sys.exit(main())
