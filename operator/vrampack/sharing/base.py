"""How a replica gets its GPU: what a claim holds, and what a sharing mechanism makes of it.

A mechanism turns a claim into pod annotations, and nothing else: of a pod that waits at its gate, Kubernetes lets only
metadata and the node change. They are written in the same patch that removes the gate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vrampack.api.gpupool import InjectionStyle


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What of a claim the engine allocates for itself. Bytes on each GPU."""

    kv_cache: int
    """What the engine is told as the size of its KV cache."""
    runtime_context: int
    """CUDA context and libraries: inside the claim, but outside the engine's own budget."""
    communication: int
    """Buffers between ranks: outside the engine's own budget too."""


class Mechanism(Protocol):
    """What every sharing mechanism offers."""

    def __call__(
        self,
        *,
        gpus: Sequence[str],
        claim_bytes: int,
        epoch: int,
        style: InjectionStyle,
        share: Share,
        usable_bytes: int,
    ) -> dict[str, str]:
        """The annotations that carry a claim of ``claim_bytes`` on each of these GPUs.

        ``gpus``: UUIDs in the order of the ranks. ``epoch``: leaseTransitions of the writer. ``style``: resolved, not
        Auto. ``usable_bytes``: usable memory of the smallest of these GPUs.
        """
