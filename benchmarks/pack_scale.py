"""How the first plan scales: 1,000 to 90,000 waiting replicas on up to 75,000 GPUs of 15,000 nodes.

    python -m benchmarks.pack_scale
    python -m benchmarks.pack_scale -o json
    python -m benchmarks.pack_scale --replicas 90000 --classes 150

The question: nodes of four empty GPUs, each fourth group of them of eight, one product each of 24, 48, 80 and 141 GiB
in turn, with CPU, RAM and pod slots. Replicas of 150 and of 1,000 classes, the largest 17 times the smallest, such that
60 % of the memory is asked for, which first-fit decreasing places; or all of it, which nothing places, so that the
whole portfolio runs and thousands are told why they wait. A fifth of the classes each, drawn independently: refuses a
fifth of the nodes (a selector or a taint), must spread over nodes, avoids two other models, takes 2, 4 or 8 GPUs of at
most 20 GiB on each, has a higher priority. All others wish for spread, as is the default. The seed is fixed.

Three times are told apart, all wall clock, the best and the median of several runs, and the best of the processor's
time, which other work on the machine does not stretch as much: *objects*: the whole call from
``Host`` and ``Item`` to ``Packing``, with the reasons of what waits; *arrays*: the plan alone, once hosts and items are
in arrays, up to which replicas go on which device; *one more*: a single replica on a fleet on which all others are
placed, by a planner that holds the arrays. Memory is the peak of what the call allocates, measured in a run of its own.
"""

import argparse
import json
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vrampack.packing.board import Board
from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.planner import Planner
from vrampack.packing.portfolio import best_run
from vrampack.packing.problem import Device, Host, Item, Objective, Spread
from vrampack.packing.turn import in_turn
from vrampack.units import GIB, MIB

_USABLE = {"L4": 24, "L40S": 48, "H100": 80, "H200": 141}
_SIZES = (1000, 3000, 9000, 30_000, 90_000)
_GPUS_A_REPLICA = 75_000 / 90_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A question for the packer."""

    hosts: Sequence[Host]
    items: Sequence[Item]
    classes: int
    load: float


def fleet(gpus: int) -> list[Host]:
    """Empty nodes with 4, 4, 4 and 8 GPUs, one product each."""
    hosts: list[Host] = []
    left = gpus
    while left > 0:
        number = len(hosts)
        product, size = list(_USABLE.items())[number % len(_USABLE)]
        count = min(left, 8 if number // len(_USABLE) % 4 == 3 else 4)
        hosts.append(
            Host(
                name=f"node-{number:05}",
                devices=tuple(
                    Device(id=f"GPU-{number:05}-{index}", product=product, capacity=size * GIB, free=size * GIB)
                    for index in range(count)
                ),
                cpu=128_000,
                memory=1024 * GIB,
                slots=110,
            )
        )
        left -= count
    return hosts


def replicas(hosts: Sequence[Host], *, count: int, classes: int, load: float, seed: int) -> list[Item]:
    """``count`` replicas of ``classes`` models that ask for ``load`` of the memory together, as near as sizes allow."""
    draw = random.Random(seed)
    names = [host.name for host in hosts]
    groups = [f"serving/model-{number:04}" for number in range(classes)]
    models = [_model(draw, group, groups, names) for group in groups]
    mean = sum(item.gpus * item.memory for item in models) / classes
    capacity = sum(device.capacity for host in hosts for device in host.devices)
    scale = load * capacity / (mean * count)
    models = [replace(item, memory=min(int(item.memory * scale), _limit(item))) for item in models]
    return [replace(models[number % classes], key=f"replica-{number:06}") for number in range(count)]


def _limit(item: Item) -> int:
    return 20 * GIB if item.gpus > 1 else 140 * GIB


def _model(draw: random.Random, group: str, groups: Sequence[str], names: Sequence[str]) -> Item:
    several = draw.random() < 0.2
    refused = {name: "UntoleratedTaint" for name in names if draw.random() < 0.2} if draw.random() < 0.2 else {}
    return Item(
        key="",
        group=group,
        gpus=draw.choices((2, 4, 8), (70, 28, 2))[0] if several else 1,
        memory=draw.randint(4 * 1024, 20 * 1024 if several else 70 * 1024) * MIB,
        cpu=draw.choice((500, 1000, 2000)),
        host_memory=draw.randint(2, 12) * GIB,
        refused=refused,
        spread=Spread.REQUIRE if draw.random() < 0.2 else Spread.PREFER,
        avoid=frozenset(draw.sample(groups, 2)) - {group} if draw.random() < 0.2 else frozenset(),
        priority=1000 if draw.random() < 0.2 else 0,
    )


def case(*, count: int, classes: int, load: float, seed: int = 1) -> Case:
    """The question of the module's docstring, of one size."""
    hosts = fleet(round(count * _GPUS_A_REPLICA))
    items = replicas(hosts, count=count, classes=classes, load=load, seed=seed)
    return Case(hosts=hosts, items=items, classes=classes, load=load)


