"""The policies that ``benchmarks.openb`` compares. Each scores one node for all classes of pods; the least score wins.

FGD is that of Weng et al. (Beware of Fragmentation, USENIX ATC 2023): it takes the GPU that keeps the most milli usable
for the classes that make up 95 % of the trace, with the integer scores of kube-scheduler.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.openb_trace import GPU_MILLI, Node, Shape
from vrampack.packing.arrays import BoolArray, IntArray
from vrampack.packing.fragmentation import Worth, scarcity
from vrampack.packing.knapsack import FloatArray
from vrampack.packing.mix import Typical


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One node as it stands: ``free`` milli by GPU."""

    model: int
    cpu: int
    ram: int
    free: IntArray


class Classes:
    """The classes of a trace in columns, and which models each may have."""

    def __init__(self, frequency: Mapping[Shape, float], models: Sequence[str]) -> None:
        self.shapes = list(frequency)
        self.frequency = np.array(list(frequency.values()))
        self.models = list(models)
        self.cpu = np.array([shape.cpu for shape in self.shapes])
        self.ram = np.array([shape.ram for shape in self.shapes])
        self.gpus = np.array([shape.gpus for shape in self.shapes])
        self.milli = np.array([shape.milli for shape in self.shapes])
        self.demand = self.gpus * self.milli
        self.allowed = np.array(
            [[shape.models is None or model in shape.models for model in models] for shape in self.shapes]
        )

    def room(self, state: State) -> tuple[BoolArray, BoolArray]:
        """By class, whether the node takes one, and which of its GPUs would."""
        able = state.free[None, :] >= self.milli[:, None]
        fits = (self.cpu <= state.cpu) & (self.ram <= state.ram) & self.allowed[:, state.model]
        return fits & (able.sum(axis=1) >= self.gpus), able


class Policy(Protocol):
    """How nodes are scored."""

    def column(self, state: State) -> tuple[FloatArray, IntArray]:
        """By class, the score of a node, infinite where it does not fit, and the GPU that a pod with one gets."""

    def by_model(self, free: IntArray) -> FloatArray | None:
        """By class and model, what is added to the scores now; None for nothing. ``free``: milli, by model."""


class FirstFit:
    """The first node by name, and its first GPU: first-fit decreasing has nothing to sort where pods come singly."""

    def __init__(self, classes: Classes) -> None:
        self._classes = classes

    def column(self, state: State) -> tuple[FloatArray, IntArray]:
        fits, able = self._classes.room(state)
        return np.where(fits, 0.0, np.inf), able.argmax(axis=1)

    def by_model(self, free: IntArray) -> FloatArray | None:
        del free


class BestFit:
    """The node with the least left of CPU and GPU, each as a share of the largest node, and its tightest GPU."""

    def __init__(self, classes: Classes, nodes: Sequence[Node]) -> None:
        self._classes = classes
        self._cpu = max(node.cpu for node in nodes)
        self._milli = max(node.gpus for node in nodes) * GPU_MILLI

    def column(self, state: State) -> tuple[FloatArray, IntArray]:
        classes = self._classes
        fits, able = classes.room(state)
        left = (state.cpu - classes.cpu) / self._cpu + (state.free.sum() - classes.demand) / self._milli
        score = -np.floor(100 * (1 - left / 2))
        return np.where(fits, score, np.inf), np.where(able, state.free, GPU_MILLI + 1).argmin(axis=1)

    def by_model(self, free: IntArray) -> FloatArray | None:
        del free


