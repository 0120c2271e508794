"""Replicas that come and go one at a time: how often running ones move, and how much memory is open.

    python -m benchmarks.churn
    python -m benchmarks.churn --nodes openb_node_list_gpu_node.csv --pods openb_pod_list_default.csv -o json

Two kinds of sequences. ``random``: ``--changes`` single arrivals and departures of replicas of 60 models around
``--replicas`` of them, on 80 GiB GPUs and on a mixed fleet of 24, 40, 48, 80 and 141 GiB (4:2:3:3:1). With a trace,
also its own creations and deletions, in their order, on its nodes cut at random to peak demand / 0.6, 0.8 and 0.95.

Each change is one arrival or one departure. What arrives goes where least is lost (``vrampack.packing.fragmentation``)
among the GPUs in use before empty ones are opened. Where it finds no place, at most two running replicas move for it,
else it waits and is tried again after each departure, the oldest first. After each change at most ``--limit`` moves
close GPUs. ``moves_per_change`` counts both kinds, as the mode Evict carries them out. ``opened_percent``: the memory
of all GPUs in use, as the mean over every ``--every``-th change, in per cent of what first-fit decreasing from scratch
opens then for the replicas that run; below 100 is better than a fresh plan. ``waiting``: the mean number without a
place, and ``fresh_waiting`` of those that run how many the fresh plan could not place.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.openb_trace import GPU_MILLI, Node, Pod, nodes, pods, trace_name
from vrampack.packing.firstfit import pack
from vrampack.packing.fragmentation import LeastFragmentation, Worth
from vrampack.packing.moves import close_devices, make_room
from vrampack.packing.prices import typical
from vrampack.packing.problem import Device, Host, Item, Spread
from vrampack.packing.rules import Rule
from vrampack.packing.tenancy import Tenancy
from vrampack.units import GIB, MIB

LOADS = (0.6, 0.8, 0.95)
MIXED = {24: 4, 40: 2, 48: 3, 80: 3, 141: 1}
FOR_BLOCKED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One arrival, or with ``leaves`` one departure, of the replica ``item``."""

    item: Item
    leaves: bool = False


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
    *, hosts: Sequence[Host], changes: Iterable[Change], rule: Rule, limit: int, every: int, skip: int = 0
) -> Result:
    """Carry ``changes`` out one by one. The first ``skip`` fill the fleet and are not counted."""
    tenancy = Tenancy(hosts)
    waiting: dict[str, Item] = {}
    moves = counted = 0
    opened: list[int] = []
    fresh_opened: list[int] = []
    queue: list[int] = []
    fresh_queue: list[int] = []
    spent = 0.0
    nowhere = np.empty(0, np.int64)
    for number, change in enumerate(changes):
        began = time.perf_counter()
        here = 0
        if not change.leaves:
            waiting[change.item.key] = change.item
            candidates = [change.item]
        else:
            candidates = [] if waiting.pop(change.item.key, None) else list(waiting.values())
            if (resident := tenancy.residents.get(change.item.key)) is not None:
                tenancy.leave(resident)
        for item in candidates:
            found = tenancy.settle(item, rule, shut=nowhere)
            if found is None and not change.leaves:
                here += len(make_room(tenancy, item=item, limit=FOR_BLOCKED, rule=rule) or ())
                found = tenancy.settle(item, rule, shut=nowhere)
            if found is not None:
                tenancy.accept(found)
                del waiting[item.key]
        here += len(close_devices(tenancy, limit=limit, rule=rule))
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


def _fresh(hosts: Sequence[Host], items: Sequence[Item]) -> tuple[int, int]:
    """What first-fit decreasing opens for ``items`` on empty hosts, and how many it leaves without a place."""
    packing = pack(hosts=hosts, items=items, members=())
    used = {(placement.host, device) for placement in packing.placed for device in placement.devices}
    opened = sum(device.capacity for host in hosts for device in host.devices if (host.name, device.id) in used)
    return opened, len(packing.unplaced)


