"""GPUNode: one node's GPUs, what uses them and what is claimed on them."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from vrampack.api.common import ApiModel, Condition, Quantity, by_key
from vrampack.api.gpupool import InjectionStyle
from vrampack.api.texts import GPU_UUID

MAX_GPUS = 64


class GPUHealth(StrEnum):
    """Whether a GPU can be used."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"


class GPUSpec(ApiModel):
    """What the admin says about one GPU."""

    uuid: Annotated[str, GPU_UUID]
    """UUID of the GPU, as nvidia-smi -L prints it."""
    cordoned: bool = False
    """True: the GPU takes no new replica. Those that are there stay."""
    reserve: Quantity = Quantity("0")
    """Memory of this GPU that vrampack leaves alone, on top of the pool's."""


class GPUNodeSpec(ApiModel):
    """What the admin says about the node's GPUs."""

    gpus: tuple[GPUSpec, ...] = Field(default=(), max_length=MAX_GPUS, json_schema_extra=by_key("uuid"))
    """GPUs to cordon, or to reserve memory on. A GPU that is not listed is used as the pool says."""
    release_driver: bool = False
    """True: the node's agent lets go of the driver, so that MIG can be set up anew or a GPU reset. Until it is false
    again the node takes no new replica. What was wrong with a GPU is forgotten with it."""


class GPUProcess(ApiModel):
    """Memory that a pod was seen to use."""

    pod_uid: str = Field(min_length=1, max_length=64)
    """UID of the pod."""
    bytes: Quantity
    """Memory that its processes use."""
    peak: Quantity | None = None
    """The most that they were seen to use: what a start really took."""
    pod: str | None = Field(default=None, max_length=317, pattern="^[^/]{1,63}/[^/]{1,253}$")
    """Namespace and name of the pod, also once it is gone."""
    claim: Quantity | None = None
    """Memory of this GPU that the pod claims, also once it is gone: its claim lives until its processes are gone."""
    weights: Quantity | None = None
    """Weights on this GPU, as the engine itself says."""
    graphs: Quantity | None = None
    """Captured CUDA graphs, as the engine itself says."""
    pids: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, max_length=64)
    """The processes, by their ids on the host."""


class ForeignProcess(ApiModel):
    """Memory that something outside vrampack was seen to use."""

    name: str = Field(default="", max_length=256)
    """Name of the process, or of the pod that it belongs to."""
    pod_uid: str | None = Field(default=None, max_length=64)
    """UID of the pod, where there is one."""
    bytes: Quantity
    """Memory that it uses."""
    pid: int | None = Field(default=None, ge=0)
    """The process, by its id on the host."""


class GPUAllocation(ApiModel):
    """A pod that the kubelet gave the GPU to, by a device plugin or a DRA driver."""

    namespace: str = Field(min_length=1, max_length=63)
    """Namespace of the pod."""
    pod: str = Field(min_length=1, max_length=253)
    """Name of the pod."""
    container: str = Field(default="", max_length=63)
    """Its container."""
    resource: str = Field(default="", max_length=253)
    """What it asked for, such as nvidia.com/gpu."""
    device: str = Field(default="", max_length=96)
    """UUID of the GPU, or of the MIG device of it, that it got."""
    reservation: bool = False
    """True: the pod holds the GPU for vrampack."""


class RemappedRows(ApiModel):
    """Rows of memory that were replaced by spare ones."""

    corrected: int = Field(default=0, ge=0)
    """Because of errors that could be corrected."""
    uncorrected: int = Field(default=0, ge=0)
    """Because of errors that could not be corrected."""
    pending: bool = False
    """True: one is replaced at the next reset."""
    failed: bool = False
    """True: there was no spare one left."""


class MIGDevice(ApiModel):
    """A MIG device that exists."""

    uuid: str = Field(min_length=1, max_length=96)
    """UUID of the MIG device."""
    profile: str = Field(default="", max_length=63)
    """Its size, such as 3g.40gb."""
    memory: Quantity
    """Usable memory, which is less than the name says."""


class MIGProfile(ApiModel):
    """A size of MIG device that the GPU can have."""

    name: str = Field(min_length=1, max_length=63)
    """Such as 3g.40gb."""
    memory: Quantity
    """Memory of such a device."""
    most: int = Field(ge=0)
    """Most of them on an empty GPU."""
    placements: tuple[Annotated[str, Field(max_length=16)], ...] = Field(default=(), max_length=32)
    """Where one can be: the first memory slice and how many, such as 4:4."""


