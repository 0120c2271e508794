"""The model that drafts tokens for another one (``spec.speculation.draftModel``): its facts, and its commit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vrampack.api.modeldeployment import ModelDeploymentSpec, ModelRef
from vrampack.api.source import SourceKind, parse_source
from vrampack.memory.draft import FIELD, Draft
from vrampack.planning.facts import architecture_and_weights
from vrampack.planning.profiles import find_profile
from vrampack.planning.resolution import Resolution, ResolveRequest
from vrampack.planning.snapshot import ModelView, ProfileView
from vrampack.planning.verdict import Blocked, PinnedDraft, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDraft:
    """``resolve``: what it was resolved by, as long as nothing keeps its commit."""

    draft: Draft
    pinned: PinnedDraft
    resolve: ResolveRequest | None


def find_draft(
    model: ModelView,
    spec: ModelDeploymentSpec,
    profiles: Mapping[str, ProfileView],
    resolutions: Mapping[ResolveRequest, Resolution],
    commit: str,
    settings: Settings,
) -> FoundDraft | Blocked | None:
    """None: nothing drafts, or nothing beside the model itself.

    It is looked for as a model that is served by itself: on the hub with the same token, in a claim by its profile.
    Raises InvalidInputError for figures of its profile that contradict each other.
    """
    if spec.speculation is None or not (source := spec.speculation.draft_model):
        return None
    token = spec.model.token_secret_ref if parse_source(source).kind is SourceKind.HUB else None
    alone = spec.model_copy(update={"model": ModelRef(source=source, token_secret_ref=token)})
    found = find_profile(model, alone, profiles, resolutions, commit, settings)
    if isinstance(found, Blocked):
        return replace(found, message=f"{FIELD}: {found.message}", resolve=None, draft_resolve=found.resolve)
    profile, served, request = found
    if profile.spec is None:
        return Blocked(stalled=True, reason="InvalidProfile", message=f"ModelProfile {profile.name}: {profile.problem}")
    architecture, weights = architecture_and_weights(profile.spec)
    pinned = PinnedDraft(profile=profile.name, source=source, commit=served, digest=profile.spec.weights_digest)
    return FoundDraft(draft=Draft(architecture=architecture, weights=weights), pinned=pinned, resolve=request)
