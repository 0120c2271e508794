"""Which waiting replica goes onto which GPUs now, and why the others wait: pool by pool."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vrampack.api.gpupool import MoveStatus
from vrampack.api.modeldeploymentstatus import NominationStatus
from vrampack.packing.problem import Host
from vrampack.planning.actions import EvictPods, PlacePod
from vrampack.planning.candidates import Eligibility
from vrampack.planning.cases import Case
from vrampack.planning.findings import Question
from vrampack.planning.inventory import Inventory
from vrampack.planning.poolpass import Context, pool_pass
from vrampack.planning.queueing import Waits, queue, without_pool
from vrampack.planning.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The outcome. ``hosts``: what is left by pool once all of this is in place."""

    placements: tuple[PlacePod, ...]
    waits: Mapping[str, tuple[Waits, ...]]
    hosts: Mapping[str, tuple[Host, ...]]
    evictions: tuple[EvictPods, ...] = ()
    nominations: Mapping[str, tuple[NominationStatus, ...]] = field(default_factory=dict)
    """By model: who waits for room that is being freed."""
    questions: Mapping[str, Question] = field(default_factory=dict)
    """By pool: what to look for beside the passes."""
    begun: Mapping[str, MoveStatus] = field(default_factory=dict)
    """By pool: the move that begins."""


def place(
    snapshot: Snapshot,
    stock: Inventory,
    given: Sequence[Case],
    eligible: Eligibility,
    *,
    patience: int,
    everywhere: bool = False,
) -> Placed:
    """Packs the gated pods of all models, pool by pool. ``patience``: seconds after which a replica goes by its age.
    ``everywhere``: moves are looked for in pools without an object, too."""
    pools = {pool.name: pool for pool in snapshot.pools}
    by_pool: dict[str, list[Case]] = defaultdict(list)
    waits: dict[str, list[Waits]] = defaultdict(list)
    for case in given:
        pool = pools.get(case.pool)
        if pool is not None and not pool.problem:
            by_pool[case.pool].append(case)
        else:
            waits[case.model.key] += without_pool(case, pool)
    context = Context(
        snapshot=snapshot, stock=stock, given=given, eligible=eligible, patience=patience, everywhere=everywhere
    )
    nominations: dict[str, list[NominationStatus]] = defaultdict(list)
    passes = {}
    for name, members in sorted(by_pool.items()):
        unclaimed = snapshot.memory.unclaimed
        waiting = queue(members, pools[name], stock, eligible, waits, unclaimed=unclaimed, now=snapshot.now)
        found = passes[name] = pool_pass(context, pools[name], waiting)
        for key, each in found.waits:
            waits[key].append(each)
        for key, nomination in found.nominations:
            nominations[key].append(nomination)
    return Placed(
        placements=tuple(each for found in passes.values() for each in found.placements),
        waits={key: tuple(each) for key, each in waits.items()},
        hosts={**stock.hosts, **{name: found.hosts for name, found in passes.items()}},
        evictions=tuple(each for found in passes.values() for each in found.evictions),
        nominations={key: tuple(each) for key, each in nominations.items()},
        questions={name: found.question for name, found in passes.items() if found.question is not None},
        begun={name: found.begun for name, found in passes.items() if found.begun is not None},
    )
