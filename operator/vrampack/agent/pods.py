"""Pods and Nodes as an agent sees them: what they claim, whether they run, what they ask of the node."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec

from vrampack.api import names
from vrampack.kube import wire
from vrampack.kube.wire import Node
from vrampack.units import parse_bytes, parse_millicores

_CONFIG_HASH: Final = "kubernetes.io/config.hash"
_TOOLKIT: Final = re.compile(r"/container-toolkit[^/:@]*:v?(\d+(?:\.\d+){1,2})")
_SGLANG: Final = "sglang.launch_server"
_TOOLKIT_APP: Final = "nvidia-container-toolkit-daemonset"
"""The label ``app`` of the GPU Operator's pods that bring the toolkit to their node."""


class ContainerState(wire.ContainerState, frozen=True):
    running: dict[str, Any] | None = None


class ContainerStatus(wire.ContainerStatus, frozen=True):
    state: ContainerState = ContainerState()
    container_id: str = msgspec.field(name="containerID", default="")


class PodStatus(wire.PodStatus, frozen=True):
    pod_ip: str = msgspec.field(name="podIP", default="")
    start_time: datetime | None = None
    container_statuses: tuple[ContainerStatus, ...] = ()


class Port(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    container_port: int = 0


class Container(wire.Container, frozen=True):
    image: str = ""
    command: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()


class PodSpec(wire.PodSpec, frozen=True):
    containers: tuple[Container, ...] = ()


class Pod(wire.Pod, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def managed(self) -> bool:
        """Whether vrampack places this pod, and so subtracts its requests itself; nobody can change this label."""
        return names.MODEL_DEPLOYMENT in self.metadata.labels

    @property
    def ready(self) -> bool:
        return any(condition.type == "Ready" and condition.status == "True" for condition in self.status.conditions)

    @property
    def name(self) -> str:
        """With its namespace."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def cgroup_uid(self) -> str:
        """As its control groups name it: a static pod by the hash of its file."""
        return self._annotation(_CONFIG_HASH) or self.metadata.uid

    @property
    def running(self) -> bool:
        """Whether it has a process. Between two crashes a pod is in phase Running and has none."""
        states = self.status.container_statuses
        return self.status.phase == "Running" and (not states or any(one.state.running is not None for one in states))

    @property
    def restarts(self) -> int:
        """Of its engine."""
        statuses = self.status.container_statuses
        return sum(each.restart_count for each in statuses if each.name == names.ENGINE_CONTAINER)

    @property
    def server_info(self) -> str:
        """URL at which its engine tells the terms of its memory; empty where it has none."""
        if not (self.managed and self.status.pod_ip):
            return ""
        engine = next((each for each in self.spec.containers if each.name == names.ENGINE_CONTAINER), None)
        if engine is None or _SGLANG not in engine.command:
            return ""
        port = next((each.container_port for each in engine.ports if each.name == "http"), 0)
        host = f"[{self.status.pod_ip}]" if ":" in self.status.pod_ip else self.status.pod_ip
        return f"http://{host}:{port}/server_info" if port else ""

    @property
    def gpus(self) -> list[str]:
        """The UUIDs that it was given."""
        return [uuid for uuid in self._annotation(names.GPUS).split(",") if uuid]

    @property
    def on_node(self) -> bool:
        """Whether another scheduler chose its GPUs, so that they may be others of the node."""
        return self._annotation(names.SCOPE) == names.NODE_SCOPE

    @property
    def limited_by_mps(self) -> bool:
        """Whether its claim is a limit of its GPU's MPS server."""
        return bool(self._annotation(names.MPS_LIMIT))

    @property
    def claim(self) -> int:
        """Bytes that it was given on each of its GPUs; 0 where there is no claim that can be read."""
        try:
            return parse_bytes(self._annotation(names.CLAIM))
        except ValueError:
            return 0

    def _annotation(self, name: str) -> str:
        return (self.metadata.annotations or {}).get(name, "")


class _Pods(msgspec.Struct, frozen=True):
    items: list[Pod]


class _Nodes(msgspec.Struct, frozen=True):
    items: list[Node]


_DECODE_PODS: Final = msgspec.json.Decoder(_Pods)
_DECODE_NODES: Final = msgspec.json.Decoder(_Nodes)

LIVE: Final = "status.phase!=Succeeded,status.phase!=Failed"
PODS_ON_NODES: Final = f"spec.nodeName!=,{LIVE}"
"""Field selector: pods that hold something of a node. One that has ended keeps its nodeName and holds nothing."""


def decode_pods(raw: bytes) -> list[Pod]:
    """The pods of a list that the API server sent."""
    return _DECODE_PODS.decode(raw).items


def decode_nodes(raw: bytes) -> list[Node]:
    """The Nodes of a list that the API server sent."""
    return _DECODE_NODES.decode(raw).items


def toolkit_of(pods: Iterable[Pod]) -> str | None:
    """Version of the NVIDIA container toolkit by the image that brought it; None: none of these pods did."""
    images = (
        container.image
        for pod in pods
        if pod.metadata.labels.get("app") == _TOOLKIT_APP
        for container in pod.spec.containers
    )
    return max((match[1] for image in images if (match := _TOOLKIT.search(image)) is not None), default=None)


def free_for_vrampack(node: Node, pods: Iterable[Pod]) -> tuple[int, int, int]:
    """CPU (thousandths of a core), RAM (bytes) and pod slots of a node that nobody but vrampack asks for.

    Allocatable less the requests of the pods on it that are not vrampack's own: those the operator subtracts itself,
    so that a pod that it has just placed counts before any agent has seen it.
    """
    foreign = [pod.spec for pod in pods if not pod.managed]
    allocatable = node.status.allocatable
    return (
        max(0, parse_millicores(allocatable.get("cpu", "0")) - sum(spec.cpu for spec in foreign)),
        max(0, parse_bytes(allocatable.get("memory", "0")) - sum(spec.memory for spec in foreign)),
        max(0, parse_bytes(allocatable.get("pods", "0")) - len(foreign)),
    )
