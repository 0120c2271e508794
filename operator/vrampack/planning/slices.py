"""What of a node is shared out: whole GPUs, or MIG devices of them."""

from collections.abc import Mapping
from typing import Final

from vrampack.api.gpunode import GPUClaim, GPUStatus, MIGDevice
from vrampack.planning.snapshot import GPUNodeView, PodView, PoolView
from vrampack.sharing.registry import mechanism

_LABEL: Final = 63
"""Most characters of a product."""


def devices_of(view: GPUNodeView, pool: PoolView, ended: Mapping[str, PodView]) -> tuple[GPUStatus, ...]:
    """What of a node is shared out: its GPUs, or, where the pool shares by MIG, the MIG devices that exist.

    Of the others an entry stays where a replica claims one that is gone. ``ended``: pods that may have processes yet.
    """
    gpus = view.status.gpus or ()
    if not mechanism(pool.spec.mechanism.value).sliced:
        return gpus
    claims = {gpu.uuid: gpu.claims or () for gpu in gpus}
    pairs = [(gpu, each) for gpu in gpus if gpu.mig for each in gpu.mig_devices or ()]
    late = {uid: pod.claim.gpus for uid, pod in ended.items() if pod.claim is not None}
    slices = {each.uuid: _slice(gpu, each, claims.get(each.uuid, ()), late) for gpu, each in pairs}
    return (*slices.values(), *(gpu for gpu in gpus if gpu.uuid not in slices))


def _slice(
    gpu: GPUStatus, device: MIGDevice, claims: tuple[GPUClaim, ...], late: Mapping[str, tuple[str, ...]]
) -> GPUStatus:
    """A MIG device as an entry of its own. Of the GPU's processes those are in it whose pod claims it, or did.

    ``late``: by pod UID, what pods claimed that are over and may have processes yet.
    """
    holders = {each.uid for each in claims} | {uid for uid, uuids in late.items() if device.uuid in uuids}
    product = f"{gpu.product}-MIG-{device.profile}"[:_LABEL] if gpu.product and device.profile else gpu.product
    return GPUStatus(
        uuid=device.uuid,
        index=gpu.index,
        product=product,
        memory=device.memory,
        health=gpu.health,
        xid=gpu.xid,
        offered=gpu.offered,
        claims=claims,
        processes=tuple(each for each in gpu.processes or () if each.pod_uid in holders),
        # A MIG device that was given away is no other one's trouble; the whole GPU is.
        allocations=tuple(each for each in gpu.allocations or () if each.device in ("", gpu.uuid, device.uuid)),
    )
