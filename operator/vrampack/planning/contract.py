"""What was promised of a model: its precision, and that it stays the one that was resolved."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from vrampack.api import names
from vrampack.api.source import SourceKind, parse_source
from vrampack.planning.cases import Case
from vrampack.planning.conditions import former_conditions
from vrampack.planning.precision import CONTRADICTED, MISMATCH
from vrampack.planning.resolution import Look, Token, Watch
from vrampack.planning.verdict import Blocked, Sized

Fact = tuple[str, bool | None, str, str]
"""Type, whether it holds (None: not known), reason and message of a condition."""

_OF_FILES: Final = "gguf"
"""One file of a repository with many is served: its commit is pinned, and what else is there is not looked at."""
_SHORT: Final = 12
"""Digits of a commit in a message; of a digest after ``sha256:``."""


def facts_conditions(case: Case, look: Look | None) -> list[Fact]:
    """Estimated, PrecisionVerified and ModelUnchanged. ``look``: what the hub has now; None: not looked at yet."""
    sized = case.sized
    if isinstance(sized, Blocked):
        holds = False if sized.stalled else None
        found: list[Fact] = [("Estimated", holds, sized.reason, sized.message)]
        if sized.reason in (MISMATCH, CONTRADICTED):
            found.append(("PrecisionVerified", False, sized.reason, sized.message))
        return found
    method = sized.estimate.method.value if sized.estimate.method is not None else "Computed"
    found = [("Estimated", True, method, sized.estimate.explanation)]
    if (precision := sized.precision) is not None:
        found.append(("PrecisionVerified", precision.holds, precision.reason, precision.message))
    if sized.facts.profile and (sized.commit or sized.facts.weights_digest):
        found.append(("ModelUnchanged", *_unchanged(case, sized, look)))
    return found


def watches(cases: Iterable[Case]) -> Mapping[Watch, tuple[Token, ...]]:
    """What to look at from time to time, and the Secrets with which it may be seen: each model once."""
    found: dict[Watch, set[Token]] = defaultdict(set)
    for case in cases:
        if (watch := watch_of(case)) is not None and case.model.spec is not None:
            secret = case.model.spec.model.token_secret_ref
            token = (case.model.namespace, secret.name, secret.key) if secret is not None else None
            found[watch].add(token)
    return {watch: tuple(sorted(tokens, key=lambda each: each or ())) for watch, tokens in found.items()}


def watch_of(case: Case) -> Watch | None:
    """None: nothing is served yet, or from where there is nothing to look at."""
    spec, sized = case.model.spec, case.sized
    if spec is None or isinstance(sized, Blocked) or not (case.in_force and sized.facts.profile and sized.commit):
        return None
    if parse_source(spec.model.source).kind is not SourceKind.HUB or sized.facts.precision == _OF_FILES:
        return None
    return Watch(source=spec.model.source, revision=spec.model.revision, commit=sized.commit)


def _unchanged(case: Case, sized: Sized, look: Look | None) -> tuple[bool | None, str, str]:
    commit, digest = sized.commit, sized.facts.weights_digest
    served = case.annotations.get(names.DIGEST, "") if case.in_force else ""
    if served and digest and served != digest:
        return (
            False,
            "ProfileDigestChanged",
            (
                f"ModelProfile {sized.facts.profile} has weightsDigest {_short(digest)} now, and the replicas were "
                f"started with {_short(served)}; nothing is restarted: find out who changed the profile"
            ),
        )
    if not commit:
        return True, "Pinned", f"the weights of digest {_short(digest)} are served until the spec changes"
    if look is None:
        return _former(case, commit) or _pinned(commit)
    if look.reason:
        return None, look.reason, f"commit {commit} is served; the hub can't be looked at: {look.message}"
    return _compared(case, look, commit=commit, digest=digest)


def _compared(case: Case, look: Look, *, commit: str, digest: str) -> tuple[bool | None, str, str]:
    """What is served against what the hub has. An alarm comes before a move."""
    spec = case.model.spec
    where = (spec.model.revision if spec is not None else "") or "the default branch"
    if not look.pinned_digest:
        return (
            False,
            "CommitGone",
            f"the hub has commit {commit} no more: replicas that run go on, and a new one can't load it",
        )
    if digest and look.pinned_digest != digest:
        return (
            False,
            "DigestChanged",
            (
                f"the hub has other weight files at commit {commit} now ({_short(look.pinned_digest)} instead of "
                f"{_short(digest)}); nothing is restarted, but a new replica would load them: find out why first"
            ),
        )
    if not look.head:
        return False, "RevisionGone", f"the hub has no revision {where} any more; commit {commit} stays in service"
    if look.head != commit:
        weights = "the same weights" if look.digest and look.digest == look.pinned_digest else "other weights"
        return (
            False,
            "RevisionMoved",
            (
                f"{where} is at commit {look.head} now, with {weights}; commit {commit} stays in service until the "
                f"spec changes or the annotation {names.REFRESH} gets a new value"
            ),
        )
    return _pinned(commit)


def _pinned(commit: str) -> tuple[bool, str, str]:
    return True, "Pinned", f"commit {commit} is served until the spec changes"


def _former(case: Case, commit: str) -> tuple[bool | None, str, str] | None:
    """What was found of this commit before this process began to look."""
    former = former_conditions(case.model.status).get("ModelUnchanged", {})
    message = str(former.get("message", ""))
    if former.get("status") != "False" or commit not in message or not case.in_force:
        return None
    return False, str(former.get("reason", "")), message


def _short(digest: str) -> str:
    scheme, colon, digits = digest.rpartition(":")
    return f"{scheme}{colon}{digits[:_SHORT]}"
