"""Pods that arrive one at a time on a real cluster: how much of its GPUs each policy can hand out.

    python -m benchmarks.openb --nodes openb_node_list_gpu_node.csv --pods openb_pod_list_default.csv --seeds 10
    python -m benchmarks.openb --nodes FILE --pods FILE FILE --seeds 3 --random-ties -o json

The protocol is that of Weng et al. (Beware of Fragmentation, USENIX ATC 2023), so the figures stand beside the
published ones: the nodes are empty; the pods of a trace are shuffled and inflated by copies to 1.3 times the cluster's
GPUs; they arrive one by one, none leaves, and one that fits nowhere is dropped. Reported is the mean share of all GPU
milli that is handed out, over the arrivals at which the demand that has arrived rounds to 100 % of the GPUs; a run ends
there. Seeds count from 42. Ties go to the first node by name, or with ``--random-ties`` to a random one.

A policy knows the nodes, how often each class of pods occurs in the trace, and what has arrived; never what comes.
``vrampack`` may move up to two running pods for one that would be dropped; ``vrampack-no-moves`` moves none. ``moves``
and ``admissions`` are those up to the 100 % mark; ``seconds`` is wall clock of one run. All figures are means of the
seeds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.openb_policies import FGD, BestFit, Classes, FirstFit, Policy, State, Vrampack
from benchmarks.openb_trace import GPU_MILLI, Node, Pod, arrivals, frequencies, nodes, pods, trace_name
from vrampack.packing.fragmentation import LeastFragmentation
from vrampack.packing.moves import make_room
from vrampack.packing.problem import Device, Host, Item, Resident, Spread
from vrampack.packing.tenancy import Tenancy

POLICIES = ("ffd", "best-fit", "fgd", "vrampack", "vrampack-no-moves")
MOVES = 2
"""That a blocked pod may cause."""
REFRESH = 0.01
"""Of the cluster's GPUs: after so much demand a policy looks at the cluster as a whole again."""

PUBLISHED: Mapping[str, tuple[float, float]] = {
    "cpu050": (93.56, 95.00),
    "cpu100": (93.26, 95.21),
    "cpu200": (92.15, 94.82),
    "cpu250": (91.21, 93.20),
    "default": (92.86, 95.23),
    "gpushare100": (84.62, 86.64),
    "gpushare40": (91.44, 93.96),
    "gpushare60": (89.06, 91.26),
    "gpushare80": (86.66, 89.08),
    "gpuspec10": (93.10, 94.66),
    "gpuspec20": (88.46, 94.66),
    "gpuspec25": (85.67, 93.91),
    "gpuspec33": (80.40, 87.84),
    "multigpu20": (93.73, 95.53),
    "multigpu30": (94.57, 96.36),
    "multigpu40": (95.10, 96.91),
    "multigpu50": (95.62, 97.09),
}
"""Best fit and FGD at 100 % of arrivals, means of ten seeds, in the authors' own simulator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One policy on one trace."""

    allocation_percent: float
    moves: float
    admissions: float
    seconds: float