def measure(question: Case, *, runs: int, checked: bool) -> dict[str, object]:
    """All figures of one case."""
    hosts, items = question.hosts, question.items
    packing = pack(hosts=hosts, items=items)
    if checked and (wrong := violations(hosts=hosts, items=items, packing=packing)):
        raise SystemExit(f"{len(items)} replicas, {question.classes} classes: {wrong[0]}")
    board, lots = Board(hosts), in_turn(items)
    best_run(board, lots, Objective.FEWEST_GPUS)  # once, so that what is worked out once a fleet is there
    objects = _timed(lambda: pack(hosts=hosts, items=items), runs)
    arrays = _timed(lambda: best_run(board, lots, Objective.FEWEST_GPUS), runs)
    tracemalloc.start()
    pack(hosts=hosts, items=items)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "replicas": len(items),
        "classes": question.classes,
        "load": question.load,
        "gpus": sum(len(host.devices) for host in hosts),
        "nodes": len(hosts),
        "placed": len(packing.placed),
        "unplaced": len(packing.unplaced),
        "objects_seconds": objects,
        "arrays_seconds": arrays,
        "one_more_seconds": _one_more(question, runs=max(runs, 50)),
        "peak_mib": round(peak / MIB, 1),
    }


def _one_more(question: Case, *, runs: int) -> dict[str, float]:
    """Each run places another replica, of another class than the one before; nothing is taken back."""
    planner = Planner(question.hosts)
    planner.place_all(question.items)
    singles = iter(
        [replace(question.items[number % question.classes], key=f"one-more-{number}") for number in range(runs + 1)]
    )
    planner.place(next(singles))

    def one() -> None:
        planner.place(next(singles))

    return _timed(one, runs)


def _timed(call: Callable[[], object], runs: int) -> dict[str, float]:
    seconds, processor = [], []
    for _ in range(runs):
        start, began = time.perf_counter(), time.process_time()
        call()
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - began)
    return {
        "best": round(min(seconds), 6),
        "median": round(statistics.median(seconds), 6),
        "processor": round(min(processor), 6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--replicas", type=int, nargs="+", default=_SIZES)
    parser.add_argument("--classes", type=int, nargs="+", default=(150, 1000))
    parser.add_argument("--load", type=float, nargs="+", default=(0.6, 1.0))
    parser.add_argument("--check", action="store_true", help="check each packing (slow for the large ones)")
    arguments = parser.parse_args()
    results = [
        measure(case(count=count, classes=classes, load=load), runs=arguments.runs, checked=arguments.check)
        for load in arguments.load
        for classes in arguments.classes
        for count in arguments.replicas
        if classes <= count
    ]
    if arguments.output == "json":
        print(json.dumps(results, indent=2))
        return
    times = "".join(f"{name + ' ms':>26}" for name in ("arrays", "objects", "one more"))
    print(f"{'replicas':>8}{'classes':>8}{'load':>6}{'GPUs':>7}{'waits':>7}{times}{'MiB':>7}")
    for row in results:
        times = "".join(f"{_ms(row[name]):>26}" for name in ("arrays_seconds", "objects_seconds", "one_more_seconds"))
        counts = f"{row['replicas']:>8}{row['classes']:>8}{row['load']:>6}{row['gpus']:>7}{row['unplaced']:>7}"
        print(f"{counts}{times}{row['peak_mib']:>7}")


def _ms(times: object) -> str:
    assert isinstance(times, dict)
    return f"{times['best'] * 1e3:.2f} ({times['median'] * 1e3:.2f}, {times['processor'] * 1e3:.2f})"


if __name__ == "__main__":
    main()
