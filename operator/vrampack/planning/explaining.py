"""All that can be said of one ModelDeployment: why its replicas wait and what would help, and why the others are where
they are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vrampack.errors import InvalidInputError
from vrampack.packing.problem import Resident, Unplaced
from vrampack.planning.candidates import Eligibility
from vrampack.planning.cases import Case, cases
from vrampack.planning.conditions import former_conditions
from vrampack.planning.inventory import Inventory, group_of, inventory
from vrampack.planning.moves import under_way
from vrampack.planning.movewords import leave_words, move_words
from vrampack.planning.placing import Placed, place
from vrampack.planning.queueing import Waits
from vrampack.planning.reasons import WORDS
from vrampack.planning.relief import Relief, relief
from vrampack.planning.snapshot import ModelView, PodView, Snapshot
from vrampack.planning.suggestions import suggested
from vrampack.planning.tenancy import running, tenants
from vrampack.planning.verdict import Blocked, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The GPU that came nearest, bytes."""

    node: str
    gpu: int
    free: int
    short: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitsFor:
    """Replicas that wait for one reason. ``bytes``: needed on each of ``gpus``, 0 where that is not known.

    ``ruled_out``: by reason how many GPUs it rules out, and what that means. ``moves``, ``evictions``: of running
    replicas, that would make room. ``would_fit_if``: changes of the ModelDeployment, each of which was computed.
    """

    reason: str
    message: str
    pods: tuple[str, ...]
    bytes: int = 0
    gpus: int = 0
    ruled_out: Mapping[str, tuple[int, str]]
    closest: Nearest | None = None
    moves: str = ""
    evictions: str = ""
    would_fit_if: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IsOn:
    """A replica with its GPUs, their indexes on the node. ``beside``: models that share a GPU with it."""

    pod: str
    node: str
    gpus: tuple[int, ...]
    bytes: int
    ready: bool
    because: str
    beside: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Of one ModelDeployment. ``status``: the reason of its Ready condition; empty where it is ready, or nobody has
    said so yet. ``problem``: why it has no template at all; empty: it has one."""

    model: str
    replicas: int
    ready: int
    status: str
    estimate: str
    problem: str
    waiting: tuple[WaitsFor, ...]
    placements: tuple[IsOn, ...]


def explain(snapshot: Snapshot, settings: Settings, *, namespace: str, name: str) -> Explanation:
    """Raises InvalidInputError where there is no such ModelDeployment."""
    stock = inventory(snapshot)
    given = cases(snapshot, settings, stock=stock, moving=under_way(snapshot))
    case = next((each for each in given if each.model.key == f"{namespace}/{name}"), None)
    if case is None:
        here = ", ".join(each.model.name for each in given if each.model.namespace == namespace) or "none at all"
        raise InvalidInputError(
            field="NAME",
            value=name,
            allowed=f"there is no such ModelDeployment in namespace {namespace}; there is {here}",
        )
    eligible = Eligibility(snapshot)
    placed = place(snapshot, stock, given, eligible, patience=settings.patience_seconds, everywhere=True)
    placed = suggested(placed, given=given, snapshot=snapshot, stock=stock, settings=settings, eligible=eligible)
    groups: dict[str, list[Waits]] = {}
    for each in sorted(placed.waits.get(case.model.key, ()), key=lambda each: each.pod.name):
        groups.setdefault(each.reason, []).append(each)
    sized = case.sized
    status, told = _told(case.model)
    return Explanation(
        model=case.model.key,
        replicas=case.replicas,
        ready=case.ready,
        status=status,
        estimate="" if isinstance(sized, Blocked) else sized.estimate.explanation,
        problem=(told or f"{sized.reason}: {sized.message}") if isinstance(sized, Blocked) else "",
        waiting=tuple(_waits(reason, group, case, snapshot, stock, given, placed) for reason, group in groups.items()),
        placements=tuple(_is_on(pod, stock) for pod in sorted(case.placed, key=lambda pod: pod.name)),
    )


def _told(model: ModelView) -> tuple[str, str]:
    """Why it is not ready, in a word and in full, as the operator has written it of this generation. Only the operator
    asks the model hub, so it knows more of a model whose facts are missing than a snapshot does."""
    ready = former_conditions(model.status).get("Ready", {})
    if ready.get("status") != "False" or ready.get("observedGeneration", model.generation) != model.generation:
        return "", ""
    return str(ready.get("reason", "")), f"{ready.get('reason', '')}: {ready.get('message', '')}"


def _waits(
    reason: str,
    group: list[Waits],
    case: Case,
    snapshot: Snapshot,
    stock: Inventory,
    given: tuple[Case, ...],
    placed: Placed,
) -> WaitsFor:
    first = group[0]
    unplaced, need = first.unplaced, first.need
    helps = (
        Relief(moves=None, leaves=None) if unplaced is None else _relief(unplaced, case, snapshot, stock, given, placed)
    )
    closest = unplaced.closest if unplaced is not None else None
    return WaitsFor(
        reason=reason,
        message=first.message,
        pods=tuple(each.pod.name for each in group),
        bytes=need.bytes if need is not None else 0,
        gpus=need.gpus if need is not None else 0,
        ruled_out={word: (count, WORDS[word]) for word, count in unplaced.rejected.items()} if unplaced else {},
        closest=None
        if closest is None
        else Nearest(
            node=closest.host,
            gpu=stock.gpus[closest.device].index,
            free=max(0, closest.free),
            short=closest.short,
        ),
        moves=move_words(helps.moves, stock) if helps.moves else "",
        evictions=leave_words(helps.leaves, stock) if helps.leaves else "",
        would_fit_if=first.would_fit_if,
    )


def _relief(
    unplaced: Unplaced, case: Case, snapshot: Snapshot, stock: Inventory, given: tuple[Case, ...], placed: Placed
) -> Relief:
    question = placed.questions.get(case.pool)
    pool = next((pool for pool in snapshot.pools if pool.name == case.pool), None)
    if question is None or pool is None:
        return Relief(moves=None, leaves=None)
    describe = running(Eligibility(snapshot), pool=pool, hosts=stock.hosts[pool.name])
    there = tenants(snapshot, stock, given, pool=pool.name, describe=describe)
    return relief(
        unplaced.item,
        hosts=question.hosts,
        movers=question.residents,
        # One of its own that goes would come back, and wait in its place.
        residents=[replace(each, movable=False) if _sibling(each, case) else each for each in there.residents],
        limit=pool.spec.moves.per_placement,
    )


def _sibling(resident: Resident, case: Case) -> bool:
    return resident.item.group == case.model.key


def _is_on(pod: PodView, stock: Inventory) -> IsOn:
    assert pod.claim is not None
    gpus = [stock.gpus[uuid] for uuid in pod.claim.gpus if uuid in stock.gpus]
    beside = {
        group_of(other) for uuid in pod.claim.gpus for other in stock.tenants.get(uuid, ()) if other.uid != pod.uid
    }
    return IsOn(
        pod=pod.name,
        node=pod.node or (gpus[0].node if gpus else "unknown"),
        gpus=tuple(sorted(gpu.index for gpu in gpus)),
        bytes=pod.claim.bytes,
        ready=pod.ready,
        because=pod.because,
        beside=tuple(sorted(beside)),
    )
