"""Replicas that come and go one at a time: how often running ones move, and how much memory is open.

    python -m benchmarks.churn
    python -m benchmarks.churn --nodes openb_node_list_gpu_node.csv --pods openb_pod_list_default.csv -o json

Two kinds of sequences. ``random``: ``--changes`` single arrivals and departures of replicas of 60 models around
``--replicas`` of them, on 80 GiB GPUs and on a mixed fleet of 24, 40, 48, 80 and 141 GiB (4:2:3:3:1). With a trace,
also its own creations and deletions, in their order, on its nodes cut at random to peak demand / 0.6, 0.8 and 0.95.

Each change is one arrival or one departure. What arrives goes to the tightest GPU in use; else at most two running
replicas make room for it there; else it opens an empty one. Where there is none it waits, and is tried again after each
departure, the oldest first. After each change moves close GPUs. Each change allows ``--budget`` moves, and what is not
used is saved, up to six.

``moves_per_change`` counts both kinds, as the mode Evict carries them out. ``opened_percent``: the memory of all GPUs
in use, as the mean over every ``--every``-th change, in per cent of what first-fit decreasing from scratch opens then
for the replicas that run; below 100 is better than a fresh plan. ``waiting``: the mean number without a place, and
``fresh_waiting`` of those that run how many the fresh plan could not place.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.changes import Change, models, peak, random_changes, trace_changes
from benchmarks.openb_trace import GPU_MILLI, Node, Pod, nodes, pods, trace_name
from vrampack.packing.firstfit import pack
from vrampack.packing.moves import close_devices, make_room
from vrampack.packing.portfolio import Member
from vrampack.packing.problem import Device, Host, Item, Resident
from vrampack.packing.rules import Rule, Tightest
from vrampack.packing.tenancy import Tenancy
from vrampack.units import GIB

LOADS = (0.6, 0.8, 0.95)
MIXED = {24: 4, 40: 2, 48: 3, 80: 3, 141: 1}
FOR_BLOCKED = 2
SAVED = 6
"""Moves that are saved up at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one sequence."""

    changes: int
    moves_per_change: float
    opened_percent: float
    waiting: float
    fresh_waiting: float
    milliseconds_per_change: float


def replay(
    *, hosts: Sequence[Host], changes: Iterable[Change], rule: Rule, budget: float, every: int, skip: int = 0
) -> Result:
    """Carry ``changes`` out one by one. The first ``skip`` fill the fleet and are not counted. ``budget``: moves that
    each change allows, now or later."""
    tenancy = Tenancy(hosts)
    waiting: dict[str, Item] = {}
    moves = counted = 0
    opened: list[int] = []
    fresh_opened: list[int] = []
    queue: list[int] = []
    fresh_queue: list[int] = []
    spent = 0.0
    nowhere = np.empty(0, np.int64)
    saved = 0.0
    for number, change in enumerate(changes):
        began = time.perf_counter()
        here = 0
        saved = min(saved + budget, SAVED)
        if not change.leaves:
            waiting[change.item.key] = change.item
            candidates = [change.item]
        else:
            candidates = [] if waiting.pop(change.item.key, None) else list(waiting.values())
            if (resident := tenancy.residents.get(change.item.key)) is not None:
                tenancy.leave(resident)
        for item in candidates:
            if change.leaves:
                found = tenancy.settle(item, rule, shut=nowhere)
            else:
                found, moved = _admit(tenancy, item, rule, min(int(saved), FOR_BLOCKED))
                here += moved
            if found is not None:
                tenancy.accept(found)
                del waiting[item.key]
        here += len(close_devices(tenancy, limit=int(saved) - here, rule=rule))
        saved -= here
        if number >= skip:
            spent += time.perf_counter() - began
            moves += here
            counted += 1
            queue.append(len(waiting))
            if counted % every == 0:
                board = tenancy.board
                opened.append(int(board.capacity[board.in_use].sum()))
                fresh, left = _fresh(hosts, [resident.item for resident in tenancy.residents.values()])
                fresh_opened.append(fresh)
                fresh_queue.append(left)
    return Result(
        changes=counted,
        moves_per_change=moves / max(counted, 1),
        opened_percent=100 * sum(opened) / max(sum(fresh_opened), 1),
        waiting=statistics.fmean(queue or [0]),
        fresh_waiting=statistics.fmean(fresh_queue or [0]),
        milliseconds_per_change=1000 * spent / max(counted, 1),
    )


def _admit(tenancy: Tenancy, item: Item, rule: Rule, limit: int) -> tuple[Resident | None, int]:
    """A place in use; or one in use for which others move; or an empty one; or one for which others move."""
    moves = 0
    board = tenancy.board
    for shut in (np.flatnonzero(~board.in_use), np.empty(0, np.int64)):
        for allowed in (0, limit):
            if allowed:
                moves += len(make_room(tenancy, item=item, limit=allowed, rule=rule, shut=shut) or ())
            if (found := tenancy.settle(item, rule, shut=shut)) is not None:
                return found, moves
    return None, moves


def _fresh(hosts: Sequence[Host], items: Sequence[Item]) -> tuple[int, int]:
    """What first-fit decreasing opens for ``items`` on empty hosts, and how many it leaves without a place."""
    packing = pack(hosts=hosts, items=items, members=[Member.FIRST_FIT_DECREASING])
    used = {(placement.host, device) for placement in packing.placed for device in placement.devices}
    opened = sum(device.capacity for host in hosts for device in host.devices if (host.name, device.id) in used)
    return opened, len(packing.unplaced)


def fleet(sizes: Sequence[int]) -> list[Host]:
    """One host with eight GPUs for each of ``sizes``, in GiB."""
    return [
        Host(
            name=f"host-{number:04d}",
            devices=tuple(
                Device(id=str(gpu), product=f"{size} GiB", capacity=size * GIB, free=size * GIB) for gpu in range(8)
            ),
        )
        for number, size in enumerate(sizes)
    ]


def random_cases(*, replicas: int, changes: int, seed: int, budget: float, every: int) -> dict[str, Result]:
    """The two fleets with random sequences; they are large enough for all."""
    classes = models(count=60, largest=72 * GIB, seed=seed)
    demand = replicas * statistics.fmean(item.memory for item in classes) / GIB
    mixed = [size for size, number in MIXED.items() for _ in range(number)]
    fleets = {
        "random 80 GiB": [80] * (int(demand / 80 / 8 * 1.5) + 2),
        "random mixed": mixed * (int(demand / sum(mixed) / 8 * 1.7) + 1),
    }
    found: dict[str, Result] = {}
    for name, sizes in fleets.items():
        found[name] = replay(
            hosts=fleet(sizes),
            changes=random_changes(classes=classes, replicas=replicas, changes=changes, seed=seed),
            rule=Tightest(),
            budget=budget,
            every=every,
            skip=replicas,
        )
    return found


def cut(nodes: Sequence[Node], *, milli: float, seed: int) -> list[Node]:
    """Random ones of ``nodes``, as many as it takes to have ``milli`` of GPU."""
    chosen: list[Node] = []
    for node in random.Random(seed).sample(list(nodes), len(nodes)):
        if GPU_MILLI * sum(each.gpus for each in chosen) >= milli:
            break
        chosen.append(node)
    return sorted(chosen, key=lambda node: node.name)


def trace_cases(
    *, nodes: Sequence[Node], pods: Sequence[Pod], seed: int, budget: float, every: int, changes: int | None
) -> dict[str, Result]:
    """The trace's own changes at each of LOADS."""
    sequence = trace_changes(pods)
    found: dict[str, Result] = {}
    for load in LOADS:
        chosen = cut(nodes, milli=peak(sequence) / load, seed=seed)
        hosts = [
            Host(
                name=node.name,
                cpu=node.cpu,
                memory=node.ram,
                devices=tuple(
                    Device(id=str(gpu), product=node.model, capacity=GPU_MILLI, free=GPU_MILLI)
                    for gpu in range(node.gpus)
                ),
            )
            for node in chosen
        ]
        found[f"at {load:g}"] = replay(
            hosts=hosts, changes=sequence[:changes], rule=Tightest(), budget=budget, every=every
        )
    return found


