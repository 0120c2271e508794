"""What the operator says on GPUNodes and GPUPools."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from vrampack.api.common import Quantity
from vrampack.api.gpunode import InjectionFound
from vrampack.api.gpupool import Fencing, GPUPoolSpec, MoveStatus, PackingBound
from vrampack.packing.problem import Bound
from vrampack.planning.conditions import Said, conditions_of
from vrampack.planning.findings import Findings
from vrampack.planning.injection import condition_words, failures
from vrampack.planning.inventory import GPU, Inventory
from vrampack.planning.moves import as_json
from vrampack.planning.prices import as_quantity, priced_words
from vrampack.planning.queueing import Waits
from vrampack.planning.reasons import Obstacle
from vrampack.planning.snapshot import GPUNodeView, Json, PoolView
from vrampack.planning.suggestedmoves import as_suggestions
from vrampack.planning.whole import Whole, proven
from vrampack.sharing.registry import mechanism
from vrampack.units import counted, human_bytes

_FOUND: Final = ("suggestedMoves", "suggestedLayouts", "bound")
"""What is said of a pool that is looked for beside the passes."""


def gpu_node_status(
    view: GPUNodeView,
    stock: Inventory,
    *,
    pool: GPUPoolSpec,
    injection: InjectionFound | None = None,
    now: float,
) -> tuple[Json, bool]:
    """The operator's fields of a GPUNode, and whether they differ from what is there. ``injection``: what probes found
    out, now or before."""
    mine = [gpu for gpu in stock.gpus.values() if gpu.node == view.name]
    entries = [_entry(gpu, stock) for gpu in mine]
    # A GPU that vanished from the agent's report keeps its entry only while a replica still claims it.
    gone = {gpu.uuid for gpu in mine if gpu.closed is Obstacle.GPU_VANISHED}
    entries = [each for each in entries if each["uuid"] not in gone or each["claims"]]
    over = [gpu for gpu in mine if gpu.usable and gpu.free < 0]
    words = "; ".join(f"GPU {gpu.index} by {human_bytes(-gpu.free)}" for gpu in over)
    said: list[Said] = [
        ("AgentAlive", True, "LeaseRenewed", "the node's agent renews its Lease")
        if view.agent_alive
        else ("AgentAlive", False, "LeaseExpired", "the node's agent is silent; the node takes no new replica"),
        (
            "Overcommitted",
            True,
            "ClaimsExceedMemory",
            f"claims, reserve and use exceed what is usable: {words}; these GPUs take no new replica",
        )
        if over
        else ("Overcommitted", False, "ClaimsFit", "claims, reserve and use fit on every GPU"),
    ]
    status: Json = {
        "observedGeneration": view.generation,
        "summary": {"claimed": human_bytes(sum(gpu.claimed for gpu in mine))},
        "gpus": entries,
    }
    if injection is not None:
        status["injection"] = injection.wire()
        style = injection.style
        reason = style.value if style is not None else "Unsupported"
        message = f"{injection.message} (with {injection.setup})"[:2048]
        said.append(("InjectionKnown", style is not None, reason, message))
    if view.status.mismatches is not None or view.status.injection_failures is not None:
        found = failures(view.status, pool=pool)
        status["injectionFailures"] = found.wire()
        said.append(("InjectionBroken", *condition_words(found)))
    status["conditions"] = conditions_of(said, status=view.raw_status, generation=view.generation, now=now)
    return status, not _has(view.raw_status, status)


def _entry(gpu: GPU, stock: Inventory) -> Json:
    claims = [
        {
            "namespace": pod.namespace,
            "pod": pod.name,
            "uid": pod.uid,
            "bytes": str(Quantity.of(pod.claim.bytes)),
        }
        for pod in stock.tenants.get(gpu.uuid, ())
        if pod.claim is not None
    ]
    claims += [each.wire() for each in gpu.outlived.values()]
    free = max(0, gpu.free) if gpu.closed is None else 0
    return {
        "uuid": gpu.uuid,
        "claimed": str(Quantity.of(gpu.claimed)),
        "free": str(Quantity.of(free)),
        "claims": claims,
    }


def _has(raw: Json, mine: Json) -> bool:
    """Whether the fields that are ours stand there already, beside the agent's."""
    found = {each["uuid"]: each for each in raw.get("gpus") or ()}
    conditions = {each["type"]: each for each in raw.get("conditions") or ()}
    stale = any("claimed" in each for uuid, each in found.items() if uuid not in {m["uuid"] for m in mine["gpus"]})
    return (
        not stale
        and raw.get("observedGeneration") == mine["observedGeneration"]
        and (raw.get("summary") or {}).get("claimed") == mine["summary"]["claimed"]
        and all(found.get(each["uuid"], {}) | each == found.get(each["uuid"], {}) for each in mine["gpus"])
        and raw.get("injection") == mine.get("injection")
        and raw.get("injectionFailures") == mine.get("injectionFailures", raw.get("injectionFailures"))
        and all(conditions.get(each["type"]) == each for each in mine["conditions"])
    )