class Cluster:
    """The nodes as they stand, and the score of each for each class of pods: after an arrival one node is scored anew,
    and equal nodes share their scores."""

    def __init__(self, nodes: Sequence[Node], classes: Classes, policy: Policy) -> None:
        self._classes, self._policy = classes, policy
        nodes = sorted(nodes, key=lambda node: node.name)
        self._model = np.array([classes.models.index(node.model) for node in nodes])
        self._start = np.cumsum([0, *(node.gpus for node in nodes)])
        self.tenancy = Tenancy([_host(node) for node in nodes])
        self.score = np.empty((len(classes.shapes), len(nodes)))
        self._gpu = np.empty((len(classes.shapes), len(nodes)), np.int64)
        self._known: dict[tuple[object, ...], tuple[object, object]] = {}
        self._added = None
        self._items = [
            Item(
                key="",
                group=f"class-{number}",
                gpus=shape.gpus,
                memory=shape.milli,
                cpu=shape.cpu,
                host_memory=shape.ram,
                products=None if shape.models is None else frozenset(shape.models),
                spread=Spread.IGNORE,
            )
            for number, shape in enumerate(classes.shapes)
        ]
        for place in range(len(nodes)):
            self.refresh(place)

    def refresh(self, place: int) -> None:
        """The node at ``place`` changed."""
        board = self.tenancy.board
        free = board.free[self._start[place] : self._start[place + 1]]
        cpu, ram, model = int(board.cpu[place]), int(board.ram[place]), int(self._model[place])
        key = (model, cpu, ram, free.tobytes())
        if key not in self._known:
            self._known[key] = self._policy.column(State(model=model, cpu=cpu, ram=ram, free=free))
        self.score[:, place], self._gpu[:, place] = self._known[key]

    def look(self) -> None:
        """The policy looks at the cluster as a whole."""
        board = self.tenancy.board
        free = np.bincount(self._model[board.host], weights=board.free, minlength=len(self._classes.models))
        self._added = self._policy.by_model(free.astype(np.int64))

    def choose(self, number: int, draw: np.random.Generator | None) -> int | None:
        """The best node for a pod of class ``number``, None where it fits nowhere. ``draw``: for random ties."""
        score = self.score[number]
        if self._added is not None:
            score = score + self._added[number][self._model]
        best = int(score.argmin())
        if score[best] == np.inf:
            return None
        if draw is None:
            return best
        ties = np.flatnonzero(score == score[best])
        return int(ties[draw.integers(len(ties))])

    def item(self, number: int, key: str) -> Item:
        """A pod of class ``number``."""
        like = self._items[number]
        return Item(
            key=key,
            group=like.group,
            gpus=like.gpus,
            memory=like.memory,
            cpu=like.cpu,
            host_memory=like.host_memory,
            products=like.products,
            spread=like.spread,
        )

    def admit(self, number: int, place: int, key: str) -> None:
        """A pod of class ``number`` goes to the node at ``place``."""
        board, item = self.tenancy.board, self.item(number, key)
        start = int(self._start[place])
        if item.gpus == 1:
            chosen = [int(self._gpu[number, place])]
        else:
            free = board.free[start : self._start[place + 1]]
            chosen = np.flatnonzero(free >= item.memory)[: item.gpus].tolist()
        devices = tuple(board.devices[start + gpu].id for gpu in chosen)
        self.tenancy.enter(Resident(item=item, host=board.names[place], devices=devices))
        self.refresh(place)


def _host(node: Node) -> Host:
    return Host(
        name=node.name,
        cpu=node.cpu,
        memory=node.ram,
        devices=tuple(
            Device(id=str(gpu), product=node.model, capacity=GPU_MILLI, free=GPU_MILLI) for gpu in range(node.gpus)
        ),
    )


def simulate(
    *,
    nodes: Sequence[Node],
    classes: Classes,
    policy: Policy,
    order: Sequence[Pod],
    moves: int = 0,
    draw: np.random.Generator | None = None,
) -> Result:
    """One run. ``moves``: that a blocked pod may cause, with ``Vrampack`` only."""
    began = time.perf_counter()
    cluster = Cluster(nodes, classes, policy)
    number_of = {shape: number for number, shape in enumerate(classes.shapes)}
    total = GPU_MILLI * sum(node.gpus for node in nodes)
    arrived = used = moved = admitted = 0
    look = 0.0
    shares: list[float] = []
    stuck: dict[int, int] = {}
    for turn, pod in enumerate(order):
        if arrived >= look * total:
            cluster.look()
            look += REFRESH
        number = number_of[pod.shape]
        arrived += pod.shape.demand
        if round(100 * arrived / total) > 100:
            break
        place = cluster.choose(number, draw)
        if place is None and moves and isinstance(policy, Vrampack) and stuck.get(number) != moved:
            made = _make_room(cluster, policy, cluster.item(number, str(turn)), moves)
            moved += made
            if made:
                place = cluster.choose(number, draw)
            else:  # nobody leaves, so until something is moved there will be no room either
                stuck[number] = moved
        if place is not None:
            cluster.admit(number, place, str(turn))
            used += pod.shape.demand
            admitted += 1
        if round(100 * arrived / total) == 100:
            shares.append(100 * used / total)
    return Result(
        allocation_percent=statistics.fmean(shares or [100 * used / total]),
        moves=moved,
        admissions=admitted,
        seconds=time.perf_counter() - began,
    )


