"""Moves under way: what stands in a GPUPool's status, and how far each has come in the world.

A move is written down before anything is done about it, and is carried out by what stands there: the Deployment gets
one replica more, that one claims the new place and becomes ready, and only then is the old one evicted and the
Deployment back to its number. So the model never has a replica less, the room is claimed before the old is given up,
and another leader goes on where the former one ended. One move after another; the first that fails ends those for the
same purpose.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from pydantic import ValidationError

from vrampack.api.common import Quantity
from vrampack.api.gpupool import MoveOutcome, MovesMode, MoveStatus, SuggestedMove
from vrampack.packing.problem import Move
from vrampack.planning.actions import DeletePod, EvictPods, Tell
from vrampack.planning.snapshot import Held, Json, PodView, PoolView, Snapshot

HOUR: Final = 3600.0
CLAIM_SECONDS: Final = 120.0
"""A new replica that has not claimed its place by then does not come: a quota, or the room is gone."""
READY_SECONDS: Final = 3600.0
"""A new replica that is not ready by then never is."""
MOST_REFUSALS: Final = 5
"""So often in a row may a PodDisruptionBudget hold back the old one, with pauses that double."""
_MOST_KEPT: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A move under way. ``old``: the replica that is to go, while it stays; ``new``: the one that has its place."""

    entry: MoveStatus
    pool: str
    old: PodView | None
    new: PodView | None
    failed: str
    """Why it is given up; empty: it is not."""

    @property
    def model(self) -> str:
        """``namespace/name``"""
        return f"{self.entry.namespace}/{self.entry.model}"

    @property
    def surges(self) -> bool:
        """Whether the model has one replica more for it. One that is given up keeps it until the new replica is gone:
        else Kubernetes would choose which of the two goes."""
        return self.old is not None and (not self.failed or self.new is not None)

    @property
    def claims(self) -> bool:
        """Whether the new place is still to be claimed."""
        return self.surges and self.new is None and not self.failed

    @property
    def hands_over(self) -> bool:
        """Whether the old one may go."""
        return self.surges and not self.failed and self.new is not None and self.new.ready

    def told(self) -> MoveStatus:
        """What is to stand in the status."""
        if self.failed:
            outcome = MoveOutcome.FAILED if self.new is None or self.old is None else MoveOutcome.MOVING
            return self.entry.model_copy(update={"outcome": outcome, "message": self.failed[:512]})
        if self.old is None:
            return self.entry.model_copy(update={"outcome": MoveOutcome.DONE})
        return self.entry


def entries(pool: PoolView) -> tuple[MoveStatus, ...]:
    """The moves in a pool's status. What can't be read is none."""
    found = []
    listed = pool.status.get("moves")
    for entry in listed if isinstance(listed, list) else ():
        try:
            found.append(MoveStatus.model_validate(entry))
        except ValidationError:
            continue
    return tuple(found)


def under_way(snapshot: Snapshot) -> tuple[Moving, ...]:
    """All moves that are neither done nor given up, in the order of the pools."""
    return tuple(
        _moving(entry, pool, snapshot)
        for pool in snapshot.pools
        for entry in entries(pool)
        if entry.outcome is MoveOutcome.MOVING
    )


def kept(pool: PoolView, moving: Iterable[Moving], *, now: float) -> tuple[MoveStatus, ...]:
    """What stays in the status: those under way as they are now, and all others of the last hour."""
    news = {each.entry.uid: each.told() for each in moving if each.pool == pool.name}
    told = [news.get(entry.uid, entry) if entry.outcome is MoveOutcome.MOVING else entry for entry in entries(pool)]
    return tuple(each for each in told if each.outcome is MoveOutcome.MOVING or started(each) > now - HOUR)[
        -_MOST_KEPT:
    ]


def budget(pool: PoolView, *, now: float) -> int:
    """How many moves may still begin now. A time that can't be read counts as this hour: never too many."""
    return max(0, pool.spec.moves.per_hour - sum(started(each) > now - HOUR for each in entries(pool)))


def given_up(pool: PoolView) -> frozenset[str]:
    """UIDs of pods whose move failed, and of those that it was to make room for: not again in this hour."""
    failed = [each for each in entries(pool) if each.outcome is MoveOutcome.FAILED]
    return frozenset({each.uid for each in failed} | {each.waiting_uid for each in failed if each.waiting_uid})


