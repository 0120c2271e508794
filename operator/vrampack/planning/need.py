"""What a replica needs of GPUs, as its pod says it: the annotation ``vrampack.dev/need``.

It is part of the pod template, so a claim can be computed from the pod alone, and a change of the estimate reaches no
pod before its template changes. Whom a replica has beside it stands there too: what it was promised holds until it is
gone, whatever becomes of its ModelDeployment meanwhile.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, NoReturn, Self

from vrampack.api.modeldeployment import PlacementSpec, Sharing
from vrampack.api.names import NEED
from vrampack.errors import InvalidInputError

FIELD = f"metadata.annotations[{NEED}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes on each GPU."""

    gpus: int
    """GPUs of one replica, all of one product on one node."""
    bytes: int
    """The claim."""
    kv: int
    """Of it, the KV cache that the engine is told."""
    context: int
    """Of it, what CUDA context and libraries take outside the engine's budget."""
    comm: int
    """Of it, what buffers between ranks take outside the engine's budget."""

    fraction: int | None = None
    """What the engine is told as a fraction of the GPU. None: the claim less context and buffers between ranks."""
    exclusive: bool | None = None
    """Whether its GPUs are its own. None, here and below: the pod is of a version that did not write it."""
    avoid: tuple[str, ...] | None = None
    """ModelDeployments of its namespace that it shares no GPU with."""
    apart: bool | None = None
    """Whether no other replica of its model comes to its node. None: others may."""

    def to_json(self) -> str:
        """Compact, and always in the same order: it is part of what a template's hash is taken of."""
        said = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps(said, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises InvalidInputError where the text is not what `to_json` writes: a pod's annotations are anybody's."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or found.keys() - _OPTIONAL != _SIZES.keys():
            known = ", ".join((*_SIZES, *_OPTIONAL))
            raise InvalidInputError(field=FIELD, value=text, allowed=f"write a JSON object with the keys {known}")
        for name, least in _SIZES.items():
            if type(found[name]) is not int or found[name] < least:
                _refuse(found, name, f"write a whole number of at least {least}")
        fraction = found.get("fraction", 1)
        if type(fraction) is not int or fraction < 1:
            _refuse(found, "fraction", "write a whole number of at least 1")
        for name in ("exclusive", "apart"):
            if not isinstance(found.get(name, False), bool):
                _refuse(found, name, "write true or false")
        avoid = found.get("avoid", [])
        if not isinstance(avoid, list) or not all(isinstance(each, str) for each in avoid):
            _refuse(found, "avoid", "write a list of names")
        if "avoid" in found:
            found["avoid"] = tuple(avoid)
        return cls(**found)


_SIZES: Final = {"gpus": 1, "bytes": 1, "kv": 0, "context": 0, "comm": 0}
"""Numbers that every need has, with the least that each may be."""
_OPTIONAL: Final = ("fraction", "exclusive", "avoid", "apart")
"""What pods of older versions lack, and what not every engine has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """Whom a replica has beside it on its GPUs. ``avoid``: names of its namespace."""

    exclusive: bool = False
    avoid: frozenset[str] = frozenset()


def company(need: Need | None, placement: PlacementSpec | None) -> Company:
    """What the pod says; where it says nothing, what its model says today, or nothing where that is gone too."""
    exclusive = need.exclusive if need is not None else None
    avoid = need.avoid if need is not None else None
    if placement is not None:
        exclusive = placement.sharing is Sharing.EXCLUSIVE if exclusive is None else exclusive
        avoid = placement.avoid_models if avoid is None else avoid
    return Company(exclusive=bool(exclusive), avoid=frozenset(avoid or ()))


def _refuse(found: dict[str, Any], name: str, allowed: str) -> NoReturn:
    raise InvalidInputError(field=f"{FIELD}.{name}", value=found[name], allowed=allowed)
