"""Room that is being freed, and for whom: a replica that caused it has it until it is placed.

A nomination is written to the status of the ModelDeployment before anybody is evicted for it, and evictions are decided
by what stands there: so another leader goes on where the former one ended, and who waits keeps its place meanwhile. In
every pass each is looked at anew: a replica that fits elsewhere by now takes that, and one whose place can't be freed
any more loses it.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pydantic import ValidationError

from vrampack.api.modeldeploymentstatus import EvictedPod, NominationStatus
from vrampack.packing.classes import Likeness
from vrampack.packing.firstfit import pack
from vrampack.packing.occupied import occupied
from vrampack.packing.preempt import victims
from vrampack.packing.problem import Host, Item, Objective, Placement, Reservation, Resident, Unplaced
from vrampack.packing.residents import vacate
from vrampack.planning.actions import EvictPods, Tell
from vrampack.planning.snapshot import Json, ModelView, PodView

MOST_PREEMPTING: Final = 16
"""Replicas of a pool for which victims are looked for in one pass: a pass stays short however many wait."""
_SHOWN: Final = 4
"""Pods that a sentence names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nominee:
    """A replica that waits for its room. ``evicts``: who still has to go for it."""

    placement: Placement
    evicts: tuple[Resident, ...] = ()
    moves: tuple[Resident, ...] = ()
    """Who gets another place for it."""
    former: tuple[EvictedPod, ...] = ()
    """All that were named when it was nominated, those that are gone by now as well."""

    @property
    def reservation(self) -> Reservation:
        """The place, as it is kept for the replica."""
        return Reservation(item=self.placement.item, host=self.placement.host, devices=self.placement.devices)

    def to_status(self, pod: PodView, pods: Mapping[str, PodView]) -> NominationStatus:
        """``pods``: by the keys of their residents."""

        def named(some: Iterable[Resident]) -> tuple[EvictedPod, ...]:
            leaving = [pods[each.item.key] for each in some]
            return tuple(EvictedPod(namespace=each.namespace, pod=each.name, uid=each.uid) for each in leaving)

        return NominationStatus(
            pod=pod.name,
            uid=pod.uid,
            node=self.placement.host,
            gpus=self.placement.devices,
            evicts=self.former or named(self.evicts),
            moves=named(self.moves),
        )


def noted(status: Json) -> Mapping[str, NominationStatus]:
    """The nominations of a status by the UID of the pod that waits. What can't be read is none."""
    found: dict[str, NominationStatus] = {}
    entries = status.get("nominations")
    for entry in entries if isinstance(entries, list) else ():
        try:
            nomination = NominationStatus.model_validate(entry)
        except ValidationError:
            continue
        found[nomination.uid] = nomination
    return found


def standing(
    item: Item,
    nomination: NominationStatus,
    *,
    hosts: Iterable[Host],
    residents: Sequence[Resident],
    uids: Mapping[str, str],
    lingering: Mapping[str, Mapping[str, int]],
    moved: Collection[str],
) -> Nominee | None:
    """What is left of a nomination: None where its place can't be had any more by evicting whom it names.

    ``hosts``: without those that leave already. ``uids``: of the residents' pods by key. ``lingering``: by GPU and pod
    UID the bytes of processes whose pod is gone: what an evicted one leaves behind is on its way out too. ``moved``:
    UIDs of pods for which moves are made.
    """
    if nomination.moves and nomination.uid not in moved:
        return None
    host = next((each for each in hosts if each.name == nomination.node), None)
    if host is None or len(nomination.gpus) != item.gpus:
        return None
    named = {each.uid for each in nomination.evicts}
    there = replace(
        host,
        devices=tuple(
            replace(each, free=each.free + sum(lingering[each.id][uid] for uid in named & lingering[each.id].keys()))
            for each in host.devices
            if each.id in nomination.gpus
        ),
    )
    moving = {each.uid for each in nomination.moves}
    going = [each for each in residents if uids[each.item.key] in moving]
    (there,) = vacate([there], residents=residents, leaving=going)
    residents = [each for each in residents if uids[each.item.key] not in moving]
    staying = {uids[each.item.key] for each in residents}
    begun = not named <= staying  # who is held back now is waited for once others have gone already
    found = victims(
        hosts=[there],
        residents=[
            replace(each, movable=(each.movable or begun) and uids[each.item.key] in named) for each in residents
        ],
        item=item,
    )
    if found is None:
        return None
    return Nominee(
        placement=Placement(item=item, host=host.name, devices=nomination.gpus),
        evicts=found,
        moves=tuple(going),
        former=nomination.evicts,
    )


