"""Sequences of replicas that come and go, one at a time: random ones, and those of a trace."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.openb_trace import Pod
from vrampack.packing.problem import Item, Spread
from vrampack.units import GIB, MIB

BILLIONS = (0.6, 1.2, 1.7, 3.2, 4.0, 7.2, 8.0, 9.2, 12.2, 14.8, 20.9, 23.6, 27.4, 30.5, 32.8)
"""Parameters of models that are much used."""
PRECISIONS = (2.0, 1.0, 0.55)
"""Bytes of a parameter: bf16, fp8, four bits with scales."""
CACHES = (1, 2, 4, 8, 16)
"""GiB of KV cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One arrival, or with ``leaves`` one departure, of the replica ``item``."""

    item: Item
    leaves: bool = False


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
    """``count`` models, each replica on one GPU of at most ``largest`` bytes: weights at a precision, a KV cache and
    1.5 GiB for the rest, in steps of 64 MiB."""
    shares = sorted(
        int((size * 1e9 * width + (cache + 1.5) * GIB) / (64 * MIB)) * 64 * MIB
        for size in BILLIONS
        for width in PRECISIONS
        for cache in CACHES
    )
    draw = random.Random(seed)
    chosen = draw.sample([share for share in shares if share <= largest], count)
    return [
        Item(key=f"model-{number}", group=f"model-{number}", gpus=1, memory=share)
        for number, share in enumerate(chosen)
    ]


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
