"""A model whose need is not known: it says why and what to do, asks no guess, and leaves what serves alone."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.planning_world import (
    children,
    condition,
    decide,
    estimated,
    model,
    placed,
    pod,
    profile,
    status_of,
    told,
    unreadable,
    waiting,
    where,
    world,
)
from vrampack.api.source import profile_name
from vrampack.planning import rollout, sizing
from vrampack.planning.cases import Case
from vrampack.planning.plan import plan
from vrampack.planning.resolution import Resolution, ResolveRequest
from vrampack.planning.rollout import Rolled
from vrampack.planning.snapshot import ModelView, ProfileView
from vrampack.planning.verdict import Settings

HUB = "hf://org/model"
COMMIT = "b" * 40
ASKED = ResolveRequest(source=HUB, revision="", token_secret=None)
STATES = {"name": "a", "mixers": [{"state": {"kind": "WKV", "convKernel": 2, "keyDim": 64, "valueHeads": 64}}]}
UNKNOWN = profile(
    architecture={
        "modelType": "rwkv7",
        "layers": 2,
        "hiddenSize": 4096,
        "intermediateSize": 0,
        "vocabSize": 65536,
        "attentionHeads": 0,
        "kvHeads": 0,
        "headDim": 0,
        "dtype": "bfloat16",
        "layerKinds": [STATES],
        "layerOrder": [{"kind": "a", "count": 2}],
    }
)
EAGLE = {"method": "eagle", "draftModel": "hf://org/draft", "tokens": 3}
CLAIMED = {"method": "eagle", "draftModel": "pvc://claim/draft", "tokens": 3}
GATED = {"source": HUB, "tokenSecretRef": {"name": "hub"}}


def deep(levels: int) -> dict[str, Any]:
    return {"a": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("wanted", "reason", "words"),
    [
        (unreadable(model(), "spec.replicas: -1"), "InvalidSpec", "spec.replicas: -1"),
        (model(placement={"pool": "gold"}), "PoolNotFound", "'gold'"),
        (model(memory={}), "InvalidSpec", "spec.memory.perGPU"),
        (model(speculation={"method": "ngram", "tokens": 3}), "InvalidSpec", "spec.speculation"),
        (model(speculation=EAGLE), "InvalidSpec", "write mtp or ngram, or leave speculation out"),
        (estimated(speculation={"method": "mtp", "tokens": 1}), "InvalidSpec", "no layers that predict further tokens"),
        (estimated(speculation=CLAIMED), "ProfileNotFound", "spec.speculation.draftModel: no ModelProfile has"),
        (model(podTemplate={"spec": {"containers": "none"}}), "InvalidSpec", "spec.podTemplate.spec.containers"),
        (model(podTemplate={"spec": {"x": deep(300)}}), "InvalidSpec", "spec.podTemplate.spec.x"),
        (estimated(source="profile://other"), "ProfileNotFound", "'other'"),
        (estimated(source="pvc://claim/path"), "ProfileNotFound", "pvc://claim/path"),
        (estimated(model=GATED), "SecretForbidden", "hubTokens.namespaces"),
        (estimated(memory={"perGPU": "15Gi"}), "InvalidSpec", "write at least"),
        (estimated(precision={"weights": "fp8"}), "PrecisionMismatch", "asks for fp8"),
    ],
)
def test_a_dead_end_is_stalled_with_reason_and_words(wanted: ModelView, reason: str, words: str) -> None:
    found = decide(world(wanted, profiles=[profile()]))
    assert found.children == ()
    status = status_of(found)
    stalled = condition(status, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", reason)
    assert words in stalled["message"]
    assert condition(status, "Ready")["reason"] == reason
    assert condition(status, "Estimated")["status"] == "False"
    assert not condition(status, "Reconciling")
    [told_] = found.events
    assert (told_.type, told_.reason) == ("Warning", reason)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (UNKNOWN, "UnsupportedArchitecture"),
        (profile(precision="gguf"), "InvalidSpec"),
        (ProfileView(name="llama-8b", generation=1, spec=None, problem="spec.parameters: 0"), "InvalidProfile"),
    ],
)
def test_facts_that_give_no_estimate_are_stalled(facts: ProfileView, reason: str) -> None:
    status = status_of(decide(world(estimated(), profiles=[facts])))
    assert condition(status, "Stalled")["reason"] == reason
    assert status["waiting"][0]["count"] == 1


def test_one_bad_object_never_stops_the_others() -> None:
    bad = [unreadable(model("a"), "no"), model("b", placement={"pool": "gold"}), estimated("c")]
    found = decide(world(*bad, model(), pods=[pod()]))
    assert where(found) == {"llama-0": ("GPU-1",)}
    assert {each.name for each in found.statuses} >= {"a", "b", "c"}


def test_a_template_that_nobody_can_read_stops_its_own_model_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad shapes are refused before; this is for one that nobody thought of."""

    def roll(case: Case, **given: Any) -> Rolled:
        if case.model.name == "a":
            raise TypeError("string indices must be integers")
        return rollout.roll(case, **given)

    monkeypatch.setattr("vrampack.planning.plan.roll", roll)
    found = decide(world(model("a"), model(), pods=[placed("a-0", of="a"), pod()]))
    assert where(found) == {"llama-0": ("GPU-1",)}
    assert "can't be read" in condition(status_of(found, "a"), "Reconciling")["message"]


