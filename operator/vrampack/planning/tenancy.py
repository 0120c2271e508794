"""Replicas that run, as the packer sees them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from vrampack.packing.problem import Host, Item, Resident
from vrampack.planning.candidates import Eligibility, item
from vrampack.planning.cases import Case
from vrampack.planning.inventory import Inventory, group_of, said
from vrampack.planning.need import Need
from vrampack.planning.snapshot import PodView, PoolView, Snapshot

Describe = Callable[[PodView, Need, Case], Item]
"""A replica of a model as the packer sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenants:
    """All replicas that hold a claim on the hosts of a pool, with their pods by key."""

    residents: tuple[Resident, ...]
    pods: Mapping[str, PodView]

    @property
    def leaving(self) -> tuple[Resident, ...]:
        """Those that are on their way out: what they hold is being freed."""
        return tuple(each for each in self.residents if self.pods[each.item.key].deleting)

    @property
    def staying(self) -> tuple[Resident, ...]:
        """All others."""
        return tuple(each for each in self.residents if not self.pods[each.item.key].deleting)


def tenants(snapshot: Snapshot, stock: Inventory, given: Sequence[Case], *, pool: str, describe: Describe) -> Tenants:
    """Who holds what of a pool. One whose eviction was refused a moment ago, or that belongs to no model any more, may
    not move."""
    cases = {pod.uid: case for case in given for pod in case.pods}
    residents: list[Resident] = []
    pods: dict[str, PodView] = {}
    for pod in snapshot.pods:
        if pod.claim is None or pod.ended:
            continue
        first = stock.gpus.get(pod.claim.gpus[0])
        if first is None or stock.pool_of[first.node] != pool:
            continue
        case = cases.get(pod.uid)
        named = said(pod) or Need(gpus=1, bytes=1, kv=0, context=0, comm=0)
        held = replace(named, gpus=len(pod.claim.gpus), bytes=pod.claim.bytes)
        item = _item(pod, held) if case is None else describe(pod, held, case)
        held_back = (known := snapshot.memory.held.get(pod.uid)) is not None and known.until > snapshot.now
        residents.append(
            Resident(
                item=item,
                host=first.node,
                devices=pod.claim.gpus,
                movable=case is not None and not (pod.deleting or held_back),
            )
        )
        pods[item.key] = pod
    return Tenants(residents=tuple(residents), pods=pods)


def _item(pod: PodView, held: Need) -> Item:
    return Item(
        key=f"{pod.namespace}/{pod.name}",
        group=group_of(pod),
        gpus=held.gpus,
        memory=held.bytes,
        cpu=pod.cpu,
        host_memory=pod.memory,
        priority=pod.priority,
    )


def running(eligible: Eligibility, *, pool: PoolView, hosts: Sequence[Host]) -> Describe:
    """Describes a replica that runs as it would be if it were placed anew: by its template, since the pod itself is
    bound to its node. Where it is, it may stay."""

    def describe(pod: PodView, held: Need, case: Case) -> Item:
        spec = case.deployment.object["spec"]["template"].get("spec") or {} if case.deployment is not None else {}
        anew = replace(
            pod,
            owner_uid=f"{pod.owner_uid} anew",
            node_selector=spec.get("nodeSelector") or {},
            affinity=spec.get("affinity"),
        )
        refused = eligible.refused(anew, model=case.model.key, pool=pool, hosts=hosts)
        if pod.node in refused:
            refused = {host: reason for host, reason in refused.items() if host != pod.node}
        return item(pod, held, case, refused=refused, rank=1)

    return describe


def movers(there: Tenants, given: Sequence[Case], *, spared: Collection[str]) -> tuple[Resident, ...]:
    """All of them, movable where a move costs nobody anything: the model is whole and at rest. ``spared``: UIDs."""
    whole = {
        pod.uid
        for case in given
        if case.in_force and not (case.rolling or case.moving) and len(case.pods) == case.ready == case.replicas
        for pod in case.pods
    }
    return tuple(
        replace(each, movable=each.movable and uid in whole and uid not in spared)
        for each in there.residents
        for uid in [there.pods[each.item.key].uid]
    )