def random_changes(*, classes: Sequence[Item], replicas: int, changes: int, seed: int) -> Iterator[Change]:
    """``replicas`` arrivals, then as many arrivals as departures in a random order, of random classes."""
    draw = random.Random(seed)
    running: list[Item] = []
    for number in range(replicas + changes):
        if number >= replicas and running and draw.random() < 0.5 * len(running) / replicas:
            yield Change(item=running.pop(draw.randrange(len(running))), leaves=True)
            continue
        like = draw.choice(classes)
        item = Item(key=f"{number:06d}", group=like.group, gpus=1, memory=like.memory, spread=Spread.IGNORE)
        running.append(item)
        yield Change(item=item)


def models(*, count: int, largest: int, seed: int) -> list[Item]:
    """``count`` models with shares between 4 GiB and ``largest`` bytes, small ones more often, in steps of 64 MiB."""
    draw = random.Random(seed)
    return [
        Item(
            key=f"model-{number}",
            group=f"model-{number}",
            gpus=1,
            memory=int(4 * GIB * (largest / (4 * GIB)) ** draw.random()) // (64 * MIB) * 64 * MIB,
        )
        for number in range(count)
    ]


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


def random_cases(*, replicas: int, changes: int, seed: int, limit: int, every: int) -> dict[str, Result]:
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
        worth = Worth(typical(classes), {f"{size} GiB": size * GIB for size in sorted(set(sizes))})
        found[name] = replay(
            hosts=fleet(sizes),
            changes=random_changes(classes=classes, replicas=replicas, changes=changes, seed=seed),
            rule=LeastFragmentation(worth),
            limit=limit,
            every=every,
            skip=replicas,
        )
    return found


def trace_changes(pods: Sequence[Pod]) -> list[Change]:
    """Creations and deletions in their order; at the same second deletions come first."""
    found: list[tuple[int, bool, str, Change]] = []
    for pod in pods:
        if pod.created is None or pod.deleted is None or pod.deleted <= pod.created:
            continue
        shape = pod.shape
        item = Item(
            key=pod.name,
            group=f"{shape.gpus}x{shape.milli}-{shape.cpu}-{shape.ram}",
            gpus=shape.gpus,
            memory=shape.milli,
            cpu=shape.cpu,
            host_memory=shape.ram,
            products=None if shape.models is None else frozenset(shape.models),
            spread=Spread.IGNORE,
        )
        found.append((pod.created, True, pod.name, Change(item=item)))
        found.append((pod.deleted, False, pod.name, Change(item=item, leaves=True)))
    return [change for *_, change in sorted(found, key=lambda each: each[:3])]


def peak(changes: Sequence[Change]) -> int:
    """The most GPU milli that is asked for at once."""
    most = now = 0
    for change in changes:
        demand = change.item.gpus * change.item.memory
        now += -demand if change.leaves else demand
        most = max(most, now)
    return most


def cut(nodes: Sequence[Node], *, milli: float, seed: int) -> list[Node]:
    """Random ones of ``nodes``, as many as it takes to have ``milli`` of GPU."""
    chosen: list[Node] = []
    for node in random.Random(seed).sample(list(nodes), len(nodes)):
        if GPU_MILLI * sum(each.gpus for each in chosen) >= milli:
            break
        chosen.append(node)
    return sorted(chosen, key=lambda node: node.name)


def trace_cases(
    *, nodes: Sequence[Node], pods: Sequence[Pod], seed: int, limit: int, every: int, changes: int | None
) -> dict[str, Result]:
    """The trace's own changes at each of LOADS."""
    sequence = trace_changes(pods)
    rule_mix = typical([change.item for change in sequence if not change.leaves])
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
        worth = Worth(rule_mix, dict.fromkeys(sorted({node.model for node in chosen}), GPU_MILLI))
        found[f"at {load:g}"] = replay(
            hosts=hosts, changes=sequence[:changes], rule=LeastFragmentation(worth), limit=limit, every=every
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
    parser.add_argument("--limit", type=int, default=3, help="moves that close GPUs after a change (default 3)")
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
        limit=options.limit,
        every=options.every,
    )
    for path in options.pods:
        cases = trace_cases(
            nodes=nodes(options.nodes),
            pods=pods(path),
            seed=options.seed,
            limit=options.limit,
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
