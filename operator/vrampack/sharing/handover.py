"""Where somebody else hands the GPU over to the container, and may have chosen it too."""

from collections.abc import Callable
from typing import Final

from vrampack.api import names
from vrampack.sharing.base import Claimed, Enforcement, Mechanism, Mutation, NodeFacts, Request, claim_annotations
from vrampack.sharing.visible_devices import NO_DEVICES

HANDED_OVER: Final = frozenset({"NVIDIA_VISIBLE_DEVICES", "NVIDIA_GPU_MEMORY_REQUEST", "NVIDIA_GPU_MEMORY_LIMIT"})
"""Variables that somebody else sets where somebody else hands the GPU over."""


def chosen_on_the_node(
    name: str, *, mutation: Callable[[Request], Mutation], lacks: Callable[[NodeFacts], str]
) -> Mechanism:
    """A mechanism whose own scheduler chooses among the GPUs of the node: until that is read back, a claim is one on
    the node. Nobody but the engine keeps it to its bytes."""
    return Mechanism(
        name=name,
        enforces=Enforcement.NONE,
        mutation=mutation,
        annotations=_on_the_node,
        lacks=lacks,
        by_runtime=False,
        chooses=False,
    )


def _on_the_node(claimed: Claimed) -> dict[str, str]:
    return claim_annotations(claimed, visible=NO_DEVICES) | {names.SCOPE: names.NODE_SCOPE}
