"""How long the packer takes for 1,000 waiting replicas on 100 nodes with 8 GPUs each.

    python -m benchmarks.packing_firstfit
    python -m benchmarks.packing_firstfit -o json

Three cases: replicas of 20 models, so many are alike; 1,000 replicas no two of which are alike; and the same on a fleet
of which a tenth is left, where most have to be told why they wait. Times are seconds of one call, wall clock.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.problem import Device, Host, Item
from vrampack.units import GIB, MIB

_USABLE = {
    "NVIDIA-L4": 22_500 * MIB,
    "NVIDIA-L40S": 45_400 * MIB,
    "NVIDIA-H100": 80_000 * MIB,
    "NVIDIA-H200": 140_000 * MIB,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A question for the packer, and what it is called."""

    name: str
    hosts: Sequence[Host]
    items: Sequence[Item]


def fleet(*, hosts: int, gpus: int) -> list[Host]:
    """Empty nodes, one product each, the products in turn."""
    products = list(_USABLE.items())
    return [
        Host(
            name=f"node-{number}",
            devices=tuple(
                Device(id=f"GPU-{number}-{index}", product=product, capacity=usable, free=usable)
                for index in range(gpus)
            ),
            cpu=192_000,
            memory=2048 * GIB,
            slots=110,
        )
        for number in range(hosts)
        for product, usable in [products[number % len(products)]]
    ]


def replicas(*, count: int, classes: int, seed: int) -> list[Item]:
    """Waiting replicas of ``classes`` models: 6 to 70 GiB a GPU, one in five over 2 or 4 GPUs."""
    draw = random.Random(seed)
    models = [
        Item(
            key="",
            group=f"serving/model-{number}",
            gpus=draw.choices((1, 2, 4), (80, 12, 8))[0],
            memory=draw.randint(6 * 1024, 70 * 1024) * MIB,
            cpu=draw.choice((1000, 2000, 4000)),
            host_memory=draw.randint(4, 16) * GIB,
        )
        for number in range(classes)
    ]
    return [replace(models[number % classes], key=f"replica-{number}") for number in range(count)]


def cases() -> list[Case]:
    """The three of the module's docstring."""
    count = 1000
    distinct = replicas(count=count, classes=count, seed=2)
    return [
        Case(name="20 classes", hosts=fleet(hosts=100, gpus=8), items=replicas(count=count, classes=20, seed=1)),
        Case(name="all distinct", hosts=fleet(hosts=100, gpus=8), items=distinct),
        Case(name="all distinct, a tenth of the nodes", hosts=fleet(hosts=10, gpus=8), items=distinct),
    ]


def measure(case: Case, *, runs: int) -> dict[str, object]:
    """Best and median of ``runs`` calls; the answer is checked once."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        packing = pack(hosts=case.hosts, items=case.items)
        seconds.append(time.perf_counter() - start)
    wrong = violations(hosts=case.hosts, items=case.items, packing=packing)
    if wrong:
        raise SystemExit(f"{case.name}: {wrong[0]}")
    return {
        "case": case.name,
        "replicas": len(case.items),
        "gpus": sum(len(host.devices) for host in case.hosts),
        "placed": len(packing.placed),
        "unplaced": len(packing.unplaced),
        "best_seconds": round(min(seconds), 5),
        "median_seconds": round(statistics.median(seconds), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    results = [measure(case, runs=arguments.runs) for case in cases()]
    if arguments.output == "json":
        print(json.dumps(results, indent=2))
        return
    print(f"{'case':<36}{'replicas':>9}{'GPUs':>6}{'placed':>8}{'best':>10}{'median':>10}")
    for row in results:
        print(
            f"{row['case']:<36}{row['replicas']:>9}{row['gpus']:>6}{row['placed']:>8}"
            f"{row['best_seconds']:>9}s{row['median_seconds']:>9}s"
        )


if __name__ == "__main__":
    main()
