"""DRA: kube-scheduler gives out GPUs by resource claims, and where a driver lets it, it counts the bytes itself.

Each pod gets a ResourceClaim from a template that asks for the bytes of a replica on each GPU (consumable capacity,
Kubernetes 1.36). vrampack chooses the node, and kube-scheduler the GPU on it: the claim is one on the node until the
allocation is read back. A pool may name one ResourceClaim instead: its GPU is shared by all pods of its namespace that
refer to it, which any driver can do, and then vrampack's account is the only one of its bytes.
"""

from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.sharing.base import Fragment, Mutation, NodeFacts, Request, mebibytes
from vrampack.sharing.handover import HANDED_OVER, chosen_on_the_node

DEVICE_CLASS: Final = "gpu.nvidia.com"
REQUEST: Final = "gpu"
MEMORY: Final = "memory"
"""The capacity of a device that is given out by bytes."""


def _mutation(request: Request) -> Mutation:
    if request.resource_claim:
        if request.gpus > 1:
            raise InvalidInputError(
                field="spec.parallelism",
                value=request.gpus,
                allowed="the pool's ResourceClaim is one GPU for all: write 1 for every size, or another pool",
            )
        return Mutation(without=HANDED_OVER, runtime_class=False, resource_claim=request.resource_claim)
    return Mutation(without=HANDED_OVER, runtime_class=False, device_request=device_request(request))


def device_request(request: Request) -> Fragment:
    """The spec of the ResourceClaimTemplate."""
    exactly: Fragment = {
        "deviceClassName": request.device_class or DEVICE_CLASS,
        "allocationMode": "ExactCount",
        "count": request.gpus,
        "capacity": {"requests": {MEMORY: f"{mebibytes(request.claim_bytes)}Mi"}},
    }
    return {"spec": {"devices": {"requests": [{"name": REQUEST, "exactly": exactly}]}}}


def _lacks(node: NodeFacts) -> str:
    if node.devices is None:
        return ""
    if not node.devices:
        return "no ResourceSlice has GPUs of it: install the DRA driver, which can't run beside the device plugin"
    if not node.countable:
        return (
            "its ResourceSlices do not let a GPU be claimed several times by memory: start the DRA driver with "
            "consumable shares of memory on Kubernetes 1.36 or newer, or name a ResourceClaim in the pool"
        )
    return ""


MECHANISM: Final = chosen_on_the_node("DRA", mutation=_mutation, lacks=_lacks)
