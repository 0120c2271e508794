"""What an inference engine is told about a replica, and the container that comes of it.

An engine module turns an `EngineInput` into an `EngineContainer`. Everything that depends on the GPU that a replica
gets (which one, how many bytes, which fraction) is not known when the container is written: it stands in annotations
that come with the claim, and the container reads them by the downward API. So one template serves every replica.

Fragments of a pod are plain dictionaries in Kubernetes' own form: they are only passed on.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from vrampack.api import names
from vrampack.api.reserved import ENVIRONMENT, ENVIRONMENT_PREFIX
from vrampack.errors import InvalidInputError
from vrampack.memory.architecture import Architecture
from vrampack.memory.workload import Workload
from vrampack.units import MIB

Fragment: TypeAlias = dict[str, Any]
"""A part of a pod, as it stands in a manifest."""

UTILIZATION: Final = "VRAMPACK_UTILIZATION"
KV_CACHE_BYTES: Final = "VRAMPACK_KV_CACHE_BYTES"
VISIBLE_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"
_LIMITS: Final = ("NVIDIA_GPU_MEMORY_REQUEST", "NVIDIA_GPU_MEMORY_LIMIT")

STARTUP_BASE_SECONDS: Final = 900
"""Time for all of a start but the weights: imports, compilation, kernel tuning and graph capture take minutes."""

LOAD_BYTES_PER_SECOND: Final = 50 * MIB
"""Weights come at least this fast: less than half of what one 1 Gbit/s link carries, so that a first download which
shares its link still ends in time. A start that is slower than this is taken for hung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """Weights in a repository of the model hub, at one commit."""

    repository: str
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimModel:
    """Weights in a folder of a PersistentVolumeClaim. ``path`` is relative to the volume's root."""

    claim: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretKey:
    """One key of a Secret in the replica's namespace."""

    name: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """Speculative decoding."""

    method: str
    """As ``spec.speculation.method`` names it."""
    tokens: int
    """Drafted in each step."""
    model: HubModel | ClaimModel | None = None
    """What drafts them; None: the model's own heads, or the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSlots:
    """LoRA adapters that are on the GPU at once, and the highest rank of one."""

    count: int
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What of a claim is for what. Bytes on each GPU."""

    weights: int
    kv_cache: int
    """The cache that the engine is told: all of what the load needs, or what a declared claim leaves for it."""
    working: int
    """Activations and CUDA graphs."""
    claim: int
    """All of it, with what lies outside the engine's own budget."""
    slack: int
    """Of the claim, headroom and allowance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInput:
    """One replica, as its engine must serve it. Every figure is resolved: nothing is Auto."""

    model: HubModel | ClaimModel
    served_name: str
    """Name of the model in requests to the engine."""
    context_length: int
    """Tokens of the longest sequence."""
    concurrency: int
    """Sequences resident at once."""
    max_batched_tokens: int
    """Tokens of one forward pass."""
    weights_precision: str
    """What is served, as ``spec.precision.weights`` names it."""
    checkpoint_precision: str
    """What the checkpoint holds, in the same words."""
    checkpoint_dtype: str
    """The checkpoint's computation type as config.json writes it: ``bfloat16``, ``float16``, ``float32``."""
    kv_cache_precision: str
    """As ``spec.precision.kvCache`` names it; also ``fp32``."""
    version: str
    image: str | None
    """None: the engine's public image of this version."""
    port: int
    weight_bytes: int
    """Bytes of all weight files: what has to be loaded before the engine can answer."""
    host_memory: int
    """RAM that the pod needs, in bytes."""
    shared_memory: int
    """Size limit of /dev/shm where ranks talk through it, in bytes."""
    tensor: int = 1
    """Tensor parallel size: GPUs of one stage."""
    pipeline: int = 1
    """Pipeline parallel size: stages of the replica."""
    data: int = 1
    """Data parallel size: ranks with a scheduler and a KV cache of their own."""
    expert: bool = False
    """Whether experts are dealt out to the GPUs instead of being split."""
    decode_context: int = 1
    """Tensor parallel GPUs over which the KV cache of a sequence is split."""
    drafts: Drafts | None = None
    adapters: AdapterSlots | None = None
    images_per_prompt: int | None = None
    """Of a multimodal model; 0: text only. None: a model without images."""
    cuda_graphs: bool = True
    prefix_caching: bool | None = None
    """None: as the engine does by default."""
    args: tuple[str, ...] = ()
    """The user's own arguments."""
    token: SecretKey | None = None
    """The model hub's access token."""
    hub_endpoint: str | None = None
    """Where the model hub is; None: the public one."""
    file: str = ""
    """The weight file that is meant, relative to the repository or folder; the first part where there are several."""
    architecture: Architecture | None = None
    """What is served, for engines that are told tokens instead of bytes. None, here and below: a custom engine, of
    which only the user knows the memory."""
    workload: Workload | None = None
    budget: Budget | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """How Kubernetes finds out whether an engine has started, answers and lives. None: it does not."""

    startup: Fragment | None = None
    readiness: Fragment | None = None
    liveness: Fragment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContainer:
    """The container ``engine`` and what belongs to it in the pod."""

    engine: str
    image: str
    port: int
    env: tuple[Fragment, ...]
    command: tuple[str, ...] = ()
    """Empty: the image's own entry point."""
    entry: tuple[str, ...] = ()
    """What that entry point runs, for a script that stands before it; empty: the command above, or nobody knows."""
    own_gate: int | None = None
    """Port of a gate that the engine has itself between its imports and its first large allocation."""
    args: tuple[str, ...] = ()
    volumes: tuple[Fragment, ...] = ()
    mounts: tuple[Fragment, ...] = ()
    shared_memory: int = 0
    """Size limit of /dev/shm in bytes; 0: the container runtime's own, which is small."""
    probes: Probes = Probes()
    pre_stop: Fragment | None = None
    grace_seconds: int = 30
    cpu: int
    """Request, thousandths of a core."""
    memory: int
    """Request, bytes."""
    owns_command: bool
    """Whether ``command`` is vrampack's alone (or the image's), so that an overlay must leave it."""
    owned_variables: tuple[str, ...] = ()
    """Beginnings of environment variables by which the engine takes settings that are vrampack's."""
    alone: str = ""
    """Why this engine can't share a GPU, in words that follow "because"; empty: it can."""
    fraction_bytes: int | None = None
    """The bytes whose share of the GPU's memory the engine is told. None: the claim without what lies outside the
    engine's own budget."""


