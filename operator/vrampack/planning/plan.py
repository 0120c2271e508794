"""The plan of one pass: a pure function of the snapshot. The same snapshot gives the same plan."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from vrampack.errors import VrampackError
from vrampack.planning.actions import DeletePod, Plan, Tell, WriteStatus
from vrampack.planning.cases import Case, cases
from vrampack.planning.contract import watch_of, watches
from vrampack.planning.fleetstatus import gpu_node_status, pool_status
from vrampack.planning.inventory import Inventory, inventory
from vrampack.planning.mechanisms import read_back, readiness
from vrampack.planning.placing import Eligibility, Placed, place
from vrampack.planning.rollout import Rolled, roll
from vrampack.planning.snapshot import Json, Snapshot
from vrampack.planning.status import model_status
from vrampack.planning.suggestions import suggested
from vrampack.planning.tidings import events_of
from vrampack.planning.verdict import Blocked, Settings

_CHANGED = ("ModelUnchanged", "False")


def plan(snapshot: Snapshot, settings: Settings) -> Plan:
    """What is to be done now, and when to look again without being told."""
    snapshot = read_back(snapshot)
    stock = inventory(snapshot)
    given = cases(snapshot, settings, stock=stock)
    eligible = Eligibility(snapshot)
    placed = place(snapshot, stock, given, eligible)
    placed = suggested(placed, given=given, snapshot=snapshot, stock=stock, settings=settings, eligible=eligible)
    pools = {pool.name: pool for pool in snapshot.pools}
    hosts = dict(placed.hosts)
    rolled: dict[str, Rolled] = {}
    placing = {(each.pod.namespace, each.pod.model) for each in placed.placements}
    for case in given:
        try:
            change = roll(
                case,
                pool=pools.get(case.pool),
                hosts=hosts.get(case.pool, ()),
                stock=stock,
                eligible=eligible,
                placing=(case.model.namespace, case.model.name) in placing,
                stuck=any(each.unplaced is not None for each in placed.waits.get(case.model.key, ())),
            )
        except (AttributeError, TypeError, ValueError, VrampackError) as error:
            # An overlay keeps unknown fields, so parts of a pod may have any shape: that is one model's trouble only.
            change = Rolled(waits=f"spec.podTemplate.spec can't be read, the old revision stays: {error}")
        rolled[case.model.key] = change
        if case.pool in hosts and change.hosts:
            hosts[case.pool] = change.hosts
    deletions, wake_at = _deletions(snapshot, stock, given, settings)
    statuses: list[WriteStatus] = []
    events: list[Tell] = []
    changed: Counter[str] = Counter()
    for case in given:
        status = model_status(
            case,
            stock=stock,
            rolled=rolled[case.model.key],
            waits=placed.waits.get(case.model.key, ()),
            error=snapshot.memory.child_errors.get(case.model.key, ""),
            now=snapshot.now,
            look=snapshot.looks.get(watch) if (watch := watch_of(case)) is not None else None,
        )
        changed.update(_changed(status))
        if status != case.model.status:
            model = case.model
            statuses.append(
                WriteStatus(
                    kind="ModelDeployment",
                    namespace=model.namespace,
                    name=model.name,
                    resource_version=model.resource_version,
                    status=status,
                )
            )
            events += events_of(model, status)
    if not placed.placements:
        # While replicas are being placed these would be out of date at once; the pass after the last one writes them.
        statuses += _fleet(snapshot, stock, placed)
    return Plan(
        placements=placed.placements,
        children=tuple(action for change in rolled.values() for action in change.actions),
        deletions=deletions,
        statuses=tuple(statuses),
        events=tuple(events),
        resolve=tuple(dict.fromkeys(case.sized.resolve for case in given if case.sized.resolve is not None)),
        watch=watches(given),
        wake_at=wake_at,
        waiting=_waiting(given, placed),
        gpu_bytes=_gpu_bytes(stock, placed),
        changed=dict(sorted(changed.items())),
    )


def _deletions(
    snapshot: Snapshot, stock: Inventory, given: tuple[Case, ...], settings: Settings
) -> tuple[tuple[DeletePod, ...], float | None]:
    """Pods that were placed and that the scheduler refuses: after a while, and never many at once.

    A pod that runs is never deleted, whatever became of its GPU or node. The first ones wait a full interval after a
    change of leader, since the deletions of the former one are not known.
    """
    nodes = {node.name for node in snapshot.nodes}
    memory = snapshot.memory
    interval = settings.deletion_interval_seconds
    found: list[DeletePod] = []
    used: set[str] = set()
    wake: list[float] = []
    for case in given:
        for pod in case.placed:
            if pod.node or pod.claim is None or pod.gated:
                continue
            gpu = stock.gpus.get(pod.claim.gpus[0])
            node = gpu.node if gpu is not None else ""
            if not pod.refused and node in nodes:
                continue
            due = memory.refused_since.get(pod.uid, snapshot.now) + settings.refusal_seconds
            due = max(due, memory.deletions.get(node, memory.started) + interval)
            if due > snapshot.now:
                wake.append(due)
            elif node in used:
                wake.append(snapshot.now + interval)
            else:
                used.add(node)
                message = pod.refused or f"its node {node or '(unknown)'} is gone"
                found.append(
                    DeletePod(pod=pod, model=case.model.key, node=node, reason="PlacementRefused", message=message)
                )
    wake += [until for until in memory.refusals.values() if until > snapshot.now]
    return tuple(found), min(wake, default=None)


def _fleet(snapshot: Snapshot, stock: Inventory, placed: Placed) -> list[WriteStatus]:
    statuses = []
    for view in snapshot.gpu_nodes:
        status, changed = gpu_node_status(view, stock, now=snapshot.now)
        if changed:
            statuses.append(
                WriteStatus(kind="GPUNode", namespace="", name=view.name, resource_version="", status=status)
            )
    nodes = {node.name: node for node in snapshot.nodes}
    for pool in snapshot.pools:
        if pool.generation:
            theirs = {view.name: view for view in snapshot.gpu_nodes if stock.pool_of[view.name] == pool.name}
            works = readiness(pool, nodes, theirs, snapshot.devices)
            status = pool_status(pool, stock, placed.waits, works=works, now=snapshot.now)
            if status != pool.status:
                statuses.append(
                    WriteStatus(kind="GPUPool", namespace="", name=pool.name, resource_version="", status=status)
                )
    return statuses


def _changed(status: Json) -> list[str]:
    """Why a model is not what it was, where it is not."""
    return [each["reason"] for each in status["conditions"] if (each["type"], each["status"]) == _CHANGED]


def _waiting(given: tuple[Case, ...], placed: Placed) -> Mapping[str, int]:
    counted: Counter[str] = Counter()
    for waits in placed.waits.values():
        counted.update(each.reason for each in waits)
    for case in given:
        if isinstance(case.sized, Blocked) and case.deployment is None and case.replicas:
            counted[case.sized.reason] += case.replicas
    return dict(sorted(counted.items()))


def _gpu_bytes(stock: Inventory, placed: Placed) -> Mapping[tuple[str, str], int]:
    needs = [each.need.bytes for waits in placed.waits.values() for each in waits if each.need is not None]
    least = min(needs, default=0)
    total: dict[tuple[str, str], int] = defaultdict(int)
    for gpu in stock.gpus.values():
        total[gpu.product, "usable"] += gpu.usable
        total[gpu.product, "claimed"] += gpu.claimed
        total[gpu.product, "foreign"] += gpu.foreign
        free = max(0, gpu.free) if gpu.closed is None else 0
        total[gpu.product, "free"] += free
        total[gpu.product, "stranded"] += free if free < least else 0
    return dict(total)
