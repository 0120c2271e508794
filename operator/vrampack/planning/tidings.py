"""Events: what a person who looks at a ModelDeployment should be told once."""

from typing import Final

from vrampack.planning.actions import Tell
from vrampack.planning.conditions import former_conditions
from vrampack.planning.snapshot import Json, ModelView

_ALARMS: Final = ("PrecisionVerified", "ModelUnchanged")
"""Conditions that are told when they are False; of all others Ready, Reconciling and Stalled say enough."""
_BUDGET: Final = "WithinBudget"


def events_of(model: ModelView, status: Json) -> list[Tell]:
    """One event for each condition whose reason is a new one, where people look for it."""
    before = former_conditions(model.status)
    stalled = {each["reason"] for each in status["conditions"] if each["type"] == "Stalled"}
    return [
        Tell(
            kind="ModelDeployment",
            namespace=model.namespace,
            name=model.name,
            uid=model.uid,
            type="Warning" if condition["type"] in ("Stalled", _BUDGET, *_ALARMS) else "Normal",
            reason=condition["reason"],
            message=condition["message"][:1000],
        )
        for condition in status["conditions"]
        if _worth_it(condition, before.get(condition["type"], {}), stalled)
    ]


def _worth_it(condition: Json, former: Json, stalled: set[str]) -> bool:
    type_, reason = condition["type"], condition["reason"]
    if type_ == _BUDGET:
        # The figures move all the time; that it is over its budget is news once.
        return condition["status"] == "False" and former.get("status") != "False"
    if type_ in _ALARMS:
        # A branch that moves again is news, though the reason is the same.
        same = (former.get("reason"), former.get("message")) == (reason, condition["message"])
        return condition["status"] == "False" and reason not in stalled and not same
    if type_ not in ("Ready", "Reconciling", "Stalled") or former.get("reason") == reason:
        return False
    return bool(type_ != "Ready" or condition["status"] == "True")  # else Reconciling or Stalled says why