class Mismatch(ApiModel):
    """A pod whose processes are not on exactly the GPUs that it claims."""

    namespace: str = Field(min_length=1, max_length=63)
    """Namespace of the pod."""
    pod: str = Field(min_length=1, max_length=253)
    """Name of the pod."""
    uid: str = Field(min_length=1, max_length=64)
    """UID of the pod."""
    claimed: tuple[Annotated[str, Field(max_length=96)], ...] = Field(default=(), max_length=MAX_GPUS)
    """UUIDs of the GPUs that it claims."""
    seen: tuple[Annotated[str, Field(max_length=96)], ...] = Field(default=(), max_length=MAX_GPUS)
    """UUIDs of the GPUs that its processes are on."""


class GPUClaim(ApiModel):
    """Memory that a replica has claimed."""

    namespace: str = Field(min_length=1, max_length=63)
    """Namespace of the pod."""
    pod: str = Field(min_length=1, max_length=253)
    """Name of the pod."""
    uid: str = Field(min_length=1, max_length=64)
    """UID of the pod."""
    bytes: Quantity
    """Memory that is claimed."""


class GPUStatus(ApiModel):
    """One GPU. The agent and the operator write different fields of it; one without the agent's has vanished."""

    uuid: str = Field(min_length=1, max_length=96)
    """UUID of the GPU."""
    index: int | None = Field(default=None, ge=0)
    """Index of the GPU on the node. Written by the agent."""
    product: str | None = Field(default=None, max_length=63)
    """Product, as in the node label nvidia.com/gpu.product. Written by the agent."""
    total: Quantity | None = None
    """Memory as the driver counts it, with what it keeps for itself. Written by the agent."""
    memory: Quantity | None = None
    """Usable memory: what CUDA sees, not the catalogue's figure. Written by the agent."""
    reserved_by_driver: Quantity | None = None
    """Memory that the driver keeps for itself. Written by the agent."""
    used: Quantity | None = None
    """Memory in use. Written by the agent."""
    processes: tuple[GPUProcess, ...] | None = Field(default=None, max_length=256)
    """Memory in use by pods of vrampack. Written by the agent."""
    foreign: tuple[ForeignProcess, ...] | None = Field(default=None, max_length=64)
    """Memory in use by anything else. Written by the agent."""
    offered: bool | None = None
    """Whether a device plugin offers the GPU, so that the kubelet may hand it out. Written by the agent."""
    allocations: tuple[GPUAllocation, ...] | None = Field(default=None, max_length=64)
    """Pods that the kubelet gave the GPU to. Written by the agent."""
    mig: bool | None = None
    """Whether the GPU is split by MIG. Written by the agent."""
    mig_devices: tuple[MIGDevice, ...] | None = Field(default=None, max_length=16)
    """MIG devices that exist. Written by the agent."""
    mig_profiles: tuple[MIGProfile, ...] | None = Field(default=None, max_length=32)
    """Sizes of MIG device that a GPU in MIG mode can have. Written by the agent."""
    nvlink: tuple[Annotated[str, Field(max_length=96)], ...] | None = Field(default=None, max_length=MAX_GPUS)
    """UUIDs of the GPUs of this node that NVLink connects to it. Written by the agent."""
    p2p: tuple[Annotated[str, Field(max_length=96)], ...] | None = Field(default=None, max_length=MAX_GPUS)
    """UUIDs of the GPUs of this node whose memory it can read by itself. Written by the agent."""
    numa_node: int | None = Field(default=None, ge=0)
    """NUMA node of the host that it is attached to. Written by the agent."""
    compute_mode: str | None = Field(default=None, max_length=32)
    """Who may compute on it: Default, ExclusiveProcess (one process at a time), ExclusiveThread or Prohibited. Written
    by the agent."""
    ecc: bool | None = None
    """Whether its memory corrects errors. Written by the agent."""
    ecc_uncorrected: int | None = Field(default=None, ge=0)
    """Errors since the driver was loaded that could not be corrected. Written by the agent."""
    remapped_rows: RemappedRows | None = None
    """Rows of its memory that were replaced. Written by the agent."""
    health: GPUHealth | None = None
    """Healthy or Unhealthy. Written by the agent."""
    xid: int | None = Field(default=None, ge=0)
    """The last critical XID error of the driver. Written by the agent."""
    claimed: Quantity | None = None
    """Memory that replicas have claimed. Written by the operator."""
    free: Quantity | None = None
    """Memory that a new replica can claim. Written by the operator."""
    claims: tuple[GPUClaim, ...] | None = Field(default=None, max_length=256)
    """Replicas that hold a claim. Written by the operator."""


