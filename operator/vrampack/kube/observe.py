"""From the API server to a Snapshot: fresh consistent lists in every pass; only what was parsed before is kept.

Pods are a thousand where the others are a hundred: they are read from a mirror that is as new as the reader needs it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Mapping
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from vrampack.api import names
from vrampack.api.gpunode import GPUNodeSpec, GPUNodeStatus
from vrampack.api.gpupool import GPUPoolSpec, Mechanism
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.api.modelprofile import ModelProfileSpec, ModelProfileStatus
from vrampack.errors import ClusterError, UnavailableError
from vrampack.kube import paths, wire
from vrampack.kube.agentleases import AgentLeases
from vrampack.kube.client import Kube
from vrampack.kube.devices import device_view
from vrampack.kube.mirror import Mirror
from vrampack.kube.pages import pages
from vrampack.kube.views import UNREADABLE, child_view, node_view, probe_view, problem_of, read_pod, replica_set_view
from vrampack.planning.resolution import Resolution, ResolveRequest
from vrampack.planning.snapshot import (
    ChildView,
    DeviceView,
    GPUNodeView,
    Memory,
    ModelView,
    PodView,
    PoolView,
    ProbeView,
    ProfileView,
    Snapshot,
)

_log = logging.getLogger(__name__)

_PAGE: Final = 250  # a page is in memory as a whole
_RESTARTS: Final = 3
_GONE: Final = 410
_OURS: Final = f"{names.MANAGED_BY}={names.MANAGER},{names.MODEL_DEPLOYMENT}"
_REQUESTS: Final = "ResourceClaimTemplate"
_CHILDREN: Final = ("Deployment", "Service", "PodDisruptionBudget")

Value = TypeVar("Value")
View = TypeVar("View")
Wire = TypeVar("Wire", wire.CustomObject, wire.Head, wire.Lease, wire.Node, wire.ReplicaSet)
Model = TypeVar("Model", bound=BaseModel)
Reader = Callable[[msgspec.Raw], tuple[wire.Metadata, View]]
"""Raises one of UNREADABLE where the object can't be read."""