class FGD:
    """Fragmentation gradient descent."""

    def __init__(self, classes: Classes, *, popular: float = 0.95) -> None:
        self._classes = classes
        order = np.argsort(-classes.frequency, kind="stable")
        number = int((np.cumsum(classes.frequency[order]) < popular - 1e-12).sum()) + 1
        self._typical = order[:number]
        self._weight = classes.frequency[self._typical] / classes.frequency[self._typical].sum()

    def column(self, state: State) -> tuple[FloatArray, IntArray]:
        classes = self._classes
        fits, able = classes.room(state)
        one, place = np.nonzero(able & (fits & (classes.gpus == 1))[:, None])
        other = np.flatnonzero(fits & (classes.gpus != 1))
        after = np.repeat(state.free[None, :], 1 + len(one) + len(other), axis=0)
        lines = np.arange(1, 1 + len(one))
        after[lines, place] -= classes.milli[one]
        whole = np.flatnonzero(state.free == GPU_MILLI)
        for line, number in enumerate(other.tolist(), start=1 + len(one)):
            after[line, whole[: classes.gpus[number]]] = 0
        taken = np.concatenate((one, other))
        cpu = state.cpu - np.append(0, classes.cpu[taken])
        ram = state.ram - np.append(0, classes.ram[taken])
        fragments = self._fragments(state.model, cpu, ram, after)
        gained = np.floor(100 / (1 + np.exp((fragments[1:] - fragments[0]) / 1000)))
        score, gpu = np.full(len(fits), np.inf), np.zeros(len(fits), np.int64)
        table = np.full(able.shape, -np.inf)
        table[one, place] = gained[: len(one)]
        score[one], gpu[one] = -table[one].max(axis=1), table[one].argmax(axis=1)
        score[other] = -gained[len(one) :]
        return score, gpu

    def _fragments(self, model: int, cpu: IntArray, ram: IntArray, free: IntArray) -> FloatArray:
        """Milli that a typical pod can't use, for each state of a node of ``model``."""
        classes, typical = self._classes, self._typical
        able = free[:, None, :] >= classes.milli[typical][None, :, None]
        hosts = (classes.cpu[typical] <= cpu[:, None]) & (classes.ram[typical] <= ram[:, None])
        hosts &= (classes.allowed[typical, model] & (classes.gpus[typical] > 0))[None, :]
        hosts &= able.sum(axis=2) >= classes.gpus[typical][None, :]
        lost = np.where(hosts, (free[:, None, :] * ~able).sum(axis=2), free.sum(axis=1)[:, None])
        fragments: FloatArray = lost @ self._weight
        return fragments

    def by_model(self, free: IntArray) -> FloatArray | None:
        del free


class Vrampack:
    """The node that loses least of its worth to the trace's mix: ``vrampack.packing.fragmentation``."""

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self.mix = tuple(
            Typical(
                gpus=shape.gpus,
                memory=shape.milli,
                cpu=shape.cpu,
                products=None if shape.models is None else frozenset(shape.models),
                weight=weight,
            )
            for shape, weight in zip(classes.shapes, classes.frequency.tolist(), strict=True)
        )
        self.worth = Worth(self.mix, dict.fromkeys(classes.models, GPU_MILLI))
        pairs = np.stack((classes.milli, classes.cpu))
        self._alike, self._place = np.unique(pairs, axis=1, return_inverse=True)
        self.scarce: dict[str, float] = {}

    def column(self, state: State) -> tuple[FloatArray, IntArray]:
        classes, worth = self._classes, self.worth
        fits, able = classes.room(state)
        score, gpu = np.full(len(fits), np.inf), np.zeros(len(fits), np.int64)
        _, first, place = np.unique(state.free, return_index=True, return_inverse=True)
        product, cpu = np.full((1, len(state.free)), state.model), np.array([state.cpu])
        left = {"free": state.free.sum(), "capacity": np.int64(len(state.free) * GPU_MILLI)}
        one = np.flatnonzero(fits & (classes.gpus == 1))
        if len(one):
            kinds, kind = np.unique(self._place[one], return_inverse=True)
            memory, demand = self._alike[:, kinds]
            losses = worth.losses(
                product=product, free=state.free[None, :], cpu=cpu, memory=memory, demand=demand, only=first
            )
            found = worth.score(losses[0][kind][:, place], **left)
            found[~able[one]] = np.inf
            gpu[one], score[one] = found.argmin(axis=1), found.min(axis=1)
        other = np.flatnonzero(fits & (classes.gpus != 1))
        for gpus, milli in sorted({(classes.shapes[each].gpus, classes.shapes[each].milli) for each in other}):
            alike = other[(classes.gpus[other] == gpus) & (classes.milli[other] == milli)]
            losses = worth.losses_of_teams(
                product=product,
                free=state.free[None, :],
                cpu=cpu,
                memory=milli,
                demand=classes.cpu[alike],
                team=np.flatnonzero(able[alike[0]])[None, :gpus],
            )
            score[alike] = worth.score(losses[0], **left)
        return score, gpu

    def by_model(self, free: IntArray) -> FloatArray | None:
        models = self._classes.models
        self.scarce = scarcity(self.mix, dict(zip(models, free.tolist(), strict=True)))
        by_model = np.array([self.scarce[model] for model in models])
        if not by_model.any():
            return None
        added: FloatArray = self._classes.demand[:, None] / GPU_MILLI * by_model
        return added
