"""What an agent knows of its node at one moment, from a driver or from a simulation; all memory in bytes."""

from dataclasses import dataclass

from vrampack.agent.devices import MigDevice, MigProfile, RemappedRows
from vrampack.api.gpupool import InjectionStyle


@dataclass(frozen=True, slots=True, kw_only=True)
class PodUse:
    """What the processes of a pod of vrampack hold on one GPU. ``pids``: of the host, sorted. ``peak``: the most that
    they were seen to hold together. ``pod``, ``claim``: its namespace and name, and what it claims of this GPU, also
    once the API server has it no more. ``weights``, ``graphs``: what its engine itself says of them; 0: nothing.
    ``inferred``: whether the driver measured only others, and the bytes are what those leave; they are no peak."""

    uid: str
    bytes: int
    pids: tuple[int, ...] = ()
    peak: int = 0
    container: str = ""
    pod: str = ""
    claim: int = 0
    weights: int = 0
    graphs: int = 0
    inferred: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignUse:
    """What anything else holds on one GPU. ``name``: of the pod, or of the process that is in none."""

    name: str
    bytes: int
    pod_uid: str | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A container that the kubelet gave the GPU to. ``reservation``: to hold it for vrampack."""

    namespace: str
    pod: str
    container: str
    resource: str
    device: str = ""
    """UUID of the GPU or of the MIG device."""
    reservation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUReading:
    """One GPU. ``memory``: usable. ``reserved``: kept by the driver. ``in_use``: what the driver counts; None: it is
    what processes and foreign use add up to. ``fault``: why it can't be used, ``xid``: the error that it failed with.

    None elsewhere: nothing is known of it.
    """

    uuid: str
    index: int
    product: str
    name: str = ""
    """As the driver writes it, with spaces."""
    memory: int
    reserved: int
    in_use: int | None = None
    processes: tuple[PodUse, ...] = ()
    foreign: tuple[ForeignUse, ...] = ()
    fault: str = ""
    xid: int | None = None
    offered: bool | None = None
    allocations: tuple[Allocation, ...] | None = None
    mig: bool | None = None
    mig_devices: tuple[MigDevice, ...] | None = None
    mig_profiles: tuple[MigProfile, ...] | None = None
    nvlink: tuple[str, ...] | None = None
    p2p: tuple[str, ...] | None = None
    numa: int | None = None
    compute_mode: str | None = None
    ecc: bool | None = None
    ecc_uncorrected: int | None = None
    rows: RemappedRows | None = None

    @property
    def used(self) -> int:
        """Bytes that anything holds."""
        if self.in_use is not None:
            return self.in_use
        return sum(each.bytes for each in self.processes) + sum(each.bytes for each in self.foreign)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Why no GPU of a node can be read now: ``reason`` in one CamelCase word, ``message`` in whole ones."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """Processes that have outlived their pod on a GPU, by its index."""

    pod: str
    uid: str
    gpu: int
    bytes: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongGPUs:
    """A pod whose processes are not on exactly the GPUs that it claims; UUIDs, sorted."""

    namespace: str
    pod: str
    uid: str
    claimed: tuple[str, ...]
    seen: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading:
    """One node: its GPUs in view, and CPU (thousandths of a core), RAM (bytes) and slots left.

    ``injection_style`` None: this agent does not find it out. With ``silence`` the GPUs are the last that were seen.
    ``kubelet``: why it can't be asked; empty where it can.
    """

    driver: str
    cuda: str
    injection_style: InjectionStyle | None
    gpus: tuple[GPUReading, ...]
    cpu: int
    memory: int
    pods: int
    container_runtime: str | None = None
    container_toolkit: str | None = None
    boot_id: str | None = None
    silence: Silence | None = None
    kubelet: str = ""
    stuck: tuple[Stuck, ...] = ()
    mismatches: tuple[WrongGPUs, ...] | None = None
    unattached: tuple[str, ...] | None = None
    """Processes beside the MPS server of their GPU, in words; None: the agent runs no servers."""
    unlimited: tuple[str, ...] | None = None
    """Pods that the driver keeps to no limit, and why, in words; None: the agent sets none."""
