"""One pass over one pool: who is placed, who waits for what, who is evicted, and which move begins."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vrampack.api import names
from vrampack.api.gpupool import MovesMode, MoveStatus, Startup
from vrampack.api.modeldeploymentstatus import NominationStatus
from vrampack.packing.firstfit import pack
from vrampack.packing.occupied import occupied
from vrampack.packing.problem import Host, Move, Packing, Placement
from vrampack.packing.residents import vacated
from vrampack.planning import moves
from vrampack.planning.actions import EvictPods, PlacePod
from vrampack.planning.candidates import Eligibility, main_reason, objective_of
from vrampack.planning.cases import Case
from vrampack.planning.findings import MOST_BLOCKED, MOST_SUGGESTED, Findings, Question
from vrampack.planning.injection import style_of
from vrampack.planning.inventory import GPU, Inventory
from vrampack.planning.mechanisms import mechanism_of
from vrampack.planning.need import Need
from vrampack.planning.nominations import Nominee, eviction, freed, noted, preempting, standing
from vrampack.planning.queueing import Queue, Waits
from vrampack.planning.reasons import chosen
from vrampack.planning.snapshot import GPUNodeView, PodView, PoolView, Snapshot
from vrampack.planning.tenancy import Tenants, movers, running, tenants
from vrampack.planning.whole import whole
from vrampack.sharing.base import Claimed, Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is the same for all pools. ``patience``: seconds after which a replica goes by its age."""

    snapshot: Snapshot
    stock: Inventory
    given: Sequence[Case]
    eligible: Eligibility
    patience: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPass:
    """What came of it. ``waits`` and ``nominations`` by model; ``question``: what is to be looked for beside the
    passes, None while replicas are being placed; ``begun``: the move that begins."""

    placements: tuple[PlacePod, ...]
    waits: tuple[tuple[str, Waits], ...]
    evictions: tuple[EvictPods, ...]
    nominations: tuple[tuple[str, NominationStatus], ...]
    hosts: tuple[Host, ...]
    question: Question | None = None
    begun: MoveStatus | None = None


def pool_pass(context: Context, pool: PoolView, queue: Queue) -> PoolPass:
    """Places who fits, and frees room for who may have it."""
    snapshot, stock = context.snapshot, context.stock
    there = tenants(
        snapshot,
        stock,
        context.given,
        pool=pool.name,
        describe=running(context.eligible, pool=pool, hosts=stock.hosts[pool.name]),
    )
    nominated = _standing(queue, there, stock, pool)
    packing = pack(
        hosts=queue.hosts,
        items=queue.items,
        objective=objective_of(pool),
        patience=context.patience,
        reserve=[each.reservation for each in nominated.values()],
    )
    kept = [nominated[each.item.key] for each in packing.unplaced if each.item.key in nominated]
    hosts = occupied(queue.hosts, packing.placed, packing.cuts)
    fresh = _preempting(packing, kept, hosts, there, queue, pool)
    waits: list[tuple[str, Waits]] = []
    view = {view.name: view for view in snapshot.gpu_nodes}
    busy = _starting(stock) if pool.spec.startup is Startup.SERIALIZED else None
    now = {host.name: host for host in stock.hosts[pool.name]}
    successors = {placement.item.key for placement in queue.returning}
    placements: list[PlacePod] = []
    held_up: dict[str, Nominee] = {}
    for placement in (*queue.returning, *packing.placed):
        pod, need, case = queue.asked[placement.item.key]
        if placement.item.key in successors and not _fits(now[placement.host], placement):
            message = f"waits for the room on {placement.host} that is being freed for it"
            waits.append((case.model.key, Waits(pod=pod, need=need, reason="RoomBeingFreed", message=message)))
        elif busy is not None and (shared := busy & set(placement.devices)):
            message = (
                f"has room on {placement.host} and waits until the engine that starts on GPU "
                f"{', '.join(str(stock.gpus[each].index) for each in sorted(shared))} is ready"
            )
            waits.append((case.model.key, Waits(pod=pod, need=need, reason="GPUBusyStarting", message=message)))
            if pod.uid in noted(case.model.status):  # the room is there, and it keeps it
                held_up[placement.item.key] = Nominee(placement=placement)
        else:
            now[placement.host] = occupied([now[placement.host]], [placement])[0]
            placements.append(_action(pod, need, placement, stock, pool, view[placement.host]))
            if busy is not None:
                busy |= set(placement.devices)
    held = {uid: each.message for uid, each in snapshot.memory.held.items() if each.until > snapshot.now}
    nominees = {nominee.placement.item.key: nominee for nominee in (*kept, *fresh)}
    told = {**nominees, **held_up}
    aged = {
        each.item.key: Placement(item=each.item, host=each.host, devices=each.devices)
        for each in packing.reserved
        if each.item.key not in nominees
    }
    for nominee in nominees.values():
        pod, need, case = queue.asked[nominee.placement.item.key]
        message = freed(nominee, there.pods, held)
        waits.append((case.model.key, Waits(pod=pod, need=need, reason="RoomBeingFreed", message=message)))
    for unplaced in packing.unplaced:
        if unplaced.item.key not in nominees:
            pod, need, case = queue.asked[unplaced.item.key]
            reason = main_reason(unplaced.rejected)
            late = Waits(
                pod=pod,
                need=need,
                reason=reason,
                message="",
                unplaced=unplaced,
                kept=aged.get(unplaced.item.key),
            )
            waits.append((case.model.key, late))
    left = occupied(hosts, [*(each.placement for each in nominees.values()), *aged.values()])
    question = None if placements else _question(context, pool, there, left, waits)
    begun = _begins(context, pool, question, there, queue)
    if begun is not None and begun.nominee is not None:
        told[begun.nominee.placement.item.key] = begun.nominee
    return PoolPass(
        placements=tuple(placements),
        waits=tuple(waits),
        evictions=tuple(
            eviction(nominee, winner=pod, model=case.model, pods=there.pods)
            for nominee in kept
            if nominee.evicts and not any(there.pods[each.item.key].uid in held for each in nominee.evicts)
            for pod, _, case in [queue.asked[nominee.placement.item.key]]
        ),
        nominations=tuple(
            (case.model.key, nominee.to_status(pod, there.pods))
            for key, nominee in told.items()
            for pod, _, case in [queue.asked[key]]
        ),
        hosts=left,
        question=question,
        begun=None if begun is None else begun.entry,
    )


