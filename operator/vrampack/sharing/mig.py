"""MIG: the GPU is cut into slices with memory and compute of their own, and a slice is what a replica gets.

Slices that exist are used as they are; `vrampack.sharing.miglayout` says which ones would suit what waits. The
container runtime hands a slice over by its UUID, like a GPU.
"""

from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.sharing.base import Enforcement, Mechanism, Mutation, NodeFacts, Request
from vrampack.sharing.visible_devices import pinned


def _mutation(request: Request) -> Mutation:
    if request.gpus > 1:
        raise InvalidInputError(
            field="spec.parallelism",
            value=request.gpus,
            allowed="a process sees one MIG device, and there is no link between two: write 1 for every size, or "
            "another pool",
        )
    return Mutation()


def _lacks(node: NodeFacts) -> str:
    if not node.slices:
        return (
            "no GPU has a MIG device: set a layout by the node label nvidia.com/mig.config (vrampack mig-layout prints "
            "one to review), or choose other nodes"
        )
    return ""


MECHANISM: Final = Mechanism(
    name="MIG",
    enforces=Enforcement.HARDWARE,
    mutation=_mutation,
    annotations=pinned,
    lacks=_lacks,
    sliced=True,
)
