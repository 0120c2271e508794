"""Bytes, Kubernetes quantities and how people read them.

A quantity is Kubernetes' decimal notation with an optional suffix (``24Gi``, ``1500m``, ``2e3``). Bytes are whole
numbers everywhere inside vrampack; a quantity is parsed once, on the way in, and written once, on the way out.
"""

import math
import re
from decimal import Decimal

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_SUFFIXES: dict[str, Decimal] = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_MOST = Decimal(2**60)
"""No node has more, and sums and differences of a few of them are still numbers of 64 bits."""
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d{1,3})|([KMGTPE]i|[numkMGTPE]))?")


def parse_quantity(value: str | int | float) -> Decimal:
    """The exact value of a Kubernetes quantity.

    Raises ValueError, naming the value, when it is no quantity.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no quantity; write a number with an optional suffix, such as 24Gi")
    match = _QUANTITY.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is no quantity; write a number with an optional suffix, such as 24Gi")
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _SUFFIXES[suffix or ""]


def parse_bytes(value: str | int | float) -> int:
    """A memory quantity in whole bytes, rounded up and, as what is absurdly large, capped as Kubernetes does."""
    return math.ceil(min(parse_quantity(value), _MOST))


def parse_millicores(value: str | int | float) -> int:
    """A CPU quantity in thousandths of a core, rounded up and capped likewise."""
    return math.ceil(min(parse_quantity(value) * 1000, _MOST))


def format_bytes(value: int) -> str:
    """Bytes as the shortest exact quantity: ``26583Mi``, never a rounded one."""
    if value == 0:
        return "0"
    for unit, suffix in ((GIB, "Gi"), (MIB, "Mi"), (KIB, "Ki")):
        if value % unit == 0:
            return f"{value // unit}{suffix}"
    return str(value)


def human_bytes(value: int) -> str:
    """Bytes for a sentence: ``25.96 GiB``, ``512 MiB``, ``0 B``."""
    if abs(value) >= GIB:
        return f"{value / GIB:.2f} GiB"
    if abs(value) >= MIB:
        return f"{value / MIB:.0f} MiB"
    if abs(value) >= KIB:
        return f"{value / KIB:.0f} KiB"
    return f"{value} B"


def shortened(text: str, *, most: int) -> str:
    """The text, at most so many characters of it; an ellipsis stands for the rest."""
    return text if len(text) <= most else text[: most - 1] + "…"


def counted(count: int, noun: str) -> str:
    """For a sentence: ``1 GPU``, ``4 GPUs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def each_of(count: int, noun: str) -> str:
    """Where something holds for every one: ``1 GPU``, ``each of 4 GPUs``."""
    return counted(count, noun) if count == 1 else f"each of {counted(count, noun)}"


def round_up(value: int, unit: int) -> int:
    """The smallest multiple of ``unit`` that is at least ``value``."""
    return -(-value // unit) * unit
