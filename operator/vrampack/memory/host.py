"""What the pod needs of its host: RAM and shared memory."""

from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import (
    HOST_BASE,
    HOST_INPUT_CACHE,
    HOST_PER_RANK,
    HOST_TOKEN_BYTES,
    SHARED_MEMORY_PER_RANK,
)
from vrampack.memory.workload import Workload


def host_bytes(architecture: Architecture, workload: Workload) -> int:
    """RAM to request for the pod. Weight files are mapped, so they live in the page cache, which needs no request.

    Each rank keeps the tokens of every sequence in a table that is as long as sequences may be.
    """
    table = workload.concurrency * workload.context_length * HOST_TOKEN_BYTES
    caches = (1 + workload.data) * HOST_INPUT_CACHE if architecture.multimodal and not workload.text_only else 0
    return HOST_BASE + caches + ranks(workload) * (HOST_PER_RANK + table)


def shared_memory_bytes(workload: Workload) -> int:
    """Size limit of the pod's /dev/shm."""
    return ranks(workload) * SHARED_MEMORY_PER_RANK


def ranks(workload: Workload) -> int:
    """Worker processes of a replica: one for each of its GPUs."""
    return workload.tensor * workload.pipeline * workload.data
