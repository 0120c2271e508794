"""What is asked about a pool's moves, and which move begins."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vrampack.api.gpupool import MoveOutcome, MovesMode, MoveStatus
from vrampack.packing.firstfit import pack
from vrampack.packing.occupied import occupied
from vrampack.packing.problem import Host, Move, Placement
from vrampack.packing.residents import vacate
from vrampack.planning import moves
from vrampack.planning.candidates import objective_of
from vrampack.planning.cases import Case
from vrampack.planning.findings import MOST_BLOCKED, MOST_SUGGESTED, Findings, Question
from vrampack.planning.inventory import Inventory
from vrampack.planning.miglayouts import MOST_CUT_FOR, recut
from vrampack.planning.nominations import Nominee
from vrampack.planning.queueing import Queue, Waits
from vrampack.planning.refined import Pending
from vrampack.planning.snapshot import PodView, PoolView, Snapshot
from vrampack.planning.tenancy import Tenants, movers
from vrampack.planning.whole import whole


def question_of(
    snapshot: Snapshot,
    given: Sequence[Case],
    stock: Inventory,
    pool: PoolView,
    there: Tenants,
    left: tuple[Host, ...],
    waits: Sequence[tuple[str, Waits]],
    pending: Pending | None,
) -> Question | None:
    """What to look for beside the passes, where there is a GPUPool that can say what was found."""
    late = [each for _, each in waits if each.unplaced is not None and each.pod.uid not in moves.given_up(pool)]
    blocked = [each.unplaced.item for each in late if each.unplaced is not None]
    blocked.sort(key=lambda each: (-each.priority, -each.waited, -each.gpus * each.memory, each.key))
    # Who waits gets older all the time, which is no news.
    ageless = {each.key: replace(each, waited=0) for each in blocked}
    views = [view for view in snapshot.gpu_nodes if stock.pool_of[view.name] == pool.name]
    return Question(
        hosts=left,
        residents=movers(there, given, spared=moves.given_up(pool)),
        blocked=tuple(ageless[each.key] for each in blocked[:MOST_BLOCKED]),
        moves=pool.spec.moves.mode is not MovesMode.NEVER,
        limit=min(MOST_SUGGESTED, pool.spec.moves.per_hour),
        per_placement=pool.spec.moves.per_placement,
        whole=whole(there, stock.hosts[pool.name], [each for _, each in waits]),
        objective=objective_of(pool),
        pending=pending,
        recut=recut(pool, views, left, list(ageless.values())[:MOST_CUT_FOR]),
        better=pool.spec.refine_seconds > 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A move that begins, and the replica that has the room which it makes."""

    entry: MoveStatus
    nominee: Nominee | None


def begins(
    snapshot: Snapshot, stock: Inventory, pool: PoolView, question: Question | None, there: Tenants, queue: Queue
) -> Begun | None:
    """The next move, where moves are made and none is under way; never more in an hour than there may be."""
    found = snapshot.memory.findings.get(pool.name)
    left = moves.budget(pool, now=snapshot.now)
    if (
        pool.spec.moves.mode is not MovesMode.EVICT
        or question is None
        or found is None
        or found.question != question
        or any(entry.outcome is MoveOutcome.MOVING for entry in moves.entries(pool))
    ):
        return None
    listed = moves.entries(pool)
    for key, some in found.room.items():
        pod, _, _ = queue.asked[key]
        made = moves.waiting_of(listed, pod.uid)
        if len(some) <= min(left, pool.spec.moves.per_placement - made):
            return _for(pod, key, some, found, there, queue, now=snapshot.now)
    # What was found first may not be the best way, and a way that is left for another has moved replicas for nothing.
    if found.closing and left and (found.complete or not question.better):
        first = found.closing[0]
        because = f"GPU {', '.join(map(str, _indexes(stock, first.resident.devices)))} of "
        because += f"{first.resident.host} is to be empty"
        entry = moves.begun(
            first, pod=there.pods[first.resident.item.key], waiting=None, because=because, now=snapshot.now
        )
        return Begun(entry=entry, nominee=None)
    return None


def _for(
    pod: PodView,
    key: str,
    some: Sequence[Move],
    found: Findings,
    there: Tenants,
    queue: Queue,
    *,
    now: float,
) -> Begun | None:
    """The first of the moves that make room for a replica, which has that room from now on."""
    going = [each.resident for each in some]
    hosts = occupied(
        found.question.hosts,
        [Placement(item=each.resident.item, host=each.host, devices=each.devices) for each in some],
    )
    after = vacate(hosts, residents=found.question.residents, leaving=going)
    packing = pack(hosts=after, items=[next(each for each in queue.items if each.key == key)])
    if not packing.placed:
        return None
    because = f"room for {pod.namespace}/{pod.name}"
    entry = moves.begun(some[0], pod=there.pods[going[0].item.key], waiting=pod, because=because, now=now)
    (placement,) = packing.placed
    return Begun(entry=entry, nominee=Nominee(placement=placement, moves=tuple(going)))


def _indexes(stock: Inventory, uuids: Sequence[str]) -> list[int]:
    return sorted(stock.gpus[uuid].index for uuid in uuids)
