"""Where a model's replicas are, and what they use there."""

from collections.abc import Mapping
from typing import Final

from vrampack.api.common import Quantity
from vrampack.api.modeldeploymentstatus import MAX_PLACEMENTS, PlacedGPU, PlacementStatus
from vrampack.planning.cases import Case
from vrampack.planning.inventory import Inventory
from vrampack.planning.snapshot import Json, PodView
from vrampack.units import MIB, round_up

_STEP: Final = 0.01
"""A share of the claim: smaller changes of what is used are not worth a write."""

Sizes = Mapping[tuple[str, str], int]
"""Bytes by pod and GPU."""


def placements(case: Case, stock: Inventory) -> tuple[PlacementStatus, ...]:
    """The first replicas by name, with their claims and what agents saw them use."""
    observed, peaks = _shown(case.model.status, "observed"), _shown(case.model.status, "peak")
    found = []
    for pod in sorted(case.placed, key=lambda each: each.name)[:MAX_PLACEMENTS]:
        assert pod.claim is not None
        gpus = []
        for uuid in pod.claim.gpus:
            gpu = stock.gpus.get(uuid)
            gpus.append(
                PlacedGPU(
                    uuid=uuid,
                    index=gpu.index if gpu is not None else None,
                    claim=Quantity.of(pod.claim.bytes),
                    observed=_told(stock.observed.get((uuid, pod.uid)), observed, pod, uuid),
                    peak=_told(gpu.peaks.get(pod.uid) if gpu is not None else None, peaks, pod, uuid),
                )
            )
        first = stock.gpus.get(pod.claim.gpus[0])
        node = pod.node or (first.node if first is not None else "unknown")
        found.append(PlacementStatus(pod=pod.name, node=node, gpus=tuple(gpus), because=pod.because[:512] or None))
    return tuple(found)


def _told(size: int | None, former: Sizes, pod: PodView, uuid: str) -> Quantity | None:
    """What the status says of a size: what it said before, while that is near enough."""
    if size is None or pod.claim is None:
        return None
    known = former.get((pod.name, uuid))
    if known is not None and abs(known - size) < _STEP * pod.claim.bytes:
        size = known
    return Quantity.of(round_up(size, MIB))


def _shown(status: Json, field: str) -> Sizes:
    """What the former status shows. Where it can't be read it shows nothing."""
    try:
        return {
            (placement["pod"], gpu["uuid"]): Quantity.parse(gpu[field]).bytes
            for placement in status.get("placements") or ()
            for gpu in placement.get("gpus") or ()
            if gpu.get(field) is not None
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
