"""What came of the writes of a plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vrampack.errors import UnavailableError
from vrampack.planning.actions import DeletePod, EvictPods, PlacePod


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a plan."""

    placed: tuple[PlacePod, ...] = ()
    deleted: tuple[DeletePod, ...] = ()
    evicted: tuple[EvictPods, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    """By pod UID: what the API server said to an eviction that a PodDisruptionBudget does not allow now."""
    dropped: int = 0
    """Writes that were not sent: this process does not lead, or not yet for long enough to claim."""
    conflicts: int = 0
    """Writes that found another version or nothing: the next pass sees why."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """By pod UID: what the API server said to a placement that it refuses."""
    errors: int = 0
    """Deletions, statuses and events that it refuses."""
    name_conflicts: frozenset[tuple[str, str, str]] = frozenset()
    """Model, kind and name of children that can't be created, because an object of that name is there."""
    child_errors: Mapping[str, str] = field(default_factory=dict)
    """By model, what the API server says to a child that it refuses."""
    newest: int = field(default=0, compare=False)
    """The highest resourceVersion that a claim was written at; 0 without one."""


@dataclass(slots=True)
class Tally:
    """An Outcome while it grows."""

    placed: list[PlacePod] = field(default_factory=list)
    deleted: list[DeletePod] = field(default_factory=list)
    evicted: list[EvictPods] = field(default_factory=list)
    held: dict[str, str] = field(default_factory=dict)
    dropped: int = 0
    conflicts: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    errors: int = 0
    name_conflicts: set[tuple[str, str, str]] = field(default_factory=set)
    child_errors: dict[str, str] = field(default_factory=dict)
    newest: int = 0

    def outcome(self) -> Outcome:
        return Outcome(
            placed=tuple(self.placed),
            deleted=tuple(self.deleted),
            evicted=tuple(self.evicted),
            held=dict(self.held),
            dropped=self.dropped,
            conflicts=self.conflicts,
            refused=dict(self.refused),
            errors=self.errors,
            name_conflicts=frozenset(self.name_conflicts),
            child_errors=dict(self.child_errors),
            newest=self.newest,
        )


class InterruptedActError(UnavailableError):
    """The API server went away in the middle. ``outcome``: what was done until then."""

    def __init__(self, error: UnavailableError, *, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(str(error), status=error.status)
