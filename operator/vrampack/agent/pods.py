"""Pods and Nodes as an agent sees them: what they claim, whether they run, what they ask of the node."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from vrampack.api import names
from vrampack.units import parse_bytes, parse_millicores


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    """Fields that are absent from the JSON have their defaults; fields that are not named here are skipped."""


class Metadata(_Object, frozen=True):
    name: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Resources(_Object, frozen=True):
    requests: dict[str, str] = {}


class Container(_Object, frozen=True):
    resources: Resources = Resources()
    restart_policy: str = ""


class PodSpec(_Object, frozen=True):
    node_name: str = ""
    containers: list[Container] = []
    init_containers: list[Container] = []
    overhead: dict[str, str] = {}
    resources: Resources = Resources()


class Condition(_Object, frozen=True):
    type: str
    status: str


class ContainerState(_Object, frozen=True):
    running: dict[str, Any] | None = None


class ContainerStatus(_Object, frozen=True):
    state: ContainerState = ContainerState()


class PodStatus(_Object, frozen=True):
    phase: str = ""
    start_time: datetime | None = None
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []


class Pod(_Object, frozen=True):
    metadata: Metadata
    spec: PodSpec
    status: PodStatus = PodStatus()

    @property
    def managed(self) -> bool:
        """Whether vrampack places this pod, and so subtracts its requests itself; nobody can change this label."""
        return names.MODEL_DEPLOYMENT in self.metadata.labels

    @property
    def ready(self) -> bool:
        return any(condition.type == "Ready" and condition.status == "True" for condition in self.status.conditions)

    @property
    def running(self) -> bool:
        """Whether it has a process. Between two crashes a pod is in phase Running and has none."""
        states = self.status.container_statuses
        return self.status.phase == "Running" and (not states or any(one.state.running is not None for one in states))

    @property
    def gpus(self) -> list[str]:
        """The UUIDs that it was given."""
        return [uuid for uuid in self.metadata.annotations.get(names.GPUS, "").split(",") if uuid]

    @property
    def claim(self) -> int:
        """Bytes that it was given on each of its GPUs; 0 where there is no claim that can be read."""
        try:
            return parse_bytes(self.metadata.annotations.get(names.CLAIM, "0"))
        except ValueError:
            return 0


class NodeStatus(_Object, frozen=True):
    allocatable: dict[str, str] = {}


class Node(_Object, frozen=True):
    metadata: Metadata
    status: NodeStatus = NodeStatus()


class _Pods(_Object, frozen=True):
    items: list[Pod]


class _Nodes(_Object, frozen=True):
    items: list[Node]


_DECODE_PODS: Final = msgspec.json.Decoder(_Pods)
_DECODE_NODES: Final = msgspec.json.Decoder(_Nodes)

PODS_ON_NODES: Final = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
"""Field selector: pods that hold something of a node. One that has ended keeps its nodeName and holds nothing."""


def decode_pods(raw: bytes) -> list[Pod]:
    """The pods of a list that the API server sent."""
    return _DECODE_PODS.decode(raw).items


def decode_nodes(raw: bytes) -> list[Node]:
    """The Nodes of a list that the API server sent."""
    return _DECODE_NODES.decode(raw).items


def free_for_vrampack(node: Node, pods: Iterable[Pod]) -> tuple[int, int, int]:
    """CPU (thousandths of a core), RAM (bytes) and pod slots of a node that nobody but vrampack asks for.

    Allocatable less the requests of the pods on it that are not vrampack's own: those the operator subtracts itself,
    so that a pod that it has just placed counts before any agent has seen it.
    """
    foreign = [pod.spec for pod in pods if not pod.managed]
    allocatable = node.status.allocatable
    return (
        max(
            0,
            parse_millicores(allocatable.get("cpu", "0")) - sum(_request(s, "cpu", parse_millicores) for s in foreign),
        ),
        max(0, parse_bytes(allocatable.get("memory", "0")) - sum(_request(s, "memory", parse_bytes) for s in foreign)),
        max(0, int(allocatable.get("pods", "0")) - len(foreign)),
    )


def _request(spec: PodSpec, resource: str, parse: Callable[[str], int]) -> int:
    """What the scheduler counts for a pod: init containers run one by one before the others, sidecars beside them."""

    def of(requests: Mapping[str, str]) -> int:
        return parse(requests.get(resource, "0"))

    sidecars = peak = 0
    for container in spec.init_containers:
        asked = of(container.resources.requests)
        peak = max(peak, sidecars + asked)
        if container.restart_policy == "Always":
            sidecars += asked
    steady = sidecars + sum(of(container.resources.requests) for container in spec.containers)
    declared = of(spec.resources.requests)  # of the pod as a whole, where it says so
    return (declared or max(peak, steady)) + of(spec.overhead)
