"""Real checkpoints on a fleet of mixed GPUs: how near the packer comes to what is possible at all.

    python -m benchmarks.fleet --checkpoints ../shared/data/safetensors_sizes.csv
    python -m benchmarks.fleet --checkpoints FILE --replicas 1000 --loads 0.6 0.8 --draws 3 --seconds 5 -o json

Protocol. A model is a checkpoint of FILE at 4, 16 or 64 sequences of 4,096 tokens: the bytes of its weights and of its
KV cache (from the columns of FILE, two bytes a value) over its GPUs, and 1.5 GiB on each. It takes the fewest of 1, 2,
4 and 8 GPUs on which that is at most 80 GiB each, or else 8 if that is at most 141 GiB; what is larger is left out. A
replica is one of these models at random, with a chance that falls with its size, so that each model takes about the
same memory of the fleet. The fleet has empty nodes of 8 equal GPUs of 24, 40, 48, 80 and 141 GiB in the ratio
4:2:3:3:1, as many as make the demand the given share of all memory, each size rounded to whole nodes. There is no other
constraint, and no wish for spread. Replicas and fleets depend on the draw's number alone.

``first``: the first plan, with the seconds of the call, wall clock and of the processor; ``ffd`` and ``best-fit``:
decreasing order onto the first and onto the tightest GPU that fits; ``vrampack``: the plan after ``--seconds`` of
refinement, or as soon as it is proven optimal, the clock being asked between steps of work. ``gap``: opened memory
above the proven lower bound, in percent of the bound, where all replicas are placed. ``unplaced``: bytes over all GPUs
of the replicas without a place, and how many they are, each beside what no packing can place. The objective is the
packer's: few replicas first, then bytes. The refined plan is checked by an independent program.
"""

import argparse
import csv
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np

from vrampack.packing.board import Board
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.inventory import inventory
from vrampack.packing.objective import cost
from vrampack.packing.problem import Device, Host, Item, Objective, Packing, Spread
from vrampack.packing.proof import Proof
from vrampack.packing.refine import Refined, refinements
from vrampack.packing.rules import FirstFit, Rule, Tightest
from vrampack.packing.run import answer, run
from vrampack.packing.tally import UNLIMITED, Tally
from vrampack.packing.turn import in_turn
from vrampack.units import GIB

_LOADS = (0.6, 0.7, 0.8, 0.85, 0.88, 0.9, 0.95)
_MIX = {24: 4, 40: 2, 48: 3, 80: 3, 141: 1}
_GPUS_A_NODE = 8
_CONCURRENCIES = (4, 16, 64)
_TOKENS = 4096
_OVERHEAD = 3 * GIB // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A row of the file: bytes of the weights and of the KV cache for one token."""

    name: str
    weights: int
    token: int


def checkpoints(path: Path) -> list[Checkpoint]:
    """All rows. Raises ValueError for a file without the columns."""
    with path.open(newline="", encoding="utf-8") as lines:
        try:
            return [_checkpoint(row) for row in csv.DictReader(lines)]
        except (KeyError, ValueError, TypeError) as failure:
            raise ValueError(f"{path}: a column is missing or no number: {failure}") from None