class Engine(Protocol):
    """What every engine module offers."""

    def __call__(self, given: EngineInput, /) -> EngineContainer:
        """Raises InvalidInputError, with the field of the ModelDeployment, for what the engine can't serve."""


def is_reserved(variable: str) -> bool:
    """Whether this environment variable is vrampack's alone: it says which GPU a container sees, and how much of it."""
    return variable in ENVIRONMENT or variable.startswith(ENVIRONMENT_PREFIX)


def cache_of(given: EngineInput) -> tuple[Architecture, Workload, Budget]:
    """What an engine that is told tokens needs to know. Raises InvalidInputError where nothing was estimated."""
    if given.architecture is None or given.workload is None or given.budget is None:
        raise InvalidInputError(
            field="spec.engine.name", value="", allowed="its cache is sized by the estimate, and there is none"
        )
    return given.architecture, given.workload, given.budget


def share_environment(*, limits: bool = True) -> tuple[Fragment, ...]:
    """Which GPUs the container sees, and its share of them.

    ``limits``: whether the runtime may limit its memory; not where the engine is told a fraction of the whole GPU,
    since a limit is then what it sees as the GPU.

    An annotation that is missing reads as empty, and an empty ``NVIDIA_VISIBLE_DEVICES`` is no GPU: without a claim
    nothing is visible. The memory limits are in MiB; the NVIDIA container toolkit enforces them where driver and
    toolkit are new enough (driver 615), and ignores them elsewhere. ``utility`` is there because engines ask NVML.
    """
    return (
        _annotation(VISIBLE_DEVICES, names.VISIBLE_DEVICES),
        literal("NVIDIA_DRIVER_CAPABILITIES", "compute,utility"),
        *(_annotation(name, names.MEMORY_LIMIT_MIB) for name in _LIMITS if limits),
        literal("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
        _annotation("VRAMPACK_GPUS", names.GPUS),
        _annotation("VRAMPACK_CLAIM_BYTES", names.CLAIM),
        _annotation(UTILIZATION, names.UTILIZATION),
        _annotation(KV_CACHE_BYTES, names.KV_CACHE_BYTES),
    )


def hub_environment(given: EngineInput) -> tuple[Fragment, ...]:
    """Where the model hub is and the token for it, by the names that the hub's own client reads."""
    variables: list[Fragment] = []
    if given.token is not None:
        reference = {"name": given.token.name, "key": given.token.key}
        variables.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    if given.hub_endpoint is not None:
        variables.append(literal("HF_ENDPOINT", given.hub_endpoint))
    return tuple(variables)


def shared_memory(given: EngineInput) -> int:
    """Ranks of one replica talk through /dev/shm; a single one needs no more than there is by default."""
    return given.shared_memory if given.tensor * given.pipeline * given.data > 1 else 0


def literal(name: str, value: str) -> Fragment:
    """An environment variable with a fixed value."""
    return {"name": name, "value": value}


def startup_seconds(weight_bytes: int) -> int:
    """How long a start may take until it counts as hung, given the weights to load."""
    return STARTUP_BASE_SECONDS + math.ceil(weight_bytes / LOAD_BYTES_PER_SECOND)


def _annotation(name: str, key: str) -> Fragment:
    path = f"metadata.annotations['{key}']"
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
