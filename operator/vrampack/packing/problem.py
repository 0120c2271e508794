"""What the packer is asked and what it answers.

An *item* is one replica: ``gpus`` devices of one product on one host, ``memory`` bytes on each. A *host* holds devices
and has CPU, RAM and slots for replicas. All figures are what is free *now*: existing claims are subtracted before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a device can't take an item, in the order in which it is tested: the first that fails counts.

    Hosts and devices may be closed for any other CamelCase reason that the caller names; those come first.
    """

    PRODUCT_MISMATCH = "ProductMismatch"
    AVOIDED_NEIGHBOUR = "AvoidedNeighbour"
    SPREAD = "SpreadRequired"
    GPU_EXCLUSIVE = "GPUExclusive"
    GPU_NOT_EMPTY = "GPUNotEmpty"
    INSUFFICIENT_CPU = "InsufficientCPU"
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    INSUFFICIENT_SLOTS = "InsufficientPodSlots"
    INSUFFICIENT_GPU_MEMORY = "InsufficientGPUMemory"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU. ``free``: bytes; ``tenants``: groups that hold a claim on it; ``closed``: why it takes nothing new.

    ``avoided_by``: groups that its tenants refuse as neighbours.
    """

    id: str
    product: str
    capacity: int
    free: int
    tenants: frozenset[str] = frozenset()
    avoided_by: frozenset[str] = frozenset()
    exclusive: bool = False
    closed: str | None = None


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
    that completes a rollout). ``refused``: hosts that can't take it, by name, each with its reason.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An item on its devices, all of one host."""

    item: Item
    host: str
    devices: tuple[str, ...]


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
class Packing:
    """The answer: every item is in exactly one of the two, in the order in which the packer took them."""

    placed: tuple[Placement, ...]
    unplaced: tuple[Unplaced, ...]


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
