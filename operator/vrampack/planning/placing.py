"""Which waiting replica goes onto which GPUs now, and why the others wait."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vrampack.api import names
from vrampack.api.gpupool import PoolObjective, Startup
from vrampack.errors import InvalidInputError
from vrampack.packing.firstfit import pack
from vrampack.packing.problem import Host, Item, Objective, Placement, Reason, Spread, Unplaced
from vrampack.planning.actions import PlacePod
from vrampack.planning.cases import Case
from vrampack.planning.eligibility import refusal
from vrampack.planning.inventory import GPU, Inventory, released
from vrampack.planning.mechanisms import lacks, mechanism_of
from vrampack.planning.need import Need, company
from vrampack.planning.reasons import Obstacle
from vrampack.planning.snapshot import GPUNodeView, PodView, PoolView, Snapshot
from vrampack.sharing.base import Claimed, Share
from vrampack.sharing.visible_devices import resolve_style, runs_with


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The outcome. ``hosts``: what is left by pool once all of this is in place."""

    placements: tuple[PlacePod, ...]
    waits: Mapping[str, tuple[Waits, ...]]
    hosts: Mapping[str, tuple[Host, ...]]


class Eligibility:
    """Hosts that can't take a pod, with the reason; replicas of one template share the answer."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._now = snapshot.now
        self._nodes = {node.name: node for node in snapshot.nodes}
        self._gpu_nodes = {view.name: view for view in snapshot.gpu_nodes}
        self._refusals = snapshot.memory.refusals
        self._devices = snapshot.devices
        self._known: dict[tuple[str, str, str], Mapping[str, str]] = {}

    def refused(self, pod: PodView, *, model: str, pool: PoolView, hosts: Iterable[Host]) -> Mapping[str, str]:
        """Reasons by host, for the hosts that are refused."""
        key = (model, pod.owner_uid, pool.name)
        if key not in self._known:
            found = {}
            for host in hosts:
                if (reason := self._reason(pod, model, pool, host.name)) is not None:
                    found[host.name] = reason
            self._known[key] = found
        return self._known[key]

    def _reason(self, pod: PodView, model: str, pool: PoolView, host: str) -> Obstacle | None:
        node, view = self._nodes.get(host), self._gpu_nodes[host]
        if node is not None and (reason := refusal(pod, node)) is not None:
            return reason
        style = resolve_style(pool=pool.spec.injection_style, node=view.status.injection_style)
        if not runs_with(style, runtime_class=pod.runtime_class or None):
            return Obstacle.INJECTION_STYLE
        if lacks(pool, node, view, self._devices):
            return Obstacle.MECHANISM
        if self._refusals.get((model, host), 0) > self._now:
            return Obstacle.REFUSED
        return None


def item(pod: PodView, need: Need, case: Case, *, refused: Mapping[str, str], rank: int, alone: bool = False) -> Item:
    """A replica as the packer sees it. ``alone``: no device has more than one."""
    spec = case.model.spec
    placement = spec.placement if spec is not None else None
    beside = company(need, placement)
    return Item(
        key=f"{pod.namespace}/{pod.name}",
        group=case.model.key,
        gpus=need.gpus,
        memory=need.bytes,
        cpu=pod.cpu,
        host_memory=pod.memory,
        exclusive=alone or beside.exclusive,
        products=frozenset(placement.gpu_products) if placement is not None and placement.gpu_products else None,
        avoid=frozenset(f"{pod.namespace}/{name}" for name in beside.avoid),
        spread=Spread(placement.spread.value) if placement is not None else Spread.PREFER,
        priority=pod.priority,
        rank=rank,
        refused=refused,
    )


def objective_of(pool: PoolView) -> Objective:
    """The pool's objective in the packer's words."""
    return Objective.BALANCED if pool.spec.objective is PoolObjective.BALANCED else Objective.FEWEST_GPUS


def place(snapshot: Snapshot, stock: Inventory, given: Sequence[Case], eligible: Eligibility) -> Placed:
    """Packs the gated pods of all models, pool by pool."""
    pools = {pool.name: pool for pool in snapshot.pools}
    gpu_nodes = {view.name: view for view in snapshot.gpu_nodes}
    by_pool: dict[str, list[Case]] = defaultdict(list)
    waits: dict[str, list[Waits]] = defaultdict(list)
    for case in given:
        pool = pools.get(case.pool)
        if pool is not None and not pool.problem:
            by_pool[case.pool].append(case)
        else:
            waits[case.model.key] += _without_pool(case, pool)
    placements: list[PlacePod] = []
    left = dict(stock.hosts)
    for name, members in sorted(by_pool.items()):
        pool, hosts = pools[name], stock.hosts[name]
        pods: dict[str, tuple[PodView, Need, Case]] = {}
        items: list[Item] = []
        returning: list[Placement] = []
        successors: set[str] = set()
        for case in members:
            own: list[Item] = []
            for pod in sorted(case.gated, key=lambda each: each.name):
                need = _need(pod, case, waits)
                if need is not None:
                    refused = eligible.refused(pod, model=case.model.key, pool=pool, hosts=hosts)
                    each = item(
                        pod, need, case, refused=refused, rank=0 if case.rolling else 1, alone=mechanism_of(pool).sliced
                    )
                    pods[each.key] = (pod, need, case)
                    own.append(each)
            nominated = _successors(case, own, hosts, stock, objective_of(pool))
            returning += nominated
            successors |= {placement.item.key for placement in nominated}
            items += [each for each in own if each.key not in successors]
            hosts = occupied(hosts, nominated)
        packing = pack(hosts=hosts, items=items, objective=objective_of(pool))
        left[name] = occupied(hosts, packing.placed)
        busy = _starting(stock) if pool.spec.startup is Startup.SERIALIZED else None
        now = {host.name: host for host in stock.hosts[name]}
        for placement in (*returning, *packing.placed):
            pod, need, case = pods[placement.item.key]
            if placement.item.key in successors and not _fits(now[placement.host], placement):
                message = f"waits for the room on {placement.host} that a leaving replica gives back"
                waits[case.model.key].append(Waits(pod=pod, need=need, reason="RoomBeingFreed", message=message))
            elif busy is not None and (shared := busy & set(placement.devices)):
                message = (
                    f"has room on {placement.host} and waits until the engine that starts on GPU "
                    f"{', '.join(str(stock.gpus[each].index) for each in sorted(shared))} is ready"
                )
                waits[case.model.key].append(Waits(pod=pod, need=need, reason="GPUBusyStarting", message=message))
            else:
                now[placement.host] = _with(now[placement.host], [placement])
                placements.append(_action(pod, need, placement, stock, pool, gpu_nodes[placement.host]))
                if busy is not None:
                    busy |= set(placement.devices)
        for unplaced in packing.unplaced:
            pod, need, case = pods[unplaced.item.key]
            reason = main_reason(unplaced.rejected)
            waits[case.model.key].append(Waits(pod=pod, need=need, reason=reason, message="", unplaced=unplaced))
    return Placed(placements=tuple(placements), waits={key: tuple(each) for key, each in waits.items()}, hosts=left)


def _without_pool(case: Case, pool: PoolView | None) -> list[Waits]:
    reason, message = "PoolNotFound", f"waits for the GPUPool {case.pool!r}, which is not there"
    if pool is not None:
        reason, message = "InvalidPool", f"waits for the GPUPool {pool.name!r} to be mended: {pool.problem}"
    return [Waits(pod=pod, need=None, reason=reason, message=message) for pod in case.gated]


def occupied(hosts: Iterable[Host], placements: Iterable[Placement]) -> tuple[Host, ...]:
    """The hosts with these replicas in place."""
    by_host: dict[str, list[Placement]] = defaultdict(list)
    for placement in placements:
        by_host[placement.host].append(placement)
    return tuple(_with(host, by_host[host.name]) if host.name in by_host else host for host in hosts)


def main_reason(rejected: Mapping[str, int]) -> str:
    """The one word: missing memory if that is all that some GPU lacks, else what rules out most of them."""
    if not rejected:
        return "NoMatchingGPU"
    for reason in (Reason.INSUFFICIENT_GPU_MEMORY, Reason.TOO_FEW_GPUS):
        if rejected.get(reason):
            return reason
    rules = {Reason.PRODUCT_MISMATCH, Obstacle.NODE_SELECTOR, Obstacle.NODE_AFFINITY, Obstacle.TAINT}
    if set(rejected) <= rules:
        return "NoMatchingGPU"
    return max(sorted(set(rejected) - rules), key=lambda reason: rejected[reason])


def _with(host: Host, placements: Iterable[Placement]) -> Host:
    devices = {device.id: device for device in host.devices}
    cpu, memory, slots, tenants = host.cpu, host.memory, host.slots, host.tenants
    for placement in placements:
        taken = placement.item
        cpu = None if cpu is None else cpu - taken.cpu
        memory = None if memory is None else memory - taken.host_memory
        slots = None if slots is None else slots - 1
        tenants |= {taken.group}
        for each in placement.devices:
            device = devices[each]
            devices[each] = replace(
                device,
                free=device.free - taken.memory,
                tenants=device.tenants | {taken.group},
                avoided_by=device.avoided_by | taken.avoid,
                exclusive=device.exclusive or taken.exclusive,
            )
    return replace(host, devices=tuple(devices.values()), cpu=cpu, memory=memory, slots=slots, tenants=tenants)


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
            style=resolve_style(pool=pool.spec.injection_style, node=view.status.injection_style),
            share=Share(
                kv_cache=need.kv, runtime_context=need.context, communication=need.comm, fraction=need.fraction
            ),
            usable_bytes=min(gpu.usable for gpu in gpus),
        )
    )
    return PlacePod(pod=pod, node=placement.host, gpus=tuple(gpu.uuid for gpu in gpus), annotations=annotations)
