"""What was promised of a model: its precision, and that it stays the one that was resolved."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from vrampack.api import names
from vrampack.api.source import SourceKind, parse_source
from vrampack.memory.draft import FIELD
from vrampack.planning.cases import Case
from vrampack.planning.conditions import former_conditions
from vrampack.planning.precision import CONTRADICTED, MISMATCH
from vrampack.planning.resolution import Look, Token, Watch
from vrampack.planning.verdict import Blocked, Sized

Finding = tuple[bool | None, str, str]
"""Whether it holds (None: not known), reason and message of a condition."""
Fact = tuple[str, bool | None, str, str]
"""The same, after the condition's type."""

_MOVES: Final = ("RevisionMoved", "RevisionGone")
"""Reasons that anybody may give at any time; all others are alarms."""
_SHORT: Final = 12
"""Digits of a commit in a message; of a digest after ``sha256:``."""


def facts_conditions(case: Case, looks: Mapping[Watch, Look]) -> list[Fact]:
    """Estimated, PrecisionVerified and ModelUnchanged. ``looks``: what the hub has now, as far as it was looked at."""
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
    if (unchanged := _unchanged(case, sized, looks)) is not None:
        found.append(("ModelUnchanged", *unchanged))
    return found


def watches(cases: Iterable[Case]) -> Mapping[Watch, tuple[Token, ...]]:
    """What to look at from time to time, and the Secrets with which it may be seen: each model once."""
    found: dict[Watch, set[Token]] = defaultdict(set)
    for case in cases:
        if case.model.spec is None or isinstance(case.sized, Blocked) or not case.in_force:
            continue
        secret = case.model.spec.model.token_secret_ref
        token = (case.model.namespace, secret.name, secret.key) if secret is not None else None
        for each in _served(case, case.sized):
            if each.watch is not None:
                found[each.watch].add(token)
    return {watch: tuple(sorted(tokens, key=lambda each: each or ())) for watch, tokens in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """A model whose weights the replicas load: the ModelDeployment's own, or the one that drafts for it."""

    profile: str
    source: str
    revision: str
    commit: str
    digest: str
    """Over its weight files, as its profile has it now."""
    started: str
    """The same when the replicas were started; empty: not known."""
    file: str = ""
    prefix: str = ""
    """Of messages, where it is not the model itself."""

    @property
    def watch(self) -> Watch | None:
        """None: there is nothing to look at where it is from."""
        if not self.commit or parse_source(self.source).kind is not SourceKind.HUB:
            return None
        return Watch(source=self.source, revision=self.revision, commit=self.commit, file=self.file)


def _served(case: Case, sized: Sized) -> Iterator[_Served]:
    """What is pinned by a commit or a digest."""
    spec = case.model.spec
    if spec is None or not sized.facts.profile:
        return
    started = case.annotations if case.in_force else {}
    if sized.commit or sized.facts.weights_digest:
        yield _Served(
            profile=sized.facts.profile,
            source=spec.model.source,
            revision=spec.model.revision,
            commit=sized.commit,
            digest=sized.facts.weights_digest,
            started=started.get(names.DIGEST, ""),
            file=spec.model.file,
        )
    if (draft := sized.draft) is not None and (draft.commit or draft.digest):
        yield _Served(
            profile=draft.profile,
            source=draft.source,
            revision="",
            commit=draft.commit,
            digest=draft.digest,
            started=started.get(names.DRAFT_DIGEST, ""),
            prefix=f"{FIELD} {draft.source}: ",
        )


def _unchanged(case: Case, sized: Sized, looks: Mapping[Watch, Look]) -> Finding | None:
    """Of all that is served the worst, in one condition. None: nothing is pinned."""
    found = [_judged(case, each, looks) for each in _served(case, sized)]
    if not found:
        return None
    worst = min((holds for holds, _, _ in found), key=(False, None, True).index)
    alike = sorted((each for each in found if each[0] is worst), key=lambda each: each[1] in _MOVES)
    return worst, alike[0][1], "; ".join(dict.fromkeys(message for _, _, message in alike))


def _judged(case: Case, served: _Served, looks: Mapping[Watch, Look]) -> Finding:
    if served.started and served.digest and served.started != served.digest:
        message = (
            f"ModelProfile {served.profile} has weightsDigest {_short(served.digest)} now, and the replicas were "
            f"started with {_short(served.started)}; nothing is restarted: find out who changed the profile"
        )
        return False, "ProfileDigestChanged", served.prefix + message
    if not served.commit:
        message = f"the weights of digest {_short(served.digest)} are served until the spec changes"
        return True, "Pinned", served.prefix + message
    watch = served.watch
    look = looks.get(watch) if watch is not None and case.in_force else None
    if look is None and (former := _former(case, served.commit)) is not None:
        return former
    holds, reason, message = _pinned(served.commit) if look is None else _compared(served, look)
    return holds, reason, served.prefix + message


def _compared(served: _Served, look: Look) -> Finding:
    """What is served against what the hub has. An alarm comes before a move."""
    commit, digest = served.commit, served.digest
    where = served.revision or "the default branch"
    if look.reason:
        return None, look.reason, f"commit {commit} is served; the hub can't be looked at: {look.message}"
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


def _pinned(commit: str) -> Finding:
    return True, "Pinned", f"commit {commit} is served until the spec changes"


def _former(case: Case, commit: str) -> Finding | None:
    """What was found of this commit before this process began to look."""
    former = former_conditions(case.model.status).get("ModelUnchanged", {})
    message = str(former.get("message", ""))
    if former.get("status") != "False" or commit not in message or not case.in_force:
        return None
    return False, str(former.get("reason", "")), message


def _short(digest: str) -> str:
    scheme, colon, digits = digest.rpartition(":")
    return f"{scheme}{colon}{digits[:_SHORT]}"
