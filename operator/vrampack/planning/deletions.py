"""Which placed pods are deleted: those that the scheduler refuses, and those that did not get their GPUs.

Never many at once: one for each node in an interval. A pod that runs where it should is never deleted, whatever became
of its GPU or node. The first ones wait a full interval after a change of leader, since the deletions of the former one
are not known.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from vrampack.planning.actions import DeletePod, Tell
from vrampack.planning.cases import Case
from vrampack.planning.injection import words_of
from vrampack.planning.inventory import Inventory
from vrampack.planning.snapshot import Memory, Snapshot
from vrampack.planning.verdict import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletions:
    """``wake_at``: when something is due without an event."""

    pods: tuple[DeletePod, ...]
    events: tuple[Tell, ...]
    wake_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """A deletion, and from when on it may be."""

    action: DeletePod
    at: float


def deletions(snapshot: Snapshot, stock: Inventory, given: tuple[Case, ...], settings: Settings) -> Deletions:
    """What is to be deleted now, and when to look again."""
    memory, interval = snapshot.memory, settings.deletion_interval_seconds
    found: list[DeletePod] = []
    used: set[str] = set()
    wake: list[float] = []
    for due in (*_mismatched(snapshot, given), *_refused(snapshot, stock, given, settings)):
        node = due.action.node
        at = max(due.at, memory.deletions.get(node, memory.started) + interval)
        if at > snapshot.now:
            wake.append(at)
        elif node in used:
            wake.append(snapshot.now + interval)
        else:
            used.add(node)
            found.append(due.action)
    wake += _remembered(memory, snapshot.now)
    events = tuple(_told(each) for each in found if each.reason == "GPUMismatch")
    return Deletions(pods=tuple(found), events=events, wake_at=min(wake, default=None))


def _mismatched(snapshot: Snapshot, given: tuple[Case, ...]) -> Iterator[_Due]:
    cases = {pod.uid: (pod, case) for case in given for pod in case.placed}
    for view in snapshot.gpu_nodes:
        known = view.status.injection_failures
        for mismatch in view.status.mismatches or ():
            found = cases.get(mismatch.uid)
            if found is None or known is None or mismatch.uid not in known.pods:
                continue  # it is counted first: a count that is lost can't be made good
            pod, case = found
            if pod.claim is None or set(pod.claim.gpus) != set(mismatch.claimed) or pod.deleting:
                continue
            action = DeletePod(
                pod=pod, model=case.model.key, node=view.name, reason="GPUMismatch", message=words_of(mismatch)
            )
            yield _Due(action=action, at=snapshot.now)


def _refused(snapshot: Snapshot, stock: Inventory, given: tuple[Case, ...], settings: Settings) -> Iterator[_Due]:
    nodes = {node.name for node in snapshot.nodes}
    for case in given:
        for pod in case.placed:
            if pod.node or pod.claim is None or pod.gated:
                continue
            gpu = stock.gpus.get(pod.claim.gpus[0])
            node = gpu.node if gpu is not None else ""
            if not pod.refused and node in nodes:
                continue
            message = pod.refused or f"its node {node or '(unknown)'} is gone"
            action = DeletePod(pod=pod, model=case.model.key, node=node, reason="PlacementRefused", message=message)
            since = snapshot.memory.refused_since.get(pod.uid, snapshot.now)
            yield _Due(action=action, at=since + settings.refusal_seconds)


def _remembered(memory: Memory, now: float) -> list[float]:
    """When something that is remembered ends."""
    held = (*memory.held.values(), *memory.unclaimed.values())
    moments = [*memory.refusals.values(), *(each.until for each in held)]
    return [moment for moment in moments if moment > now]


def _told(deletion: DeletePod) -> Tell:
    pod = deletion.pod
    return Tell(
        kind="Pod",
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        type="Warning",
        reason=deletion.reason,
        message=f"deleted: it {deletion.message}"[:1000],
    )
