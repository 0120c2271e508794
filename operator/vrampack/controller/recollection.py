"""What the operator remembers from one pass to the next, because no object says it.

Lost, it costs time, and what pods that went had claimed beyond what their processes hold.
"""

import math
from collections.abc import Mapping
from typing import Final

from vrampack.controller.departures import Departures
from vrampack.kube.outcome import Outcome
from vrampack.planning.snapshot import Held, Memory, Snapshot

_LONGEST_REFUSAL: Final = 600.0
_TRUSTED: Final = 30.0
"""Seconds for which a watch is believed to tell of everything."""
_FIRST_HELD: Final = 2.0
_LONGEST_HELD: Final = 60.0
"""How long what was refused is not asked again: an eviction by a PodDisruptionBudget, a claim by the API server. It
doubles with each time in a row."""
_MOST_DOUBLINGS: Final = 32


class Recollection:
    """What is remembered between passes: where the scheduler refused what, and when a pod was last deleted."""

    def __init__(self, *, refusal_seconds: float, now: float) -> None:
        self._refusal_seconds = refusal_seconds
        self._started = now
        self._refusals: dict[tuple[str, str], tuple[float, int]] = {}
        self._deletions: dict[str, float] = {}
        self._unbound: dict[str, float] = {}
        self._over: dict[str, float] = {}
        self._conflicts: frozenset[tuple[str, str]] = frozenset()
        self._child_errors: Mapping[str, str] = {}
        self._held: dict[str, Held] = {}
        self._unclaimed: dict[str, Held] = {}
        self._since: int | None = None
        self._listed = -math.inf
        self.departures = Departures()

    def memory(self) -> Memory:
        """An immutable copy, for a snapshot."""
        return Memory(
            started=self._started,
            refusals={key: until for key, (until, _) in self._refusals.items()},
            deletions=dict(self._deletions),
            refused_since=dict(self._unbound),
            over_since=dict(self._over),
            conflicts=self._conflicts,
            child_errors=dict(self._child_errors),
            held=dict(self._held),
            unclaimed=dict(self._unclaimed),
        )

    def new_enough(self, now: float) -> int | None:
        """The resourceVersion at which pods are new enough for a pass; None: it has to ask the API server.

        That is after a pass that did not end well: a write without an answer may be one that landed. And it is every so
        often, whatever is known. ``now``: seconds of a clock that never jumps.
        """
        since, self._since = self._since, None
        if since is None or now - self._listed > _TRUSTED:
            self._listed = now
            return None
        return since

    def trust(self, since: int) -> None:
        """Ends a pass that knows what it has seen and written."""
        self._since = since

    def saw(self, snapshot: Snapshot, *, over: frozenset[str]) -> bool:
        """Notes which placed pods are not bound, and which use too much (by UID); True where one is new."""
        unbound = {
            pod.uid: self._unbound.get(pod.uid, snapshot.now)
            for pod in snapshot.pods
            if pod.claim is not None and not (pod.node or pod.deleting or pod.ended or pod.gated)
        }
        self._unclaimed = {pod.uid: self._unclaimed[pod.uid] for pod in snapshot.pods if pod.uid in self._unclaimed}
        new = bool(unbound.keys() - self._unbound.keys() or over - self._over.keys())
        self._unbound = unbound
        self._over = {uid: self._over.get(uid, snapshot.now) for uid in over}
        return new

    def did(self, outcome: Outcome, *, now: float, complete: bool) -> bool:
        """Notes what came of a plan; True where the next one will differ for it."""
        for deletion in outcome.deleted:
            key = (deletion.model, deletion.node)
            _, count = self._refusals.get(key, (0.0, 0))
            pause = _doubled(4 * self._refusal_seconds, count, longest=_LONGEST_REFUSAL)
            self._refusals[key] = (now + pause, count + 1)
            self._deletions[deletion.node] = now
        held = {uid: each for uid, each in self._held.items() if each.until + _LONGEST_HELD > now}
        self._held = _held_again(held, outcome.held, now=now)
        self._unclaimed = _held_again(self._unclaimed, outcome.refused, now=now)
        self._refusals = {key: each for key, each in self._refusals.items() if each[0] + _LONGEST_REFUSAL > now}
        if not complete:
            return False
        conflicts = frozenset((model, kind) for model, kind, _ in outcome.name_conflicts)
        # By model alone: what is said of the same trouble may differ each time, by a port for one.
        changed = conflicts != self._conflicts or outcome.child_errors.keys() != self._child_errors.keys()
        self._conflicts, self._child_errors = conflicts, outcome.child_errors
        return changed or bool(outcome.held or outcome.refused)


def _held_again(before: Mapping[str, Held], refused: Mapping[str, str], *, now: float) -> dict[str, Held]:
    """What is not asked again for a while. ``refused``: what was said just now, by pod UID."""
    held = dict(before)
    for uid, message in refused.items():
        times = held[uid].times + 1 if uid in held else 1
        pause = _doubled(_FIRST_HELD, times - 1, longest=_LONGEST_HELD)
        held[uid] = Held(until=now + pause, message=message, times=times)
    return held


def _doubled(first: float, times: int, *, longest: float) -> float:
    """Seconds, doubled so many times; however many these are."""
    return min(first * 2.0 ** min(times, _MOST_DOUBLINGS), longest)