def _preempting(
    packing: Packing,
    kept: Sequence[Nominee],
    hosts: tuple[Host, ...],
    there: Tenants,
    queue: Queue,
    pool: PoolView,
) -> tuple[Nominee, ...]:
    """Who gets the room of others, beside those who have been promised it already."""
    soon = tuple(
        vacated(host, residents=there.residents, leaving=there.leaving)
        for host in occupied(hosts, [nominee.placement for nominee in kept])
    )
    gone = {each.item.key for nominee in kept for each in (*nominee.evicts, *nominee.moves)}
    promised = {nominee.placement.item.key for nominee in kept}
    lowest = min((each.item.priority for each in there.residents), default=math.inf)
    return preempting(
        [each for each in packing.unplaced if each.item.key not in promised],
        hosts=soon,
        residents=[each for each in there.staying if each.item.key not in gone],
        may={key: pod.preempts and pod.priority > lowest for key, (pod, _, _) in queue.asked.items()},
        objective=objective_of(pool),
    )


def _question(
    context: Context, pool: PoolView, there: Tenants, left: tuple[Host, ...], waits: Sequence[tuple[str, Waits]]
) -> Question | None:
    """What to look for beside the passes, where there is a GPUPool that can say what was found."""
    late = [each for _, each in waits if each.unplaced is not None and each.pod.uid not in moves.given_up(pool)]
    blocked = [each.unplaced.item for each in late if each.unplaced is not None]
    blocked.sort(key=lambda each: (-each.priority, -each.waited, -each.gpus * each.memory, each.key))
    # Who waits gets older all the time, which is no news.
    ageless = {each.key: replace(each, waited=0) for each in blocked}
    return Question(
        hosts=left,
        residents=movers(there, context.given, spared=moves.given_up(pool)),
        blocked=tuple(ageless[each.key] for each in blocked[:MOST_BLOCKED]),
        moves=pool.spec.moves.mode is not MovesMode.NEVER,
        limit=min(MOST_SUGGESTED, pool.spec.moves.per_hour),
        per_placement=pool.spec.moves.per_placement,
        whole=whole(there, context.stock.hosts[pool.name], [each for _, each in waits]),
        objective=objective_of(pool),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A move that begins, and the replica that has the room which it makes."""

    entry: MoveStatus
    nominee: Nominee | None


def _begins(context: Context, pool: PoolView, question: Question | None, there: Tenants, queue: Queue) -> _Begun | None:
    """The next move, where moves are made and none is under way; never more in an hour than there may be."""
    snapshot = context.snapshot
    found = snapshot.memory.findings.get(pool.name)
    left = moves.budget(pool, now=snapshot.now)
    if (
        pool.spec.moves.mode is not MovesMode.EVICT
        or question is None
        or found is None
        or found.question != question
        or any(case.moving for case in context.given if case.pool == pool.name)
    ):
        return None
    listed = moves.entries(pool)
    for key, some in found.room.items():
        pod, _, _ = queue.asked[key]
        made = moves.waiting_of(listed, pod.uid)
        if len(some) <= min(left, pool.spec.moves.per_placement - made):
            return _for(pod, key, some, found, there, queue, now=snapshot.now)
    if found.closing and left:
        first = found.closing[0]
        because = f"GPU {', '.join(map(str, _indexes(context.stock, first.resident.devices)))} of "
        because += f"{first.resident.host} is to be empty"
        entry = moves.begun(
            first, pod=there.pods[first.resident.item.key], waiting=None, because=because, now=snapshot.now
        )
        return _Begun(entry=entry, nominee=None)
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
) -> _Begun | None:
    """The first of the moves that make room for a replica, which has that room from now on."""
    going = [each.resident for each in some]
    after = tuple(
        vacated(host, residents=found.question.residents, leaving=going)
        for host in occupied(
            found.question.hosts,
            [Placement(item=each.resident.item, host=each.host, devices=each.devices) for each in some],
        )
    )
    packing = pack(hosts=after, items=[next(each for each in queue.items if each.key == key)])
    if not packing.placed:
        return None
    because = f"room for {pod.namespace}/{pod.name}"
    entry = moves.begun(some[0], pod=there.pods[going[0].item.key], waiting=pod, because=because, now=now)
    (placement,) = packing.placed
    return _Begun(entry=entry, nominee=Nominee(placement=placement, moves=tuple(going)))


def _indexes(stock: Inventory, uuids: Sequence[str]) -> list[int]:
    return sorted(stock.gpus[uuid].index for uuid in uuids)


def _standing(queue: Queue, there: Tenants, stock: Inventory, pool: PoolView) -> dict[str, Nominee]:
    """The nominations that hold, by the keys of their replicas."""
    uids = {key: pod.uid for key, pod in there.pods.items()}
    nominations = {key: noted(case.model.status).get(pod.uid) for key, (pod, _, case) in queue.asked.items()}
    if not any(nominations.values()):
        return {}
    soon = [vacated(host, residents=there.residents, leaving=there.leaving) for host in queue.hosts]
    found: dict[str, Nominee] = {}
    moved = frozenset(each.waiting_uid for each in moves.entries(pool)) - moves.given_up(pool)
    for each in queue.items:
        if (nomination := nominations[each.key]) is not None:
            nominee = standing(
                each,
                nomination,
                hosts=soon,
                residents=there.staying,
                uids=uids,
                lingering=stock.lingering,
                moved=moved,
            )
            if nominee is not None:
                found[each.key] = nominee
    return found


def _fits(host: Host, placement: Placement) -> bool:
    """Whether a replica can go where it is to go even now, while those that leave hold all that they have: bytes, CPU,
    RAM and the pod's slot, and their promise of whom they have beside them."""
    there = replace(host, devices=tuple(each for each in host.devices if each.id in placement.devices))
    return bool(pack(hosts=[there], items=[placement.item]).placed)


def _starting(stock: Inventory) -> set[str]:
    """GPUs on which an engine starts for the first time.

    One that got through its start holds up nobody, whether it is ready now or not, nor one that crashed or can't pull.
    """
    return {
        uuid
        for uuid, pods in stock.tenants.items()
        if any(not (pod.ready or pod.started or pod.deleting or pod.restarts or pod.failure) for pod in pods)
    }


def _action(
    pod: PodView, need: Need, placement: Placement, stock: Inventory, pool: PoolView, view: GPUNodeView
) -> PlacePod:
    gpus: list[GPU] = sorted((stock.gpus[each] for each in placement.devices), key=lambda gpu: gpu.index)
    annotations = mechanism_of(pool).annotations(
        Claimed(
            gpus=[gpu.uuid for gpu in gpus],
            bytes=need.bytes,
            style=style_of(view.status, pool=pool.spec),
            share=Share(
                kv_cache=need.kv, runtime_context=need.context, communication=need.comm, fraction=need.fraction
            ),
            usable_bytes=min(gpu.usable for gpu in gpus),
        )
    )
    because = "" if placement.why is None else chosen(placement.why)
    return PlacePod(
        pod=pod,
        node=placement.host,
        gpus=tuple(gpu.uuid for gpu in gpus),
        annotations={**annotations, **({names.BECAUSE: because} if because else {})},
        because=because,
    )