class Parsed(Generic[Value]):
    """What was parsed, by object and version, for as long as the object is seen."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Value] = {}
        self._used: dict[Hashable, Value] = {}

    def get(self, key: Hashable, parse: Callable[[], Value]) -> Value:
        """``key``: names the object and its version."""
        if key not in self._used:
            self._used[key] = self._known[key] if key in self._known else parse()
        return self._used[key]

    def forget_unused(self) -> None:
        """Ends a pass: what nobody asked for in it is gone."""
        self._known, self._used = self._used, {}


class Observer:
    """Takes snapshots, one at a time.

    ``namespace``: the operator's, where the agents' Leases are. ``lease_clock``: seconds of a clock that never jumps.
    ``mirror``: the pods, as a watch tells of them; without it they are listed as all else. ``probing``: whether there
    are pods that find out how nodes hand out GPUs.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        lease_clock: Callable[[], float],
        mirror: Mirror | None = None,
        probing: bool = False,
    ) -> None:
        self._probing = probing
        self._kube = kube
        self._mirror = mirror
        self._namespace = namespace
        self._leases = AgentLeases(clock=lease_clock)
        self._models: Parsed[tuple[Any, str]] = Parsed()
        self._children: Parsed[ChildView] = Parsed()

    async def observe(
        self,
        *,
        now: float,
        memory: Memory,
        resolutions: Mapping[ResolveRequest, Resolution],
        since: int | None = None,
    ) -> Snapshot:
        """Everything at one moment. ``now``: seconds since 1970. Raises ClusterError where a list can't be had.

        ``since``: pods that are as new as this resourceVersion are new enough, if the mirror has them; None: only the
        API server knows.
        """
        try:
            return await self._observe(now=now, memory=memory, resolutions=resolutions, since=since)
        except ExceptionGroup as group:  # with one list missing there is no snapshot: the others were given up
            raise group.exceptions[0] from None

    async def _observe(
        self, *, now: float, memory: Memory, resolutions: Mapping[ResolveRequest, Resolution], since: int | None
    ) -> Snapshot:
        async with asyncio.TaskGroup() as group:

            def listed(
                kind: str, read: Reader[View], *, namespace: str = "", selector: str | None = None
            ) -> asyncio.Task[tuple[View, ...]]:
                path = paths.collection(kind, namespace=namespace)
                views: Coroutine[Any, Any, tuple[View, ...]] = self._list(kind, read, path=path, selector=selector)
                return group.create_task(views)

            leases = listed("Lease", _reader(wire.Lease, lambda lease: lease), namespace=self._namespace)
            models = listed("ModelDeployment", _reader(wire.CustomObject, self._model))
            profiles = listed("ModelProfile", _reader(wire.CustomObject, self._profile))
            gpu_nodes = listed("GPUNode", _reader(wire.CustomObject, self._gpu_node))
            pools = listed("GPUPool", _reader(wire.CustomObject, self._pool))
            nodes = listed("Node", _reader(wire.Node, node_view))
            pods = group.create_task(self._pods(since))
            replica_sets = listed("ReplicaSet", _reader(wire.ReplicaSet, replica_set_view), selector=_OURS)
            children = [listed(kind, self._child_reader(kind), selector=_OURS) for kind in _CHILDREN]
        devices, requests = await self._devices(pools.result())
        probes = await self._probes()
        self._models.forget_unused()
        self._children.forget_unused()
        alive = self._leases.alive(leases.result(), now=now)
        return Snapshot(
            now=now,
            models=models.result(),
            profiles=profiles.result(),
            gpu_nodes=tuple(replace(node, agent_alive=node.name in alive) for node in gpu_nodes.result()),
            pools=_with_default(pools.result()),
            nodes=nodes.result(),
            pods=pods.result(),
            replica_sets=replica_sets.result(),
            children=(*(child for kind in children for child in kind.result()), *requests),
            resolutions=resolutions,
            memory=memory,
            devices=devices,
            probes=probes,
        )

    async def _probes(self) -> tuple[ProbeView, ...]:
        if not self._probing:
            return ()
        path = paths.collection("Pod", namespace=self._namespace)
        return await self._list("Pod", _read_probe, path=path, selector=names.PROBE)

    async def _pods(self, since: int | None) -> tuple[PodView, ...]:
        if self._mirror is not None and since is not None:
            mirrored = await self._mirror.read(since=since)
            if mirrored is not None:
                return mirrored
        return await self._list("Pod", read_pod, path=paths.collection("Pod"), selector=names.MODEL_DEPLOYMENT)

    async def _devices(self, pools: tuple[PoolView, ...]) -> tuple[DeviceView | None, tuple[ChildView, ...]]:
        """What DRA knows, and our templates of claims; nothing is asked where no pool shares by it."""
        if not any(pool.spec.mechanism is Mechanism.DRA for pool in pools):
            return None, ()
        try:
            async with asyncio.TaskGroup() as group:
                heads = group.create_task(self._every("DeviceClass", _reader(wire.Head, lambda head: head)))
                slices, claims = (
                    group.create_task(self._every(kind, _reader(wire.CustomObject, lambda found: found)))
                    for kind in ("ResourceSlice", "ResourceClaim")
                )
                requests = group.create_task(self._every(_REQUESTS, self._child_reader(_REQUESTS), selector=_OURS))
        except ExceptionGroup as errors:
            error = errors.exceptions[0]
            if not isinstance(error, ClusterError) or isinstance(error, UnavailableError):
                raise error from None
            return DeviceView(problem=f"resource.k8s.io/v1 can't be read: {error}"), ()
        return device_view(heads.result(), slices.result(), claims.result()), requests.result()

    async def _every(self, kind: str, read: Reader[View], *, selector: str | None = None) -> tuple[View, ...]:
        return await self._list(kind, read, path=paths.collection(kind), selector=selector)

    async def _list(self, kind: str, read: Reader[View], *, path: str, selector: str | None) -> tuple[View, ...]:
        """All of a kind, sorted by namespace and name; starts again where the list expired between two pages."""
        for _ in range(_RESTARTS):
            try:
                return await self._whole(kind, read, path, labelSelector=selector, limit=_PAGE)
            except ClusterError as error:
                if error.status != _GONE:
                    raise
        return await self._whole(kind, read, path, labelSelector=selector)

    async def _whole(self, kind: str, read: Reader[View], path: str, **query: object) -> tuple[View, ...]:
        found: list[tuple[str, str, View]] = []
        async for page in pages(self._kube, path, **query):
            for raw in page.items or ():
                try:
                    meta, view = read(raw)
                except UNREADABLE as error:
                    _log.warning("a %s can't be read, so it is left out: %s: %.200s", kind, error, bytes(raw))
                else:
                    found.append((meta.namespace, meta.name, view))
        found.sort(key=lambda entry: entry[:2])
        return tuple(view for _, _, view in found)

    def _model(self, found: wire.CustomObject) -> ModelView:
        meta = found.metadata
        spec, problem = self._spec(ModelDeploymentSpec, found)
        return ModelView(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            resource_version=meta.resource_version,
            generation=meta.generation,
            deleting=meta.deletion_timestamp is not None,
            refresh=(meta.annotations or {}).get(names.REFRESH, ""),
            spec=spec,
            raw_spec=found.spec,
            problem=problem,
            status=found.status,
        )

    def _profile(self, found: wire.CustomObject) -> ProfileView:
        spec, problem = self._spec(ModelProfileSpec, found)
        meta = found.metadata
        # Measurements that can't be read are none: the estimate is computed then.
        status, _ = self._parse(
            ModelProfileStatus, found.status, field="status", version=(meta.uid, "status", meta.resource_version)
        )
        return ProfileView(
            name=meta.name,
            generation=meta.generation,
            spec=spec,
            problem=problem,
            measurements=status.measurements if status is not None else (),
            resource_version=meta.resource_version if status is not None else "",
        )

    def _pool(self, found: wire.CustomObject) -> PoolView:
        meta = found.metadata
        spec, problem = self._spec(GPUPoolSpec, found)
        if spec is None:
            # Left out, its nodes would fall to another pool. Where not even the selector can be read it may mean any
            # node, which is what an empty one says.
            rest = {"nodeSelector": found.spec.get("nodeSelector", {})}
            spec, _ = self._parse(GPUPoolSpec, rest, field="spec", version=(meta.uid, "nodes", meta.generation))
        return PoolView(
            name=meta.name,
            generation=meta.generation,
            spec=spec or GPUPoolSpec(),
            problem=problem,
            status=found.status,
            resource_version=meta.resource_version,
        )

    def _gpu_node(self, found: wire.CustomObject) -> GPUNodeView:
        meta = found.metadata
        spec, problem = self._spec(GPUNodeSpec, found)
        status, trouble = self._parse(
            GPUNodeStatus, found.status, field="status", version=(meta.uid, "status", meta.resource_version)
        )
        if spec is None or status is None:
            raise ValueError(problem or trouble)
        return GPUNodeView(
            name=meta.name,
            generation=meta.generation,
            spec=spec,
            status=status,
            raw_status=found.status,
            agent_alive=False,
        )

    def _spec(self, model: type[Model], found: wire.CustomObject) -> tuple[Model | None, str]:
        version = (found.metadata.uid, "spec", found.metadata.generation)
        return self._parse(model, found.spec, field="spec", version=version)

    def _parse(
        self, model: type[Model], value: wire.Json, *, field: str, version: Hashable
    ) -> tuple[Model | None, str]:
        """The value, or None and what is wrong with it."""

        def parse() -> tuple[Model | None, str]:
            try:
                return model.model_validate(value), ""
            except ValidationError as error:
                return None, problem_of(error, root=field)

        return self._models.get(version, parse)

    def _child_reader(self, kind: str) -> Reader[ChildView]:
        decode = msgspec.json.Decoder(wire.Head).decode

        def read(raw: msgspec.Raw) -> tuple[wire.Metadata, ChildView]:
            meta = decode(raw).metadata
            view = self._children.get(
                (meta.uid, meta.resource_version), lambda: child_view(kind, meta, msgspec.json.decode(raw))
            )
            return meta, view

        return read


def _reader(type_: type[Wire], view: Callable[[Wire], View]) -> Reader[View]:
    decode = msgspec.json.Decoder(type_).decode

    def read(raw: msgspec.Raw) -> tuple[wire.Metadata, View]:
        found = decode(raw)
        return found.metadata, view(found)

    return read


def _read_probe(raw: msgspec.Raw) -> tuple[wire.Metadata, ProbeView]:
    pod = msgspec.json.decode(raw, type=wire.Pod)
    return pod.metadata, probe_view(pod)


def _with_default(pools: tuple[PoolView, ...]) -> tuple[PoolView, ...]:
    """The pool ``default`` is there without an object too."""
    if any(pool.name == names.DEFAULT_POOL for pool in pools):
        return pools
    implicit = PoolView(name=names.DEFAULT_POOL, generation=0, spec=GPUPoolSpec())
    return tuple(sorted((*pools, implicit), key=lambda pool: pool.name))
