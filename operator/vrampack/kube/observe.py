"""From the API server to a Snapshot: fresh consistent lists in every pass; only what was parsed before is kept.

Pods are a thousand where the others are a hundred: they are read from a mirror that is as new as the reader needs it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec

from vrampack.api import names
from vrampack.api.gpupool import GPUPoolSpec, Mechanism
from vrampack.errors import ClusterError, UnavailableError
from vrampack.kube import paths, wire
from vrampack.kube.agentleases import AgentLeases
from vrampack.kube.client import Kube
from vrampack.kube.devices import device_view
from vrampack.kube.history import History
from vrampack.kube.lists import Lists, Reader, View
from vrampack.kube.mirror import Mirror
from vrampack.kube.ownkinds import OwnKinds
from vrampack.kube.parsed import Parsed
from vrampack.kube.views import child_view, node_view, probe_view, read_pod, replica_set_view
from vrampack.planning.resolution import Resolution, ResolveRequest
from vrampack.planning.snapshot import (
    ChildView,
    DeviceView,
    Memory,
    PodView,
    PoolView,
    ProbeView,
    Snapshot,
)

_OURS: Final = f"{names.MANAGED_BY}={names.MANAGER},{names.MODEL_DEPLOYMENT}"
_REQUESTS: Final = "ResourceClaimTemplate"
_CHILDREN: Final = ("Deployment", "Service", "PodDisruptionBudget")

Wire = TypeVar("Wire", wire.CustomObject, wire.Head, wire.Lease, wire.Node, wire.ReplicaSet)


class Observer:
    """Takes snapshots, one at a time.

    ``namespace``: the operator's, where the agents' Leases are. ``lease_clock``: seconds of a clock that never jumps.
    ``mirror``: the pods, as a watch tells of them; without it they are listed as all else. ``probing``: whether there
    are pods that find out how nodes hand out GPUs. ``history``: how far each list is known to have come.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        lease_clock: Callable[[], float],
        mirror: Mirror | None = None,
        probing: bool = False,
        history: History | None = None,
    ) -> None:
        self._probing = probing
        self._mirror = mirror
        self._namespace = namespace
        self._history = history or History()
        self._lists = Lists(kube, history=self._history)
        self._leases = AgentLeases(clock=lease_clock)
        self._own = OwnKinds()
        self._children: Parsed[ChildView] = Parsed()
        self._restores = 0

    async def observe(
        self,
        *,
        now: float,
        memory: Memory,
        resolutions: Mapping[ResolveRequest, Resolution],
        since: int | None = None,
    ) -> Snapshot:
        """Everything at one moment. ``now``: seconds since 1970. Raises ClusterError where a list can't be had, and
        RestoredError where one shows that the API server's store was restored from a backup.

        ``since``: pods that are as new as this resourceVersion are new enough, if the mirror has them; None: only the
        API server knows.
        """
        if self._restores != self._history.restores:  # another object may have this uid and version now
            self._restores, self._own, self._children = self._history.restores, OwnKinds(), Parsed()
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
                views: Coroutine[Any, Any, tuple[View, ...]] = self._lists.whole(
                    kind, read, path=path, selector=selector
                )
                return group.create_task(views)

            leases = listed("Lease", _reader(wire.Lease, lambda lease: lease), namespace=self._namespace)
            models = listed("ModelDeployment", _reader(wire.CustomObject, self._own.model))
            profiles = listed("ModelProfile", _reader(wire.CustomObject, self._own.profile))
            gpu_nodes = listed("GPUNode", _reader(wire.CustomObject, self._own.gpu_node))
            pools = listed("GPUPool", _reader(wire.CustomObject, self._own.pool))
            nodes = listed("Node", _reader(wire.Node, node_view))
            pods = group.create_task(self._pods(since))
            replica_sets = listed("ReplicaSet", _reader(wire.ReplicaSet, replica_set_view), selector=_OURS)
            children = [listed(kind, self._child_reader(kind), selector=_OURS) for kind in _CHILDREN]
        devices, requests = await self._devices(pools.result())
        probes = await self._probes()
        self._own.forget_unused()
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
        return await self._lists.whole("Pod", _read_probe, path=path, selector=names.PROBE)

    async def _pods(self, since: int | None) -> tuple[PodView, ...]:
        if self._mirror is not None and since is not None:
            mirrored = await self._mirror.read(since=since)
            if mirrored is not None:
                return mirrored
        return await self._lists.whole("Pod", read_pod, path=paths.collection("Pod"), selector=names.MODEL_DEPLOYMENT)

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
        return await self._lists.whole(kind, read, path=paths.collection(kind), selector=selector)

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
