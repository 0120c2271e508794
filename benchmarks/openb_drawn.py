"""Traces like those published ones that are not at hand, drawn from the ones that are.

    python -m benchmarks.openb_drawn --traces DIR --output DIR
    python -m benchmarks.openb --nodes FILE --pods DIR/openb_pod_list_like-*.csv --seeds 2

The published traces are variations of the default one, each of one property (Weng et al., Beware of Fragmentation,
USENIX ATC 2023): *cpuNNN* has NNN % of the pods without a GPU; *gpushareNN* has NN % of the GPU demand in shares of
one GPU; *multigpuNN* has NN % of it in pods of 2, 4 and 8 GPUs; *gpuspecNN* has NN % of the GPU pods bound to
products. What is drawn here keeps to these, with the pods, shares and products of ``default``, ``multigpu50`` and
``gpuspec33``. The names begin with ``like-``: they are no published traces, and no published figure is theirs.
"""

import argparse
import csv
import random
from collections.abc import Callable, Sequence
from pathlib import Path

Row = dict[str, str]
_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")
_CPU = (50, 100, 200, 250)
_SHARES = (40, 60, 80, 100)
_SEVERAL = (20, 30, 40, 50)
_BOUND = (10, 20, 25, 33)


def read(path: Path) -> list[Row]:
    """A trace's pods."""
    with path.open(newline="") as file:
        return [{name: row.get(name) or "" for name in _COLUMNS} for row in csv.DictReader(file)]


def gpus(row: Row) -> int:
    """How many GPUs a pod asks for."""
    return int(row["num_gpu"])


def demand(row: Row) -> int:
    """Milli over all GPUs."""
    return gpus(row) * int(row["gpu_milli"]) if gpus(row) else 0


def shared(row: Row) -> bool:
    """Whether a pod asks for a share of one GPU."""
    return gpus(row) == 1 and int(row["gpu_milli"]) < 1000


def with_cpu_pods(default: Sequence[Row], percent: int, draw: random.Random) -> list[Row]:
    """``percent`` of the pods without a GPU."""
    plain = [row for row in default if not gpus(row)]
    count = round(len(plain) * percent / 100)
    chosen = draw.sample(plain, count) if count <= len(plain) else plain + draw.choices(plain, k=count - len(plain))
    return [row for row in default if gpus(row)] + chosen


def with_shares(default: Sequence[Row], percent: int, draw: random.Random) -> list[Row]:
    """Whole GPUs are changed for shares of one, or shares for whole ones, until ``percent`` of the demand is shares."""
    return _changed(default, percent / 100, draw, has=shared, others=[row for row in default if gpus(row)])


def with_several(default: Sequence[Row], percent: int, draw: random.Random, *, several: Sequence[Row]) -> list[Row]:
    """Pods of several GPUs are added until they are ``percent`` of the demand."""
    found, mine = list(default), sum(demand(row) for row in default if gpus(row) > 1)
    whole = sum(map(demand, default))
    while mine < whole * percent / 100:
        row = draw.choice(several)
        found.append(row)
        mine, whole = mine + demand(row), whole + demand(row)
    return found


def bound_to_products(default: Sequence[Row], percent: int, draw: random.Random, *, bound: Sequence[Row]) -> list[Row]:
    """``percent`` of the GPU pods get a product, each as one of the same size has it in ``bound``."""
    by_size: dict[tuple[str, str], list[str]] = {}
    for row in bound:
        if row["gpu_spec"]:
            by_size.setdefault((row["num_gpu"], row["gpu_milli"]), []).append(row["gpu_spec"])
    able = [place for place, row in enumerate(default) if (row["num_gpu"], row["gpu_milli"]) in by_size]
    asked = round(sum(gpus(row) > 0 for row in default) * percent / 100)
    found = [dict(row) for row in default]
    for place in draw.sample(able, min(asked, len(able))):
        row = found[place]
        row["gpu_spec"] = draw.choice(by_size[row["num_gpu"], row["gpu_milli"]])
    return found


def _changed(
    default: Sequence[Row], share: float, draw: random.Random, *, has: Callable[[Row], bool], others: Sequence[Row]
) -> list[Row]:
    """Pods with a GPU are changed at random for others of the kind that there is too little of."""
    found = list(default)
    with_it = [row for row in others if has(row)]
    without = [row for row in others if not has(row)]
    mine, whole = sum(demand(row) for row in found if has(row)), sum(map(demand, found))
    more = mine < whole * share
    places = [place for place, row in enumerate(found) if gpus(row) and has(row) != more]
    draw.shuffle(places)
    for place in places:
        if (mine < whole * share) != more:
            break
        row = draw.choice(with_it if more else without)
        mine += demand(row) if more else -demand(found[place])
        whole += demand(row) - demand(found[place])
        found[place] = row
    return found


def traces(folder: Path, *, seed: int) -> dict[str, list[Row]]:
    """All of them by name."""
    default = read(folder / "openb_pod_list_default.csv")
    several = [row for row in read(folder / "openb_pod_list_multigpu50.csv") if gpus(row) > 1]
    bound = read(folder / "openb_pod_list_gpuspec33.csv")
    draw = random.Random(seed)
    found = {f"cpu{percent:03}": with_cpu_pods(default, percent, draw) for percent in _CPU}
    found |= {f"gpushare{percent}": with_shares(default, percent, draw) for percent in _SHARES}
    found |= {f"multigpu{percent}": with_several(default, percent, draw, several=several) for percent in _SEVERAL}
    found |= {f"gpuspec{percent}": bound_to_products(default, percent, draw, bound=bound) for percent in _BOUND}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, required=True, help="folder with default, multigpu50 and gpuspec33")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name, rows in traces(options.traces, seed=options.seed).items():
        with (options.output / f"openb_pod_list_like-{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows({**row, "name": f"pod-{number:05}"} for number, row in enumerate(rows))


if __name__ == "__main__":
    main()
