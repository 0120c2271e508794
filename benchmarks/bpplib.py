"""The packer against bin-packing instances with known optima, one after another.

    python -m benchmarks.bpplib --instances DIR --bounds FILE --seconds 5
    python -m benchmarks.bpplib --instances DIR --bounds FILE --seconds 5 -o json

Every ``*.txt`` below DIR is an instance: the number of items, the capacity of a bin, then the sizes. Its class is the
name of the folder that holds it. FILE has one line an instance: name, lower and upper bound, between tabs, blanks or
commas; where they are equal they are the optimum. Where they are missing or differ, the optimum counts as known only if
the packer proves it.

Protocol: one instance at a time, in one process with one thread. The time of an instance is wall clock from the sizes
in memory to the answer, reading the file excluded; after ``--seconds`` the search is stopped at the next step of work
and its best answer counts. ``p95_cpu_seconds`` is the processor's time, for machines that others use too. ``optimal``:
as many bins as the optimum; ``proven``: the packer itself proved it; ``ffd_optimal``: plain first-fit decreasing
reaches it. Every answer is checked by adding up its bins, and a proof that contradicts FILE ends the run with an error.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vrampack.packing.search import Progress, search
from vrampack.packing.stock import Solution, single


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What one file holds."""

    name: str
    kind: str
    capacity: int
    sizes: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an instance. ``optimum``: None where nobody knows it."""

    name: str
    kind: str
    bins: int
    bound: int
    ffd: int
    optimum: int | None
    seconds: float
    cpu_seconds: float


def instances(folder: Path) -> Iterator[Instance]:
    """By class and name. Raises ValueError for a file of another format."""
    for path in sorted(folder.rglob("*.txt"), key=lambda path: (path.parent.name, path.stem)):
        yield instance(path)


def instance(path: Path) -> Instance:
    """One file. Raises ValueError where it is of another format."""
    try:
        count, capacity, *sizes = (int(word) for word in path.read_text(encoding="utf-8").split())
    except ValueError as failure:
        raise ValueError(f"{path}: the number of items, the capacity and the sizes, all integers ({failure})") from None
    if count < 0 or len(sizes) < count:
        raise ValueError(f"{path}: {count} sizes announced, {len(sizes)} found")
    sizes = sizes[:count]
    if any(not 0 <= size <= capacity for size in sizes):
        raise ValueError(f"{path}: a size is not between 0 and the capacity {capacity}")
    return Instance(name=path.stem, kind=path.parent.name, capacity=capacity, sizes=sizes)


def known_bounds(path: Path) -> dict[str, tuple[int, int]]:
    """Lower and upper bound by name; lines without three columns, the last two of them integers, are passed over."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        words = re.split(r"[\t ,;]+", line.strip())
        if len(words) >= 3 and words[1].isdigit() and words[2].isdigit():
            found[words[0].removesuffix(".txt")] = (int(words[1]), int(words[2]))
    return found


def solve(case: Instance, *, seconds: float, seed: int) -> tuple[Progress, float, float]:
    """The best answer within ``seconds``, how long it took, and how long the processor was at it."""
    start, cpu = time.perf_counter(), time.process_time()
    stock, _ = single(case.sizes, case.capacity)
    steps = search(stock, seed=seed)
    progress = next(steps)
    while time.perf_counter() - start < seconds and (further := next(steps, None)) is not None:
        progress = further
    return progress, time.perf_counter() - start, time.process_time() - cpu


def first_fit_decreasing(sizes: Sequence[int], capacity: int) -> int:
    """Bins that the textbook's first-fit decreasing opens."""
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        place = next((place for place, room in enumerate(rooms) if room >= size), None)
        if place is None:
            rooms.append(capacity - size)
        else:
            rooms[place] -= size
    return len(rooms)