def pool_status(
    pool: PoolView,
    stock: Inventory,
    *,
    waits: Mapping[str, Sequence[Waits]],
    moves: Sequence[MoveStatus] = (),
    findings: Findings | None = None,
    works: tuple[bool, str, str],
    now: float,
) -> Json:
    """All of a GPUPool's status. ``moves``: under way, and of the last hour. ``findings``: of this very state of
    things; None: not found yet, so what was said before stands.
    ``works``: what `vrampack.planning.mechanisms.readiness` says."""
    nodes = sorted(name for name, of in stock.pool_of.items() if of == pool.name)
    gpus = [gpu for gpu in stock.gpus.values() if gpu.node in set(nodes)]
    status: Json = {
        "observedGeneration": pool.generation,
        "nodes": len(nodes),
        "gpus": len(gpus),
        "capacity": str(Quantity.of(sum(gpu.usable for gpu in gpus))),
        "claimed": str(Quantity.of(sum(gpu.claimed for gpu in gpus))),
        "stranded": str(Quantity.of(_stranded(gpus, stock, waits))),
        "moves": as_json(moves),
        "conditions": conditions_of(
            _said(pool, stock, gpus, nodes, works), status=pool.status, generation=pool.generation, now=now
        ),
    }
    if findings is not None:
        return status | _found(findings, stock, pool)
    return status | {key: pool.status[key] for key in _FOUND if key in pool.status}


def _said(
    pool: PoolView, stock: Inventory, gpus: Sequence[GPU], nodes: Sequence[str], works: tuple[bool, str, str]
) -> Iterator[Said]:
    """A pool's conditions."""
    reason = "InvalidSpec" if pool.problem else "PoolInUse" if nodes else "NoNodes"
    words = f"{counted(len(gpus), 'GPU')} on {counted(len(nodes), 'node')}"
    yield "Ready", not pool.problem, reason, pool.problem or words
    if any(gpu.offered is not None for gpu in gpus):
        yield "Fenced", *fence_words(gpus, pool.spec)
    yield "MechanismReady", *works
    if pool.spec.prices:
        yield "Priced", *priced_words(pool.spec, {gpu.product for gpu in gpus})
    if pool.spec.limits:
        words = "spec.limits is kept, and not enforced by this version; use a ResourceQuota on pods meanwhile"
        yield "LimitsEnforced", False, "NotInThisVersion", words
    if overlap := stock.overlaps.get(pool.name):
        words = f"another pool matches {', '.join(overlap[:8])} too; the first pool by name has them"
        yield "Overlap", True, "NodesInTwoPools", words


def _stranded(gpus: Sequence[GPU], stock: Inventory, waits: Mapping[str, Sequence[Waits]]) -> int:
    """Free bytes where neither a replica that waits has room nor one like any of those that run."""
    needs = {each.need.bytes for group in waits.values() for each in group if each.need is not None}
    for gpu in gpus:
        needs |= {pod.claim.bytes for pod in stock.tenants.get(gpu.uuid, ()) if pod.claim is not None}
    least = min(needs, default=0)
    return sum(gpu.free for gpu in gpus if 0 < gpu.free < least and gpu.closed is None)


def _found(findings: Findings, stock: Inventory, pool: PoolView) -> Json:
    """Moves that are suggested, and what is proven."""
    found: Json = {"suggestedMoves": as_json(as_suggestions(findings, stock))}
    if mechanism(pool.spec.mechanism.value).sliced:
        found["suggestedLayouts"] = [each.wire() for each in findings.layouts]
    whole, bound = findings.question.whole, findings.bound
    if bound is not None:
        # The bound is of packings that place everything: one that leaves replicas waiting has no distance from it.
        near = bound.opened > 0 and not whole.packing.unplaced
        distance = f"{max(0, whole.used - bound.opened) / bound.opened:.1%}" if near else ""
        done = findings.done
        found["bound"] = PackingBound(
            **_amounts(whole, bound),
            distance=distance,
            explanation=proven(whole, bound)[:512],
            work=f"{counted(done.rounds, 'round')}, {counted(done.dives, 'dive')}, {counted(done.nodes, 'node')}",
        ).wire()
    return found


def _amounts(whole: Whole, bound: Bound) -> dict[str, Quantity | None]:
    if whole.priced:
        least = as_quantity(bound.opened) if bound.opened else None
        return {"least_price": least, "used_price": as_quantity(whole.used)}
    least = Quantity.of(bound.opened) if bound.opened else None
    return {"least_memory": least, "used_memory": Quantity.of(whole.used)}


def fence_words(gpus: Sequence[GPU], pool: GPUPoolSpec) -> tuple[bool, str, str]:
    """Whether the kubelet leaves the pool's GPUs alone, the reason and the message."""
    loose = [gpu for gpu in gpus if gpu.closed is Obstacle.GPU_NOT_FENCED]
    given = [gpu for gpu in gpus if gpu.closed is Obstacle.GPU_ALLOCATED]
    words = []
    if given:
        words.append(f"{counted(len(given), 'GPU')} on {_nodes(given)}: the kubelet gave them to other pods")
    if loose and pool.fencing is Fencing.RESERVATION:
        words.append(
            f"{counted(len(loose), 'GPU')} on {_nodes(loose)}: a device plugin offers them, and no reservation pod "
            "holds them; let the chart's reservations ask for more"
        )
    elif loose:
        words.append(
            f"{counted(len(loose), 'GPU')} on {_nodes(loose)}: a device plugin offers them; take it off these nodes "
            "(label nvidia.com/gpu.deploy.device-plugin=false, where the GPU Operator runs it), or set spec.fencing: "
            "Reservation and let the chart's reservations hold them"
        )
    if words:
        return False, "GPUsNotFenced", f"not used: {'; '.join(words)}"
    return True, f"By{pool.fencing}", "the kubelet hands out no GPU of this pool that vrampack may use"


def _nodes(gpus: Sequence[GPU]) -> str:
    names = sorted({gpu.node for gpu in gpus})
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
