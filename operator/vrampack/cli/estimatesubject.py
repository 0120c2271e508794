"""What ``vrampack estimate`` is asked about: ModelDeployments from files, or one made of options.

Both are sized by the code of the operator, so the figure is the one that a cluster would claim.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from vrampack.api import names
from vrampack.api.gpupool import GPUPoolSpec
from vrampack.api.modeldeployment import ModelDeploymentSpec, ModelRef
from vrampack.api.modelprofile import ModelProfileSpec, ModelProfileStatus
from vrampack.api.source import SourceKind, parse_source, profile_name
from vrampack.cli.manifests import mapping, name_of, objects_of, parsed
from vrampack.errors import InvalidInputError
from vrampack.models.facts import ModelFacts
from vrampack.models.profile import profile_manifest
from vrampack.planning.sizing import size
from vrampack.planning.snapshot import ModelView, PoolView, ProfileView
from vrampack.planning.verdict import Blocked, Settings, Sized

Json = dict[str, Any]
Read = Callable[[str, str | None, str], ModelFacts]
"""The facts of a ``hf://`` source at a revision, and of one file of it where one is named."""

_LOCAL: Final = "pvc://local/model"
"""Stands for a folder of this machine where the API wants a source that a cluster can reach."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One ModelDeployment, and all that sizing it needs."""

    name: str
    model: str
    """Where the model is, as the user wrote it."""
    spec: ModelDeploymentSpec
    profile: ProfileView | None
    """None: a custom engine, of whose model nothing has to be known."""
    commit: str
    pool: PoolView
    namespace: str = "default"
    draft: ProfileView | None = None
    """Of the model that drafts, where the spec names one."""
    draft_commit: str = ""

    def sized(self, spec: ModelDeploymentSpec | None = None, *, products: Sequence[str] = ()) -> Sized | Blocked:
        """What a replica needs, by the spec or by another one; ``products``: of the GPUs that it may get."""
        view = ModelView(
            namespace=self.namespace,
            name=self.name,
            uid="",
            resource_version="",
            generation=1,
            deleting=False,
            refresh="",
            spec=spec or self.spec,
            raw_spec={},
        )
        return size(
            view,
            pool=self.pool,
            profiles={each.name: each for each in (self.profile, self.draft) if each is not None},
            resolutions={},
            commit=self.commit,
            draft_commit=self.draft_commit,
            settings=Settings(hub_token_namespaces=frozenset({self.namespace})),
            products=products,
        )


def subject_of_options(model: str, facts: ModelFacts, spec: Json) -> Subject:
    """A ModelDeployment that nobody wrote: ``spec`` without its model. Raises InvalidInputError."""
    on_hub = model.startswith("hf://")
    source = model if on_hub else _LOCAL
    profile = _profile_of(replace(facts, source=source))
    wanted = parsed(ModelDeploymentSpec, {**spec, "model": {"source": source}}, field="spec")
    return Subject(
        name=model,
        model=model,
        spec=wanted,
        profile=profile,
        commit=facts.commit,
        pool=_pool({}, wanted.placement.pool),
    )


def subjects_of_files(paths: Iterable[Path], *, overrides: Json, read: Read) -> list[Subject]:
    """The ModelDeployments of these files, with the ModelProfiles and GPUPools that stand beside them.

    ``overrides``: values that are laid over every spec, part by part. Raises InvalidInputError for what no API server
    would take, ModelSourceError and UnsupportedModelError where a model can't be read.
    """
    objects = [each for path in paths for each in objects_of(path)]
    by_kind: dict[str, list[Json]] = {"ModelDeployment": [], "ModelProfile": [], "GPUPool": []}
    for each in objects:
        if each.get("kind") in by_kind and str(each.get("apiVersion", "")).startswith(f"{names.GROUP}/"):
            by_kind[each["kind"]].append(each)
    if not by_kind["ModelDeployment"]:
        raise InvalidInputError(
            field="--file",
            value=", ".join(str(path) for path in paths),
            allowed=f"there is no ModelDeployment of {names.GROUP} in it: name a file that has one",
        )
    profiles = {view.name: view for view in map(_profile_view, by_kind["ModelProfile"])}
    pools = {name_of(each): each for each in by_kind["GPUPool"]}
    return [_subject(each, overrides, profiles, pools, read) for each in by_kind["ModelDeployment"]]


def _subject(
    found: Json, overrides: Json, profiles: Mapping[str, ProfileView], pools: Mapping[str, Json], read: Read
) -> Subject:
    name = name_of(found)
    raw = dict(mapping(found.get("spec"), f"{name}.spec"))
    for part, values in overrides.items():
        raw[part] = {**mapping(raw.get(part) or {}, f"{name}.spec.{part}"), **values}
    spec = parsed(ModelDeploymentSpec, raw, field=f"{name}: spec")
    profile, commit = (None, "") if spec.engine.name.value == "custom" else _facts(name, spec, profiles, read)
    draft, draft_commit = _draft_facts(name, spec, profiles, read)
    return Subject(
        name=name,
        model=spec.model.source,
        spec=spec,
        profile=profile,
        commit=commit,
        pool=_pool(pools, spec.placement.pool),
        namespace=str(found["metadata"].get("namespace") or "default"),
        draft=draft,
        draft_commit=draft_commit,
    )


def _draft_facts(
    name: str, spec: ModelDeploymentSpec, profiles: Mapping[str, ProfileView], read: Read
) -> tuple[ProfileView | None, str]:
    """Of the model that drafts."""
    if spec.speculation is None or not spec.speculation.draft_model:
        return None, ""
    alone = spec.model_copy(update={"model": ModelRef(source=spec.speculation.draft_model)})
    return _facts(name, alone, profiles, read)


def _facts(
    name: str, spec: ModelDeploymentSpec, profiles: Mapping[str, ProfileView], read: Read
) -> tuple[ProfileView, str]:
    source = parse_source(spec.model.source)
    if source.kind is SourceKind.HUB:
        known = profiles.get(profile_name(spec.model.source, spec.model.revision, spec.model.file))
        if known is not None:
            return known, spec.model.revision
        facts = read(spec.model.source, spec.model.revision or None, spec.model.file)
        return _profile_of(facts), facts.commit
    if source.kind is SourceKind.PROFILE:
        found = profiles.get(source.name)
    else:
        found = next((each for each in profiles.values() if each.spec and each.spec.source == spec.model.source), None)
    if found is None:
        raise InvalidInputError(
            field=f"{name}: spec.model.source",
            value=spec.model.source,
            allowed="its ModelProfile is needed: give the file that has it with another -f (vrampack profile FOLDER "
            f"--source {spec.model.source if source.kind is SourceKind.CLAIM else 'pvc://CLAIM/PATH'} writes one)",
        )
    return found, found.spec.revision if found.spec else ""


def _profile_of(facts: ModelFacts) -> ProfileView:
    manifest = profile_manifest(facts)
    spec = parsed(ModelProfileSpec, manifest["spec"], field="ModelProfile")
    return ProfileView(name=manifest["metadata"]["name"], generation=1, spec=spec)


def _profile_view(found: Json) -> ProfileView:
    name = name_of(found)
    status = parsed(ModelProfileStatus, found.get("status") or {}, field=f"{name}: status")
    return ProfileView(
        name=name,
        generation=1,
        spec=parsed(ModelProfileSpec, mapping(found.get("spec"), f"{name}.spec"), field=f"{name}: spec"),
        measurements=status.measurements,
    )


def _pool(pools: Mapping[str, Json], name: str) -> PoolView:
    """One that is in no file counts as one with default values: which nodes it has does not matter here."""
    raw = pools.get(name, {}).get("spec") or {}
    return PoolView(name=name, generation=1, spec=parsed(GPUPoolSpec, raw, field=f"GPUPool {name}: spec"))
