"""What the packer is asked and what it answers.

An *item* is one replica: ``gpus`` devices of one product on one host, ``memory`` bytes on each. A *host* holds devices
and has CPU, RAM and slots for replicas. All figures are what is free *now*: existing claims are subtracted before.
Memory is an integer in whatever unit the caller likes, as long as it is one; vrampack uses bytes.

A *slice* is a hardware partition of a GPU that exists: a device like others, but never one of several of an item. A
device with ``layouts`` is one that may still be cut: which of its layouts it gets is part of the answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a device can't take an item, in the order in which it is tested: the first that fails counts.

    Hosts and devices may be closed for any other CamelCase reason that the caller names; those come first.
    """

    PRODUCT_MISMATCH = "ProductMismatch"
    SLICE = "GPUSlice"
    AVOIDED_NEIGHBOUR = "AvoidedNeighbour"
    SPREAD = "SpreadRequired"
    GPU_EXCLUSIVE = "GPUExclusive"
    GPU_NOT_EMPTY = "GPUNotEmpty"
    GPU_FULL = "TooManyReplicasOnGPU"
    INSUFFICIENT_CPU = "InsufficientCPU"
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    INSUFFICIENT_SLOTS = "InsufficientPodSlots"
    INSUFFICIENT_GPU_MEMORY = "InsufficientGPUMemory"
    RESERVED = "ReservedForAnother"
    TOO_FEW_GPUS = "TooFewGPUs"


class Spread(StrEnum):
    """Replicas of one group on different hosts: as a wish, as a must, or not at all."""

    PREFER = "Prefer"
    REQUIRE = "Require"
    IGNORE = "Ignore"


class Objective(StrEnum):
    """Which of the devices that fit is taken: the fewest devices opened, or even headroom."""

    FEWEST_GPUS = "FewestGPUs"
    BALANCED = "Balanced"


class Criterion(StrEnum):
    """What made the packer choose a device among those that fit."""

    FIRST_FIT = "FirstFit"
    TIGHTEST = "Tightest"
    MOST_FREE = "MostFree"
    LEAST_FRAGMENTATION = "LeastFragmentation"
    RESERVED = "Reserved"
    REFINED = "Refined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU, or a slice of one.

    ``free``: bytes; ``tenants``: groups that hold a claim on it; ``closed``: why it takes nothing new.
    ``avoided_by``: groups that its tenants refuse as neighbours.
    ``slots``: how many more replicas it takes, none where it is 0 or less; None: any number.
    ``link``: the domain of fast links that it is in, named uniquely on its host; None: none is reported. An item with
    several devices gets them in one domain where that can be had.
    ``slice_of``: the GPU of which it is a hardware slice; None: it is a whole one.
    ``layouts``: the legal ways to cut it, each as the bytes of its slices. Where there are any, it takes nothing as a
    whole, must be empty, and the packer chooses one; the first is the one that is in place (``()``: none is). Slice
    number n is called ``id/n``.
    ``price``: what having it in use costs, in any unit; None: its capacity counts. All devices have one or none has.
    """

    id: str
    product: str
    capacity: int
    free: int
    tenants: frozenset[str] = frozenset()
    avoided_by: frozenset[str] = frozenset()
    exclusive: bool = False
    closed: str | None = None
    slots: int | None = None
    link: str | None = None
    slice_of: str | None = None
    layouts: tuple[tuple[int, ...], ...] = ()
    price: int | None = None

    @property
    def in_use(self) -> bool:
        """Whether a claim is on it. A foreign process alone does not make it so."""
        return self.exclusive or bool(self.tenants)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One node: free CPU in thousandths of a core, free RAM in bytes, free slots; None: not known, so not checked."""

    name: str
    devices: tuple[Device, ...]
    cpu: int | None = None
    memory: int | None = None
    slots: int | None = None
    tenants: frozenset[str] = frozenset()
    closed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One replica that waits.

    ``group``: the model it belongs to (``namespace/name``). ``rank``: lower goes first whatever its size (0: a replica
    that completes a rollout). ``refused``: hosts that can't take it, by name, each with its reason. ``waited``: seconds
    for which it has waited, as of the caller's now. ``preempts``: whether it may push out items of a lower priority.
    """

    key: str
    group: str
    gpus: int
    memory: int
    cpu: int = 0
    host_memory: int = 0
    exclusive: bool = False
    products: frozenset[str] | None = None
    avoid: frozenset[str] = frozenset()
    spread: Spread = Spread.PREFER
    priority: int = 0
    rank: int = 1
    refused: Mapping[str, str] = field(default_factory=dict)
    waited: int = 0
    preempts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why an item got these devices: ``fits`` devices could take it (hosts, for one without devices), and this one was
    chosen by ``criterion``. ``left``: bytes free on the fullest of its devices behind it. ``opened``: how many of its
    devices were empty before."""

    criterion: Criterion
    fits: int
    left: int
    opened: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An item on its devices, all of one host."""

    item: Item
    host: str
    devices: tuple[str, ...]
    why: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closest:
    """The device that came nearest: only memory was missing, ``short`` bytes of it."""

    host: str
    device: str
    free: int
    short: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """An item that stays without a device: how many devices each reason ruled out, and the nearest one."""

    item: Item
    rejected: Mapping[str, int]
    closest: Closest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Devices of a host that are kept for an item until it fits on them: nothing that comes after it may go there.

    ``short``: bytes that must still be given back on the fullest of them.
    """

    item: Item
    host: str
    devices: tuple[str, ...]
    short: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The layout that a device with several legal ones gets. ``changed``: it is not the one that is in place, so that
    somebody must carry it out before anything starts there."""

    host: str
    device: str
    layout: tuple[int, ...]
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """The answer: every item is in exactly one of ``placed`` and ``unplaced``, in the order in which they were taken.

    ``cuts``: the devices with layouts on which something is placed; ``reserved``: the devices kept for unplaced items.
    """

    placed: tuple[Placement, ...]
    unplaced: tuple[Unplaced, ...]
    cuts: tuple[Cut, ...] = ()
    reserved: tuple[Reservation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A replica that runs: it holds its claim on ``devices`` now, and the figures of its host are without it.

    ``movable``: whether it may be given another place, or be preempted; one that is starting or leaving may not.
    """

    item: Item
    host: str
    devices: tuple[str, ...]
    movable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A running replica that gets another place. ``gain``: bytes of opened memory that are closed, or room made for a
    replica that waits; ``cost``: bytes that must be loaded anew."""

    resident: Resident
    host: str
    devices: tuple[str, ...]
    gain: int
    cost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What no packing of this problem can beat, for the objective's second term (opened memory, or GPUs on equal ones).

    ``unplaced``: bytes (over all GPUs of a replica) that must stay without a place. ``optimal``: the packing that came
    with it reaches the bound. ``relaxes``: the constraints that the bound leaves out, in words.
    """

    opened: int
    unplaced: int
    optimal: bool
    relaxes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How much a refinement may do. It is counted, never timed, so the same work gives the same plan."""

    rounds: int
    dives: int
    nodes: int
