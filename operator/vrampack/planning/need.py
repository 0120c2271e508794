"""What a replica needs of GPUs, as its pod says it: the annotation ``vrampack.dev/need``.

It is part of the pod template, so a claim can be computed from the pod alone, and a change of the estimate reaches no
pod before its template changes.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Self

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

    def to_json(self) -> str:
        """Compact, and always in the same order: it is part of what a template's hash is taken of."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises InvalidInputError where the text is not what `to_json` writes: a pod's annotations are anybody's."""
        known = [field.name for field in fields(cls)]
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or sorted(found) != sorted(known):
            raise InvalidInputError(
                field=FIELD, value=text, allowed=f"write a JSON object with the keys {', '.join(known)}"
            )
        for name in known:
            least = 1 if name in ("gpus", "bytes") else 0
            if type(found[name]) is not int or found[name] < least:
                raise InvalidInputError(
                    field=f"{FIELD}.{name}", value=found[name], allowed=f"write a whole number of at least {least}"
                )
        return cls(**found)
