"""Limits of the driver: since release 615 it keeps a container's processes to the bytes that its cgroup may have.

The limit stands in the container's own environment, where the NVIDIA container toolkit reads it when the container
starts. It is there with every mechanism that hands GPUs over by the runtime; this one uses only nodes where it counts.
A process then sees its limit as all of the GPU's memory, so fractions are of that.
"""

from typing import Final

from vrampack.sharing.base import Claimed, Enforcement, Mechanism, Mutation, NodeFacts, Request, mebibytes
from vrampack.sharing.visible_devices import pinned
from vrampack.units import MIB

LEAST_DRIVER: Final = 615
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
    return ""


MECHANISM: Final = Mechanism(
    name="MemoryLimits",
    enforces=Enforcement.DRIVER,
    mutation=_mutation,
    annotations=_annotations,
    lacks=_lacks,
    total_is_share=True,
)
