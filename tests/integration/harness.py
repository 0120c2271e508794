"""A world for one test of the operator: a namespace and nodes of its own, which it leaves without a trace."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.integration.kubectl import Kubectl
from tests.integration.looks import condition, ended, is_ready, pod_ready
from tests.integration.machinery import PATIENCE_SECONDS, POLL_SECONDS, Found, Machinery, eventually
from tests.integration.manifests import Manifest, group
from vrampack.agent.fleet import gpu_uuid, kwok_nodes, parse_fleet
from vrampack.api import names
from vrampack.errors import ConflictError, NotFoundError
from vrampack.kube.client import Kube
from vrampack.localcluster.cluster import LocalCluster
from vrampack.localcluster.components import LOST
from vrampack.localcluster.nodes import NodeSpec

GROUP = f"/apis/{names.GROUP}/{names.VERSION}"
_PLACEHOLDER = group("nowhere")
_NAMESPACED = {
    "ModelDeployment": f"{GROUP}/namespaces/{{}}/modeldeployments",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Service": "/api/v1/namespaces/{}/services",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "Event": "/apis/events.k8s.io/v1/namespaces/{}/events",
    "ResourceClaim": "/apis/resource.k8s.io/v1/namespaces/{}/resourceclaims",
    "ResourceClaimTemplate": "/apis/resource.k8s.io/v1/namespaces/{}/resourceclaimtemplates",
}
_CLUSTERWIDE = {
    "ModelProfile": f"{GROUP}/modelprofiles",
    "GPUNode": f"{GROUP}/gpunodes",
    "GPUPool": f"{GROUP}/gpupools",
    "Node": "/api/v1/nodes",
    "DeviceClass": "/apis/resource.k8s.io/v1/deviceclasses",
    "ResourceSlice": "/apis/resource.k8s.io/v1/resourceslices",
    "PriorityClass": "/apis/scheduling.k8s.io/v1/priorityclasses",
}
CHILDREN = ("Deployment", "Service", "PodDisruptionBudget")


@dataclass(kw_only=True)
class World:
    """A namespace and nodes for one test."""

    machinery: Machinery
    namespace: str
    groups: list[Manifest] = field(default_factory=list)
    made: list[tuple[str, str]] = field(default_factory=list)
    """Cluster-wide objects that go with the world: kind and name."""
    log_starts: dict[str, int] = field(default_factory=dict)

    @property
    def kube(self) -> Kube:
        return self.machinery.kube

    @property
    def cluster(self) -> LocalCluster:
        return self.machinery.cluster

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(cluster=self.cluster).within(self.namespace)

    # Its nodes.

    def node(self, name: str) -> str:
        """The full name of a node of this world."""
        return f"{self.namespace}-{name}"

    def gpu(self, node: str, index: int = 0) -> str:
        return gpu_uuid(self.node(node), index)

    async def fleet(self, *groups: Manifest) -> None:
        """Adds nodes and returns when their GPUs are reported."""
        added = [{**entry, "name": self.node(entry["name"])} for entry in groups]
        self.groups += added
        self._write()
        nodes = [NodeSpec(**fields) for fields in kwok_nodes(parse_fleet(yaml.safe_dump({"nodes": added})))]
        await self.cluster.add_nodes(nodes)
        await self.machinery.tend([node.name for node in nodes])

        async def reported() -> None:
            self.machinery.check_alive()
            for node in nodes:
                status = (await self.get("GPUNode", node.name)).get("status", {})
                assert status.get("gpus"), f"{node.name} is not reported"

        await eventually(reported)

    def edit(self, name: str, **faults: Any) -> None:
        """Changes what is wrong with a node; without faults it is well again."""
        kept = ("name", "count", "product", "gpus", "cpu", "memory", "labels")
        for number, entry in enumerate(self.groups):
            if entry["name"] == self.node(name):
                self.groups[number] = {**{key: entry[key] for key in kept if key in entry}, **faults}
        self._write()

    def _write(self) -> None:
        self.machinery.write_fleet({"nodes": self.groups or [_PLACEHOLDER], "loading": {"seconds": 0.2}})

    # Its objects.

    def path(self, kind: str, name: str = "") -> str:
        base = _CLUSTERWIDE[kind] if kind in _CLUSTERWIDE else _NAMESPACED[kind].format(self.namespace)
        return f"{base}/{name}" if name else base

    async def get(self, kind: str, name: str) -> Manifest:
        return await self.kube.get(self.path(kind, name))

    async def every(self, kind: str) -> list[Manifest]:
        return await self.kube.list(self.path(kind))

    async def apply(self, *manifests: Manifest) -> None:
        """Applies them as a user does, all at once."""
        self.made += [(each["kind"], each["metadata"]["name"]) for each in manifests if each["kind"] in _CLUSTERWIDE]
        paths = [self.path(each["kind"], each["metadata"]["name"]) for each in manifests]
        await asyncio.gather(
            *(self.kube.apply(path, each, field_manager="kubectl") for path, each in zip(paths, manifests, strict=True))
        )

    async def patch(self, kind: str, name: str, body: Manifest, *, subresource: str = "") -> Manifest:
        path = self.path(kind, name) + (f"/{subresource}" if subresource else "")
        return await self.kube.merge_patch(path, body, field_manager="kubectl")

    async def delete(self, kind: str, name: str) -> None:
        await self.kube.delete(self.path(kind, name))

    async def pods(self, model: str, *, all_of_them: bool = False) -> list[Manifest]:
        """Pods of a model by name; those on their way out and those that have ended only on request."""
        found = [
            pod
            for pod in await self.every("Pod")
            if pod["metadata"].get("labels", {}).get(names.MODEL_DEPLOYMENT) == model
            and (all_of_them or not (pod["metadata"].get("deletionTimestamp") or ended(pod)))
        ]
        return sorted(found, key=lambda pod: pod["metadata"]["name"])

    # What is awaited.

    async def eventually(self, check: Callable[[], Awaitable[Found]], *, within: float = PATIENCE_SECONDS) -> Found:
        async def and_alive() -> Found:
            self.machinery.check_alive()
            return await check()

        return await eventually(and_alive, within=within)

    async def condition(
        self,
        kind: str,
        name: str,
        type_: str,
        status: str,
        reason: str | None = None,
        *,
        within: float = PATIENCE_SECONDS,
    ) -> Manifest:
        """The object, as soon as its status is of its newest spec and has this condition."""

        async def so() -> Manifest:
            found = await self.get(kind, name)
            said = found.get("status", {})
            current = kind == "GPUNode" or said.get("observedGeneration") == found["metadata"]["generation"]
            now = condition(found, type_)
            wanted = now.get("status", "False") == status and (reason is None or now.get("reason") == reason)
            as_awaited = current and wanted
            assert as_awaited, f"{kind} {name} is not {type_}={status} {reason or ''}: {said}"
            return found

        return await self.eventually(so, within=within)

    async def ready(self, *models: str, within: float = PATIENCE_SECONDS) -> list[Manifest]:
        """The ModelDeployments, as soon as all of them are Ready."""

        async def all_ready() -> list[Manifest]:
            there = {each["metadata"]["name"]: each for each in await self.every("ModelDeployment")}
            late = {name: there[name].get("status", {}) for name in models if not is_ready(there[name])}
            assert not late, f"{len(late)} of {len(models)} are not ready, such as {next(iter(late.items()))}"
            return [there[name] for name in models]

        return await self.eventually(all_ready, within=within)

    async def waiting(self, model: str, reason: str) -> Manifest:
        """The entry of status.waiting with this reason, as soon as it is there."""

        async def there() -> Manifest:
            status = (await self.get("ModelDeployment", model)).get("status", {})
            found: list[Manifest] = [entry for entry in status.get("waiting", ()) if entry["reason"] == reason]
            assert found, f"{model} does not wait for {reason}: {status}"
            return found[0]

        return await self.eventually(there)

    # Its end.

    async def clear(self) -> None:
        """Removes all of it, whatever state it is in."""
        await self.machinery.keep_one_operator()
        for name in self._node_names():
            await self._quietly(self.patch("Node", name, {"metadata": {"labels": {LOST: None}}}))
        await eventually(self._swept)
        self.groups, gone = [], self._node_names()
        self._write()
        for kind, name in (*(("Node", name) for name in gone), *(("GPUNode", name) for name in gone), *self.made):
            await self._quietly(self.kube.delete(self.path(kind, name)))
        await self._quietly(self.kube.delete(f"/api/v1/namespaces/{self.namespace}"))

    async def _swept(self) -> None:
        """Deletes what is there, owners first, until there is nothing."""
        left = 0
        for kind in _NAMESPACED:
            if kind == "Event":
                continue
            found = await self.every(kind)
            left += len(found)
            grace = 0 if kind == "Pod" else None
            await asyncio.gather(
                *(
                    self._quietly(self.kube.delete(self.path(kind, each["metadata"]["name"]), grace_seconds=grace))
                    for each in found
                )
            )
        assert left == 0, f"{left} objects are left"

    def _node_names(self) -> list[str]:
        if not self.groups:
            return []
        return [node["name"] for node in kwok_nodes(parse_fleet(yaml.safe_dump({"nodes": self.groups})))]

    async def _quietly(self, request: Awaitable[Any]) -> None:
        with contextlib.suppress(NotFoundError, ConflictError):
            await request

    def operator_log(self) -> str:
        """What the operators said since this world began, the end of it."""
        text = ""
        for operator in self.machinery.operators:
            start = self.log_starts.get(operator.identity, 0)
            if operator.log.stat().st_size > start:
                with operator.log.open(encoding="utf-8", errors="replace") as file:
                    file.seek(start)
                    text += f"--- {operator.identity}\n" + "".join(file.readlines()[-120:])
        return text


class Recorder:
    """The fewest ready pods that a model had since it began to look, from looks in quick succession."""

    def __init__(self, world: World, model: str) -> None:
        self._world = world
        self._model = model
        self.fewest: int | None = None

    async def __aenter__(self) -> "Recorder":
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            ready = sum(pod_ready(pod) for pod in await self._world.pods(self._model, all_of_them=True))
            self.fewest = ready if self.fewest is None else min(self.fewest, ready)
            await asyncio.sleep(POLL_SECONDS / 2)
