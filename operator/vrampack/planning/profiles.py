"""Which ModelProfile has the facts of a ModelDeployment's model, and at which commit."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.api.source import SourceKind, parse_source, profile_name
from vrampack.planning.resolution import Resolution, ResolveRequest
from vrampack.planning.snapshot import ModelView, ProfileView
from vrampack.planning.verdict import Blocked, Settings

_COMMIT_LENGTHS: Final = (40, 64)


def find_profile(
    model: ModelView,
    spec: ModelDeploymentSpec,
    profiles: Mapping[str, ProfileView],
    resolutions: Mapping[ResolveRequest, Resolution],
    commit: str,
    settings: Settings,
) -> tuple[ProfileView, str, ResolveRequest | None] | Blocked:
    """The profile with the model's facts, the commit that is served, and what has to stay resolved for it."""
    source = parse_source(spec.model.source)
    if source.kind is SourceKind.PROFILE:
        if (found := profiles.get(source.name)) is None:
            return Blocked(
                stalled=True,
                reason="ProfileNotFound",
                message=f"spec.model.source: there is no ModelProfile {source.name!r}; apply it, or name another "
                "one; vrampack profile prints one to apply",
            )
        return found, found.spec.revision if found.spec else "", None
    if source.kind is SourceKind.CLAIM:
        found = next((each for each in profiles.values() if _is_of(each, spec)), None)
        if found is None:
            folder = f"/models/{source.path}".rstrip("/")
            return Blocked(
                stalled=True,
                reason="ProfileNotFound",
                message=f"no ModelProfile has the source {spec.model.source}, and the operator mounts no volumes; "
                f"where the claim {source.name} is mounted (at /models, say) run: "
                f"vrampack profile {folder} --source {spec.model.source} | kubectl apply -f -",
            )
        return found, found.spec.revision if found.spec else "", None
    token = spec.model.token_secret_ref
    if token is not None and model.namespace not in settings.hub_token_namespaces:
        return Blocked(
            stalled=True,
            reason="SecretForbidden",
            message=f"spec.model.tokenSecretRef: Secrets of namespace {model.namespace} are not read; add it to the "
            "chart's value hubTokens.namespaces",
        )
    request = ResolveRequest(
        source=spec.model.source,
        revision=spec.model.revision,
        token_secret=(model.namespace, token.name, token.key) if token is not None else None,
        file=spec.model.file,
    )
    kept = None
    if not commit:
        if _is_commit(spec.model.revision):
            commit = spec.model.revision
        elif (resolution := resolutions.get(request)) is not None and resolution.commit:
            commit, kept = resolution.commit, request
    if commit and (known := profiles.get(profile_name(spec.model.source, commit, spec.model.file))) is not None:
        return known, commit, kept
    resolution = resolutions.get(request)
    if resolution is not None and resolution.reason is not None:
        return Blocked(
            stalled=not resolution.retriable,
            reason=resolution.reason,
            message=resolution.message or "",
            resolve=request,
        )
    return Blocked(
        stalled=False,
        reason="ResolvingModel",
        message=f"reading the facts of {spec.model.source} from the model hub",
        resolve=request,
    )


def _is_of(profile: ProfileView, spec: ModelDeploymentSpec) -> bool:
    """Whether a profile is of this source, and of the file that the model names, by name or pattern."""
    facts = profile.spec
    if facts is None or facts.source != spec.model.source:
        return False
    return not spec.model.file or fnmatchcase(facts.file, spec.model.file)


def _is_commit(revision: str) -> bool:
    return len(revision) in _COMMIT_LENGTHS and all(digit in "0123456789abcdef" for digit in revision)
