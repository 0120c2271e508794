"""Layouts: the legal ways to cut a GPU into hardware slices."""

from collections.abc import Sequence

from vrampack.packing.problem import Device


def parts(device: Device, layout: Sequence[int]) -> list[Device]:
    """The slices into which ``layout`` cuts an empty ``device``; each has its share of the price."""
    whole = max(sum(layout), 1)
    return [
        Device(
            id=f"{device.id}/{number}",
            product=device.product,
            capacity=size,
            free=size,
            closed=device.closed,
            slots=device.slots,
            slice_of=device.id,
            price=None if device.price is None else device.price * size // whole,
        )
        for number, size in enumerate(layout)
    ]