def preempting(
    unplaced: Iterable[Unplaced],
    *,
    hosts: tuple[Host, ...],
    residents: Sequence[Resident],
    may: Mapping[str, bool],
    objective: Objective,
) -> tuple[Nominee, ...]:
    """Who of those that fit nowhere gets the room that others give back.

    ``hosts``: without those that leave already, whose room is given out first. ``may``: by key, who may preempt at all.
    Those of one class are alike: where one finds no room, no other does.
    """
    nominees: list[Nominee] = []
    likeness = Likeness()
    helpless: set[Hashable] = set()
    asked = 0
    staying = list(residents)
    for each in unplaced:
        item = each.item
        if not may[item.key] or likeness(item) in helpless:
            continue
        if asked == MOST_PREEMPTING:
            break
        asked += 1
        found = victims(hosts=hosts, residents=staying, item=item)
        if found is None:
            helpless.add(likeness(item))
            continue
        freed = vacate(hosts, residents=staying, leaving=found)
        only = [host for host in freed if not found or host.name == found[0].host]
        (placement,) = pack(hosts=only, items=[item], objective=objective).placed
        nominees.append(Nominee(placement=placement, evicts=found))
        hosts = freed
        gone = {other.item.key for other in found}
        staying = [other for other in staying if other.item.key not in gone]
        hosts = occupied(hosts, [placement])
    return tuple(nominees)


def freed(nominee: Nominee, pods: Mapping[str, PodView], held: Mapping[str, str]) -> str:
    """Whose room it waits for. ``held``: by pod UID, what holds back an eviction."""
    where = nominee.placement.host
    if nominee.moves:
        named = ", ".join(each.item.key for each in nominee.moves[:_SHOWN])
        return f"waits for the room on {where} of replicas that get another place: {named}"
    if not nominee.evicts:
        return f"waits for the room on {where} that leaving replicas give back"
    gone = [pods[each.item.key] for each in nominee.evicts]
    named = ", ".join(f"{pod.namespace}/{pod.name}" for pod in gone[:_SHOWN])
    more = f" and {len(gone) - _SHOWN} more" if len(gone) > _SHOWN else ""
    words = f"waits for the room on {where} of replicas of lower priority, which are evicted for it: {named}{more}"
    return words + "".join(f"; {pod.name} may not go now: {held[pod.uid]}" for pod in gone[:_SHOWN] if pod.uid in held)


def eviction(nominee: Nominee, *, winner: PodView, model: ModelView, pods: Mapping[str, PodView]) -> EvictPods:
    """The evictions that it needs. ``pods``: by the keys of their residents."""
    losers = tuple(pods[each.item.key] for each in nominee.evicts)
    why = f"{winner.namespace}/{winner.name} of priority {winner.priority}, which fits nowhere else"
    lost = ", ".join(f"{pod.namespace}/{pod.name} of priority {pod.priority}" for pod in losers)
    events = [
        Tell(
            kind="Pod",
            namespace=pod.namespace,
            name=pod.name,
            uid=pod.uid,
            type="Warning",
            reason="Preempted",
            message=f"evicted to make room for {why}",
        )
        for pod in losers
    ]
    events.append(
        Tell(
            kind="ModelDeployment",
            namespace=model.namespace,
            name=model.name,
            uid=model.uid,
            type="Normal",
            reason="Preempting",
            message=f"evicted for {winner.name} on {nominee.placement.host}: {lost}",
        )
    )
    return EvictPods(pods=losers, reason="Preempted", message=f"for {why}", events=tuple(events))
