"""Which module is which ``spec.mechanism`` of a GPUPool."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.sharing import dra, hami, hami_core, kai, memory_limits, mig, mps, visible_devices
from vrampack.sharing.base import Mechanism

MECHANISMS: Final[Mapping[str, Mechanism]] = MappingProxyType(
    {
        module.MECHANISM.name: module.MECHANISM
        for module in (visible_devices, memory_limits, mig, mps, hami, hami_core, kai, dra)
    }
)


def mechanism(name: str) -> Mechanism:
    """The mechanism of this name. Raises InvalidInputError when this version of vrampack has none."""
    try:
        return MECHANISMS[name]
    except KeyError:
        known = ", ".join(sorted(MECHANISMS))
        raise InvalidInputError(
            field="spec.mechanism", value=name, allowed=f"this version of vrampack shares by {known}"
        ) from None
