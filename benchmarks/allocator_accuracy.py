"""Our rule of vLLM's KV cache against what vLLM's own planner answered, row by row.

    python -m benchmarks.allocator_accuracy --table FILE.csv --configs DIR
    python -m benchmarks.allocator_accuracy --table FILE.csv --configs DIR -o json

The table holds what was asked (version, model, ranks, precision, lengths, bytes) and what was answered; the model is
read from ``config`` in DIR, nothing else of the row is looked at. A row is exact when blocks, reported tokens, the
smallest pool that starts and whether it starts are equal, and the concurrency to the digits that the table has.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from vrampack.errors import VrampackError
from vrampack.memory.architecture import Architecture
from vrampack.memory.vllm.dtypes import AUTO
from vrampack.memory.vllm.layout import kv_layout
from vrampack.memory.vllm.pool import printed
from vrampack.memory.workload import Workload
from vrampack.models.config import architecture_of

_SIDE_FILE = "_hf_quant_config"
_PRECISION = {
    "auto": AUTO,
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "fp8_ds_mla": "fp8",
    "int8_per_token_head": "int8",
}
_ANSWERS = ("num_blocks", "kv_tokens_reported", "max_concurrency", "min_bytes_for_one_request", "fits")
"""Columns of the planner's answer. A row without one of them says nothing; a cell may be empty where there is no
cache."""
_TRUTH = {"true": True, "false": False}
_NO_CACHE = 1
"""Blocks that the planner answers for a model that keeps nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is compared, of one row."""

    num_blocks: int
    kv_tokens_reported: int | None
    max_concurrency: float | None
    min_bytes_for_one_request: int | None
    fits: bool


@dataclass(slots=True)
class Outcome:
    """Of one family."""

    rows: int = 0
    exact: int = 0
    worst_percent: float = 0.0
    unusable: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)


def answer(architecture: Architecture, row: Mapping[str, str]) -> Figures:
    """What our rule answers to what the row asked. Raises what the estimate refuses with."""
    length, batched, available = (
        int(row[name]) for name in ("max_model_len", "max_num_batched_tokens", "available_bytes")
    )
    workload = Workload(
        context_length=length,
        concurrency=1,
        tokens_per_sequence=length,
        max_batched_tokens=batched,
        tensor=int(row["tp"]),
        kv_cache_precision=_PRECISION.get(row["kv_dtype"], row["kv_dtype"]),
        engine_version=row["vllm_version"],
    )
    layout = kv_layout(architecture, workload)
    if not layout.groups:
        return Figures(
            num_blocks=_NO_CACHE,
            kv_tokens_reported=None,
            max_concurrency=None,
            min_bytes_for_one_request=None,
            fits=True,
        )
    said = printed(layout, available, length)
    least = layout.minimum_bytes(length)
    return Figures(
        num_blocks=said.num_blocks,
        kv_tokens_reported=said.tokens,
        max_concurrency=said.max_concurrency,
        min_bytes_for_one_request=least,
        fits=available >= least,
    )


def differences(ours: Figures, row: Mapping[str, str]) -> dict[str, Any]:
    """Columns that differ, with both values. Raises ValueError for an answer that is none."""
    if lacking := [column for column in _ANSWERS if row.get(column) is None]:
        raise ValueError(f"the row has no {', '.join(lacking)}")
    if (fits := _TRUTH.get(row["fits"].strip().lower())) is None:
        raise ValueError(f"fits is {row['fits'][:40]!r}, neither True nor False")
    found: dict[str, Any] = {}
    for column in ("num_blocks", "kv_tokens_reported", "min_bytes_for_one_request"):
        mine, theirs = getattr(ours, column), _whole(row.get(column))
        if mine != theirs:
            found[column] = [mine, theirs]
    if ours.fits != fits:
        found["fits"] = [ours.fits, fits]
    digits = row["max_concurrency"].strip()
    mine_text = "" if ours.max_concurrency is None else _to_digits_of(ours.max_concurrency, digits)
    if mine_text != digits:
        found["max_concurrency"] = [mine_text, digits]
    return found


def worst_percent(found: Mapping[str, Any]) -> float:
    """Of the figures that differ, the largest distance from the engine's; a figure that one side lacks counts whole."""
    worst = 0.0
    for mine, theirs in found.values():
        if isinstance(mine, bool):
            worst = max(worst, 100.0)
            continue
        try:
            ours, engine = float(mine), float(theirs)
        except (TypeError, ValueError, OverflowError):
            worst = max(worst, 100.0)
            continue
        worst = max(worst, abs(ours - engine) / engine * 100 if engine else 100.0)
    return worst