def started(entry: MoveStatus) -> float:
    """Seconds since 1970; for ever in the future where it can't be read."""
    try:
        return datetime.fromisoformat(entry.started_at).timestamp()
    except ValueError:
        return float("inf")


def begun(move: Move, *, pod: PodView, waiting: PodView | None, because: str, now: float) -> MoveStatus:
    """A move as it is written down. ``pod``: the one that moves; ``waiting``: the one that it makes room for."""
    return MoveStatus(
        **suggestion(move, pod=pod, because=because).model_dump(),
        model=pod.model,
        outcome=MoveOutcome.MOVING,
        started_at=datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        waiting_uid=waiting.uid if waiting is not None else "",
    )


def suggestion(move: Move, *, pod: PodView, because: str) -> SuggestedMove:
    """A move for people."""
    return SuggestedMove(
        namespace=pod.namespace,
        pod=pod.name,
        uid=pod.uid,
        from_node=move.resident.host,
        from_gpus=move.resident.devices,
        to_node=move.host,
        to_gpus=move.devices,
        gain=Quantity.of(move.gain),
        cost=Quantity.of(move.cost),
        because=because[:256],
    )


def eviction(moving: Moving) -> EvictPods:
    """The old replica goes, since the new one is ready."""
    assert moving.old is not None
    assert moving.new is not None
    old, entry = moving.old, moving.entry
    message = f"to {entry.to_node}, where {moving.new.name} is ready: {entry.because}"
    told = Tell(
        kind="Pod",
        namespace=old.namespace,
        name=old.name,
        uid=old.uid,
        type="Normal",
        reason="Moved",
        message=message,
    )
    return EvictPods(pods=(old,), reason="Moved", message=message, events=(told,))


def undoing(moving: Moving) -> DeletePod | None:
    """The new replica of a move that is given up goes, and the old one stays."""
    if not moving.failed or moving.old is None or moving.new is None:
        return None
    return DeletePod(
        pod=moving.new, model=moving.model, node=moving.entry.to_node, reason="MoveFailed", message=moving.failed
    )


def _moving(entry: MoveStatus, pool: PoolView, snapshot: Snapshot) -> Moving:
    own = [pod for pod in snapshot.pods if (pod.namespace, pod.model) == (entry.namespace, entry.model)]
    old = next((pod for pod in own if pod.uid == entry.uid and not (pod.deleting or pod.ended)), None)
    new = next((pod for pod in own if _took(pod, entry)), None)
    moving = Moving(entry=entry, pool=pool.name, old=old, new=new, failed="")
    return replace(moving, failed=_failure(moving, pool, snapshot.memory.held, now=snapshot.now))


def _took(pod: PodView, entry: MoveStatus) -> bool:
    """Whether this is the replica that has the new place. Times are whole seconds."""
    return (
        pod.uid != entry.uid
        and pod.claim is not None
        and set(pod.claim.gpus) == set(entry.to_gpus)
        and pod.created >= started(entry) - 1
        and not (pod.deleting or pod.ended)
    )


def _failure(moving: Moving, pool: PoolView, held: Mapping[str, Held], *, now: float) -> str:
    old, new, took = moving.old, moving.new, now - started(moving.entry)
    if moving.entry.message:  # given up before
        return moving.entry.message
    if old is None:
        return "" if new is not None else f"{moving.entry.pod} went away before it had its new place"
    if pool.spec.moves.mode is not MovesMode.EVICT:
        return f"spec.moves.mode is {pool.spec.moves.mode.value} now"
    if new is None:
        return f"no new replica claimed the place within {CLAIM_SECONDS:.0f} s" if took > CLAIM_SECONDS else ""
    if new.failure or new.restarts:
        return f"the engine of {new.name} at the new place says {new.failure or 'nothing, and was started again'}"
    if not new.ready and took > READY_SECONDS:
        return f"{new.name} was not ready at the new place within {READY_SECONDS:.0f} s"
    refused = held.get(old.uid)
    if refused is not None and refused.times >= MOST_REFUSALS:
        return f"{old.name} may not be evicted: {refused.message}"
    return ""


def waiting_of(moves: Sequence[MoveStatus], uid: str) -> int:
    """How many moves of the last hour were for this pod."""
    return sum(each.waiting_uid == uid for each in moves)


def as_json(moves: Iterable[SuggestedMove]) -> list[Json]:
    """As they stand in a status."""
    return [each.wire() for each in moves]
