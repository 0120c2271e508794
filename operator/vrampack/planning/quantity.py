"""Quantities as the API server writes them back, so that what was sent and what is read can be compared as text."""

import re
from decimal import ROUND_UP, Decimal
from typing import Final

from vrampack.units import parse_quantity

_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL: Final = ("m", "", "k", "M", "G", "T", "P", "E")
_MILLI: Final = Decimal("1e-3")
_EXPONENT: Final = re.compile(r"[eE][+-]?\d+$")


def canonical_quantity(value: str | int | float) -> str:
    """The same amount in canonical form: no fraction, and the largest unit that allows that, of the kind written.

    After Kubernetes' rules (apimachinery, pkg/api/resource): ``1000m`` is ``1``, ``0.5`` is ``500m``, ``1.5Gi`` is
    ``1536Mi``, and, as in every list of resources, what is finer than a thousandth is rounded up. A server keeps
    padding (``010``, ``+5``) as it was written; here it goes. Raises ValueError when the value is no quantity.
    """
    text = str(value).strip()
    amount = parse_quantity(value)
    if amount == 0:
        return "0"
    if text.endswith("i") and abs(amount) >= 1024 and amount == int(amount):
        count, power = _reduce(int(amount), base=1024, most=len(_BINARY) - 1)
        return f"{count}{_BINARY[power]}"
    thousandths = int((amount / _MILLI).to_integral_value(ROUND_UP))
    count, power = _reduce(thousandths, base=1000, most=len(_DECIMAL) - 1)
    if _EXPONENT.search(text) and power != 1:
        return f"{count}e{3 * power - 3}"
    return f"{count}{_DECIMAL[power]}"


def _reduce(count: int, *, base: int, most: int) -> tuple[int, int]:
    """``count`` as a multiple of the highest power of ``base`` that divides it, at most this one."""
    power = 0
    while power < most and count % base == 0:
        count //= base
        power += 1
    return count, power
