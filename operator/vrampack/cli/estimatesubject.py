"""What ``vrampack estimate`` is asked about: ModelDeployments from files, or one made of options.

Both are sized by the code of the operator, so the figure is the one that a cluster would claim.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from vrampack.api import names
from vrampack.api.gpupool import GPUPoolSpec
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.api.modelprofile import ModelProfileSpec, ModelProfileStatus
from vrampack.api.source import SourceKind, parse_source, profile_name
from vrampack.errors import InvalidInputError
from vrampack.models.facts import ModelFacts
from vrampack.models.profile import profile_manifest
from vrampack.planning.sizing import size
from vrampack.planning.snapshot import ModelView, PoolView, ProfileView
from vrampack.planning.verdict import Blocked, Settings, Sized

Json = dict[str, Any]
Read = Callable[[str, str | None, str], ModelFacts]
"""The facts of a ``hf://`` source at a revision, and of one file of it where one is named."""

_MAX_BYTES: Final = 16 * 1024**2
_DEEPEST: Final = 200
"""Levels of maps and lists; an object of Kubernetes has fewer than thirty."""
_SHOWN: Final = 80
_LOCAL: Final = "pvc://local/model"
"""Stands for a folder of this machine where the API wants a source that a cluster can reach."""

_Spec = TypeVar("_Spec", bound=BaseModel)


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
            profiles={self.profile.name: self.profile} if self.profile is not None else {},
            resolutions={},
            commit=self.commit,
            settings=Settings(hub_token_namespaces=frozenset({self.namespace})),
            products=products,
        )


def subject_of_options(model: str, facts: ModelFacts, spec: Json) -> Subject:
    """A ModelDeployment that nobody wrote: ``spec`` without its model. Raises InvalidInputError."""
    on_hub = model.startswith("hf://")
    source = model if on_hub else _LOCAL
    profile = _profile_of(replace(facts, source=source))
    wanted = _parsed(ModelDeploymentSpec, {**spec, "model": {"source": source}}, field="spec")
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
    objects = [each for path in paths for each in _objects(path)]
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
    pools = {_name(each): each for each in by_kind["GPUPool"]}
    return [_subject(each, overrides, profiles, pools, read) for each in by_kind["ModelDeployment"]]


def _subject(
    found: Json, overrides: Json, profiles: Mapping[str, ProfileView], pools: Mapping[str, Json], read: Read
) -> Subject:
    name = _name(found)
    raw = dict(_object(found.get("spec"), f"{name}.spec"))
    for part, values in overrides.items():
        raw[part] = {**_object(raw.get(part) or {}, f"{name}.spec.{part}"), **values}
    spec = _parsed(ModelDeploymentSpec, raw, field=f"{name}: spec")
    profile, commit = (None, "") if spec.engine.name.value == "custom" else _facts(name, spec, profiles, read)
    return Subject(
        name=name,
        model=spec.model.source,
        spec=spec,
        profile=profile,
        commit=commit,
        pool=_pool(pools, spec.placement.pool),
        namespace=str(found["metadata"].get("namespace") or "default"),
    )


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
            "--source pvc://CLAIM/PATH writes one)",
        )
    return found, found.spec.revision if found.spec else ""


def _profile_of(facts: ModelFacts) -> ProfileView:
    manifest = profile_manifest(facts)
    spec = _parsed(ModelProfileSpec, manifest["spec"], field="ModelProfile")
    return ProfileView(name=manifest["metadata"]["name"], generation=1, spec=spec)


def _profile_view(found: Json) -> ProfileView:
    name = _name(found)
    status = _parsed(ModelProfileStatus, found.get("status") or {}, field=f"{name}: status")
    return ProfileView(
        name=name,
        generation=1,
        spec=_parsed(ModelProfileSpec, _object(found.get("spec"), f"{name}.spec"), field=f"{name}: spec"),
        measurements=status.measurements,
    )


def _pool(pools: Mapping[str, Json], name: str) -> PoolView:
    """One that is in no file counts as one with default values: which nodes it has does not matter here."""
    raw = pools.get(name, {}).get("spec") or {}
    return PoolView(name=name, generation=1, spec=_parsed(GPUPoolSpec, raw, field=f"GPUPool {name}: spec"))


def _objects(path: Path) -> Iterator[Json]:
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InvalidInputError(field="--file", value=str(path), allowed=f"it can't be read: {why}") from error
    if len(content) > _MAX_BYTES:
        raise InvalidInputError(field="--file", value=str(path), allowed=f"it is larger than {_MAX_BYTES} bytes")
    try:
        _check_depth(content, path)
        documents = list(yaml.load_all(content, Loader=yaml.CSafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise InvalidInputError(field="--file", value=str(path), allowed=f"write YAML: {why[:300]}") from error
    for document in documents:
        for each in document.get("items") or () if _is_list(document) else (document,):
            if isinstance(each, dict):
                yield each


def _check_depth(content: bytes, path: Path) -> None:
    """The reader's own recursion is in C, where nothing ends it but the end of the stack."""
    depth = 0
    for event in yaml.parse(content, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise InvalidInputError(field="--file", value=str(path), allowed=f"no more than {_DEEPEST} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _is_list(document: object) -> bool:
    """What ``kubectl get -o yaml`` prints of several objects."""
    return isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list)


def _name(found: Json) -> str:
    metadata = _object(found.get("metadata"), f"{found['kind']}.metadata")
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidInputError(field=f"{found['kind']}.metadata.name", value=name, allowed="every object has a name")
    return name


def _object(value: object, field: str) -> Json:
    if not isinstance(value, dict):
        raise InvalidInputError(field=field, value=_shown(value), allowed="write an object")
    return value


def _parsed(model: type[_Spec], raw: Json, *, field: str) -> _Spec:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInputError(
            field=".".join(str(part) for part in (field, *first["loc"])),
            value=None if first["type"] == "missing" else _shown(first["input"]),
            allowed=first["msg"].removeprefix("Value error, "),
        ) from error


def _shown(value: object) -> object:
    """As it is, or the beginning of it in words."""
    text = repr(value)
    return value if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
