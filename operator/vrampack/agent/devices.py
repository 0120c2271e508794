"""What a GPU is and does, as its driver says: plain values, all memory in bytes."""

from dataclasses import dataclass
from enum import StrEnum


class ComputeMode(StrEnum):
    """Who may compute on a GPU, by the words of nvidia-smi."""

    DEFAULT = "Default"
    EXCLUSIVE_THREAD = "ExclusiveThread"
    PROHIBITED = "Prohibited"
    EXCLUSIVE_PROCESS = "ExclusiveProcess"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverVersions:
    """``cuda``: the highest version that the driver supports."""

    driver: str
    cuda: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """``used`` leaves out what the driver keeps; ``reserved`` is 0 where an old driver counts that as used."""

    total: int
    reserved: int
    used: int

    @property
    def usable(self) -> int:
        """What CUDA calls the total."""
        return self.total - self.reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of the host on a GPU. ``bytes`` None: the driver does not know. ``instance``: of MIG."""

    pid: int
    bytes: int | None
    instance: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What never changes of a GPU while its driver is loaded. ``bus``: PCI address. ``numa``: node of the host."""

    uuid: str
    index: int
    product: str
    """As GPU feature discovery writes it into a node label: the name with dashes."""
    name: str = ""
    bus: str = ""
    minor: int | None = None
    capability: tuple[int, int] | None = None
    numa: int | None = None
    nvlink: tuple[str, ...] = ()
    """UUIDs of the GPUs that it reaches by NVLink."""
    p2p: tuple[str, ...] = ()
    """UUIDs of the GPUs whose memory it can read by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemappedRows:
    """Rows of memory that were replaced, by cause; ``pending``: at the next reset; ``failed``: there was no spare."""

    corrected: int
    uncorrected: int
    pending: bool
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MigProfile:
    """A size of MIG device. ``placements``: first memory slice and number of slices of each place it can have."""

    id: int
    name: str
    memory: int
    most: int
    placements: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigDevice:
    """A MIG device that exists."""

    uuid: str
    profile: str
    instance: int
    compute: int
    memory: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Mig:
    """A GPU in MIG mode, or about to be. ``current`` and ``pending``: before and after the next reset."""

    current: bool
    pending: bool
    devices: tuple[MigDevice, ...] = ()
    profiles: tuple[MigProfile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What changes seldom. None: not supported by this GPU or driver."""

    compute_mode: ComputeMode | None = None
    ecc: bool | None = None
    ecc_uncorrected: int | None = None
    """Errors since the driver was loaded that could not be corrected."""
    rows: RemappedRows | None = None
    retiring: bool | None = None
    """Whether a page of memory is taken out of use at the next reset; of products before row remapping."""
    repair_pending: bool | None = None
    mig: Mig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU at one moment. ``memory`` and ``processes`` are the last that could be read.

    ``lost``: why the driver does not answer for it any more, in words.
    """

    identity: Identity
    traits: Traits
    memory: Memory
    processes: tuple[Process, ...] = ()
    lost: str = ""
