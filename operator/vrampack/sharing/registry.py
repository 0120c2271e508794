"""Which module is which ``spec.mechanism`` of a GPUPool."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.sharing import visible_devices
from vrampack.sharing.base import Mechanism

MECHANISMS: Final[Mapping[str, Mechanism]] = MappingProxyType({"VisibleDevices": visible_devices.claim_annotations})


def mechanism(name: str) -> Mechanism:
    """The mechanism of this name. Raises InvalidInputError when this version of vrampack has none."""
    try:
        return MECHANISMS[name]
    except KeyError:
        known = ", ".join(sorted(MECHANISMS))
        raise InvalidInputError(
            field="spec.mechanism", value=name, allowed=f"this version of vrampack shares by {known}"
        ) from None
