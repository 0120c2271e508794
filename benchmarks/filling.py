"""Which GPU to fill while replicas come and go: first fit, the tightest one, or the one with the fewest fragments; and
the same where the rule says too which empty GPU is opened, instead of what costs the least memory then.

    python -m benchmarks.filling
    python -m benchmarks.filling -o json --seeds 20

The protocol: 4 nodes of L4, 4 of L40S, 6 of H100 and 2 of H200 with 4 GPUs each; 15 models whose replicas need 3 to
70 GiB, drawn for each seed with how often each is asked for. One replica after another arrives as long as the fleet
holds less than the load; one that fits nowhere is refused, and another leaves, as five do whenever the load is
reached. Nothing is moved. Reported are the share of bytes and of replicas that were refused, and the memory of the GPUs
in use over what is held, as a mean over the arrivals after the first 200. The rule knows how often each model is asked
for, and nothing of what comes. Seeds count from 0, so every run is the same.
"""

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from vrampack.packing.fragments import FewestFragments
from vrampack.packing.mix import typical
from vrampack.packing.portfolio import Member, best_run
from vrampack.packing.problem import Device, Host, Item, Objective, Resident, Spread
from vrampack.packing.run import answer
from vrampack.packing.tenancy import Tenancy
from vrampack.packing.turn import in_turn
from vrampack.units import GIB

_FLEET = (("L4", 22, 4), ("L40S", 44, 4), ("H100", 79, 6), ("H200", 140, 2))
_GPUS = 4
_SIZES = (3, 5, 6, 8, 9, 12, 15, 17, 18, 20, 22, 26, 30, 34, 38, 41, 60, 70)
_MODELS = 15
_OFTEN = (1, 2, 4, 8)
_ARRIVALS = 1500
_BEFORE = 200
_AT_ONCE = 5
_LOADS = (0.6, 0.85, 0.95)


class _Opens(FewestFragments):
    """The same, and the order in which empty GPUs are opened is its own too."""

    @property
    def orders_empty(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Shares of what arrived that were refused; and bytes of GPUs in use for each byte that is held."""

    refused_bytes: float
    refused_replicas: float
    opened: float


def fleet() -> list[Host]:
    """Empty nodes."""
    nodes = [(product, size) for product, size, count in _FLEET for _ in range(count)]
    return [
        Host(
            name=f"node-{number:02}",
            devices=tuple(
                Device(id=f"GPU-{number}-{index}", product=product, capacity=size * GIB, free=size * GIB)
                for index in range(_GPUS)
            ),
        )
        for number, (product, size) in enumerate(nodes)
    ]


def run(*, seed: int, load: float, policy: str) -> Outcome:
    """One sequence of arrivals."""
    draw = random.Random(seed)
    tenancy = Tenancy(fleet())
    board = tenancy.board
    models = [
        Item(
            key=f"m{number}",
            group=f"m{number}",
            gpus=1,
            memory=int(draw.choice(_SIZES) * GIB * draw.uniform(0.9, 1.1)),
            spread=Spread.IGNORE,
        )
        for number in range(_MODELS)
    ]
    often = [draw.choice(_OFTEN) for _ in models]
    mix = typical([each for each, count in zip(models, often, strict=True) for _ in range(count)])
    rule = {"fewest-fragments": FewestFragments, "and-opens": _Opens}.get(policy, lambda _: None)(mix)
    member = Member.BEST_FIT_DECREASING if policy == "tightest" else Member.FIRST_FIT_DECREASING
    most = load * board.capacity.sum()
    live: list[Resident] = []
    asked: list[Item] = []
    refused: list[Item] = []
    opened: list[float] = []
    for step in range(_ARRIVALS):
        leaving = 0
        if sum(each.item.memory for each in live) < most:
            item = replace(draw.choices(models, often)[0], key=f"replica-{step}")
            asked.append(item)
            board.settle()
            plan = answer(best_run(board, in_turn([item]), Objective.FEWEST_GPUS, rule=rule, members=(member,)))
            if plan.unplaced:
                refused.append(item)
                leaving = 1
            for each in plan.placed:
                live.append(Resident(item=item, host=each.host, devices=each.devices))
                tenancy.enter(live[-1])
        else:
            leaving = _AT_ONCE
        for _ in range(min(leaving, len(live))):
            tenancy.leave(live.pop(draw.randrange(len(live))))
        if step >= _BEFORE and live:
            opened.append(float(board.capacity[board.in_use].sum()) / sum(each.item.memory for each in live))
    return Outcome(
        refused_bytes=sum(each.memory for each in refused) / sum(each.memory for each in asked),
        refused_replicas=len(refused) / len(asked),
        opened=statistics.fmean(opened),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filling", description="Which GPU to fill")
    parser.add_argument("--seeds", type=int, default=8, help="runs of each, from seed 0 (default 8)")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for load in _LOADS:
        for policy in ("first-fit", "tightest", "fewest-fragments", "and-opens"):
            runs = [asdict(run(seed=seed, load=load, policy=policy)) for seed in range(options.seeds)]
            mean = {name: round(statistics.fmean(each[name] for each in runs), 4) for name in runs[0]}
            results.setdefault(f"{load:.2f}", {})[policy] = mean
    if options.output == "json":
        print(json.dumps(results, indent=2))
        return
    print(f"{'load':>5} {'policy':<17} {'refused bytes':>14} {'refused replicas':>17} {'opened / held':>14}")
    for name, policies in results.items():
        for policy, found in policies.items():
            print(
                f"{name:>5} {policy:<17} {found['refused_bytes']:>14.1%} {found['refused_replicas']:>17.1%} "
                f"{found['opened']:>14.3f}"
            )


if __name__ == "__main__":
    main()
