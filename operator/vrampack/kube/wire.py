"""Objects as the API server writes them: only the fields that a pass reads, straight from JSON without dicts between.

A list is first cut into its items, and each is read by itself, so that one that can't be read never hides the others.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from vrampack.units import parse_bytes, parse_millicores

Json = dict[str, Any]


def number(version: str) -> int:
    """A resourceVersion as the number that orders it; 0 where it is none."""
    return int(version) if version.isascii() and version.isdigit() else 0


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    """Fields that are absent from the JSON have their defaults; fields that are not named here are skipped."""


class OwnerReference(_Object, frozen=True):
    uid: str
    controller: bool = False


class Metadata(_Object, frozen=True):
    name: str
    uid: str
    resource_version: str
    namespace: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def owner_uid(self) -> str:
        """UID of the controller; empty where there is none."""
        return next((owner.uid for owner in self.owner_references if owner.controller), "")


class Head(_Object, frozen=True):
    """What every object has."""

    metadata: Metadata


class CustomObject(_Object, frozen=True):
    """One of vrampack's own kinds; what spec and status hold is checked by the models of the API."""

    metadata: Metadata
    spec: Json = {}
    status: Json = {}


class Condition(_Object, frozen=True):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class Named(_Object, frozen=True):
    name: str


class Resources(_Object, frozen=True):
    requests: dict[str, str] = {}


class Probe(_Object, frozen=True):
    """Only whether there is one."""


class Container(_Object, frozen=True):
    name: str = ""
    resources: Resources = Resources()
    restart_policy: str = ""
    startup_probe: Probe | None = None


class PodSpec(_Object, frozen=True):
    node_name: str = ""
    scheduling_gates: tuple[Named, ...] = ()
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    resources: Resources = Resources()
    overhead: dict[str, str] = {}
    priority: int = 0
    preemption_policy: str = ""
    node_selector: dict[str, str] = {}
    affinity: Json | None = None
    tolerations: tuple[Json, ...] = ()
    runtime_class_name: str = ""

    @property
    def cpu(self) -> int:
        """Requested CPU in thousandths of a core, as the scheduler counts it."""
        return self._request("cpu", parse_millicores)

    @property
    def memory(self) -> int:
        """Requested RAM in bytes, as the scheduler counts it."""
        return self._request("memory", parse_bytes)

    def _request(self, resource: str, parse: Callable[[str], int]) -> int:
        """Init containers run one by one before the others, sidecars beside all that follow."""

        def of(requests: Mapping[str, str]) -> int:
            return parse(requests[resource]) if resource in requests else 0

        sidecars = peak = 0
        for container in self.init_containers:
            asked = of(container.resources.requests)
            peak = max(peak, sidecars + asked)
            if container.restart_policy == "Always":
                sidecars += asked
        steady = sidecars + sum(of(container.resources.requests) for container in self.containers)
        declared = of(self.resources.requests)  # of the pod as a whole, where it says so
        return (declared or max(peak, steady)) + of(self.overhead)


class Waiting(_Object, frozen=True):
    reason: str = ""
    message: str = ""


class Terminated(_Object, frozen=True):
    reason: str = ""
    message: str = ""


class ContainerState(_Object, frozen=True):
    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Object, frozen=True):
    name: str = ""
    started: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()


class PodStatus(_Object, frozen=True):
    phase: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(_Object, frozen=True):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PodClaim(_Object, frozen=True):
    resource_claim_template_name: str = ""


class TemplateSpec(_Object, frozen=True):
    resource_claims: tuple[PodClaim, ...] = ()


class Template(_Object, frozen=True):
    spec: TemplateSpec = TemplateSpec()


class ReplicaSetSpec(_Object, frozen=True):
    replicas: int = 1
    template: Template = Template()


class ReplicaSet(_Object, frozen=True):
    metadata: Metadata
    spec: ReplicaSetSpec = ReplicaSetSpec()


class NodeSpec(_Object, frozen=True):
    unschedulable: bool = False
    taints: tuple[Json, ...] = ()


class NodeInfo(_Object, frozen=True):
    container_runtime_version: str = ""
    boot_id: str = msgspec.field(name="bootID", default="")


class NodeStatus(_Object, frozen=True):
    allocatable: dict[str, str] = {}
    conditions: tuple[Condition, ...] = ()
    node_info: NodeInfo = NodeInfo()


class Node(_Object, frozen=True):
    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class LeaseSpec(_Object, frozen=True):
    lease_duration_seconds: int = 0
    renew_time: datetime | None = None


class Lease(_Object, frozen=True):
    metadata: Metadata
    spec: LeaseSpec = LeaseSpec()


class _ListMetadata(msgspec.Struct, frozen=True):
    following: str = msgspec.field(name="continue", default="")
    resource_version: str = msgspec.field(name="resourceVersion", default="")


class Page(msgspec.Struct, frozen=True):
    """One page of a list, its items still unread."""

    metadata: _ListMetadata = _ListMetadata()
    items: list[msgspec.Raw] | None = None

    @property
    def following(self) -> str:
        """Token for the next page; empty on the last."""
        return self.metadata.following

    @property
    def version(self) -> int:
        """The resourceVersion of the whole list: where a watch goes on from. 0: it has none that is a number."""
        return number(self.metadata.resource_version)


class Event(msgspec.Struct, frozen=True):
    """One line of a watch, its object still unread."""

    type: str
    object: msgspec.Raw


_PAGES: Final = msgspec.json.Decoder(Page)


def decode_page(raw: bytes) -> Page:
    """Cuts a list into its items. Raises msgspec.DecodeError where it is no list at all."""
    return _PAGES.decode(raw)
