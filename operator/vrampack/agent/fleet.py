"""Fleet files: nodes with GPUs that exist only on paper.

A fleet file says what the GPUs of a simulated cluster look like and what is wrong with them right now. It is read
again whenever it changes, so editing it is how a GPU fails, shrinks, vanishes or gets a foreign tenant.
"""

import logging
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from vrampack.agent.complaint import Complaint
from vrampack.agent.products import PRODUCTS, Product
from vrampack.api.gpupool import InjectionStyle
from vrampack.errors import InvalidInputError
from vrampack.units import format_bytes, parse_bytes, parse_millicores

_log = logging.getLogger(__name__)
_UUIDS: Final = uuid.UUID("5e7a3c1e-6f0d-5b8b-9a52-2d7e61a5c0f4")
_MESSAGES: Final = {"missing": "it is required", "extra_forbidden": "there is no such field"}

Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]
Millicores = Annotated[int, BeforeValidator(parse_millicores), Field(ge=0)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class MemoryOfGPU(_Entry):
    """Bytes on one GPU of the node: what a foreign process holds, or what is usable instead of the product's."""

    gpu: int = Field(ge=0)
    memory: Bytes


class FailedGPU(_Entry):
    """A GPU that the driver gave up, with the XID of its last error (79: it has fallen off the bus)."""

    gpu: int = Field(ge=0)
    xid: int = Field(default=79, ge=1)


class Taint(_Entry):
    """A taint of the Node."""

    key: str
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class NodeGroup(_Entry):
    """Nodes that are alike. What is wrong with a GPU is wrong on each of them: a node of its own has faults of its own.

    With a ``count`` above 1 they are named NAME-0, NAME-1, ….
    """

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=200)
    count: int = Field(default=1, ge=1, le=10_000)
    product: str
    gpus: int = Field(default=1, ge=1, le=16)
    cpu: Millicores | None = None
    memory: Bytes | None = None
    pods: int = Field(default=110, ge=0)
    labels: dict[str, str] = {}
    taints: tuple[Taint, ...] = ()
    injection_style: InjectionStyle | None = InjectionStyle.CDI_RUNTIME
    """None: nobody says, as with a real agent."""
    foreign: tuple[MemoryOfGPU, ...] = ()
    failed: tuple[FailedGPU, ...] = ()
    usable: tuple[MemoryOfGPU, ...] = ()
    missing: frozenset[Annotated[int, Field(ge=0)]] = frozenset()
    silent: bool = False


