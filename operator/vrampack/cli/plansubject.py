"""What ``vrampack plan`` looks at: manifests, laid over a live cluster or a fleet that exists only on paper."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from vrampack.agent.fleet import Fleet, SimulatedNode
from vrampack.agent.simulated import read_node
from vrampack.agent.status import conditions_of, status_of
from vrampack.api import names
from vrampack.api.gpunode import GPUNodeSpec
from vrampack.api.gpupool import GPUPoolSpec
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.api.modelprofile import ModelProfileSpec, ModelProfileStatus
from vrampack.api.source import SourceKind, parse_source, profile_name
from vrampack.cli.manifests import check_object, files_in, mapping, name_of, objects_of, parsed
from vrampack.cli.metadata import check_metadata, check_namespace
from vrampack.errors import InvalidInputError, ModelSourceError, UnsupportedModelError
from vrampack.kube.wire import Metadata, Node, NodeStatus
from vrampack.models.facts import ModelFacts
from vrampack.models.profile import profile_manifest
from vrampack.planning.playedkubernetes import DEFAULT_CLASS, Priority
from vrampack.planning.resolution import Resolution, ResolveRequest
from vrampack.planning.snapshot import GPUNodeView, Memory, ModelView, NodeView, PoolView, ProfileView, Snapshot

Json = dict[str, Any]
Read = Callable[[str, str | None], ModelFacts]
"""The facts of a ``hf://`` source at a revision."""

SYSTEM_CLASSES: Final[Mapping[str, Priority]] = {
    "system-cluster-critical": Priority(value=2_000_000_000),
    "system-node-critical": Priority(value=2_000_001_000),
}
"""What every cluster has."""

