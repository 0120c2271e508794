"""Limits of the driver: since release 615 it keeps a container's processes to the bytes that its cgroup may have.

The limit stands in the container's own environment, where the NVIDIA container toolkit reads it when the container
starts. It is there with every mechanism that hands GPUs over by the runtime; this one uses only nodes where it counts.
A process then sees its limit as all of the GPU's memory, so fractions are of that. An older toolkit ignores the limit,
and an engine that starts there takes such a fraction for one of the whole GPU. So a node whose toolkit is not known to
be new takes no replica.
"""

from typing import Final

from vrampack.api import names
from vrampack.sharing.base import Claimed, Enforcement, Mechanism, Mutation, NodeFacts, Request, mebibytes
from vrampack.sharing.visible_devices import pinned
from vrampack.units import MIB

LEAST_DRIVER: Final = 615
LABEL: Final = f"{names.GROUP}/memory-limits"
"""Of a node whose toolkit is new enough and can't be seen: set by whoever installed it."""
_TOO_OLD_TOOLKIT: Final = (1, 20, 0)


def _mutation(request: Request) -> Mutation:
    del request
    return Mutation()


def _annotations(claimed: Claimed) -> dict[str, str]:
    return pinned(claimed, usable_bytes=mebibytes(claimed.bytes) * MIB)


def _lacks(node: NodeFacts) -> str:
    release = node.driver.partition(".")[0]
    if not release.isdecimal() or int(release) < LEAST_DRIVER:
        found = f"the driver is {node.driver}" if node.driver else "the driver's version is not known"
        return f"{found}, and limits of memory need {LEAST_DRIVER} or newer, with a container toolkit after 1.20.0"
    toolkit = tuple(int(part) for part in node.toolkit.split(".") if part.isdecimal())
    if toolkit and toolkit <= _TOO_OLD_TOOLKIT:
        return f"the container toolkit is {node.toolkit}, and limits of memory need one after 1.20.0"
    if not toolkit and node.labels.get(LABEL) != "true":
        return (
            "the container toolkit is part of the host and its version can't be seen, and limits of memory need one "
            f"after 1.20.0: where it is, label the node {LABEL}=true"
        )
    return ""


MECHANISM: Final = Mechanism(
    name="MemoryLimits",
    enforces=Enforcement.DRIVER,
    mutation=_mutation,
    annotations=_annotations,
    lacks=_lacks,
    total_is_share=True,
)
