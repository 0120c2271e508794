"""Conditions, with the time of their last transition carried from one status to the next."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from vrampack.planning.snapshot import Json
from vrampack.units import shortened

_MOST_CHARACTERS: Final = 8192  # the bound of the resources
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def former_conditions(status: Mapping[str, Any]) -> Mapping[str, Json]:
    """The conditions of a status, by type. Anybody may have written them: one that can't be read is none."""
    found = status.get("conditions")
    return {
        each["type"]: each
        for each in (found if isinstance(found, list) else ())
        if isinstance(each, dict) and isinstance(each.get("type"), str) and _is_time(each.get("lastTransitionTime"))
    }


def carried(
    before: Mapping[str, Json],
    *,
    type_: str,
    holds: bool | None,
    reason: str,
    message: str,
    generation: int,
    now: float,
) -> Json:
    """A condition; ``holds`` None is Unknown. ``before``: the former ones. ``now``: seconds since 1970."""
    status = "Unknown" if holds is None else str(holds)
    former = before.get(type_)
    since = former["lastTransitionTime"] if former is not None and former.get("status") == status else _time(now)
    return {
        "type": type_,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": since,
        "reason": reason,
        "message": shortened(message, most=_MOST_CHARACTERS),
    }


def _time(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(_TIME.fullmatch(value) and datetime.fromisoformat(value))
    except ValueError:
        return False
