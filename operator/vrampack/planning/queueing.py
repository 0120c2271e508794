"""Who waits in a pool, in the packer's words; and those whose place is settled already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from vrampack.api import names
from vrampack.errors import InvalidInputError
from vrampack.packing.firstfit import pack
from vrampack.packing.occupied import occupied
from vrampack.packing.problem import Host, Item, Objective, Placement, Unplaced
from vrampack.planning.candidates import Eligibility, item, objective_of
from vrampack.planning.cases import Case
from vrampack.planning.inventory import Inventory
from vrampack.planning.need import Need
from vrampack.planning.released import released
from vrampack.planning.snapshot import Claim, Held, PodView, PoolView

CLAIM_REFUSED: Final = "ClaimRefused"


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
class Queue:
    """Who waits in a pool. ``returning``: those whose place is settled: they follow the leaving replicas of a rollout,
    or they move; ``hosts``: what is left of the pool beside these."""

    asked: Mapping[str, tuple[PodView, Need, Case]]
    items: Sequence[Item]
    returning: Sequence[Placement]
    hosts: tuple[Host, ...]


def queue(
    members: Sequence[Case],
    pool: PoolView,
    stock: Inventory,
    eligible: Eligibility,
    waits: dict[str, list[Waits]],
    *,
    unclaimed: Mapping[str, Held],
    now: float,
) -> Queue:
    """``unclaimed``: by pod UID, claims that were refused. Who is not asked again yet leaves its room to others; who is
    asked again evicts nobody for a claim that may be refused once more."""
    hosts = stock.hosts[pool.name]
    asked: dict[str, tuple[PodView, Need, Case]] = {}
    items: list[Item] = []
    returning: list[Placement] = []
    for case in members:
        own: list[Item] = []
        surplus = {pod.uid for pod in case.surplus}
        for gated in sorted(case.gated, key=lambda each: each.name):
            held = unclaimed.get(gated.uid)
            pod = gated if held is None else replace(gated, preempts=False)
            if pod.uid in surplus:
                message = "is one more than is wanted, and goes again"
                waits[case.model.key].append(Waits(pod=pod, need=None, reason="NotWanted", message=message))
                continue
            if held is not None and held.until > now:
                message = f"the API server refuses its claim: {held.message}"
                waits[case.model.key].append(Waits(pod=pod, need=None, reason=CLAIM_REFUSED, message=message))
                continue
            need = _need(pod, case, waits)
            if need is not None:
                refused = eligible.refused(pod, model=case.model.key, pool=pool, hosts=hosts)
                each = item(pod, need, case, refused=refused, rank=0 if case.rolling else 1, now=now)
                asked[each.key] = (pod, need, case)
                own.append(each)
        nominated = (*_movers(case, own, hosts), *_successors(case, own, hosts, stock, objective_of(pool)))
        own_keys = {each.key for each in own}
        returning += [placement for placement in nominated if placement.item.key in own_keys]
        settled = {placement.item.key for placement in nominated}
        items += [each for each in own if each.key not in settled]
        hosts = occupied(hosts, nominated)
    return Queue(asked=asked, items=items, returning=returning, hosts=hosts)


def without_pool(case: Case, pool: PoolView | None) -> list[Waits]:
    """Its replicas wait, since its pool is not there or can't be read."""
    reason, message = "PoolNotFound", f"waits for the GPUPool {case.pool!r}, which is not there"
    if pool is not None:
        reason, message = "InvalidPool", f"waits for the GPUPool {pool.name!r} to be mended: {pool.problem}"
    return [Waits(pod=pod, need=None, reason=reason, message=message) for pod in case.gated]


def _movers(case: Case, own: Sequence[Item], hosts: tuple[Host, ...]) -> tuple[Placement, ...]:
    """The new places of its moves under way; kept even before the replica that is to have it is there."""
    devices = {(host.name, device.id) for host in hosts for device in host.devices}
    waiting = iter(own)
    found = []
    for each in case.moving:
        to = [(each.entry.to_node, uuid) for uuid in each.entry.to_gpus]
        if each.claims and each.old is not None and each.old.claim is not None and devices.issuperset(to):
            mine = next(waiting, None) or _as_it_is(each.old, each.old.claim, case)
            found.append(Placement(item=mine, host=each.entry.to_node, devices=each.entry.to_gpus))
    return tuple(found)


def _as_it_is(pod: PodView, claim: Claim, case: Case) -> Item:
    held = Need(gpus=len(claim.gpus), bytes=claim.bytes, kv=0, context=0, comm=0)
    mine = item(pod, held, case, refused={}, rank=1)
    return replace(mine, key=f"{mine.key} (new place)")


def _successors(
    case: Case, own: Sequence[Item], hosts: tuple[Host, ...], stock: Inventory, objective: Objective
) -> tuple[Placement, ...]:
    """Where those go that follow the leaving replicas of a rollout: the room that these give back is theirs."""
    leaving = [pod for pod in case.pods if pod.deleting and pod.claim is not None]
    if not (own and leaving and case.rolling):
        return ()
    return pack(hosts=released(stock, hosts, leaving), items=own[: len(leaving)], objective=objective).placed


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
