"""One pass over one pool: who is placed, who waits for what, who is evicted, and which move begins."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from vrampack.api import names
from vrampack.api.gpupool import MoveStatus, Startup
from vrampack.api.modeldeploymentstatus import NominationStatus
from vrampack.packing.firstfit import pack
from vrampack.packing.occupied import occupied
from vrampack.packing.problem import Host, Packing, Placement
from vrampack.packing.residents import vacate
from vrampack.planning import moves
from vrampack.planning.actions import EvictPods, PlacePod
from vrampack.planning.candidates import Eligibility, main_reason, objective_of
from vrampack.planning.cases import Case
from vrampack.planning.filling import rule_of
from vrampack.planning.findings import Question
from vrampack.planning.injection import style_of
from vrampack.planning.inventory import GPU, Inventory
from vrampack.planning.mechanisms import mechanism_of
from vrampack.planning.movestart import begins, question_of
from vrampack.planning.need import Need
from vrampack.planning.nominations import Nominee, eviction, freed, noted, preempting, standing
from vrampack.planning.queueing import Queue, Waits
from vrampack.planning.reasons import chosen
from vrampack.planning.refined import Pending, better, pending
from vrampack.planning.snapshot import GPUNodeView, PodView, PoolView, Snapshot
from vrampack.planning.tenancy import Tenants, running, tenants
from vrampack.sharing.base import Claimed, Share

_BUSY: Final = "GPUBusyStarting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is the same for all pools. ``patience``: seconds after which a replica goes by its age."""

    snapshot: Snapshot
    stock: Inventory
    given: Sequence[Case]
    eligible: Eligibility
    patience: int
    everywhere: bool = False
    """Whether moves are looked for in pools without an object, too: there a person asks."""


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
    views = {view.name: view for view in snapshot.gpu_nodes}

    @cache
    def there() -> Tenants:  # a look at every pod, which most passes of a burst do without
        describe = running(context.eligible, pool=pool, hosts=stock.hosts[pool.name])
        return tenants(snapshot, stock, context.given, pool=pool.name, describe=describe)

    nominated = _standing(queue, there, stock, pool)
    packing = _planned(context, pool, queue, nominated)
    kept = [nominated[each.item.key] for each in packing.unplaced if each.item.key in nominated]
    hosts = occupied(queue.hosts, packing.placed, packing.cuts)
    fresh = _preempting(packing, kept, hosts, there, queue, pool)
    waits: list[tuple[str, Waits]] = []
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
            waits.append((case.model.key, Waits(pod=pod, need=need, reason=_BUSY, message=message)))
            if pod.uid in noted(case.model.status):  # the room is there, and it keeps it
                held_up[placement.item.key] = Nominee(placement=placement)
        else:
            now[placement.host] = occupied([now[placement.host]], [placement])[0]
            placements.append(_action(pod, need, placement, stock, pool, views[placement.host]))
            if busy is not None:
                busy |= set(placement.devices)
    held = {uid: each.message for uid, each in snapshot.memory.held.items() if each.until > snapshot.now}
    nominees = {nominee.placement.item.key: nominee for nominee in (*kept, *fresh)}
    told = {**nominees, **held_up}
    reserved = [
        Placement(item=each.item, host=each.host, devices=each.devices)
        for each in packing.reserved
        if each.item.key not in nominees
    ]
    aged = {place.item.key: place for place in reversed(reserved)}  # of several, the nearest, which comes first
    for nominee in nominees.values():
        pod, need, case = queue.asked[nominee.placement.item.key]
        message = freed(nominee, there().pods, held)
        waits.append((case.model.key, Waits(pod=pod, need=need, reason="RoomBeingFreed", message=message)))
    for unplaced in packing.unplaced:
        if unplaced.item.key not in nominees:
            pod, need, case = queue.asked[unplaced.item.key]
            late = Waits(
                pod=pod,
                need=need,
                reason=main_reason(unplaced.rejected),
                message="",
                unplaced=unplaced,
                kept=aged.get(unplaced.item.key),
            )
            waits.append((case.model.key, late))
    left = occupied(hosts, [*(each.placement for each in nominees.values()), *reserved])
    question = begun = None
    if not placements and (pool.generation or context.everywhere):
        asked = None if nominated else _pending(context, pool, queue, packing, waits)
        question = question_of(snapshot, context.given, stock, pool, there(), left, waits, asked)
        begun = begins(snapshot, stock, pool, question, there(), queue)
    if begun is not None and begun.nominee is not None:
        told[begun.nominee.placement.item.key] = begun.nominee
    return PoolPass(
        placements=tuple(placements),
        waits=tuple(waits),
        evictions=tuple(
            eviction(nominee, winner=pod, model=case.model, pods=there().pods)
            for nominee in kept
            if nominee.evicts and not any(there().pods[each.item.key].uid in held for each in nominee.evicts)
            for pod, _, case in [queue.asked[nominee.placement.item.key]]
        ),
        nominations=tuple(
            (case.model.key, nominee.to_status(pod, there().pods))
            for key, nominee in told.items()
            for pod, _, case in [queue.asked[key]]
        ),
        hosts=left,
        question=question,
        begun=None if begun is None else begun.entry,
    )