def _make_room(cluster: Cluster, policy: Vrampack, item: Item, limit: int) -> int:
    """Moves what is in the way of ``item``; how many there were."""
    rule = LeastFragmentation(policy.worth, scarce=policy.scarce, used_first=False)
    moves = make_room(cluster.tenancy, item=item, limit=limit, rule=rule) or ()
    place_of = cluster.tenancy.board.place_of
    for name in sorted({name for move in moves for name in (move.host, move.resident.host)}):
        cluster.refresh(place_of[name])
    return len(moves)


def compare(
    *, nodes: Sequence[Node], pods: Sequence[Pod], seeds: int, random_ties: bool, policies: Sequence[str] = POLICIES
) -> dict[str, Result]:
    """Each of ``policies`` on one trace: the means of ``seeds`` runs."""
    classes = Classes(frequencies(pods), sorted({node.model for node in nodes}))
    build: dict[str, Callable[[], Policy]] = {
        "ffd": lambda: FirstFit(classes),
        "best-fit": lambda: BestFit(classes, nodes),
        "fgd": lambda: FGD(classes),
        "vrampack": lambda: Vrampack(classes),
        "vrampack-no-moves": lambda: Vrampack(classes),
    }
    milli = GPU_MILLI * sum(node.gpus for node in nodes)
    found: dict[str, Result] = {}
    for name in policies:
        runs = [
            simulate(
                nodes=nodes,
                classes=classes,
                policy=build[name](),
                order=arrivals(pods, milli=milli, seed=seed),
                moves=MOVES if name == "vrampack" else 0,
                draw=np.random.default_rng(seed) if random_ties else None,
            )
            for seed in range(42, 42 + seeds)
        ]
        means = {key: statistics.fmean(asdict(run)[key] for run in runs) for key in asdict(runs[0])}
        found[name] = Result(**means)
    return found


def table(results: Mapping[str, Mapping[str, Result]]) -> str:
    """The figures, with the published ones where there are any."""
    lines = ["trace        policy             allocation %  published  moves  admissions  seconds"]
    for trace, policies in results.items():
        known = dict(zip(("best-fit", "fgd"), PUBLISHED.get(trace, ()), strict=False))
        for name, result in policies.items():
            published = f"{known[name]:.2f}" if name in known else ""
            lines.append(
                f"{trace:12} {name:18} {result.allocation_percent:12.2f}  {published:>9}  {result.moves:5.0f}"
                f"  {result.admissions:10.0f}  {result.seconds:7.2f}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.openb", description="Online packing on the openb trace")
    parser.add_argument("--nodes", type=Path, required=True, help="the node list")
    parser.add_argument("--pods", type=Path, required=True, nargs="+", help="pod lists, one trace each")
    parser.add_argument("--seeds", type=int, default=10, help="runs of each policy, from seed 42 (default 10)")
    parser.add_argument("--random-ties", action="store_true", help="ties go to a random node instead of the first")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES, help="only these")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    cluster = nodes(options.nodes)
    results = {
        trace_name(path): compare(
            nodes=cluster,
            pods=pods(path),
            seeds=options.seeds,
            random_ties=options.random_ties,
            policies=options.policies,
        )
        for path in options.pods
    }
    if options.output == "json":
        plain = {trace: {name: asdict(result) for name, result in each.items()} for trace, each in results.items()}
        print(json.dumps(plain, indent=2))
    else:
        print(table(results))


if __name__ == "__main__":
    main()