def compare(table: Path, configs: Path) -> dict[str, Outcome]:
    """Every row of the table, by family."""
    read = cache(lambda name: _architecture(configs / name))
    outcomes: dict[str, Outcome] = {}
    for number, row in _rows(table):
        outcome = outcomes.setdefault(row.get("family") or "(none)", Outcome())
        outcome.rows += 1
        reason, found = _judge(row, read)
        if reason:
            outcome.unusable.append({"row": number, "reason": reason})
        elif found:
            worst = worst_percent(found)
            outcome.worst_percent = max(outcome.worst_percent, worst)
            outcome.differences.append({"row": number, "config": row["config"], **found})
        else:
            outcome.exact += 1
    return outcomes


def _judge(row: Mapping[str, str], read: Callable[[str], Architecture]) -> tuple[str, dict[str, Any]]:
    """Why the row can't be used, or what differs."""
    try:
        return "", differences(answer(read(row["config"]), row), row)
    except VrampackError as refusal:
        return f"{row['config']}: {refusal}", {}
    except (OSError, KeyError, ValueError, TypeError, ArithmeticError) as failure:
        return f"{row.get('config')}: {type(failure).__name__}: {failure}", {}


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """With their numbers: the first after the header is 1."""
    with table.open(newline="", encoding="utf-8-sig") as lines:
        yield from enumerate(csv.DictReader(lines), start=1)


def _architecture(path: Path) -> Architecture:
    config = json.loads(path.read_text(encoding="utf-8"))
    return architecture_of(config, quant_config=config.pop(_SIDE_FILE, None))


def _whole(text: str | None) -> int | None:
    if not text or not text.strip():
        return None
    if (value := float(text)) != int(value):
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(value)


def _to_digits_of(value: float, text: str) -> str:
    return f"{value:.{len(text.partition('.')[2])}f}"


def report(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, Any]]:
    """As JSON shows it."""
    return {
        family: {
            "rows": outcome.rows,
            "exact": outcome.exact,
            "worst_percent": round(outcome.worst_percent, 4),
            "unusable": outcome.unusable,
        }
        for family, outcome in sorted(outcomes.items())
    }


def _print_table(outcomes: Mapping[str, Outcome], *, show: int) -> None:
    print(f"{'family':28} {'rows':>6} {'exact':>6} {'worst %':>9} {'unusable':>9}")
    for family, outcome in sorted(outcomes.items()):
        print(f"{family:28} {outcome.rows:6} {outcome.exact:6} {outcome.worst_percent:9.3f} {len(outcome.unusable):9}")
    rows, exact = (sum(getattr(outcome, name) for outcome in outcomes.values()) for name in ("rows", "exact"))
    print(f"{'all':28} {rows:6} {exact:6} {100 * exact / max(rows, 1):8.2f} % exact")
    for outcome in outcomes.values():
        for line in (outcome.differences + outcome.unusable)[:show]:
            print(line)


def main(arguments: list[str] | None = None) -> int:
    """0: compared, whatever came out; 2: the table can't be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="what the planner answered")
    parser.add_argument("--configs", type=Path, required=True, help="folder with the files that `config` names")
    parser.add_argument("--show", type=int, default=3, help="rows of each family to print that differ or can't be used")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    try:
        outcomes = compare(options.table, options.configs)
    except (OSError, UnicodeDecodeError, csv.Error) as failure:
        print(f"{options.table}: {failure}", file=sys.stderr)
        return 2
    if options.output == "json":
        print(json.dumps(report(outcomes), indent=2))
    else:
        _print_table(outcomes, show=options.show)
    return 0


if __name__ == "__main__":
    sys.exit(main())
