"""What the members of the first plan's portfolio place on full fleets, each alone, and what the rule makes of them.

    python -m benchmarks.pack_portfolio --checkpoints safetensors_sizes.csv
    python -m benchmarks.pack_portfolio --checkpoints safetensors_sizes.csv -o json

``--checkpoints``: a CSV file with a column ``safetensors_gib``, one model a line. Each asks for its weights, 1, 2, 4 or
8 GiB of KV cache (drawn) and 1.5 GiB; one of more than 100 GiB goes over 2, 4 or 8 GPUs, and one that does not fit even
so is left out. Replicas are drawn with the same chance for each model until the load is reached, a share of the fleet's
memory; 130 nodes with 4 GPUs of 24, 40, 48, 80 and 141 GiB (4:2:3:3:1). *any*: all models may go anywhere; *products*:
a third of the models may have one or two of the products only. Sums over seeds; each plan is checked.
"""

import argparse
import csv
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vrampack.packing.check import violations
from vrampack.packing.firstfit import pack
from vrampack.packing.portfolio import Member
from vrampack.packing.problem import Device, Host, Item, Spread
from vrampack.units import GIB

_MIX = (24, 24, 24, 24, 40, 40, 48, 48, 48, 80, 80, 80, 141)
_NODES = 130
_LOADS = (0.8, 0.9, 1.0, 1.1)
_MOST = 100 * GIB


def fleet() -> list[Host]:
    """Empty nodes with four equal GPUs."""
    return [
        Host(
            name=f"node-{number:03}",
            devices=tuple(
                Device(id=str(index), product=f"{size}GiB", capacity=size * GIB, free=size * GIB) for index in range(4)
            ),
        )
        for number in range(_NODES)
        for size in [_MIX[number % len(_MIX)]]
    ]


def models(weights: Sequence[int], *, limited: bool, draw: random.Random) -> list[Item]:
    """One replica of each model. ``weights``: bytes; ``limited``: whether some may have certain products only."""
    products = sorted({f"{size}GiB" for size in _MIX})
    found: list[Item] = []
    for number, size in enumerate(weights):
        need = size + draw.choice((1, 2, 4, 8)) * GIB + GIB * 3 // 2
        gpus = next((gpus for gpus in (1, 2, 4, 8) if need <= gpus * _MOST), None)
        choosy = limited and draw.random() < 1 / 3
        allowed = frozenset(draw.sample(products, draw.randint(1, 2))) if choosy else None
        if gpus is not None:
            memory = -(-need // gpus)
            found.append(
                Item(key="", group=str(number), gpus=gpus, memory=memory, products=allowed, spread=Spread.IGNORE)
            )
    return found


def replicas(models: Sequence[Item], *, memory: float, draw: random.Random) -> list[Item]:
    """Replicas that ask for up to ``memory`` bytes together, the first drawn the oldest."""
    found: list[Item] = []
    while True:
        model = draw.choice(models)
        memory -= model.gpus * model.memory
        if memory < 0:
            return [replace(item, waited=len(found) - number) for number, item in enumerate(found)]
        found.append(replace(model, key=f"replica-{len(found):05}"))


def measure(weights: Sequence[int], *, load: float, limited: bool, seeds: int) -> dict[str, object]:
    """Replicas and GiB without a place, by member and for the whole portfolio."""
    hosts = fleet()
    capacity = sum(device.capacity for host in hosts for device in host.devices)
    count: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    asked = 0
    for seed in range(seeds):
        draw = random.Random(seed)
        items = replicas(models(weights, limited=limited, draw=draw), memory=load * capacity, draw=draw)
        asked += len(items)
        plans = {str(member): (member,) for member in Member} | {"Portfolio": tuple(Member)}
        for name, members in plans.items():
            packing = pack(hosts=hosts, items=items, members=members)
            if wrong := violations(hosts=hosts, items=items, packing=packing):
                raise SystemExit(f"{name}: {wrong[0]}")
            count[name] += len(packing.unplaced)
            memory[name] += sum(waits.item.gpus * waits.item.memory for waits in packing.unplaced)
    return {
        "models": "products" if limited else "any",
        "load": load,
        "replicas": asked,
        "unplaced": {name: {"replicas": count[name], "gib": round(memory[name] / GIB)} for name in plans},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--load", type=float, nargs="+", default=_LOADS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    with arguments.checkpoints.open() as file:
        weights = [round(float(row["safetensors_gib"]) * GIB) for row in csv.DictReader(file) if row["safetensors_gib"]]
    results = [
        measure(weights, load=load, limited=limited, seeds=arguments.seeds)
        for limited in (False, True)
        for load in arguments.load
    ]
    if arguments.output == "json":
        print(json.dumps(results, indent=2))
        return
    names = [*map(str, Member), "Portfolio"]
    print(f"{'models':<9}{'load':>5}{'replicas':>9}" + "".join(f"{name:>21}" for name in names))
    for row in results:
        unplaced = row["unplaced"]
        assert isinstance(unplaced, dict)
        cells = "".join(f"{unplaced[name]['replicas']:>7}{unplaced[name]['gib']:>10} GiB" for name in names)
        print(f"{row['models']:<9}{row['load']:>5}{row['replicas']:>9}{cells}")


if __name__ == "__main__":
    main()
