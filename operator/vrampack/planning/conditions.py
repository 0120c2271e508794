"""Conditions, with the time of their last transition carried from one status to the next."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from vrampack.planning.snapshot import Json
from vrampack.units import shortened

_MOST_CHARACTERS: Final = 8192  # the bound of the resources
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


Said = tuple[str, bool | None, str, str]
"""A condition in short: type, whether it holds (None: Unknown), reason and message."""


def conditions_of(said: Iterable[Said], *, status: Mapping[str, Any], generation: int, now: float) -> list[Json]:
    """The conditions as they are to stand. ``status``: what stands there. ``now``: seconds since 1970."""
    before = former_conditions(status)
    return [_carried(each, before.get(each[0]), generation=generation, now=now) for each in said]


def former_conditions(status: Mapping[str, Any]) -> Mapping[str, Json]:
    """The conditions of a status, by type. Anybody may have written them: one that can't be read is none."""
    found = status.get("conditions")
    return {
        each["type"]: each
        for each in (found if isinstance(found, list) else ())
        if isinstance(each, dict) and isinstance(each.get("type"), str) and _is_time(each.get("lastTransitionTime"))
    }


def _carried(said: Said, former: Json | None, *, generation: int, now: float) -> Json:
    type_, holds, reason, message = said
    status = "Unknown" if holds is None else str(holds)
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
