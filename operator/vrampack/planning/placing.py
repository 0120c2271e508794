"""Which waiting replica goes onto which GPUs now, and why the others wait."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vrampack.api import names
from vrampack.api.gpupool import Startup
from vrampack.api.modeldeploymentstatus import NominationStatus
from vrampack.errors import InvalidInputError
from vrampack.packing.firstfit import pack
from vrampack.packing.occupied import occupied
from vrampack.packing.problem import Host, Item, Objective, Placement, Unplaced
from vrampack.packing.residents import vacated
from vrampack.planning.actions import EvictPods, PlacePod
from vrampack.planning.candidates import Eligibility, item, main_reason, objective_of
from vrampack.planning.cases import Case
from vrampack.planning.injection import style_of
from vrampack.planning.inventory import GPU, Inventory, released
from vrampack.planning.mechanisms import mechanism_of
from vrampack.planning.need import Need
from vrampack.planning.nominations import Nominee, eviction, freed, noted, preempting, standing
from vrampack.planning.snapshot import GPUNodeView, PodView, PoolView, Snapshot
from vrampack.planning.tenancy import Tenants, tenants
from vrampack.sharing.base import Claimed, Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """A replica without a GPU. ``unplaced``: the packer's explanation, where it was asked. ``would_fit_if``: changes
    that would help, said by one replica for all of its model that wait for the same reason."""

    pod: PodView
    need: Need | None
    reason: str
    message: str
    unplaced: Unplaced | None = None
    would_fit_if: tuple[str, ...] = ()
    kept: Placement | None = None
    """Where room is kept for it, since it has waited long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The outcome. ``hosts``: what is left by pool once all of this is in place."""

    placements: tuple[PlacePod, ...]
    waits: Mapping[str, tuple[Waits, ...]]
    hosts: Mapping[str, tuple[Host, ...]]
    evictions: tuple[EvictPods, ...] = ()
    nominations: Mapping[str, tuple[NominationStatus, ...]] = field(default_factory=dict)
    """By model: who waits for room that is being freed."""


def place(
    snapshot: Snapshot, stock: Inventory, given: Sequence[Case], eligible: Eligibility, *, patience: int
) -> Placed:
    """Packs the gated pods of all models, pool by pool. ``patience``: seconds after which a replica goes by its age."""
    pools = {pool.name: pool for pool in snapshot.pools}
    by_pool: dict[str, list[Case]] = defaultdict(list)
    waits: dict[str, list[Waits]] = defaultdict(list)
    for case in given:
        pool = pools.get(case.pool)
        if pool is not None and not pool.problem:
            by_pool[case.pool].append(case)
        else:
            waits[case.model.key] += _without_pool(case, pool)
    placements: list[PlacePod] = []
    evictions: list[EvictPods] = []
    nominations: dict[str, list[NominationStatus]] = defaultdict(list)
    left = dict(stock.hosts)
    for name, members in sorted(by_pool.items()):
        queue = _queue(members, pools[name], stock, eligible, waits, snapshot.now)
        found = _pool(snapshot, stock, given, pools[name], queue, waits, patience)
        placements += found.placements
        evictions += found.evictions
        left[name] = found.hosts
        for key, nomination in found.nominations:
            nominations[key].append(nomination)
    return Placed(
        placements=tuple(placements),
        waits={key: tuple(each) for key, each in waits.items()},
        hosts=left,
        evictions=tuple(evictions),
        nominations={key: tuple(each) for key, each in nominations.items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Queue:
    """Who waits in a pool. ``returning``: those that follow the leaving replicas of a rollout, with their places;
    ``hosts``: what is left of the pool beside these."""

    asked: Mapping[str, tuple[PodView, Need, Case]]
    items: Sequence[Item]
    returning: Sequence[Placement]
    hosts: tuple[Host, ...]


def _queue(
    members: Sequence[Case],
    pool: PoolView,
    stock: Inventory,
    eligible: Eligibility,
    waits: dict[str, list[Waits]],
    now: float,
) -> _Queue:
    hosts = stock.hosts[pool.name]
    alone = mechanism_of(pool).sliced
    asked: dict[str, tuple[PodView, Need, Case]] = {}
    items: list[Item] = []
    returning: list[Placement] = []
    for case in members:
        own: list[Item] = []
        for pod in sorted(case.gated, key=lambda each: each.name):
            need = _need(pod, case, waits)
            if need is not None:
                refused = eligible.refused(pod, model=case.model.key, pool=pool, hosts=hosts)
                each = item(pod, need, case, refused=refused, rank=0 if case.rolling else 1, now=now, alone=alone)
                asked[each.key] = (pod, need, case)
                own.append(each)
        nominated = _successors(case, own, hosts, stock, objective_of(pool))
        returning += nominated
        successors = {placement.item.key for placement in nominated}
        items += [each for each in own if each.key not in successors]
        hosts = occupied(hosts, nominated)
    return _Queue(asked=asked, items=items, returning=returning, hosts=hosts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _InPool:
    placements: tuple[PlacePod, ...]
    evictions: tuple[EvictPods, ...]
    nominations: tuple[tuple[str, NominationStatus], ...]
    hosts: tuple[Host, ...]


def _pool(
    snapshot: Snapshot,
    stock: Inventory,
    given: Sequence[Case],
    pool: PoolView,
    queue: _Queue,
    waits: dict[str, list[Waits]],
    patience: int,
) -> _InPool:
    there = tenants(snapshot, stock, given, pool=pool.name, describe=_tenant)
    nominated = _standing(queue, there, stock)
    packing = pack(
        hosts=queue.hosts,
        items=queue.items,
        objective=objective_of(pool),
        patience=patience,
        reserve=[each.reservation for each in nominated.values()],
    )
    kept = [nominated[each.item.key] for each in packing.unplaced if each.item.key in nominated]
    hosts = occupied(queue.hosts, packing.placed, packing.cuts)
    soon = tuple(
        vacated(host, residents=there.residents, leaving=there.leaving)
        for host in occupied(hosts, [nominee.placement for nominee in kept])
    )
    gone = {each.item.key for nominee in kept for each in nominee.evicts}
    lowest = min((each.item.priority for each in there.residents), default=math.inf)
    fresh = preempting(
        [each for each in packing.unplaced if each.item.key not in nominated],
        hosts=soon,
        residents=[each for each in there.staying if each.item.key not in gone],
        may={key: pod.preempts and pod.priority > lowest for key, (pod, _, _) in queue.asked.items()},
        objective=objective_of(pool),
    )
    view = {view.name: view for view in snapshot.gpu_nodes}
    busy = _starting(stock) if pool.spec.startup is Startup.SERIALIZED else None
    now = {host.name: host for host in stock.hosts[pool.name]}
    successors = {placement.item.key for placement in queue.returning}
    placements: list[PlacePod] = []
    held_up: dict[str, Nominee] = {}
    for placement in (*queue.returning, *packing.placed):
        pod, need, case = queue.asked[placement.item.key]
        if placement.item.key in successors and not _fits(now[placement.host], placement):
            message = f"waits for the room on {placement.host} that a leaving replica gives back"
            waits[case.model.key].append(Waits(pod=pod, need=need, reason="RoomBeingFreed", message=message))
        elif busy is not None and (shared := busy & set(placement.devices)):
            message = (
                f"has room on {placement.host} and waits until the engine that starts on GPU "
                f"{', '.join(str(stock.gpus[each].index) for each in sorted(shared))} is ready"
            )
            waits[case.model.key].append(Waits(pod=pod, need=need, reason="GPUBusyStarting", message=message))
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
        waits[case.model.key].append(
            Waits(pod=pod, need=need, reason="RoomBeingFreed", message=freed(nominee, there.pods, held))
        )
    for unplaced in packing.unplaced:
        if unplaced.item.key not in nominees:
            pod, need, case = queue.asked[unplaced.item.key]
            reason = main_reason(unplaced.rejected)
            waits[case.model.key].append(
                Waits(
                    pod=pod,
                    need=need,
                    reason=reason,
                    message="",
                    unplaced=unplaced,
                    kept=aged.get(unplaced.item.key),
                )
            )
    return _InPool(
        placements=tuple(placements),
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
        hosts=occupied(hosts, [*(each.placement for each in nominees.values()), *aged.values()]),
    )


def _standing(queue: _Queue, there: Tenants, stock: Inventory) -> dict[str, Nominee]:
    """The nominations that hold, by the keys of their replicas."""
    uids = {key: pod.uid for key, pod in there.pods.items()}
    nominations = {key: noted(case.model.status).get(pod.uid) for key, (pod, _, case) in queue.asked.items()}
    if not any(nominations.values()):
        return {}
    soon = [vacated(host, residents=there.residents, leaving=there.leaving) for host in queue.hosts]
    found: dict[str, Nominee] = {}
    for each in queue.items:
        if (nomination := nominations[each.key]) is not None:
            nominee = standing(
                each, nomination, hosts=soon, residents=there.staying, uids=uids, lingering=stock.lingering
            )
            if nominee is not None:
                found[each.key] = nominee
    return found


def _tenant(pod: PodView, held: Need, case: Case) -> Item:
    return item(pod, held, case, refused={}, rank=1)


def _without_pool(case: Case, pool: PoolView | None) -> list[Waits]:
    reason, message = "PoolNotFound", f"waits for the GPUPool {case.pool!r}, which is not there"
    if pool is not None:
        reason, message = "InvalidPool", f"waits for the GPUPool {pool.name!r} to be mended: {pool.problem}"
    return [Waits(pod=pod, need=None, reason=reason, message=message) for pod in case.gated]


def _successors(
    case: Case, own: Sequence[Item], hosts: tuple[Host, ...], stock: Inventory, objective: Objective
) -> tuple[Placement, ...]:
    """Where those go that follow the leaving replicas of a rollout: the room that these give back is theirs."""
    leaving = [pod for pod in case.pods if pod.deleting and pod.claim is not None]
    if not (own and leaving and case.rolling):
        return ()
    return pack(hosts=released(stock, hosts, leaving), items=own[: len(leaving)], objective=objective).placed


def _fits(host: Host, placement: Placement) -> bool:
    """Whether a replica can go where it is to go even now, while those that leave hold all that they have: bytes, CPU,
    RAM and the pod's slot, and their promise of whom they have beside them."""
    there = replace(host, devices=tuple(each for each in host.devices if each.id in placement.devices))
    return bool(pack(hosts=[there], items=[placement.item]).placed)


def _need(pod: PodView, case: Case, waits: dict[str, list[Waits]]) -> Need | None:
    others = [gate for gate in pod.gates if gate != names.GATE]
    if others:
        message = f"has another scheduling gate: {', '.join(others)}; vrampack places it once that is gone"
        waits[case.model.key].append(Waits(pod=pod, need=None, reason="OtherGate", message=message))
        return None
    try:
        return Need.from_json(pod.need)
    except InvalidInputError as error:
        waits[case.model.key].append(Waits(pod=pod, need=None, reason="NeedUnreadable", message=str(error)))
        return None


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
    return PlacePod(pod=pod, node=placement.host, gpus=tuple(gpu.uuid for gpu in gpus), annotations=annotations)
