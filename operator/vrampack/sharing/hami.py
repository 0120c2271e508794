"""HAMi: its scheduler and device plugin give out GPUs by bytes, and its library keeps a process to them.

vrampack chooses the GPU, and HAMi is told by an annotation that it honours, so a claim is one on that GPU. The pod goes
through HAMi's scheduler, which writes down the same bytes.
"""

from typing import Final

from vrampack.sharing.base import (
    Claimed,
    Enforcement,
    Mechanism,
    Mutation,
    NodeFacts,
    Request,
    claim_annotations,
    mebibytes,
)
from vrampack.sharing.handover import HANDED_OVER
from vrampack.sharing.visible_devices import NO_DEVICES
from vrampack.units import MIB

SCHEDULER: Final = "hami-scheduler"
USE_UUID: Final = "nvidia.com/use-gpuuuid"
INVENTORY: Final = "hami.io/node-nvidia-register"
"""Annotation of a node by which HAMi's plugin reports its GPUs."""


def _mutation(request: Request) -> Mutation:
    return Mutation(
        without=HANDED_OVER,
        limits={"nvidia.com/gpu": str(request.gpus), "nvidia.com/gpumem": str(mebibytes(request.claim_bytes))},
        scheduler=SCHEDULER,
    )


def _annotations(claimed: Claimed) -> dict[str, str]:
    said = claim_annotations(claimed, visible=NO_DEVICES, usable_bytes=mebibytes(claimed.bytes) * MIB)
    return said | {USE_UUID: ",".join(claimed.gpus)}


def _lacks(node: NodeFacts) -> str:
    if INVENTORY not in node.annotations:
        return f"it has no annotation {INVENTORY}: install HAMi, and label the node gpu=on"
    return ""


MECHANISM: Final = Mechanism(
    name="HAMi",
    enforces=Enforcement.LIBRARY,
    mutation=_mutation,
    annotations=_annotations,
    lacks=_lacks,
    by_runtime=False,
    total_is_share=True,
)