def test_the_former_revision_keeps_serving_when_the_new_one_is_stalled() -> None:
    made = children(estimated(), profiles=[profile()])
    new = estimated(precision={"weights": "fp8"}, replicas=2)
    found = decide(world(new, pods=[placed()], made=made, profiles=[profile()]))
    [scaled] = found.children[:1]
    assert "template" not in getattr(scaled, "patch", {}).get("spec", {})
    assert "bf16; the former revision keeps serving with 1 replica" in condition(status_of(found), "Stalled")["message"]


def test_a_mismatch_that_may_be_served_says_so() -> None:
    lenient = estimated(precision={"weights": "fp8", "onMismatch": "Warn"})
    found = decide(world(lenient, profiles=[profile()]))
    assert found.children
    status = status_of(found)
    assert not condition(status, "Stalled")
    assert condition(status, "PrecisionVerified")["status"] == "False"
    assert status["model"]["precision"] == "bf16"  # what is served, not what was asked for


def test_precision_is_never_changed_to_fit() -> None:
    found = decide(world(estimated(), profiles=[profile()], gpu_nodes=[]))
    container = found.children[0].manifest["spec"]["template"]["spec"]["containers"][0]  # type: ignore[union-attr]
    assert "--quantization" not in " ".join(container["args"])
    assert status_of(found)["model"]["kvCachePrecision"] == "bf16"


# The hub is asked by somebody else; the plan says what to ask.


def test_a_model_of_the_hub_is_asked_for_once_and_is_under_way() -> None:
    found = decide(world(estimated("a", source=HUB), estimated("b", source=HUB)))
    assert found.resolve == (ASKED,)
    status = status_of(found, "a")
    assert condition(status, "Reconciling")["reason"] == "ResolvingModel"
    assert condition(status, "Estimated")["status"] == "Unknown"
    assert not condition(status, "Stalled")
    assert waiting(found, "a")["reason"] == "ResolvingModel"
    assert found.waiting == {"ResolvingModel": 2}


@pytest.mark.parametrize(("retriable", "stalled"), [(True, False), (False, True)])
def test_what_the_hub_said_is_told(retriable: bool, stalled: bool) -> None:
    answer = Resolution(reason="ModelNotFound", message="no such repository", retriable=retriable)
    found = decide(world(estimated(source=HUB), resolutions={ASKED: answer}))
    assert found.resolve == (ASKED,)
    status = status_of(found)
    assert bool(condition(status, "Stalled")) is stalled
    assert condition(status, "Ready")["reason"] == "ModelNotFound"


def resolved(commit: str) -> dict[str, Any]:
    facts = [profile(profile_name(HUB, each), source=HUB, revision=each) for each in (COMMIT, "c" * 40)]
    return {"profiles": facts, "resolutions": {ASKED: Resolution(commit=commit)}}


def test_a_branch_that_moves_is_served_at_the_commit_of_the_last_change() -> None:
    first = world(estimated(source=HUB), **resolved(COMMIT))
    settled = told(first, decide(first))
    found = decide(replace(settled, pods=(placed(),), resolutions=resolved("c" * 40)["resolutions"]))
    assert not [each for each in found.children if getattr(each, "manifest", {}).get("kind") == "Deployment"]
    assert status_of(found)["model"]["revision"] == COMMIT
    assert found.resolve == ()
    asked = (replace(settled.models[0], refresh="now"),)
    found = decide(replace(settled, models=asked, resolutions=resolved("c" * 40)["resolutions"]))
    assert status_of(found)["model"]["revision"] == "c" * 40


def test_a_pinned_commit_with_its_profile_asks_nobody() -> None:
    pinned = estimated(model={"source": HUB, "revision": COMMIT})
    found = decide(world(pinned, profiles=resolved(COMMIT)["profiles"]))
    assert found.resolve == ()
    assert found.children


def test_a_token_is_read_only_where_the_admin_allows_it() -> None:
    private = world(estimated(model=GATED))
    [request] = plan(private, Settings(hub_token_namespaces=frozenset({"serving"}))).resolve
    assert request.token_secret == ("serving", "hub", "token")
    assert decide(private).resolve == ()


def test_a_status_of_another_version_is_no_obstacle() -> None:
    strange = unreadable(model(status={"model": {"parameters": "many"}, "placements": None}), "no")
    assert condition(status_of(decide(world(strange))), "Stalled")["reason"] == "InvalidSpec"


def test_a_scaled_down_model_that_is_stalled_waits_for_nothing() -> None:
    found = decide(world(estimated(replicas=0)))
    assert found.waiting == {}
    assert status_of(found)["waiting"] == []


@pytest.mark.parametrize("field", ["headDim", "attentionHeads"])
def test_a_profile_with_heads_of_nothing_is_refused_with_the_field(field: str) -> None:
    facts = profile().spec
    assert facts is not None
    shape = facts.architecture.wire() | {field: 0}
    status = status_of(decide(world(estimated(), profiles=[profile(architecture=shape)])))
    assert condition(status, "Stalled")["message"].startswith(f"spec.architecture.{field}: 0 is not allowed")


def test_a_model_on_which_the_estimate_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def figures(spec: Any, **known: Any) -> Any:
        if spec.serving.concurrency == 7:
            raise ZeroDivisionError("nobody thought of this")
        return whole(spec, **known)

    whole = sizing.figures
    monkeypatch.setattr(sizing, "figures", figures)
    odd = replace(estimated(serving={"contextLength": 4096, "concurrency": 7}), name="odd", uid="odd")
    found = decide(world(odd, estimated(), profiles=[profile()]))
    said = condition(status_of(found, "odd"), "Stalled")
    assert said["reason"] == "EstimateFailed"
    assert "nobody thought of this" in said["message"]
    assert {each.manifest["metadata"]["name"] for each in found.children if hasattr(each, "manifest")} == {"llama"}
