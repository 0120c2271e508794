"""What GPUs cost while they are in use, where the pool says so of all its products."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from math import ceil
from typing import Final

from vrampack.api.common import Quantity
from vrampack.api.gpupool import GPUPoolSpec
from vrampack.units import parse_quantity

_PARTS: Final = 1_000_000
"""The packer counts in whole numbers: millionths of the pool's unit."""


def prices_of(pool: GPUPoolSpec, products: Collection[str]) -> Mapping[str, int] | None:
    """For the packer, by product; None where memory counts. Of ``products``, GPUs without one have vanished."""
    if not pool.prices or unpriced(pool, products):
        return None
    return {"": 0} | {each.product: ceil(parse_quantity(each.price) * _PARTS) for each in pool.prices}


def unpriced(pool: GPUPoolSpec, products: Collection[str]) -> tuple[str, ...]:
    """Which of ``products`` have no price."""
    return tuple(sorted(set(products) - {"", *(each.product for each in pool.prices)}))


def as_quantity(price: int) -> Quantity:
    """A price of the packer in the pool's unit."""
    return Quantity(f"{(Decimal(price) / _PARTS).normalize():f}")


def priced_words(pool: GPUPoolSpec, products: Collection[str]) -> tuple[bool, str, str]:
    """Whether prices count, the reason and the message."""
    if missing := unpriced(pool, products):
        named = ", ".join(missing[:8])
        return False, "ProductWithoutPrice", f"memory counts instead: spec.prices has no price of {named}"
    return True, "AllProductsPriced", "the least price of GPUs in use is looked for"