def check(case: Instance, answer: Solution) -> None:
    """Every item in one bin and no bin too full. Raises ValueError where that is not so."""
    ordered = sorted(set(case.sizes), reverse=True)
    packed: Counter[int] = Counter()
    for pattern, times in answer.patterns.items():
        if sum(ordered[each] * many for each, many in pattern.parts) > case.capacity:
            raise ValueError(f"{case.name}: a bin is too full: {pattern}")
        for each, many in pattern.parts:
            packed[ordered[each]] += many * times
    if packed != Counter(case.sizes):
        raise ValueError(f"{case.name}: the bins do not hold the items")
    if answer.cost != sum(answer.patterns.values()):
        raise ValueError(f"{case.name}: {answer.cost} bins announced, {sum(answer.patterns.values())} found")


def measure(case: Instance, known: tuple[int, int] | None, *, seconds: float, seed: int) -> Outcome:
    """One instance, checked. Raises ValueError for a wrong answer or a wrong proof."""
    progress, took, cpu = solve(case, seconds=seconds, seed=seed)
    check(case, progress.best)
    bins = progress.best.cost
    low, high = known or (0, len(case.sizes))
    if progress.bound > high or bins < low:
        raise ValueError(f"{case.name}: {progress.bound} to {bins} bins contradict the known {low} to {high}")
    optimum = high if known and low == high else bins if progress.optimal else None
    ffd = first_fit_decreasing(case.sizes, case.capacity)
    return Outcome(
        name=case.name,
        kind=case.kind,
        bins=bins,
        bound=progress.bound,
        ffd=ffd,
        optimum=optimum,
        seconds=took,
        cpu_seconds=cpu,
    )


def report(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """As JSON shows it, by class."""
    kinds: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        kinds.setdefault(outcome.kind, []).append(outcome)
    return {kind: _row(each) for kind, each in sorted(kinds.items())}


def _row(outcomes: Sequence[Outcome]) -> dict[str, float]:
    seconds = sorted(each.seconds for each in outcomes)
    return {
        "instances": len(outcomes),
        "optimal": sum(each.bins == each.optimum for each in outcomes),
        "ffd_optimal": sum(each.ffd == each.optimum for each in outcomes),
        "mean_seconds": round(sum(seconds) / len(seconds), 4),
        "p95_seconds": round(_p95(each.seconds for each in outcomes), 4),
        "p95_cpu_seconds": round(_p95(each.cpu_seconds for each in outcomes), 4),
        "max_seconds": round(seconds[-1], 4),
        "proven": sum(each.bins == each.bound for each in outcomes),
    }


def _p95(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]


def _print_table(rows: Mapping[str, Mapping[str, float]], outcomes: Sequence[Outcome]) -> None:
    print(
        f"{'class':<24}{'instances':>10}{'optimal':>9}{'proven':>8}{'FFD':>6}"
        f"{'mean s':>9}{'p95 s':>9}{'max s':>9}{'p95 CPU s':>11}"
    )
    for kind, row in rows.items():
        print(
            f"{kind:<24}{row['instances']:>10}{row['optimal']:>9}{row['proven']:>8}{row['ffd_optimal']:>6}"
            f"{row['mean_seconds']:>9.3f}{row['p95_seconds']:>9.3f}{row['max_seconds']:>9.3f}"
            f"{row['p95_cpu_seconds']:>11.3f}"
        )
    for each in outcomes:
        if each.bins != each.optimum:
            print(f"{each.kind}/{each.name}: {each.bins} bins, bound {each.bound}, optimum {each.optimum or 'unknown'}")


def main(arguments: list[str] | None = None) -> int:
    """0: measured, whatever came out; 1: an answer or a proof was wrong; 2: the files can't be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=Path, required=True, help="folder with the instances, at any depth")
    parser.add_argument("--bounds", type=Path, required=True, help="known bounds by name")
    parser.add_argument("--seconds", type=float, default=5.0, help="the most for one instance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    try:
        cases = list(instances(options.instances))
        known = known_bounds(options.bounds)
    except (OSError, ValueError) as failure:
        print(failure, file=sys.stderr)
        return 2
    if not cases:
        print(f"{options.instances}: no *.txt in it", file=sys.stderr)
        return 2
    try:
        outcomes = [measure(case, known.get(case.name), seconds=options.seconds, seed=options.seed) for case in cases]
    except ValueError as failure:
        print(failure, file=sys.stderr)
        return 1
    rows = report(outcomes)
    if options.output == "json":
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows, outcomes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