def table(results: dict[str, Result]) -> str:
    """The figures, one sequence a line."""
    lines = ["sequence                changes  moves/change  opened %  waiting  fresh waiting  ms/change"]
    lines += (
        f"{name:22} {each.changes:8}  {each.moves_per_change:12.3f}  {each.opened_percent:8.2f}  {each.waiting:7.2f}"
        f"  {each.fresh_waiting:13.2f}  {each.milliseconds_per_change:9.2f}"
        for name, each in results.items()
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.churn", description="Replicas that come and go")
    parser.add_argument("--nodes", type=Path, help="the node list of a trace")
    parser.add_argument("--pods", type=Path, nargs="+", default=[], help="pod lists with creation and deletion times")
    parser.add_argument("--replicas", type=int, default=500, help="in the random sequences (default 500)")
    parser.add_argument("--changes", type=int, default=3000, help="in the random sequences (default 3000)")
    parser.add_argument("--trace-changes", type=int, help="only the first so many of a trace's")
    parser.add_argument("--budget", type=float, default=0.5, help="moves that a change allows (default 0.5)")
    parser.add_argument("--every", type=int, default=50, help="changes between two fresh plans (default 50)")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    if options.pods and options.nodes is None:
        parser.error("--pods needs --nodes")
    results = random_cases(
        replicas=options.replicas,
        changes=options.changes,
        seed=options.seed,
        budget=options.budget,
        every=options.every,
    )
    for path in options.pods:
        cases = trace_cases(
            nodes=nodes(options.nodes),
            pods=pods(path),
            seed=options.seed,
            budget=options.budget,
            every=options.every,
            changes=options.trace_changes,
        )
        results |= {f"{trace_name(path)} {name}": result for name, result in cases.items()}
    if options.output == "json":
        print(json.dumps({name: asdict(result) for name, result in results.items()}, indent=2))
    else:
        print(table(results))


if __name__ == "__main__":
    main()