class Loading(_Entry):
    """How long a pod that is not ready yet takes to fill its share."""

    seconds: float = Field(default=2.0, ge=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedGPU:
    """One GPU in view: ``usable`` and ``foreign`` in bytes, ``xid`` only where it has failed."""

    uuid: str
    index: int
    usable: int
    foreign: int
    xid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedNode:
    """One node, its GPUs and its CPU (thousandths of a core), RAM (bytes) and pod slots.

    ``devices`` is how many GPUs were built in; ``gpus`` leaves out what has vanished. A ``silent`` node has an agent
    that neither reports nor renews its Lease.
    """

    name: str
    product: Product
    devices: int
    gpus: tuple[SimulatedGPU, ...]
    cpu: int
    memory: int
    pods: int
    labels: dict[str, str]
    taints: tuple[Taint, ...]
    injection_style: InjectionStyle | None
    silent: bool


class Fleet(_Entry):
    """All nodes of a fleet file. The versions of driver and CUDA are what every node claims to run."""

    nodes: tuple[NodeGroup, ...] = Field(min_length=1)
    loading: Loading = Loading()
    driver: str = "580.126.09"
    cuda: str = "13.0"

    def expand(self) -> Iterator[SimulatedNode]:
        """Every node by itself, in the order of the file."""
        for group in self.nodes:
            for name in _node_names(group):
                yield _node(group, name)


def gpu_uuid(node: str, index: int) -> str:
    """The UUID of a GPU: the same at every start, in every process."""
    return f"GPU-{uuid.uuid5(_UUIDS, f'{node}/{index}')}"


def parse_fleet(text: str) -> Fleet:
    """A fleet from YAML.

    Raises InvalidInputError with the path of the first field that is wrong.
    """
    try:
        fleet = Fleet.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InvalidInputError(field="fleet", value=" ".join(str(error).split()), allowed="write YAML") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInputError(
            field=_path(first["loc"]),
            value=None if first["type"] == "missing" else first["input"],
            allowed=_MESSAGES.get(first["type"], first["msg"]),
        ) from error
    _check(fleet)
    return fleet


class FleetFile:
    """A fleet file that may change while it is in use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._fleet: Fleet | None = None
        self._complaint = Complaint(_log)

    def read(self) -> Fleet:
        """The fleet as the file has it now; the last good one, and a line in the log, after a broken edit.

        Raises InvalidInputError or OSError where there was no good one yet.
        """
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if self._fleet is None or stamp != self._stamp:
                self._stamp = stamp  # taken before the text: an edit in between is seen next time
                self._fleet = parse_fleet(self._path.read_text(encoding="utf-8", errors="replace"))
        except (InvalidInputError, OSError) as error:
            if self._fleet is None:
                raise
            self._complaint.say(f"{self._path}: {error}; the last good state stays")
        else:
            self._complaint.over()
        return self._fleet


def kwok_nodes(fleet: Fleet) -> list[dict[str, Any]]:
    """The Nodes of a fleet, each as the fields of the local cluster's NodeSpec; kwok keeps them alive."""
    return [
        {
            "name": node.name,
            "gpu_product": node.product.label,
            "labels": {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.count": str(node.devices), **node.labels},
            "taints": [taint.model_dump() for taint in node.taints],
            "cpu": f"{node.cpu}m",
            "memory": format_bytes(node.memory),
            "pods": node.pods,
        }
        for node in fleet.expand()
    ]


def _node_names(group: NodeGroup) -> list[str]:
    return [group.name] if group.count == 1 else [f"{group.name}-{number}" for number in range(group.count)]


def _node(group: NodeGroup, name: str) -> SimulatedNode:
    product = PRODUCTS[group.product]
    usable = {entry.gpu: entry.memory for entry in group.usable}
    foreign = {entry.gpu: entry.memory for entry in group.foreign}
    failed = {entry.gpu: entry.xid for entry in group.failed}
    return SimulatedNode(
        name=name,
        product=product,
        devices=group.gpus,
        gpus=tuple(
            SimulatedGPU(
                uuid=gpu_uuid(name, index),
                index=index,
                usable=usable.get(index, product.usable),
                foreign=foreign.get(index, 0),
                xid=failed.get(index),
            )
            for index in range(group.gpus)
            if index not in group.missing
        ),
        cpu=product.cpu * group.gpus * 1000 if group.cpu is None else group.cpu,
        memory=product.memory * group.gpus if group.memory is None else group.memory,
        pods=group.pods,
        labels=group.labels,
        taints=group.taints,
        injection_style=group.injection_style,
        silent=group.silent,
    )


def _check(fleet: Fleet) -> None:
    """What one field can't know: that the product is in the table, that GPUs exist, that names differ."""
    seen: set[str] = set()
    for number, group in enumerate(fleet.nodes):
        path = f"nodes[{number}]"
        if group.product not in PRODUCTS:
            raise InvalidInputError(
                field=f"{path}.product", value=group.product, allowed=f"it is one of {', '.join(PRODUCTS)}"
            )
        if group.injection_style is InjectionStyle.AUTO:
            styles = ", ".join(style for style in InjectionStyle if style is not InjectionStyle.AUTO)
            raise InvalidInputError(field=f"{path}.injectionStyle", value="Auto", allowed=f"it is one of {styles}")
        for field, indexes in _gpu_indexes(group):
            for index, count in Counter(indexes).items():
                if index >= group.gpus:
                    allowed = f"this node's GPUs are 0 to {group.gpus - 1}"
                elif count > 1:
                    allowed = "each GPU is named at most once"
                else:
                    continue
                raise InvalidInputError(field=f"{path}.{field}", value=index, allowed=allowed)
        for name in _node_names(group):
            if name in seen:
                raise InvalidInputError(field=f"{path}.name", value=name, allowed="two nodes can't have the same name")
            seen.add(name)


def _gpu_indexes(group: NodeGroup) -> Iterator[tuple[str, list[int]]]:
    yield "foreign", [entry.gpu for entry in group.foreign]
    yield "failed", [entry.gpu for entry in group.failed]
    yield "usable", [entry.gpu for entry in group.usable]
    yield "missing", list(group.missing)


def _path(location: tuple[str | int, ...]) -> str:
    """Pydantic's location as people write it: ``nodes[1].gpus``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.lstrip(".") or "fleet"
