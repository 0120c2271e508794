"""The openb trace (Alibaba cluster-trace-gpu-v2023) and the order in which its pods arrive.

Node files have the columns sn, cpu_milli, memory_mib, gpu, model; pod files name, cpu_milli, memory_mib, num_gpu,
gpu_milli and, where there are constraints, gpu_spec (models, separated by a bar). A GPU has 1000 milli.
"""

import csv
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GPU_MILLI = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node: CPU in thousandths of a core, RAM in MiB."""

    name: str
    cpu: int
    ram: int
    gpus: int
    model: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shape:
    """What a pod asks for: the class that it belongs to. ``milli``: on each of ``gpus``; ``models``: None for any."""

    cpu: int
    ram: int
    gpus: int
    milli: int
    models: tuple[str, ...] | None

    @property
    def demand(self) -> int:
        """Milli over all GPUs."""
        return self.gpus * self.milli


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod. ``created`` and ``deleted``: seconds; None where the file does not say."""

    name: str
    shape: Shape
    created: int | None = None
    deleted: int | None = None


def nodes(path: Path) -> list[Node]:
    """The nodes with GPUs, by name."""
    with path.open(newline="") as file:
        found = [
            Node(
                name=row["sn"],
                cpu=int(row["cpu_milli"]),
                ram=int(row["memory_mib"]),
                gpus=int(row["gpu"]),
                model=row["model"],
            )
            for row in csv.DictReader(file)
        ]
    return sorted((node for node in found if node.gpus), key=lambda node: node.name)


def pods(path: Path) -> list[Pod]:
    """The pods, by name."""
    with path.open(newline="") as file:
        return sorted((_pod(row) for row in csv.DictReader(file)), key=lambda pod: pod.name)


def _pod(row: dict[str, str]) -> Pod:
    models = row.get("gpu_spec") or ""
    gpus = int(row["num_gpu"])
    return Pod(
        name=row["name"],
        shape=Shape(
            cpu=int(row["cpu_milli"]),
            ram=int(row["memory_mib"]),
            gpus=gpus,
            milli=int(row["gpu_milli"]) if gpus else 0,
            models=tuple(sorted(set(models.split("|")))) if models else None,
        ),
        created=int(row["creation_time"]) if row.get("creation_time") else None,
        deleted=int(row["deletion_time"]) if row.get("deletion_time") else None,
    )


def trace_name(path: Path) -> str:
    """``default`` for ``openb_pod_list_default.csv``; the file's name where it is called otherwise."""
    return path.stem.removeprefix("openb_pod_list_")


def arrivals(pods: Sequence[Pod], *, milli: int, seed: int, load: float = 1.3) -> list[Pod]:
    """``pods`` in a random order, inflated to ``load`` times ``milli`` of GPU: copies drawn with replacement are
    appended until the next one would exceed it; where there are too many, random ones are taken out."""
    draw = random.Random(seed)
    order = list(pods)
    draw.shuffle(order)
    demand, most = sum(pod.shape.demand for pod in order), load * milli
    while demand > most:
        demand -= order.pop(draw.randrange(len(order))).shape.demand
    while order:
        pod = draw.choice(pods)
        demand += pod.shape.demand
        if demand > most:
            break
        order.append(pod)
    return order


def frequencies(pods: Sequence[Pod]) -> dict[Shape, float]:
    """How much of the trace each class makes up, by count; what a policy may know of it."""
    counts = Counter(pod.shape for pod in pods)
    return {shape: counts[shape] / len(pods) for shape in sorted(counts, key=_order)}


def _order(shape: Shape) -> tuple[object, ...]:
    return shape.gpus, shape.milli, shape.cpu, shape.ram, shape.models or ()