def _planned(context: Context, pool: PoolView, queue: Queue, nominated: Mapping[str, Nominee]) -> Packing:
    """The first plan, or a better one that was found for those that wait. Room that is being freed stays as it is."""
    first = pack(
        hosts=queue.hosts,
        items=queue.items,
        objective=objective_of(pool),
        patience=context.patience,
        reserve=[each.reservation for each in nominated.values()],
        rule=rule_of(context.given, pool, waiting=len(queue.items)),
    )
    found = context.snapshot.memory.findings.get(pool.name)
    if nominated or found is None or found.question.pending is None or found.plan is None:
        return first
    return better(
        first,
        found.plan,
        asked=found.question.pending,
        hosts=queue.hosts,
        items=queue.items,
        objective=objective_of(pool),
        patience=context.patience,
    )


def _pending(
    context: Context, pool: PoolView, queue: Queue, packing: Packing, waits: Sequence[tuple[str, Waits]]
) -> Pending | None:
    """Those for whom a better plan is worth looking for, while engines start and before they take their places."""
    if pool.spec.refine_seconds == 0 or packing.reserved or not any(each.reason == _BUSY for _, each in waits):
        return None
    return pending(queue.hosts, queue.items, packing, patience=context.patience)


def _preempting(
    packing: Packing,
    kept: Sequence[Nominee],
    hosts: tuple[Host, ...],
    tenants_: Callable[[], Tenants],
    queue: Queue,
    pool: PoolView,
) -> tuple[Nominee, ...]:
    """Who gets the room of others, beside those who have been promised it already."""
    promised = {nominee.placement.item.key for nominee in kept}
    blocked = [each for each in packing.unplaced if each.item.key not in promised]
    if not blocked:
        return ()
    there = tenants_()
    soon = vacate(
        occupied(hosts, [nominee.placement for nominee in kept]), residents=there.residents, leaving=there.leaving
    )
    gone = {each.item.key for nominee in kept for each in (*nominee.evicts, *nominee.moves)}
    lowest = min((each.item.priority for each in there.residents), default=math.inf)
    return preempting(
        blocked,
        hosts=soon,
        residents=[each for each in there.staying if each.item.key not in gone],
        may={key: pod.preempts and pod.priority > lowest for key, (pod, _, _) in queue.asked.items()},
        objective=objective_of(pool),
    )


def _standing(queue: Queue, tenants_: Callable[[], Tenants], stock: Inventory, pool: PoolView) -> dict[str, Nominee]:
    """The nominations that hold, by the keys of their replicas."""
    nominations = {key: noted(case.model.status).get(pod.uid) for key, (pod, _, case) in queue.asked.items()}
    if not any(nominations.values()):
        return {}
    there = tenants_()
    uids = {key: pod.uid for key, pod in there.pods.items()}
    soon = vacate(queue.hosts, residents=there.residents, leaving=there.leaving)
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
