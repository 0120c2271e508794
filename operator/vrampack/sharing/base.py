"""How a replica gets its GPU: what a sharing mechanism adds to a pod, and what it makes of a claim.

A mechanism has two moments. When the template is made it adds what no pod can get later: variables, volumes, resources,
the scheduler's name. When a GPU is claimed it turns the claim into pod annotations, and nothing else: of a pod that
waits at its gate, Kubernetes lets only metadata and the node change. They are written in the same patch that removes
the gate. So everything but annotations is the same for all replicas, and a mechanism is fixed for each pool.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from math import floor
from typing import Any, Final, TypeAlias

from vrampack.api import names
from vrampack.api.gpupool import InjectionStyle
from vrampack.units import MIB

Fragment: TypeAlias = dict[str, Any]
"""A part of a pod, as it stands in a manifest."""

MIN_UTILIZATION: Final = Fraction(1, 10_000)
MAX_UTILIZATION: Final = Fraction(99, 100)


class Enforcement(StrEnum):
    """Who keeps a container to its bytes."""

    NONE = "the engine itself"
    LIBRARY = "a library that is loaded into the process"
    DRIVER = "the driver"
    HARDWARE = "the GPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What of a claim the engine allocates for itself. Bytes on each GPU."""

    kv_cache: int
    """What the engine is told as the size of its KV cache."""
    runtime_context: int
    """CUDA context and libraries: inside the claim, but outside the engine's own budget."""
    communication: int
    """Buffers between ranks: outside the engine's own budget too."""
    fraction: int | None = None
    """What the engine is told as a fraction of the GPU. None: the claim less those two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is known of a replica before it has a GPU: the same for all replicas of a template."""

    name: str
    """Of the ModelDeployment."""
    gpus: int
    claim_bytes: int
    """On each GPU."""
    queue: str = ""
    """The pool's queue, for schedulers that have queues."""
    device_class: str = ""
    """The pool's DeviceClass, for DRA."""
    resource_claim: str = ""
    """A ResourceClaim that all replicas of the pool share, for DRA; empty: one for each replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """What a mechanism adds to a pod template."""

    env: tuple[Fragment, ...] = ()
    """Variables of the engine's container beside those of its share."""
    without: frozenset[str] = frozenset()
    """Variables of its share that must not be there."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[Fragment, ...] = ()
    mounts: tuple[Fragment, ...] = ()
    limits: Mapping[str, str] = field(default_factory=dict)
    """Resources of the engine's container that are no CPU and no RAM."""
    scheduler: str = ""
    """The name of another scheduler; empty: the cluster's own."""
    runtime_class: bool = True
    """Whether the pool's RuntimeClass is the pod's."""
    device_request: Fragment | None = None
    """Spec of a ResourceClaimTemplate that each pod gets a claim of."""
    resource_claim: str = ""
    """A ResourceClaim of the namespace that the pod shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A claim on GPUs that are chosen."""

    gpus: Sequence[str]
    """UUIDs in the order of the ranks."""
    bytes: int
    """On each of them."""
    style: InjectionStyle
    """Resolved, not Auto."""
    share: Share
    usable_bytes: int
    """Usable memory of the smallest of these GPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What of a node tells whether a mechanism works there."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    resources: frozenset[str] = frozenset()
    """Names of what is allocatable."""
    driver: str = ""
    """Version of the NVIDIA driver; empty: not known."""
    toolkit: str = ""
    """Version of the NVIDIA container toolkit; empty: not known."""
    slices: bool = False
    """Whether some GPU has MIG devices."""
    exclusive_mode: bool = False
    """Whether some GPU takes one process at a time."""
    devices: frozenset[str] | None = None
    """UUIDs of the devices that a DRA driver publishes for the node; None: nobody asked."""
    countable: bool = False
    """Whether all of those can be claimed by bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """One way to share a GPU. Its name is a value of ``spec.mechanism`` of a GPUPool."""

    name: str
    enforces: Enforcement
    mutation: Callable[[Request], Mutation]
    """Raises InvalidInputError for a replica that can't be shared this way, with the field of the ModelDeployment."""
    annotations: Callable[[Claimed], dict[str, str]]
    """What is written with a claim, without its epoch."""
    lacks: Callable[[NodeFacts], str]
    """What a node lacks for it, and what to do; empty: nothing."""
    chooses: bool = True
    """Whether the GPU is the one that vrampack chose. Else another scheduler chooses among those of the node, and the
    claim is one on the node until its choice is read back."""
    by_runtime: bool = True
    """Whether the container runtime hands the GPU over, by one of the injection styles."""
    sliced: bool = False
    """Whether MIG devices are what is shared out, each to one replica, instead of GPUs."""
    total_is_share: bool = False
    """Whether a process sees its share as all of the GPU's memory, so that every fraction is one of the share."""


def claim_annotations(claimed: Claimed, *, visible: str, usable_bytes: int | None = None) -> dict[str, str]:
    """What every claim says. ``visible``: the value for the container runtime. ``usable_bytes``: what the process will
    see as the GPU's memory, where that is not the GPU's."""
    return {
        names.GPUS: ",".join(claimed.gpus),
        names.CLAIM: str(claimed.bytes),
        names.VISIBLE_DEVICES: visible,
        names.UTILIZATION: utilization(
            claim_bytes=claimed.bytes, share=claimed.share, usable_bytes=usable_bytes or claimed.usable_bytes
        ),
        names.KV_CACHE_BYTES: str(claimed.share.kv_cache),
        names.MEMORY_LIMIT_MIB: str(mebibytes(claimed.bytes)),
    }


def utilization(*, claim_bytes: int, share: Share, usable_bytes: int) -> str:
    """The engine's own part of the claim as a fraction of the GPU, four digits, rounded down.

    vLLM refuses to start where less than this is free once its context and its communication buffers are there, so
    both are taken off. Never 0, which vLLM refuses, and never above 0.99: some of a GPU is always in use. An engine
    that is told all of its claim as a fraction may have all of the GPU.
    """
    if share.fraction is not None:
        told, most = share.fraction, Fraction(1)
    else:
        told, most = claim_bytes - share.runtime_context - share.communication, MAX_UTILIZATION
    fraction = min(max(Fraction(told, usable_bytes), MIN_UTILIZATION), most)
    digits = floor(fraction * 10_000)
    return f"{digits // 10_000}.{digits % 10_000:04d}"


def mebibytes(amount: int) -> int:
    """Whole MiB, rounded up."""
    return -(-amount // MIB)


def literal(name: str, value: str) -> Fragment:
    """An environment variable with a fixed value."""
    return {"name": name, "value": value}
