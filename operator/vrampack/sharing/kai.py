"""KAI: its scheduler gives out parts of GPUs by bytes, and chooses the GPU itself.

vrampack chooses the node. Until KAI's choice is seen in the agent's report, the claim is one on the node: its bytes
are held on the GPU that vrampack would have taken, and on the one where the processes are once they are there.
"""

from typing import Final

from vrampack.sharing.base import Mutation, NodeFacts, Request, mebibytes
from vrampack.sharing.handover import HANDED_OVER, chosen_on_the_node

SCHEDULER: Final = "kai-scheduler"
QUEUE: Final = "kai.scheduler/queue"
DEFAULT_QUEUE: Final = "default-queue"
RESOURCE: Final = "nvidia.com/gpu"


def _mutation(request: Request) -> Mutation:
    annotations = {"gpu-memory": str(mebibytes(request.claim_bytes)), "gpu-fraction-container-name": "engine"}
    if request.gpus > 1:
        annotations["gpu-fraction-num-devices"] = str(request.gpus)
    return Mutation(
        without=HANDED_OVER,
        labels={QUEUE: request.queue or DEFAULT_QUEUE},
        annotations=annotations,
        scheduler=SCHEDULER,
    )


def _lacks(node: NodeFacts) -> str:
    if RESOURCE not in node.resources:
        return (
            f"it offers no {RESOURCE}, of which KAI's reservations take one for each shared GPU: run the device plugin"
        )
    return ""


MECHANISM: Final = chosen_on_the_node("KAI", mutation=_mutation, lacks=_lacks)
