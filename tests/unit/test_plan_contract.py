"""What was promised of a model: its precision, and that it stays the one that was resolved."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.planning_world import (
    Json,
    annotated,
    children,
    condition,
    decide,
    estimated,
    model,
    of_kind,
    placed,
    profile,
    status_of,
    told,
    world,
)
from vrampack.api import names
from vrampack.api.modelprofile import ModelProfileSpec
from vrampack.api.source import profile_name
from vrampack.planning.actions import ApplyChild, CreateChild, Plan
from vrampack.planning.precision import verdict
from vrampack.planning.resolution import Look, Resolution, ResolveRequest, Watch
from vrampack.planning.snapshot import ModelView, ProfileView, Snapshot

HUB = "hf://org/model"
COMMIT, MOVED = "b" * 40, "d" * 40
DIGEST, OTHER_DIGEST = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
FACTS = profile(profile_name(HUB, COMMIT), source=HUB, revision=COMMIT, weights_digest=DIGEST)
MAIN = Watch(source=HUB, revision="main", commit=COMMIT)
SAME = Look(head=COMMIT, digest=DIGEST, pinned_digest=DIGEST)


# Precision.

GIB14 = {"BF16": "14Gi"}


@pytest.mark.parametrize(
    ("wanted", "found", "by_dtype", "holds", "words"),
    [
        ("Auto", "bf16", GIB14, True, "is Auto, and the checkpoint is bf16 (14.00 GiB BF16)"),
        ("bf16", "bf16", GIB14, True, "asks for bf16, and the checkpoint is bf16 (14.00 GiB BF16)"),
        ("bf16", "bf16", {}, True, "asks for bf16, and the checkpoint is bf16, its profile says"),
        ("fp8", "bf16", GIB14, False, "asks for fp8, and the checkpoint hf://meta/llama is bf16 (14.00 GiB BF16)"),
        (
            "bf16",
            "awq",
            {"I32": "4Gi", "F16": "1Gi"},
            False,
            "the checkpoint hf://meta/llama is awq",
        ),
        ("bf16", "bf16", {"F32": "28Gi", "U8": "1Mi"}, True, "the checkpoint is bf16 (28.00 GiB F32, 1 MiB U8)"),
        ("Auto", "bf16", {"F8_E4M3": "7Gi", "BF16": "2Gi"}, False, "says bf16, but its tensors are not (7.00 GiB F8_E"),
        ("fp8", "fp8", {"F8_E4M3": "7Gi", "BF16": "2Gi"}, True, "asks for fp8, and the checkpoint is fp8"),
        ("fp8", "fp8", GIB14, False, "says fp8, but its tensors are not (14.00 GiB BF16)"),
        ("gptq", "gptq", {"I32": "4Gi", "F16": "1Gi"}, True, "is gptq"),
        ("mxfp4", "mxfp4", {"U8": "12Gi", "BF16": "1Gi"}, True, "is mxfp4"),
        ("nvfp4", "nvfp4", {"F8_E4M3": "1Gi", "BF16": "1Gi"}, False, "says nvfp4, but its tensors are not"),
        ("gguf", "gguf", {"Q4_K": "4Gi", "F32": "1Mi"}, True, "is gguf"),
    ],
)
def test_the_contract_names_what_was_asked_for_and_what_is_there(
    wanted: str, found: str, by_dtype: Mapping[str, str], holds: bool, words: str
) -> None:
    spec = estimated(precision={"weights": wanted}).spec
    raw = profile().spec.model_dump() | {"precision": found}  # type: ignore[union-attr]
    raw["weight_files"] = {"bytes": "16Gi", "by_dtype": by_dtype}
    assert spec is not None
    said = verdict(spec, ModelProfileSpec.model_validate(raw))
    assert said.holds is holds
    assert words in said.message


def test_a_mismatch_is_stalled_and_says_both_precisions() -> None:
    found = decide(world(estimated(precision={"weights": "fp8"}), profiles=[profile()]))
    for type_ in ("Stalled", "PrecisionVerified"):
        said = condition(status_of(found), type_)
        assert said["reason"] == "PrecisionMismatch"
        assert "asks for fp8" in said["message"]
        assert "is bf16" in said["message"]
    assert [event.reason for event in found.events] == ["PrecisionMismatch"], "told once"


def test_a_mismatch_that_is_served_is_told_once() -> None:
    snapshot = world(estimated(precision={"weights": "fp8", "onMismatch": "Warn"}), profiles=[profile()])
    found = decide(snapshot)
    [alarm] = [event for event in found.events if event.reason == "PrecisionMismatch"]
    assert alarm.type == "Warning"
    assert not [event for event in decide(told(snapshot, found)).events if event.reason == "PrecisionMismatch"]


def test_a_profile_whose_tensors_are_something_else_is_stalled() -> None:
    facts = profile(weight_files={"bytes": "16Gi", "by_dtype": {"F8_E4M3": "14Gi", "BF16": "2Gi"}})
    status = status_of(decide(world(estimated(), profiles=[facts])))
    assert condition(status, "Stalled")["reason"] == "PrecisionContradicted"


# What the hub has now.


def served(*, revision: str = "main", **fields: Any) -> ModelView:
    return estimated(source=HUB, model={"source": HUB, "revision": revision}, **fields)


def serving(
    look: Look | None = None, *, facts: ProfileView = FACTS, revision: str = "main", count: int = 1
) -> Snapshot:
    """Models of one branch that are served."""
    request = ResolveRequest(source=HUB, revision=revision, token_secret=None)
    models = [replace(served(revision=revision), name=f"m{each}", uid=f"uid-{each}") for each in range(count)]
    resolved = {request: Resolution(commit=COMMIT)}
    before = world(*models, profiles=[FACTS], resolutions=resolved)
    found = told(before, decide(before))
    looks = {replace(MAIN, revision=revision): look} if look is not None else {}
    return replace(found, profiles=(facts,), resolutions={}, looks=looks)


def unchanged(snapshot: Snapshot) -> tuple[str, str, str]:
    said = condition(status_of(decide(snapshot), "m0"), "ModelUnchanged")
    return said["status"], said["reason"], said["message"]


def templates(found: Plan) -> list[Json]:
    """The templates that a plan sends out."""
    sent = [each.manifest for each in (*of_kind(found, ApplyChild), *of_kind(found, CreateChild))]
    return [each["spec"]["template"] for each in sent if each["kind"] == "Deployment"]


def test_a_branch_that_moved_is_said_and_restarts_nothing() -> None:
    snapshot = serving(Look(head=MOVED, digest=OTHER_DIGEST, pinned_digest=DIGEST))
    found = decide(snapshot)
    status, reason, message = unchanged(snapshot)
    assert (status, reason) == ("False", "RevisionMoved")
    assert f"main is at commit {MOVED} now, with other weights; commit {COMMIT} stays in service" in message
    assert names.REFRESH in message
    [event] = found.events
    assert (event.type, event.reason, event.name) == ("Warning", "RevisionMoved", "m0")
    assert found.changed == {"RevisionMoved": 1}
    assert found.resolve == ()
    assert not templates(found)
    after = told(snapshot, found)
    assert not decide(after).events, "told once"
    again = replace(after, looks={MAIN: Look(head="e" * 40, digest="", pinned_digest=DIGEST)})
    assert [event.reason for event in decide(again).events] == ["RevisionMoved"], "and again when it moves again"


LOOKS = [
    (SAME, "True", "Pinned", COMMIT),
    (Look(head=MOVED, digest=DIGEST, pinned_digest=DIGEST), "False", "RevisionMoved", "with the same weights"),
    (Look(pinned_digest=DIGEST), "False", "RevisionGone", "no revision main any more"),
    (
        Look(head=COMMIT, digest=OTHER_DIGEST, pinned_digest=OTHER_DIGEST),
        "False",
        "DigestChanged",
        "sha256:222222222222",
    ),
    (Look(head=MOVED, digest=DIGEST), "False", "CommitGone", "a new one can't load it"),
    (Look(reason="HubForbidden", message="no access"), "Unknown", "HubForbidden", "no access"),
]


@pytest.mark.parametrize(("look", "status", "reason", "words"), LOOKS)
def test_what_the_hub_has_now_is_a_condition(look: Look, status: str, reason: str, words: str) -> None:
    snapshot = serving(look)
    said = unchanged(snapshot)
    assert said[:2] == (status, reason)
    assert words in said[2]
    assert not templates(decide(snapshot))


def test_a_profile_with_another_digest_is_an_alarm_and_no_update() -> None:
    tampered = replace(FACTS, spec=FACTS.spec.model_copy(update={"weights_digest": OTHER_DIGEST}))  # type: ignore[union-attr]
    snapshot = serving(facts=tampered)
    status, reason, message = unchanged(snapshot)
    assert (status, reason) == ("False", "ProfileDigestChanged")
    assert "sha256:222222222222 now, and the replicas were started with sha256:111111111111" in message
    assert not templates(decide(snapshot))
    assert "ProfileDigestChanged" in {event.reason for event in decide(snapshot).events}


def test_weights_on_a_volume_have_a_digest_too() -> None:
    source = "pvc://models/llama"
    facts = profile("on-volume", source=source, revision="", weights_digest=DIGEST)
    model_ = replace(estimated(source=source), name="m0", uid="uid-0")
    before = world(model_, profiles=[facts])
    snapshot = told(before, decide(before))
    assert unchanged(snapshot) == (
        "True",
        "Pinned",
        "the weights of digest sha256:111111111111 are served until the spec changes",
    )
    tampered = replace(facts, spec=facts.spec.model_copy(update={"weights_digest": OTHER_DIGEST}))  # type: ignore[union-attr]
    assert unchanged(replace(snapshot, profiles=(tampered,)))[:2] == ("False", "ProfileDigestChanged")
    assert decide(snapshot).watch == {}


def test_an_alarm_stays_until_somebody_has_looked_again() -> None:
    """A new leader has looked at nothing yet."""
    moved = serving(Look(head=MOVED, pinned_digest=DIGEST))
    after = replace(told(moved, decide(moved)), looks={})
    assert unchanged(replace(after, now=after.now + 60, pods=(placed("m0-0", of="m0"),)))[:2] == (
        "False",
        "RevisionMoved",
    )
    back = replace(after, looks={MAIN: SAME})
    assert unchanged(back)[:2] == ("True", "Pinned")


def test_a_hundred_models_of_one_branch_are_looked_at_once() -> None:
    found = decide(serving(count=100))
    assert found.watch == {MAIN: (None,)}


def test_the_secrets_of_all_readers_are_known_to_the_look() -> None:
    from vrampack.planning.contract import watches

    snapshot = serving(count=2)
    assert watches(()) == {}
    token = {"source": HUB, "revision": "main", "tokenSecretRef": {"name": "hub", "key": "token"}}
    reader = replace(served(), name="m1", uid="uid-1")
    reader = replace(reader, spec=reader.spec.model_copy(update={"model": model(model=token).spec.model}))  # type: ignore[union-attr]
    before = world(
        *snapshot.models[:1],
        reader,
        profiles=[FACTS],
        resolutions={
            ResolveRequest(source=HUB, revision="main", token_secret=each): Resolution(commit=COMMIT)
            for each in (None, (reader.namespace, "hub", "token"))
        },
    )
    allowed = {"hub_token_namespaces": frozenset({reader.namespace})}
    after = told(before, decide(before, **allowed))
    assert decide(after, **allowed).watch == {MAIN: (None, (reader.namespace, "hub", "token"))}


def test_nothing_is_looked_at_that_is_not_on_the_hub_or_not_served() -> None:
    assert decide(world(estimated(), pods=[placed()], profiles=[profile()])).watch == {}
    assert decide(world(model(), pods=[placed()])).watch == {}
    fresh = served()
    request = ResolveRequest(source=HUB, revision="main", token_secret=None)
    found = decide(world(fresh, profiles=[FACTS], resolutions={request: Resolution(commit=COMMIT)}))
    assert found.watch == {}
    [template] = templates(found)
    assert f"--revision={COMMIT}" in template["spec"]["containers"][0]["args"]


def test_a_refresh_asks_the_hub_where_the_branch_is() -> None:
    snapshot = serving(Look(head=MOVED, pinned_digest=DIGEST))
    asked = replace(snapshot, models=(replace(snapshot.models[0], refresh="1"),))
    found = decide(asked)
    assert [each.revision for each in found.resolve] == ["main"]
    assert not templates(found)
    resolved = {found.resolve[0]: Resolution(commit=MOVED)}
    newer = replace(FACTS, name=profile_name(HUB, MOVED))
    newer = replace(newer, spec=FACTS.spec.model_copy(update={"revision": MOVED, "weights_digest": OTHER_DIGEST}))  # type: ignore[union-attr]
    [template] = templates(decide(replace(asked, profiles=(FACTS, newer), resolutions=resolved)))
    assert f"--revision={MOVED}" in template["spec"]["containers"][0]["args"]


def test_a_deployment_of_an_older_version_has_no_digest_to_compare() -> None:
    snapshot = serving(SAME)
    made = annotated(snapshot.children, weights_digest="")
    assert unchanged(replace(snapshot, children=made))[:2] == ("True", "Pinned")
    assert children(estimated(), profiles=[profile()]), "and a profile without one is no obstacle"


# One file of a repository, and the model that drafts.

QUANTIZED = "*Q4_K_M.gguf"


def gguf_served() -> Snapshot:
    asked = {"source": HUB, "revision": "main", "file": QUANTIZED}
    engine = {"name": "llamacpp", "version": "b10107"}
    found = replace(estimated(source=HUB, model=asked, engine=engine), name="m0", uid="uid-0")
    request = ResolveRequest(source=HUB, revision="main", token_secret=None, file=QUANTIZED)
    facts = profile(
        profile_name(HUB, COMMIT, QUANTIZED),
        source=HUB,
        revision=COMMIT,
        weights_digest=DIGEST,
        precision="gguf",
        file="model-Q4_K_M.gguf",
    )
    before = world(found, profiles=[facts], resolutions={request: Resolution(commit=COMMIT)})
    after = told(before, decide(before))
    return replace(after, resolutions={})


def test_a_gguf_file_is_looked_at_by_its_name() -> None:
    snapshot = gguf_served()
    watched = replace(MAIN, file=QUANTIZED)
    assert decide(snapshot).watch == {watched: (None,)}
    moved = Look(head=MOVED, digest=OTHER_DIGEST, pinned_digest=DIGEST)
    assert unchanged(replace(snapshot, looks={MAIN: moved}))[:2] == ("True", "Pinned"), "of other files"
    seen = replace(snapshot, looks={watched: moved})
    found = decide(seen)
    assert unchanged(seen)[:2] == ("False", "RevisionMoved")
    assert found.changed == {"RevisionMoved": 1}
    assert [event.reason for event in found.events] == ["RevisionMoved"]
    assert not templates(found)


DRAFT = "hf://org/draft"
DRAFT_COMMIT = "c" * 40
DRAFT_DIGEST = f"sha256:{'3' * 64}"
DRAFT_WATCH = Watch(source=DRAFT, revision="", commit=DRAFT_COMMIT)


def draft_facts(digest: str = DRAFT_DIGEST) -> ProfileView:
    facts = profile().spec
    assert facts is not None
    shape = facts.architecture.model_dump() | {"layers": 1}
    files = {"bytes": "850Mi", "embedding_bytes": "250Mi"}
    return profile(
        profile_name(DRAFT, DRAFT_COMMIT),
        source=DRAFT,
        revision=DRAFT_COMMIT,
        architecture=shape,
        weight_files=files,
        weights_digest=digest,
    )


def drafting() -> Snapshot:
    speculation = {"method": "eagle3", "draftModel": DRAFT, "tokens": 3}
    served_ = replace(served(speculation=speculation), name="m0", uid="uid-0")
    resolved = {
        ResolveRequest(source=HUB, revision="main", token_secret=None): Resolution(commit=COMMIT),
        ResolveRequest(source=DRAFT, revision="", token_secret=None): Resolution(commit=DRAFT_COMMIT),
    }
    before = world(served_, profiles=[FACTS, draft_facts()], resolutions=resolved)
    return replace(told(before, decide(before)), resolutions={})


def test_the_model_that_drafts_is_looked_at_too() -> None:
    snapshot = drafting()
    assert decide(snapshot).watch == {MAIN: (None,), DRAFT_WATCH: (None,)}
    status, reason, message = unchanged(snapshot)
    assert (status, reason) == ("True", "Pinned")
    assert f"commit {COMMIT} is served" in message
    assert f"spec.speculation.draftModel {DRAFT}: commit {DRAFT_COMMIT} is served" in message


def test_a_draft_that_moved_is_said_told_and_counted_and_restarts_nothing() -> None:
    moved = Look(head=MOVED, digest=OTHER_DIGEST, pinned_digest=DRAFT_DIGEST)
    snapshot = replace(drafting(), looks={MAIN: SAME, DRAFT_WATCH: moved})
    found = decide(snapshot)
    status, reason, message = unchanged(snapshot)
    assert (status, reason) == ("False", "RevisionMoved")
    assert message.startswith(f"spec.speculation.draftModel {DRAFT}: the default branch is at commit {MOVED} now")
    [event] = found.events
    assert (event.type, event.reason) == ("Warning", "RevisionMoved")
    assert found.changed == {"RevisionMoved": 1}
    assert not templates(found)
    after = told(snapshot, found)
    assert not decide(after).events, "told once"
    fresh = replace(after, looks={}, now=after.now + 60, pods=(placed("m0-0", of="m0"),))
    assert unchanged(fresh) == (status, reason, message), "a new leader has looked at nothing yet"


def test_of_two_findings_the_worse_counts_and_both_are_said() -> None:
    moved = Look(head=MOVED, digest=OTHER_DIGEST, pinned_digest=DIGEST)
    gone = Look(head=MOVED, digest=OTHER_DIGEST)
    away = Look(reason="HubForbidden", message="no access")
    both = unchanged(replace(drafting(), looks={MAIN: moved, DRAFT_WATCH: gone}))
    assert both[:2] == ("False", "CommitGone"), "an alarm comes before a move"
    assert f"the hub has commit {DRAFT_COMMIT} no more" in both[2]
    assert f"main is at commit {MOVED} now" in both[2]
    assert unchanged(replace(drafting(), looks={MAIN: away, DRAFT_WATCH: gone}))[:2] == ("False", "CommitGone")
    assert unchanged(replace(drafting(), looks={MAIN: SAME, DRAFT_WATCH: away}))[:2] == ("Unknown", "HubForbidden")


def test_a_draft_s_profile_with_another_digest_is_an_alarm() -> None:
    snapshot = replace(drafting(), profiles=(FACTS, draft_facts(OTHER_DIGEST)))
    status, reason, message = unchanged(snapshot)
    assert (status, reason) == ("False", "ProfileDigestChanged")
    assert "sha256:222222222222 now, and the replicas were started with sha256:333333333333" in message
    assert not templates(decide(snapshot))
