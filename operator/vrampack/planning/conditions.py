"""Conditions, with the time of their last transition carried from one status to the next."""

from collections.abc import Iterable
from datetime import UTC, datetime

from vrampack.planning.snapshot import Json


def carried(
    before: Iterable[Json],
    *,
    type_: str,
    holds: bool | None,
    reason: str,
    message: str,
    generation: int,
    now: float,
) -> Json:
    """A condition; ``holds`` None is Unknown. ``now``: seconds since 1970."""
    status = "Unknown" if holds is None else str(holds)
    former = next((each for each in before if each.get("type") == type_), None)
    since = former["lastTransitionTime"] if former is not None and former.get("status") == status else _time(now)
    return {
        "type": type_,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message[:8192],
    }


def _time(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
