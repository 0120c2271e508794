"""HAMi-core alone: HAMi's library, loaded into the engine, keeps it to its bytes; nothing else of HAMi is needed.

The library is a file of the node. A container can leave it out, and a binary that is linked statically does.
"""

from typing import Final

from vrampack.api import names
from vrampack.sharing.base import Claimed, Enforcement, Mechanism, Mutation, NodeFacts, Request, literal, mebibytes
from vrampack.sharing.visible_devices import pinned
from vrampack.units import MIB

HOST_LIBRARY: Final = "/usr/local/vgpu/libvgpu.so"
"""Where HAMi's own installer puts it."""
LIBRARY: Final = "/usr/local/lib/vrampack/libvgpu.so"
LABEL: Final = f"{names.GROUP}/hami-core"
"""Of a node that has the library: set by whoever puts it there."""
_LIMIT: Final = "VRAMPACK_MEMORY_LIMIT_MIB"


def _mutation(request: Request) -> Mutation:
    del request
    limit = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{names.MEMORY_LIMIT_MIB}']"}}
    return Mutation(
        env=(
            {"name": _LIMIT, "valueFrom": limit},
            literal("CUDA_DEVICE_MEMORY_LIMIT", f"$({_LIMIT})m"),
            literal("CUDA_DEVICE_MEMORY_SHARED_CACHE", "/tmp/vgpu.cache"),  # noqa: S108  in the container
            literal("LD_PRELOAD", LIBRARY),
        ),
        volumes=({"name": "hami-core", "hostPath": {"path": HOST_LIBRARY, "type": "File"}},),
        mounts=({"name": "hami-core", "mountPath": LIBRARY, "readOnly": True},),
    )


def _annotations(claimed: Claimed) -> dict[str, str]:
    return pinned(claimed, usable_bytes=mebibytes(claimed.bytes) * MIB)


def _lacks(node: NodeFacts) -> str:
    if node.labels.get(LABEL) != "true":
        return f"put HAMi-core's library at {HOST_LIBRARY}, and label the node {LABEL}=true"
    return ""


MECHANISM: Final = Mechanism(
    name="HAMiCore",
    enforces=Enforcement.LIBRARY,
    mutation=_mutation,
    annotations=_annotations,
    lacks=_lacks,
    total_is_share=True,
)