_OURS: Final = ("ModelDeployment", "ModelProfile", "GPUPool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """What the files say. ``ignored``: objects of other kinds, by kind."""

    models: tuple[ModelView, ...]
    profiles: tuple[ProfileView, ...] = ()
    pools: tuple[PoolView, ...] = ()
    classes: Mapping[str, Priority] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)


def read_manifests(paths: Iterable[Path], *, namespace: str) -> Manifests:
    """All objects in these files and folders. ``namespace``: of those that name none.

    Raises InvalidInputError with the path of the first thing that no API server would take, and where there is no
    ModelDeployment at all.
    """
    check_namespace(namespace, field="--namespace")
    files = [file for path in paths for file in files_in(path)]
    objects = [each for file in files for each in objects_of(file)]
    models: dict[str, ModelView] = {}
    profiles: list[ProfileView] = []
    pools: list[PoolView] = []
    classes: dict[str, Priority] = {}
    ignored: Counter[str] = Counter()
    for each in objects:
        kind, version = each.get("kind"), str(each.get("apiVersion", ""))
        if kind in _OURS and version.startswith(f"{names.GROUP}/"):
            check_object(each)
            match kind:
                case "ModelDeployment":
                    view = _model(each, namespace)
                    if view.key in models:
                        raise InvalidInputError(field=f"ModelDeployment {view.key}", value=view.key, allowed=_ONCE)
                    models[view.key] = view
                case "ModelProfile":
                    profiles.append(_profile(each))
                case _:
                    pools.append(_pool(each))
        elif kind == "PriorityClass":
            _check_class(each)
            classes |= priority_classes([each])
        else:
            ignored[str(kind or "?")] += 1
    if not models:
        raise InvalidInputError(
            field="manifests",
            value=", ".join(map(str, files[:4])),
            allowed=f"there is no ModelDeployment of {names.GROUP} in them: name a file or folder that has one",
        )
    return Manifests(
        models=tuple(models[key] for key in sorted(models)),
        profiles=tuple(profiles),
        pools=tuple(pools),
        classes=classes,
        ignored=dict(sorted(ignored.items())),
    )


_HIGHEST: Final = 10**9
"""Of a user's PriorityClass."""
_POLICIES: Final = ("PreemptLowerPriority", "Never")
_ONCE: Final = "it is in the manifests more than once: leave one"


def _check_class(found: Json) -> None:
    """Raises InvalidInputError for what an API server refuses of a class that a user makes."""
    name, value, policy = name_of(found), found.get("value"), found.get("preemptionPolicy", _POLICIES[0])
    check_metadata(found, None)
    if name.startswith("system-"):
        raise InvalidInputError(
            field="PriorityClass.metadata.name", value=name, allowed="system- is for Kubernetes' own"
        )
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value <= _HIGHEST:
        allowed = f"write a whole number from {-(2**31)} to {_HIGHEST}"
        raise InvalidInputError(field=f"PriorityClass {name}: value", value=value, allowed=allowed)
    if policy not in _POLICIES:
        allowed = f"it is one of {', '.join(_POLICIES)}"
        raise InvalidInputError(field=f"PriorityClass {name}: preemptionPolicy", value=policy, allowed=allowed)


def priority_classes(objects: Iterable[Json]) -> dict[str, Priority]:
    """PriorityClasses by name; the one that is the cluster's default also under the name of no class."""
    found: dict[str, Priority] = {}
    for listed in objects:
        each = {"kind": "PriorityClass", **listed}  # the items of a list don't say it
        value = each.get("value", 0)
        if not isinstance(value, int):
            raise InvalidInputError(field=f"{name_of(each)}.value", value=value, allowed="write a whole number")
        mine = Priority(value=value, preempts=each.get("preemptionPolicy") != "Never")
        found[name_of(each)] = mine
        if each.get("globalDefault"):
            found[DEFAULT_CLASS] = mine
    return found


def fleet_snapshot(fleet: Fleet, *, now: float) -> Snapshot:
    """An empty cluster of these nodes, all agents alive but for the silent ones."""
    nodes = list(fleet.expand())
    return Snapshot(
        now=now,
        gpu_nodes=tuple(_gpu_node(each, fleet) for each in nodes),
        nodes=tuple(
            NodeView(
                name=each.name,
                labels={names.PRODUCT_LABEL: each.product.label, "kubernetes.io/hostname": each.name, **each.labels},
                ready=True,
                unschedulable=False,
                taints=tuple(taint.model_dump() for taint in each.taints),
                cpu=each.cpu,
                memory=each.memory,
                pods=each.pods,
            )
            for each in nodes
        ),
        pools=(PoolView(name=names.DEFAULT_POOL, generation=0, spec=GPUPoolSpec()),),
        memory=Memory(started=now),
    )


def planned(base: Snapshot, manifests: Manifests, *, read: Read) -> Snapshot:
    """``base`` as it would be once the manifests are applied. ``read``: asks the hub for what nobody has a profile of.

    Raises InvalidInputError where the facts of a model can't be had, and says what to do.
    """
    present = {each.key: each for each in base.models}
    models = present | {each.key: _laid_over(each, present.get(each.key)) for each in manifests.models}
    pools = {each.name: each for each in base.pools} | {each.name: each for each in manifests.pools}
    profiles = {each.name: each for each in base.profiles} | {each.name: each for each in manifests.profiles}
    resolutions = dict(base.resolutions)
    for model in manifests.models:
        if _changed(models[model.key], present.get(model.key)):
            _resolve(models[model.key], profiles, resolutions, read, sure=manifests.profiles)
    return replace(
        base,
        models=tuple(sorted(models.values(), key=lambda each: (each.namespace, each.name))),
        pools=tuple(pools[name] for name in sorted(pools)),
        profiles=tuple(profiles[name] for name in sorted(profiles)),
        resolutions=resolutions,
    )


def check_classes(manifests: Manifests, classes: Mapping[str, Priority]) -> None:
    """Raises InvalidInputError for a priority class that nobody has: Kubernetes would refuse the pods."""
    for model in manifests.models:
        wanted = model.spec.priority_class_name if model.spec is not None else None
        if wanted and wanted not in classes:
            raise InvalidInputError(
                field=f"{model.key}: spec.priorityClassName",
                value=wanted,
                allowed="there is no such PriorityClass: add its manifest, or name another one",
            )


def _laid_over(new: ModelView, old: ModelView | None) -> ModelView:
    if old is None:
        return new
    changed = old.raw_spec != new.raw_spec
    return replace(
        new,
        uid=old.uid,
        resource_version=old.resource_version,
        generation=old.generation + changed,
        refresh=new.refresh or old.refresh,
        status=old.status,
    )


def _changed(new: ModelView, old: ModelView | None) -> bool:
    """Whether it asks for a model that was not served before; what is served keeps its commit."""
    return old is None or old.spec is None or new.spec is None or old.spec.model != new.spec.model


def _resolve(
    model: ModelView,
    profiles: dict[str, ProfileView],
    resolutions: dict[ResolveRequest, Resolution],
    read: Read,
    *,
    sure: Sequence[ProfileView],
) -> None:
    """Finds the commit and the facts as the operator would: by a profile that is there, else by the hub."""
    spec = model.spec
    if spec is None or spec.engine.name.value == "custom":
        return
    if parse_source(spec.model.source).kind is not SourceKind.HUB:
        return  # sizing names the profile that it misses
    if profile_name(spec.model.source, spec.model.revision) in profiles:
        return
    token = spec.model.token_secret_ref
    request = ResolveRequest(
        source=spec.model.source,
        revision=spec.model.revision,
        token_secret=(model.namespace, token.name, token.key) if token is not None else None,
    )
    beside = [each for each in sure if each.spec is not None and each.spec.source == spec.model.source]
    view = beside[0] if len(beside) == 1 else _asked(model, spec, read)
    assert view.spec is not None
    profiles[profile_name(spec.model.source, view.spec.revision)] = replace(
        view, name=profile_name(spec.model.source, view.spec.revision)
    )
    resolutions[request] = Resolution(commit=view.spec.revision)


def _asked(model: ModelView, spec: ModelDeploymentSpec, read: Read) -> ProfileView:
    try:
        facts = read(spec.model.source, spec.model.revision or None)
        manifest = profile_manifest(facts)
    except (ModelSourceError, UnsupportedModelError) as error:
        raise InvalidInputError(
            field=f"{model.key}: spec.model.source",
            value=spec.model.source,
            allowed=f"its facts can't be had ({error}); put its ModelProfile beside the manifests "
            f"(vrampack profile {spec.model.source} writes one where the hub can be reached)",
        ) from error
    return ProfileView(
        name=manifest["metadata"]["name"],
        generation=1,
        spec=parsed(ModelProfileSpec, manifest["spec"], field="ModelProfile"),
    )


def _model(found: Json, namespace: str) -> ModelView:
    name = name_of(found)
    metadata = found["metadata"]
    where = metadata.get("namespace") or namespace
    raw = mapping(found.get("spec"), f"{name}: spec")
    annotations = mapping(metadata.get("annotations") or {}, f"{name}: metadata.annotations")
    return ModelView(
        namespace=str(where),
        name=name,
        uid=f"{where}/{name}",
        resource_version="",
        generation=1,
        deleting=False,
        refresh=str(annotations.get(names.REFRESH, "")),
        spec=parsed(ModelDeploymentSpec, raw, field=f"{name}: spec"),
        raw_spec=raw,
    )


def _profile(found: Json) -> ProfileView:
    name = name_of(found)
    status = parsed(ModelProfileStatus, mapping(found.get("status") or {}, f"{name}: status"), field=f"{name}: status")
    return ProfileView(
        name=name,
        generation=1,
        spec=parsed(ModelProfileSpec, mapping(found.get("spec"), f"{name}: spec"), field=f"{name}: spec"),
        measurements=status.measurements,
    )


def _pool(found: Json) -> PoolView:
    name = name_of(found)
    spec = parsed(GPUPoolSpec, mapping(found.get("spec") or {}, f"{name}: spec"), field=f"GPUPool {name}: spec")
    return PoolView(name=name, generation=1, spec=spec)


def _gpu_node(node: SimulatedNode, fleet: Fleet) -> GPUNodeView:
    """The GPUNode as the simulated agent would report it."""
    allocatable = {"cpu": f"{node.cpu}m", "memory": str(node.memory), "pods": str(node.pods)}
    wire = Node(
        metadata=Metadata(name=node.name, uid=node.name, resource_version=""),
        status=NodeStatus(allocatable=allocatable),
    )
    reading = read_node(fleet=fleet, simulated=node, node=wire, pods=(), now=datetime.fromtimestamp(0, UTC))
    now = "1970-01-01T00:00:00Z"  # nobody looks at it
    status = status_of(reading, conditions=conditions_of(reading, before={}, now=now).values(), now=now)
    return GPUNodeView(
        name=node.name,
        generation=1,
        spec=GPUNodeSpec(),
        status=status,
        raw_status=status.wire(),
        agent_alive=not node.silent,
    )
