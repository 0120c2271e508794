"""The plan of one pass: a pure function of the snapshot. The same snapshot gives the same plan."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vrampack.errors import VrampackError
from vrampack.planning.actions import EvictPods, Plan, Tell, WriteStatus
from vrampack.planning.budget import offenders
from vrampack.planning.candidates import Eligibility
from vrampack.planning.cases import cases
from vrampack.planning.contract import watches
from vrampack.planning.deletions import deletions
from vrampack.planning.findings import Question
from vrampack.planning.fleetstatus import gpu_node_status, pool_status
from vrampack.planning.inventory import Inventory, inventory
from vrampack.planning.measuring import measured
from vrampack.planning.mechanisms import read_back, readiness
from vrampack.planning.moves import Moving, eviction, kept, under_way, undoing
from vrampack.planning.placing import Placed, place
from vrampack.planning.probing import Probes, probes
from vrampack.planning.rollout import Rolled, roll
from vrampack.planning.snapshot import Json, PoolView, Snapshot
from vrampack.planning.status import model_status
from vrampack.planning.suggestions import suggested
from vrampack.planning.tidings import events_of
from vrampack.planning.verdict import Settings

_CHANGED = ("ModelUnchanged", "False")


def plan(snapshot: Snapshot, settings: Settings) -> Plan:
    """What is to be done now, and when to look again without being told."""
    snapshot = read_back(snapshot)
    stock = inventory(snapshot)
    moving = under_way(snapshot)
    given = cases(snapshot, settings, stock=stock, moving=moving)
    eligible = Eligibility(snapshot, probing=settings.probing is not None)
    asked = probes(snapshot, stock, settings.probing)
    placed = place(snapshot, stock, given, eligible, patience=settings.patience_seconds)
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
    leaving = deletions(snapshot, stock, given, settings)
    budget = offenders(given, stock, snapshot.pools, snapshot.memory, now=snapshot.now)
    statuses: list[WriteStatus] = []
    events: list[Tell] = []
    changed: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for case in given:
        status = model_status(
            case,
            stock=stock,
            rolled=rolled[case.model.key],
            waits=placed.waits.get(case.model.key, ()),
            nominations=placed.nominations.get(case.model.key, ()),
            error=snapshot.memory.child_errors.get(case.model.key, ""),
            now=snapshot.now,
            looks=snapshot.looks,
        )
        changed.update(_changed(status))
        waiting.update({each["reason"]: each["count"] for each in status.get("waiting", ())})
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
        statuses += _fleet(snapshot, stock, placed, moving, asked)
        statuses += measured(snapshot, given, stock)
    return Plan(
        placements=placed.placements,
        children=tuple(action for change in rolled.values() for action in change.actions),
        deletions=(*leaving.pods, *filter(None, map(undoing, moving))),
        evictions=(*budget.evictions, *placed.evictions, *_hand_overs(moving, snapshot)),
        questions=_questions(placed, pools),
        statuses=tuple(statuses),
        events=(*events, *leaving.events),
        resolve=tuple(dict.fromkeys(request for case in given for request in case.sized.resolves)),
        watch=watches(given),
        wake_at=min(
            (each for each in (leaving.wake_at, budget.wake_at, asked.wake_at) if each is not None), default=None
        ),
        probes=asked.create,
        # An answer is kept before the probes that gave it go: one that could not be written is given again.
        ended_probes=tuple(probe for probe in asked.delete if not placed.placements),
        waiting=dict(sorted(waiting.items())),
        gpu_bytes=_gpu_bytes(stock, placed),
        over_budget=budget.over,
        changed=dict(sorted(changed.items())),
    )


def _hand_overs(moving: Iterable[Moving], snapshot: Snapshot) -> Iterator[EvictPods]:
    """Old replicas of moves whose new ones are ready, but for those that a disruption budget has just held back."""
    for each in moving:
        if each.hands_over and each.old is not None:
            held = snapshot.memory.held.get(each.old.uid)
            if held is None or held.until <= snapshot.now:
                yield eviction(each)


def _questions(placed: Placed, pools: Mapping[str, PoolView]) -> Mapping[str, tuple[Question, int]]:
    """What is to be looked for, and how many chunks of work that is worth."""
    return {name: (question, max(1, pools[name].spec.refine_seconds)) for name, question in placed.questions.items()}


def _fleet(
    snapshot: Snapshot, stock: Inventory, placed: Placed, moving: Sequence[Moving], asked: Probes
) -> list[WriteStatus]:
    statuses = []
    pools = {pool.name: pool for pool in snapshot.pools}
    for view in snapshot.gpu_nodes:
        pool = pools[stock.pool_of[view.name]]
        injection = asked.found.get(view.name, view.status.injection)
        status, changed = gpu_node_status(view, stock, pool=pool.spec, injection=injection, now=snapshot.now)
        if changed:
            statuses.append(
                WriteStatus(kind="GPUNode", namespace="", name=view.name, resource_version="", status=status)
            )
    nodes = {node.name: node for node in snapshot.nodes}
    for pool in snapshot.pools:
        if pool.generation:
            theirs = {view.name: view for view in snapshot.gpu_nodes if stock.pool_of[view.name] == pool.name}
            found = snapshot.memory.findings.get(pool.name)
            begun = [placed.begun[pool.name]] if pool.name in placed.begun else []
            status = pool_status(
                pool,
                stock,
                waits=placed.waits,
                moves=(*kept(pool, moving, now=snapshot.now), *begun),
                findings=found if found is not None and found.question == placed.questions.get(pool.name) else None,
                works=readiness(pool, nodes, theirs, snapshot.devices),
                now=snapshot.now,
            )
            if status != pool.status:
                statuses.append(
                    WriteStatus(
                        kind="GPUPool",
                        namespace="",
                        name=pool.name,
                        resource_version=pool.resource_version,
                        status=status,
                    )
                )
    return statuses


def _changed(status: Json) -> list[str]:
    """Why a model is not what it was, where it is not."""
    return [each["reason"] for each in status["conditions"] if (each["type"], each["status"]) == _CHANGED]


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
