"""What the pods of all inference servers have in common: where weights are, how long a start may take, how it ends."""

from collections.abc import Sequence
from typing import Final

from vrampack.engines.base import (
    ClaimModel,
    EngineContainer,
    EngineInput,
    Fragment,
    HubModel,
    Probes,
    hub_environment,
    literal,
    share_environment,
    shared_memory,
    startup_seconds,
)
from vrampack.engines.releases import image

CACHE: Final = "/var/cache/vrampack"
MODELS: Final = "/models"

CPU_BASE: Final = 1000
CPU_PER_RANK: Final = 1000
"""Requests in thousandths of a core: one for HTTP and tokenizing, and one for each rank, which polls its GPU."""

ENDPOINTS_SECONDS: Final = 5
"""Between the end of a pod and the last request that still reaches it: proxies learn of it a little later."""
DRAIN_SECONDS: Final = 30
"""Time for answers that are under way. Longer would keep the GPU from the replica that comes next."""
LAST_SECONDS: Final = 15
"""From the end of the drain to the end of the process."""

DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def server(
    given: EngineInput,
    *,
    engine: str,
    arguments: Sequence[str],
    environment: Sequence[Fragment],
    fraction_of_all: bool = False,
) -> EngineContainer:
    """The container of an inference server whose command and arguments are vrampack's alone. ``arguments``: without
    the user's. ``environment``: beside its share and the hub. ``fraction_of_all``: whether it is told a fraction of the
    whole GPU, so that no runtime may show it less.

    Raises InvalidInputError where it has no image of this version.
    """
    volumes, mounts = volumes_and_mounts(given)
    return EngineContainer(
        engine=engine,
        image=given.image or image(engine, version=given.version),
        port=given.port,
        args=(*arguments, *given.args),
        env=(*share_environment(limits=not fraction_of_all), *hub_environment(given), *environment),
        volumes=volumes,
        mounts=mounts,
        shared_memory=shared_memory(given),
        probes=probes(given),
        pre_stop=sleep(ENDPOINTS_SECONDS),
        grace_seconds=ENDPOINTS_SECONDS + DRAIN_SECONDS + LAST_SECONDS,
        cpu=cpu(given),
        memory=given.host_memory,
        owns_command=True,
    )


def volumes_and_mounts(given: EngineInput) -> tuple[tuple[Fragment, ...], tuple[Fragment, ...]]:
    """Volumes and their mounts. The cache outlives a container that crashes, so weights are fetched once a pod."""
    volumes: list[Fragment] = [{"name": "cache", "emptyDir": {}}]
    mounts: list[Fragment] = [{"name": "cache", "mountPath": CACHE}]
    if isinstance(given.model, ClaimModel):
        claim = {"claimName": given.model.claim, "readOnly": True}
        volumes.append({"name": "model", "persistentVolumeClaim": claim})
        mounts.append({"name": "model", "mountPath": MODELS, "readOnly": True})
    return tuple(volumes), tuple(mounts)


def model_location(given: EngineInput) -> str:
    """The repository, or the folder where the claim is mounted."""
    if isinstance(given.model, HubModel):
        return given.model.repository
    return f"{MODELS}/{given.model.path.strip('/')}".rstrip("/")


def is_offline(given: EngineInput) -> bool:
    """Whether nothing has to be fetched from the hub: the model is in a claim, and so is one that drafts for it."""
    drafts_from_hub = given.drafts is not None and isinstance(given.drafts.model, HubModel)
    return isinstance(given.model, ClaimModel) and not drafts_from_hub


def hub_cache(given: EngineInput) -> tuple[Fragment, ...]:
    """Where the hub's client keeps what it fetched; where all weights are in a claim it asks for nothing at all."""
    variables = [literal("HF_HOME", f"{CACHE}/huggingface")]
    if is_offline(given):
        variables.append(literal("HF_HUB_OFFLINE", "1"))
    return tuple(variables)


def probes(given: EngineInput, *, path: str = "/health") -> Probes:
    """A start may take as long as the weights take to come."""
    seconds = startup_seconds(given.weight_bytes)
    return Probes(
        startup=_probe(given.port, path, period=5, timeout=5, failures=-(-seconds // 5)),
        readiness=_probe(given.port, path, period=5, timeout=5, failures=3),
        # A busy engine answers late, and a restart costs minutes: only a minute of silence is death.
        liveness=_probe(given.port, path, period=10, timeout=10, failures=6),
    )


def sleep(seconds: int) -> Fragment:
    """A hook that waits: Kubernetes' own, since not every image has a shell."""
    return {"sleep": {"seconds": seconds}}


def cpu(given: EngineInput) -> int:
    """Request in thousandths of a core."""
    return CPU_BASE + CPU_PER_RANK * given.tensor * given.pipeline * given.data


def _probe(port: int, path: str, *, period: int, timeout: int, failures: int) -> Fragment:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }
