"""Why a GPU can't take a replica: what the plan knows of nodes and GPUs, beside the packer's own reasons; and all of it
in whole words."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from vrampack.packing.problem import Criterion, Reason, Why
from vrampack.units import counted, human_bytes


class Obstacle(StrEnum):
    """What is wrong with a node or a GPU: for everybody, or for the pods of one template."""

    NODE_MISSING = "NodeMissing"
    NODE_NOT_READY = "NodeNotReady"
    NODE_UNSCHEDULABLE = "NodeUnschedulable"
    AGENT_SILENT = "AgentSilent"
    DRIVER_SILENT = "DriverSilent"
    INJECTION_BROKEN = "InjectionBroken"
    GPU_VANISHED = "GPUVanished"
    GPU_UNHEALTHY = "GPUUnhealthy"
    GPU_CORDONED = "GPUCordoned"
    GPU_IN_MIG_MODE = "GPUInMIGMode"
    GPU_COMPUTE_MODE = "GPUComputeMode"
    GPU_ALLOCATED = "GPUAllocated"
    GPU_NOT_FENCED = "GPUNotFenced"
    GPU_NOT_IN_MIG_MODE = "GPUNotInMIGMode"
    GPU_REPORTED_TWICE = "GPUReportedTwice"
    GPU_CLAIM_OBSCURE = "GPUClaimUnreadable"
    NODE_SELECTOR = "NodeSelectorMismatch"
    NODE_AFFINITY = "NodeAffinityMismatch"
    TAINT = "UntoleratedTaint"
    INJECTION_STYLE = "InjectionStyleMismatch"
    INJECTION_UNKNOWN = "InjectionUnknown"
    MECHANISM = "MechanismNotReady"
    REFUSED = "RefusedByScheduler"


WORDS: Final[Mapping[str, str]] = {
    Obstacle.NODE_MISSING: "on a node that is not in the cluster",
    Obstacle.NODE_NOT_READY: "on a node that is not ready",
    Obstacle.NODE_UNSCHEDULABLE: "on a cordoned node",
    Obstacle.AGENT_SILENT: "on a node whose agent has been silent for a minute",
    Obstacle.DRIVER_SILENT: "on a node whose GPUs can't be read now",
    Obstacle.INJECTION_BROKEN: "on a node that gives wrong GPUs",
    Obstacle.GPU_VANISHED: "no longer reported by the node",
    Obstacle.GPU_UNHEALTHY: "out of order",
    Obstacle.GPU_CORDONED: "cordoned in the GPUNode",
    Obstacle.GPU_IN_MIG_MODE: "in MIG mode",
    Obstacle.GPU_COMPUTE_MODE: "in exclusive compute mode",
    Obstacle.GPU_ALLOCATED: "given away by the kubelet",
    Obstacle.GPU_NOT_FENCED: "offered by a device plugin",
    Obstacle.GPU_NOT_IN_MIG_MODE: "not in MIG mode, in a pool that shares MIG devices",
    Obstacle.GPU_REPORTED_TWICE: "reported by another node too",
    Obstacle.GPU_CLAIM_OBSCURE: "claimed by a pod in words that can't be read",
    Obstacle.NODE_SELECTOR: "on a node that the selector leaves out",
    Obstacle.NODE_AFFINITY: "on a node that the affinity leaves out",
    Obstacle.TAINT: "on a node with a taint that is not tolerated",
    Obstacle.INJECTION_STYLE: "on a node that gives GPUs by NRI, and not to a pod with a RuntimeClass",
    Obstacle.INJECTION_UNKNOWN: "on a node of which no probe has told yet how it hands out GPUs",
    Obstacle.MECHANISM: "on a node where the pool's mechanism does not work",
    Obstacle.REFUSED: "on a node where the scheduler has just refused this model",
    Reason.PRODUCT_MISMATCH: "of a product that was not asked for",
    Reason.SLICE: "sliced, where whole ones are asked for",
    Reason.AVOIDED_NEIGHBOUR: "with a neighbour to be avoided",
    Reason.SPREAD: "on a node that has a replica of this model already",
    Reason.GPU_EXCLUSIVE: "held by a model that shares with none",
    Reason.GPU_NOT_EMPTY: "in use, and an empty one is asked for",
    Reason.GPU_FULL: "with as many replicas as it may hold",
    Reason.INSUFFICIENT_CPU: "on a node with too little CPU",
    Reason.INSUFFICIENT_MEMORY: "on a node with too little RAM",
    Reason.INSUFFICIENT_SLOTS: "on a node without room for one more pod",
    Reason.INSUFFICIENT_GPU_MEMORY: "with too little memory free",
    Reason.RESERVED: "with room that is kept for a replica ahead of it",
    Reason.TOO_FEW_GPUS: "with room, but on a node with too few of them",
}
"""What comes after ``1 GPU`` and after ``6 GPUs``."""

_MOST_NAMED: Final = 12


def ruled_out(rejected: Mapping[str, int]) -> str:
    """How many GPUs each reason rules out, for a sentence; with the reason's own word, which people search for.

    Of very many reasons those that rule out the most; all of them stand in the status.
    """
    most = sorted(rejected.items(), key=lambda each: (-each[1], each[0]))[:_MOST_NAMED]
    named = [f"{counted(count, 'GPU')} {WORDS[reason]} ({reason})" for reason, count in sorted(most)]
    others = sum(rejected.values()) - sum(count for _, count in most)
    return ", ".join([*named, *([f"{counted(others, 'GPU')} for other reasons"] if others else [])])


_CHOSEN: Final[Mapping[str, str]] = {
    Criterion.FIRST_FIT: "the first that fits, those in use before empty ones and the fullest of them first",
    Criterion.TIGHTEST: "the one that is left with the least",
    Criterion.MOST_FREE: "the one with the most free memory, for even headroom",
    Criterion.LEAST_FRAGMENTATION: "the one where it leaves the least memory that what is usual here can't use",
    Criterion.RESERVED: "the one that was kept for it",
    Criterion.REFINED: "the one that the search for a better packing gave it",
}


def chosen(why: Why) -> str:
    """Why a replica got these GPUs, in words."""
    opened = f"; {counted(why.opened, 'GPU')} put into use" if why.opened else ""
    return (
        f"{_CHOSEN[why.criterion]}, of {counted(why.fits, 'GPU')} that could take it{opened}; "
        f"{human_bytes(max(0, why.left))} left free"
    )
