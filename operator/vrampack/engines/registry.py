"""Which module serves which ``spec.engine.name``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vrampack.engines import custom, llamacpp, sglang, tgi, vllm
from vrampack.engines.base import Engine
from vrampack.errors import InvalidInputError

ENGINES: Final[Mapping[str, Engine]] = MappingProxyType(
    {
        "vllm": vllm.container,
        "sglang": sglang.container,
        "llamacpp": llamacpp.container,
        "tgi": tgi.container,
        "custom": custom.container,
    }
)


def engine(name: str) -> Engine:
    """The engine of this name. Raises InvalidInputError when this version of vrampack has none."""
    try:
        return ENGINES[name]
    except KeyError:
        known = ", ".join(sorted(ENGINES))
        raise InvalidInputError(
            field="spec.engine.name", value=name, allowed=f"this version of vrampack runs {known}"
        ) from None
