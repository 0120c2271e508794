"""Drafting reaches the claim and the engine."""

import json
from typing import Any

import pytest

from tests.unit.planning_world import Json, decide, estimated, profile, world
from vrampack.api import names
from vrampack.planning.actions import CreateChild
from vrampack.planning.need import Need


def template(**fields: Any) -> Json:
    """Of a model with one layer that predicts further tokens."""
    facts = profile().spec
    assert facts is not None
    shape = facts.architecture.model_dump() | {"predict_layers": 1}
    snapshot = world(estimated(**fields), profiles=[profile(architecture=shape)])
    sent = [each.manifest for each in decide(snapshot).children if isinstance(each, CreateChild)]
    found: Json = next(each["spec"]["template"] for each in sent if each["kind"] == "Deployment")
    return found


def need(found: Json) -> Need:
    return Need.from_json(found["metadata"]["annotations"][names.NEED])


@pytest.mark.parametrize("method", ["mtp", "ngram"])
def test_drafting_is_in_the_claim_and_in_the_engine_s_arguments(method: str) -> None:
    plain, drafting = template(), template(speculation={"method": method, "tokens": 3})
    assert need(drafting).bytes > need(plain).bytes
    more = (need(drafting).kv - need(plain).kv) / need(plain).kv
    assert (more > 1 / 40) == (method == "mtp"), "a layer more keeps the past, and drafted tokens with any method"
    [argument] = [
        each for each in drafting["spec"]["containers"][0]["args"] if each.startswith("--speculative-config=")
    ]
    assert json.loads(argument.partition("=")[2]) == {"method": method, "num_speculative_tokens": 3}
    assert not [each for each in plain["spec"]["containers"][0]["args"] if "speculative" in each]
