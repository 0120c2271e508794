"""A cluster of real processes on this machine, with nodes that need no machines."""

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from vrampack.errors import ClusterError, LocalClusterError
from vrampack.localcluster import credentials
from vrampack.localcluster.adminclient import until
from vrampack.localcluster.assets import Assets
from vrampack.localcluster.components import LOST, Layout
from vrampack.localcluster.controlplane import ControlPlane
from vrampack.localcluster.nodes import NodeSpec, manifest, settled
from vrampack.localcluster.ports import free_ports

_TRIES = 3
_SETTLE_SECONDS = 60.0
_TOKEN_SECONDS = 24 * 60 * 60


class LocalCluster:
    """etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok, on free ports of 127.0.0.1.

    ``folder`` keeps data, logs and credentials and stays; without one they are in a folder that goes with the cluster.
    ``node_grace_seconds`` is how long a silent node still counts as ready, so how long a lost one takes to be noticed;
    the shorter it is, the more often all nodes renew their Leases.

    Whatever ends this Python process ends the processes of the cluster too. One that dies by itself ends ``start``
    with its last log lines; later it is logged, and ``supervise`` raises.
    """

    def __init__(
        self,
        assets: Assets,
        folder: Path | None = None,
        *,
        nodes: Sequence[NodeSpec] = (),
        node_grace_seconds: int = 60,
    ) -> None:
        self._assets = assets
        self._given_folder = folder
        self._nodes = nodes
        self._node_grace_seconds = node_grace_seconds
        self._running: ControlPlane | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    # Life of the cluster.

    async def start(self) -> None:
        """On return the API server is ready, the controllers work and the nodes are Ready.

        Raises LocalClusterError when that can't be had; then nothing is left running.
        """
        folder = (self._given_folder or Path(tempfile.mkdtemp(prefix="vrampack-"))).absolute()
        for tries_left in reversed(range(_TRIES)):
            server, etcd, peer = free_ports(3)
            layout = Layout(
                folder=folder,
                server_port=server,
                etcd_port=etcd,
                etcd_peer_port=peer,
                node_grace_seconds=self._node_grace_seconds,
            )
            self._running = ControlPlane(self._assets, layout, temporary=self._given_folder is None)
            try:
                await self._running.start()
                await self._running.unless_dead(self.add_nodes(self._nodes))
            except BaseException as error:
                await self.stop()
                if not (tries_left and isinstance(error, LocalClusterError) and "address already in use" in str(error)):
                    raise
            else:
                return

    async def stop(self) -> None:
        """Stops all processes and removes the folder, unless it was given. May be called again."""
        if self._running is not None:
            await self._running.stop()
            self._running = None

    async def supervise(self) -> NoReturn:
        """Waits until a process dies by itself, and raises LocalClusterError with its last log lines."""
        await self._plane.supervise()

    @property
    def _plane(self) -> ControlPlane:
        if self._running is None:
            raise LocalClusterError("the cluster is not running")
        return self._running

    # Where it is.

    @property
    def folder(self) -> Path:
        """Where data, logs and credentials are."""
        return self._plane.layout.folder

    @property
    def server_url(self) -> str:
        return self._plane.layout.server_url

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig."""
        return self._plane.layout.kubeconfig("admin")

    @property
    def pids(self) -> Mapping[str, int]:
        """The process ids of etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok."""
        return self._plane.pids()

    async def token_for(self, service_account: str, namespace: str, *, node: str | None = None) -> Path:
        """A kubeconfig that signs in as a ServiceAccount, by a token of one day. Raises NotFoundError.

        ``node``: the token is bound to this node, and says so, as that of a pod there does.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        spec: dict[str, Any] = {"expirationSeconds": _TOKEN_SECONDS}
        user = f"{namespace}-{service_account}"
        if node is not None:
            uid = (await self._plane.client.get(f"/api/v1/nodes/{node}"))["metadata"]["uid"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
            user += f"-{node}"
        answer = await self._plane.client.create(path, {"spec": spec})
        return credentials.write_token(self._plane.layout, user=user, token=answer["status"]["token"])

    # Its nodes.

    async def add_nodes(self, nodes: Iterable[NodeSpec]) -> None:
        """Creates nodes, all at once, and returns when they are Ready. Raises ConflictError where one exists."""
        manifests = {node.name: manifest(node) for node in nodes}
        await asyncio.gather(*(self._plane.client.create("/api/v1/nodes", body) for body in manifests.values()))

        async def all_settled() -> bool:
            there = (await self._plane.client.get("/api/v1/nodes"))["items"]
            return manifests.keys() <= {node["metadata"]["name"] for node in there if settled(node)}

        if manifests:
            await until(f"{len(manifests)} nodes are Ready", all_settled, timeout=_SETTLE_SECONDS)

    async def lose_node(self, name: str) -> None:
        """Lets a node fall silent, as one whose machine or network is gone, and returns when it is no more Ready.

        Nobody renews its Lease then, so kube-controller-manager makes it Ready=Unknown and taints it after the
        cluster's grace seconds; its pods are not Ready, and those that are deleted stay Terminating, as nobody
        confirms their end. ``kubectl label node NAME sim.vrampack.dev/lost=true`` does the same.
        """
        await self._mark_lost(name, "true")
        await until(
            f"{name} is lost",
            lambda: self._settled(name, False),
            timeout=_SETTLE_SECONDS + 2 * self._node_grace_seconds,
        )

    async def return_node(self, name: str) -> None:
        """Brings a lost node back, with its pods as they were, and returns when it is Ready."""
        await self._mark_lost(name, None)
        await until(f"{name} is back", lambda: self._settled(name, True), timeout=_SETTLE_SECONDS)

    async def _mark_lost(self, name: str, value: str | None) -> None:
        await self._plane.client.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {LOST: value}}})

    async def _settled(self, name: str, wanted: bool) -> bool:
        return settled(await self._plane.client.get(f"/api/v1/nodes/{name}")) == wanted

    # Its outages.

    async def stop_apiserver(self) -> None:
        """Stops the API server; connections are refused until ``start_apiserver``."""
        await self._plane.stop_process("kube-apiserver")

    async def start_apiserver(self) -> None:
        """Starts the API server again, on its port, and returns when it is ready."""
        await self._plane.start_process("kube-apiserver")

    async def restart_apiserver(self) -> None:
        """Stops and starts the API server."""
        await self.stop_apiserver()
        await self.start_apiserver()

    def pause_apiserver(self) -> None:
        """Freezes the API server: connections are taken and never answered, until ``resume_apiserver``."""
        self._plane.pause_process("kube-apiserver")

    def resume_apiserver(self) -> None:
        """Lets a frozen API server go on."""
        self._plane.resume_process("kube-apiserver")

    async def back_up(self) -> Path:
        """A copy of etcd's data as it is now; the API server is away while it is made."""
        copy = self.folder / "backups" / str(time.time_ns())
        await self._plane.back_up(copy)
        return copy

    async def restore(self, backup: Path) -> None:
        """Brings the data of a backup back, as Kubernetes asks for it: with every process of the control plane started
        anew, and nobody else. Raises LocalClusterError where one dies."""
        await self._plane.restore(backup)

    # Its tools.

    async def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as admin, or as who ``kubeconfig`` says.

        Raises ClusterError with what it printed when it fails, unless ``check`` is False.
        """
        return await self._run(self._assets.kubectl, arguments, stdin=stdin, check=check, kubeconfig=kubeconfig)

    async def helm(
        self, *arguments: str, stdin: str | None = None, check: bool = True, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs helm as ``kubectl`` does, apart from the user's own helm settings."""
        return await self._run(self._assets.helm, arguments, stdin=stdin, check=check, kubeconfig=kubeconfig)

    async def _run(
        self, tool: Path, arguments: Sequence[str], *, stdin: str | None, check: bool, kubeconfig: Path | None
    ) -> subprocess.CompletedProcess[str]:
        own = {
            name: str(self.folder / "helm" / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        }
        environment = {
            **os.environ,
            **own,
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "KUBECACHEDIR": str(self.folder / "kubectl"),
        }
        done = await self._plane.run([str(tool), *arguments], stdin=stdin, environment=environment)
        if check and done.returncode != 0:
            raise ClusterError(
                f"{tool.name} {' '.join(arguments)}: exit status {done.returncode}: {done.stderr.strip()}"
            )
        return done