class NodeFree(ApiModel):
    """What the node has left besides GPUs."""

    cpu: Quantity | None = None
    """CPU that no pod has requested."""
    memory: Quantity | None = None
    """RAM that no pod has requested."""
    pods: int | None = Field(default=None, ge=0)
    """Pods that the node can still take."""


class NodeSummary(ApiModel):
    """Words for the printer columns."""

    gpus: int | None = Field(default=None, ge=0)
    """GPUs of the node."""
    product: str | None = Field(default=None, max_length=256)
    """Their product; several are joined by commas."""
    memory: str | None = Field(default=None, max_length=32)
    """Their usable memory in short."""
    claimed: str | None = Field(default=None, max_length=32)
    """Memory that is claimed on them in short."""
    used: str | None = Field(default=None, max_length=32)
    """Memory in use on them in short."""
    healthy: str | None = Field(default=None, max_length=32)
    """Healthy GPUs of all, such as 8/8."""


class InjectionFailures(ApiModel):
    """Pods that did not get the GPUs that they claim, while the node was set up as it is now."""

    setup: str = Field(default="", max_length=256)
    """Injection style, driver and container runtime that they were counted under; with another it begins anew."""
    pods: tuple[Annotated[str, Field(max_length=64)], ...] = Field(default=(), max_length=8)
    """Their UIDs."""


class InjectionFound(ApiModel):
    """What probe pods found out about a node."""

    style: InjectionStyle | None = None
    """How a GPU is handed to a container. Left out: by none of the styles that an annotation can carry."""
    setup: str = Field(default="", max_length=256)
    """Driver and container runtime that this holds for; with others it is found out anew."""
    message: str = Field(default="", max_length=1024)
    """What the probes saw, and what to do where no style works."""


class GPUNodeStatus(ApiModel):
    """What the node's agent sees, and what vrampack has claimed there."""

    observed_generation: int | None = Field(default=None, ge=-1)
    """The metadata.generation that this status describes; -1 until vrampack has seen the object."""
    driver: str | None = Field(default=None, max_length=64)
    """Version of the NVIDIA driver."""
    cuda: str | None = Field(default=None, max_length=64)
    """Highest CUDA version that the driver supports."""
    injection_style: InjectionStyle | None = None
    """How a GPU is handed to a container on this node; found out by the agent."""
    injection: InjectionFound | None = None
    """How a GPU is handed to a container on this node, as probe pods found out. Written by the operator."""
    observed_at: str | None = Field(default=None, max_length=40, json_schema_extra={"format": "date-time"})
    """When the agent last wrote. Whether it is alive says its Lease."""
    summary: NodeSummary | None = None
    """Words for the columns of kubectl get."""
    gpus: tuple[GPUStatus, ...] | None = Field(default=None, max_length=MAX_GPUS, json_schema_extra=by_key("uuid"))
    """The node's GPUs."""
    node: NodeFree | None = None
    """What the node has left besides GPUs."""
    container_runtime: str | None = Field(default=None, max_length=128)
    """The node's container runtime and its version."""
    container_toolkit: str | None = Field(default=None, max_length=64)
    """Version of the NVIDIA container toolkit, where a pod of the GPU Operator brings it. Left out: it is part of the
    host, where no unprivileged pod can ask for its version."""
    boot_id: str | None = Field(default=None, max_length=64)
    """Which boot of the node this is of. With another one it is found out anew how the node hands out GPUs."""
    mismatches: tuple[Mismatch, ...] | None = Field(default=None, max_length=64)
    """Pods whose processes are not on exactly the GPUs that they claim. Written by the agent."""
    injection_failures: InjectionFailures | None = None
    """How often pods did not get their GPUs here. Written by the operator."""
    conditions: tuple[Condition, ...] | None = Field(default=None, max_length=16, json_schema_extra=by_key("type"))
    """Reporting (the agent reads the GPUs), Healthy, Released (no process has outlived its pod), AllocationsKnown (the
    kubelet says what it has handed out), ToolkitKnown (the version of the NVIDIA container toolkit), AgentAlive (by its
    Lease), Overcommitted (claims and foreign use exceed a GPU), InjectionKnown, InjectionBroken (pods did not get the
    GPUs that they claim)."""
