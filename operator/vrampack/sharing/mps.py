"""MPS: the processes of one GPU compute through one server, which keeps each to a limit of memory.

A server for each shared GPU is started by the node's agent, with a folder of its own for its pipes. A client finds it
by that folder alone: with a wrong one it runs without MPS, unlimited and without an error, which is why the agent asks
the server whether the client is there. A limit has exactly one entry for each visible GPU: one for a GPU that is not
visible makes the server drop all of them in silence.
"""

from typing import Final

from vrampack.api import names
from vrampack.errors import InvalidInputError
from vrampack.sharing.base import (
    Claimed,
    Enforcement,
    Fragment,
    Mechanism,
    Mutation,
    NodeFacts,
    Request,
    literal,
    mebibytes,
)
from vrampack.sharing.visible_devices import pinned

HOST_FOLDER: Final = "/run/vrampack/mps"
"""On the node: a folder for each GPU, by UUID, and ``shm``, which the servers have as /dev/shm."""
FOLDER: Final = "/run/vrampack-mps"
"""In the container: the folder of its own GPU."""
LABEL: Final = f"{names.GROUP}/mps"
"""Of a node where the agent runs the servers."""


def _mutation(request: Request) -> Mutation:
    if request.gpus > 1:
        raise InvalidInputError(
            field="spec.parallelism",
            value=request.gpus,
            allowed="each GPU has an MPS server of its own, and a process can use one: write 1 for every size, or "
            "another pool",
        )
    limit: Fragment = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{names.MPS_LIMIT}']"}}
    return Mutation(
        env=(
            literal("CUDA_MPS_PIPE_DIRECTORY", f"{FOLDER}/pipe"),
            {"name": "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "valueFrom": limit},
        ),
        volumes=({"name": "mps", "hostPath": {"path": HOST_FOLDER, "type": "Directory"}},),
        mounts=(
            {"name": "mps", "mountPath": FOLDER, "subPathExpr": "$(VRAMPACK_GPUS)"},
            {"name": "mps", "mountPath": "/dev/shm", "subPath": "shm"},  # noqa: S108  shared with the server
        ),
    )


def _annotations(claimed: Claimed) -> dict[str, str]:
    # CUDA numbers what is visible from 0.
    entries = (f"{index}={mebibytes(claimed.bytes)}M" for index in range(len(claimed.gpus)))
    return pinned(claimed) | {names.MPS_LIMIT: ",".join(entries)}


def _lacks(node: NodeFacts) -> str:
    if node.labels.get(LABEL) != "true":
        return f"the agent runs no MPS server there: set the chart's value agent.mps, and label the node {LABEL}=true"
    return ""


MECHANISM: Final = Mechanism(
    name="MPS",
    enforces=Enforcement.DRIVER,
    mutation=_mutation,
    annotations=_annotations,
    lacks=_lacks,
)