def _checkpoint(row: Mapping[str, str]) -> Checkpoint:
    layers, heads = int(row["num_hidden_layers"]), int(row["num_attention_heads"])
    if row["kv_lora_rank"]:
        values = int(row["kv_lora_rank"]) + int(row["qk_rope_head_dim"])
    else:
        dimension = int(row["head_dim"] or int(row["hidden_size"]) // heads)
        values = 2 * int(row["num_key_value_heads"]) * dimension
    return Checkpoint(name=row["model"], weights=int(float(row["safetensors_gib"]) * GIB), token=2 * layers * values)


def replicas(known: Sequence[Checkpoint], *, count: int, draw: random.Random) -> list[Item]:
    """``count`` of them."""
    models = [item for each in known for many in _CONCURRENCIES if (item := _item(each, many)) is not None]
    drawn = draw.choices(models, [1 / (model.gpus * model.memory) for model in models], k=count)
    return [replace(model, key=f"replica-{number:05}") for number, model in enumerate(drawn)]


def _item(checkpoint: Checkpoint, concurrency: int) -> Item | None:
    whole = checkpoint.weights + checkpoint.token * _TOKENS * concurrency
    for gpus in (1, 2, 4, 8):
        share = -(-whole // gpus) + _OVERHEAD
        if share <= (141 if gpus == 8 else 80) * GIB:
            group = f"serving/{checkpoint.name}-{concurrency}"
            return Item(key="", group=group, gpus=gpus, memory=share, spread=Spread.IGNORE)
    return None


def fleet(items: Sequence[Item], *, load: float) -> list[Host]:
    """Empty nodes on which ``items`` are the share ``load`` of the memory."""
    demand = sum(item.gpus * item.memory for item in items)
    per_share = sum(size * GIB * share for size, share in _MIX.items())
    shares = demand / load / per_share
    return [
        Host(
            name=f"node-{size}-{number:03}",
            devices=tuple(
                Device(id=f"GPU-{index}", product=f"GPU-{size}GiB", capacity=size * GIB, free=size * GIB)
                for index in range(_GPUS_A_NODE)
            ),
        )
        for size, share in _MIX.items()
        for number in range(round(shares * share / _GPUS_A_NODE))
    ]


def plan(hosts: Sequence[Host], items: Sequence[Item], rule: Rule) -> Packing:
    """Decreasing order with one rule and no portfolio."""
    return answer(run(Board(hosts), in_turn(items), rule))


def refined(hosts: Sequence[Host], items: Sequence[Item], start: Packing, *, seconds: float) -> tuple[Refined, float]:
    """The best within ``seconds``, and how long it took."""
    begin = time.perf_counter()
    steps = refinements(hosts=hosts, items=items, objective=Objective.FEWEST_GPUS, start=start, seed=0, work=UNLIMITED)
    best = next(steps)
    while time.perf_counter() - begin < seconds and (further := next(steps, None)) is not None:
        best = further
    return best, time.perf_counter() - begin


def fewest_unplaced(hosts: Sequence[Host], items: Sequence[Item]) -> int:
    """The number of replicas that no packing can place: the linear programme with one for each of them as its cost."""
    stock = inventory(hosts=hosts, items=items).stock
    lots = stock.lots or ()
    whole = lcm(*lots)
    counted = replace(
        stock,
        kinds=tuple(replace(kind, cost=0) for kind in stock.kinds),
        penalties=tuple(whole // lot for lot in lots),
    )
    proof = Proof(counted, np.random.default_rng(0), Tally(UNLIMITED))
    for _ in proof.steps(()):
        pass
    return -(-proof.bound // whole)


def measure(known: Sequence[Checkpoint], *, count: int, load: float, draw: int, seconds: float) -> dict[str, Any]:
    """One draw at one load. Raises ValueError where a plan is wrong or below its bound."""
    items = replicas(known, count=count, draw=random.Random(draw))
    hosts = fleet(items, load=load)
    took, processor = [], []
    for _ in range(5):
        begin, began = time.perf_counter(), time.process_time()
        first = pack(hosts=hosts, items=items)
        took.append(time.perf_counter() - begin)
        processor.append(time.process_time() - began)
    best, spent = refined(hosts, items, first, seconds=seconds)
    plans = {
        "ffd": plan(hosts, items, FirstFit()),
        "best_fit": plan(hosts, items, Tightest()),
        "first": first,
        "vrampack": best.packing,
    }
    row: dict[str, Any] = {
        "draw": draw,
        "gpus": sum(len(host.devices) for host in hosts),
        "first_seconds": min(took),
        "first_processor_seconds": min(processor),
        "seconds": spent,
        "rounds": best.done.rounds,
        "dives": best.done.dives,
        "optimal": best.bound.optimal,
        "bound_opened": best.bound.opened,
        "bound_unplaced": best.bound.unplaced,
        "bound_unplaced_replicas": fewest_unplaced(hosts, items) if best.packing.unplaced else 0,
    }
    if wrong := violations(hosts=hosts, items=items, packing=best.packing):
        raise ValueError(f"load {load}, draw {draw}: {wrong[0]}")
    for name, packing in plans.items():
        unplaced = sum(each.item.gpus * each.item.memory for each in packing.unplaced)
        opened = cost(hosts=hosts, packing=packing).opened
        row |= {f"{name}_unplaced": unplaced, f"{name}_unplaced_replicas": len(packing.unplaced)}
        if unplaced < best.bound.unplaced or len(packing.unplaced) < row["bound_unplaced_replicas"]:
            raise ValueError(f"load {load}, draw {draw}, {name}: less is unplaced than the bound says")
        if not packing.unplaced:
            if opened < best.bound.opened:
                raise ValueError(f"load {load}, draw {draw}, {name}: less memory opened than the bound says")
            row[f"{name}_opened"] = opened
            row[f"{name}_gap_percent"] = 100 * (opened / best.bound.opened - 1) if best.bound.opened else None
    return row


def report(rows: Mapping[float, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By load: means over the draws, and each draw."""
    return {str(load): {**_means(draws), "draws": [dict(row) for row in draws]} for load, draws in rows.items()}


def _means(draws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "all_placed": sum("vrampack_gap_percent" in row for row in draws),
        "optimal": sum(row["optimal"] for row in draws),
        "first_seconds": round(statistics.mean(row["first_seconds"] for row in draws), 5),
        "first_processor_seconds": round(statistics.mean(row["first_processor_seconds"] for row in draws), 5),
        "seconds": round(statistics.mean(row["seconds"] for row in draws), 3),
    }
    for name in ("ffd", "best_fit", "first", "vrampack"):
        gaps = [row[f"{name}_gap_percent"] for row in draws if row.get(f"{name}_gap_percent") is not None]
        found[f"{name}_gap_percent"] = round(statistics.mean(gaps), 3) if gaps else None
        found[f"{name}_worst_gap_percent"] = round(max(gaps), 3) if gaps else None
        for figure in ("unplaced", "unplaced_replicas"):
            found[f"{name}_{figure}"] = sum(row[f"{name}_{figure}"] for row in draws)
    for figure in ("bound_unplaced", "bound_unplaced_replicas"):
        found[figure] = sum(row[figure] for row in draws)
    return found


def _print_table(rows: Mapping[str, Mapping[str, Any]]) -> None:
    names = ("ffd", "best_fit", "first", "vrampack")
    print("opened memory above the bound, percent, mean (worst); all replicas placed")
    print(
        f"{'load':>5}{'placed':>8}{'optimal':>9}{'first ms':>10}{'cpu ms':>8}{'s':>7}"
        + "".join(f"{name:>19}" for name in names)
    )
    for load, row in rows.items():
        gaps = "".join(_gap(row[f"{name}_gap_percent"], row[f"{name}_worst_gap_percent"]) for name in names)
        ratio = f"{row['all_placed']}/{len(row['draws'])}"
        first, processor = 1000 * row["first_seconds"], 1000 * row["first_processor_seconds"]
        print(f"{load:>5}{ratio:>8}{row['optimal']:>9}{first:>10.1f}{processor:>8.1f}{row['seconds']:>7.2f}{gaps}")
    print("\nunplaced GiB (replicas), sum over the draws")
    print(f"{'load':>5}{'bound':>19}" + "".join(f"{name:>19}" for name in names))
    for load, row in rows.items():
        cells = "".join(
            f"{row[f'{name}_unplaced'] / GIB:>12.0f} ({row[f'{name}_unplaced_replicas']:>4})"
            for name in ("bound", *names)
        )
        print(f"{load:>5}{cells}")


def _gap(mean: float | None, worst: float | None) -> str:
    return f"{'-':>19}" if mean is None else f"{mean:>10.3f} ({worst:.3f})".rjust(19)


def _rows(known: Sequence[Checkpoint], options: argparse.Namespace) -> Iterator[tuple[float, list[dict[str, Any]]]]:
    for load in options.loads:
        yield (
            load,
            [
                measure(known, count=options.replicas, load=load, draw=draw, seconds=options.seconds)
                for draw in range(options.draws)
            ],
        )


def main(arguments: list[str] | None = None) -> int:
    """0: measured, whatever came out; 1: a plan or a bound was wrong; 2: the file can't be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("../shared/data/safetensors_sizes.csv"), help="sizes of models"
    )
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--loads", type=float, nargs="+", default=_LOADS, help="demand as a share of all memory")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of refinement for one plan")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    try:
        known = checkpoints(options.checkpoints)
    except (OSError, ValueError) as failure:
        print(failure, file=sys.stderr)
        return 2
    try:
        rows = report(dict(_rows(known, options)))
    except ValueError as failure:
        print(failure, file=sys.stderr)
        return 1
    if options.output == "json":
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
