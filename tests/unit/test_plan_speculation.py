"""Drafting reaches the claim and the engine."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.planning_world import Json, child, condition, decide, estimated, profile, status_of, world
from vrampack.api import names
from vrampack.api.source import profile_name
from vrampack.planning.actions import CreateChild, Plan
from vrampack.planning.need import Need
from vrampack.planning.resolution import Resolution, ResolveRequest
from vrampack.planning.snapshot import ProfileView
from vrampack.units import MIB


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


# ---- a second model ---------------------------------------------------------------------------------------------

SOURCE = "hf://org/draft"
FIRST, LATER = "c" * 40, "d" * 40
EAGLE = {"method": "eagle3", "draftModel": SOURCE, "tokens": 3}
ASKED = ResolveRequest(source=SOURCE, revision="", token_secret=None)


def draft(commit: str = FIRST) -> ProfileView:
    facts = profile().spec
    assert facts is not None
    shape = facts.architecture.model_dump() | {"layers": 1}
    files = {"bytes": str(850 * MIB), "embedding_bytes": str(250 * MIB)}
    return profile(profile_name(SOURCE, commit), source=SOURCE, revision=commit, architecture=shape, weight_files=files)


def drafting_template(found: Plan) -> Json:
    sent = [each.manifest for each in found.children if isinstance(each, CreateChild)]
    template: Json = next(each["spec"]["template"] for each in sent if each["kind"] == "Deployment")
    return template


def templates(found: Plan) -> list[str]:
    """What a plan does to Deployments."""
    return [f"{type(each).__name__} {each}" for each in found.children if "'Deployment'" in repr(each)]


def told(template: Json) -> Json:
    [argument] = [each for each in template["spec"]["containers"][0]["args"] if each.startswith("--speculative-config")]
    config: Json = json.loads(argument.partition("=")[2])
    return config


def test_the_facts_of_the_draft_are_asked_for_before_anything_is_made() -> None:
    found = decide(world(estimated(speculation=EAGLE), profiles=[profile()]))
    assert found.resolve == (ASKED,)
    assert found.children == ()
    assert condition(status_of(found), "Estimated")["reason"] == "ResolvingModel"


def test_a_draft_that_is_nowhere_stalls_the_model_and_is_named() -> None:
    gone = Resolution(reason="ModelNotFound", message="there is no such repository", retriable=False)
    found = decide(world(estimated(speculation=EAGLE), profiles=[profile()], resolutions={ASKED: gone}))
    stalled = condition(status_of(found), "Stalled")
    assert stalled["reason"] == "ModelNotFound"
    assert "spec.speculation.draftModel: there is no such repository" in stalled["message"]


@pytest.mark.parametrize("method", ["eagle", "eagle3", "medusa", "draft"])
def test_the_draft_is_in_the_claim_and_the_engine_is_told_its_commit(method: str) -> None:
    asked = estimated(speculation={**EAGLE, "method": method})
    known = {"profiles": [profile(), draft()], "resolutions": {ASKED: Resolution(commit=FIRST)}}
    made = drafting_template(decide(world(asked, **known)))
    assert need(made).bytes > need(template()).bytes + 800 * MIB
    assert told(made) == {
        "method": "draft_model" if method == "draft" else method,
        "num_speculative_tokens": 3,
        "model": "org/draft",
        "revision": FIRST,
        "draft_tensor_parallel_size": 1,
    }


def test_a_draft_that_moved_restarts_nothing() -> None:
    asked = estimated(speculation=EAGLE)
    before = world(asked, profiles=[profile(), draft()], resolutions={ASKED: Resolution(commit=FIRST)})
    made = [child(each.manifest, asked.uid) for each in decide(before).children if isinstance(each, CreateChild)]
    moved = world(
        asked,
        made=made,
        profiles=[profile(), draft(), draft(LATER)],
        resolutions={ASKED: Resolution(commit=LATER)},
    )
    assert not templates(decide(moved))
    restarted = decide(world(asked, made=made, profiles=[profile(), draft()]))  # an operator that has just started
    assert not templates(restarted)
    assert restarted.resolve == (), "the Deployment keeps the commit, and the hub need not be asked again"
    assert condition(status_of(restarted), "Estimated")["status"] == "True"
    refreshed = decide(world(replace(asked, refresh="1"), made=made, profiles=[profile(), draft()]))
    assert refreshed.resolve == (ASKED,), "the user asks for what is there now"


def test_data_parallel_ranks_are_in_the_need_and_the_engine_is_told() -> None:
    plain, ranks = template(), template(parallelism={"data": 4}, serving={"contextLength": 4096, "concurrency": 16})
    arguments = ranks["spec"]["containers"][0]["args"]
    assert need(ranks).gpus == 4
    assert need(ranks).kv == need(plain).kv, "four sequences are on each of them"
    assert {"--data-parallel-size=4", "--max-num-seqs=4"} <= set(arguments)
    assert not [each for each in plain["spec"]["containers"][0]["args"] if "data-parallel" in each]
