"""What closes a node or a GPU to new replicas, before any of them is looked at."""

from collections.abc import Sequence
from typing import Final

from vrampack.api.common import ConditionStatus
from vrampack.api.gpunode import GPUHealth, GPUNodeStatus, GPUSpec, GPUStatus
from vrampack.api.gpupool import Fencing, GPUPoolSpec, Mechanism
from vrampack.planning.injection import broken
from vrampack.planning.reasons import Obstacle
from vrampack.planning.snapshot import GPUNodeView, NodeView
from vrampack.sharing.registry import mechanism

_BY_KUBELET: Final = frozenset({Mechanism.HAMI, Mechanism.KAI, Mechanism.DRA})
"""Mechanisms where the kubelet hands the GPU out, to our pods as to all others."""
_SLICE: Final = "MIG-"
_DEFAULT_MODE: Final = "Default"


def node_obstacle(view: GPUNodeView, node: NodeView | None, *, pool: GPUPoolSpec) -> Obstacle | None:
    """What is wrong with a node as a whole."""
    if node is None:
        return Obstacle.NODE_MISSING
    if not node.ready:
        return Obstacle.NODE_NOT_READY
    if node.unschedulable:
        return Obstacle.NODE_UNSCHEDULABLE
    if not view.agent_alive:
        return Obstacle.AGENT_SILENT
    if _blind(view.status):
        return Obstacle.DRIVER_SILENT
    if broken(view.status, pool=pool):
        return Obstacle.INJECTION_BROKEN
    return None


def gpu_obstacle(gpu: GPUStatus, *, wishes: Sequence[GPUSpec], pool: GPUPoolSpec) -> Obstacle | None:
    """What is wrong with one GPU. ``wishes``: what the admin says of the node's GPUs."""
    if gpu.memory is None or gpu.index is None:
        return Obstacle.GPU_VANISHED
    if gpu.health is GPUHealth.UNHEALTHY:
        return Obstacle.GPU_UNHEALTHY
    if any(wish.uuid == gpu.uuid and wish.cordoned for wish in wishes):
        return Obstacle.GPU_CORDONED
    if gpu.mig:
        return Obstacle.GPU_IN_MIG_MODE
    if mechanism(pool.mechanism.value).sliced and not gpu.uuid.startswith(_SLICE):
        return Obstacle.GPU_NOT_IN_MIG_MODE
    if gpu.compute_mode not in (None, _DEFAULT_MODE) and pool.mechanism is not Mechanism.MPS:
        return Obstacle.GPU_COMPUTE_MODE
    return fence_obstacle(gpu, pool=pool)


def fence_obstacle(gpu: GPUStatus, *, pool: GPUPoolSpec) -> Obstacle | None:
    """Why the kubelet's own handing out of GPUs forbids this one.

    It neither knows of our claims nor asks: a GPU that it has given away is another's, and one that it may still give
    away is used only where somebody holds it for us.
    """
    if pool.mechanism in _BY_KUBELET:
        return None
    allocations = gpu.allocations or ()
    if any(not each.reservation for each in allocations):
        return Obstacle.GPU_ALLOCATED
    if gpu.offered and not (pool.fencing is Fencing.RESERVATION and allocations):
        return Obstacle.GPU_NOT_FENCED
    return None


def _blind(status: GPUNodeStatus) -> bool:
    """Whether the agent says that it can't read the GPUs now."""
    return any(each.type == "Reporting" and each.status is ConditionStatus.FALSE for each in status.conditions or ())
