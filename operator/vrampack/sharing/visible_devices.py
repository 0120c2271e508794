"""The default mechanism: the container runtime shows a container its GPUs, and the engine keeps to its budget.

Which value the runtime understands depends on how the node is set up, so every node has an injection style. There is
none for device lists given as volume mounts: a pod's volumes can't change once it exists.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import floor
from typing import Final

from vrampack.api import names
from vrampack.api.gpupool import InjectionStyle
from vrampack.sharing.base import Share
from vrampack.units import MIB

FALLBACK: Final = InjectionStyle.CDI_RUNTIME
"""For a node whose style nobody knows: the one value that works with every mode of the NVIDIA container runtime since
toolkit 1.15 but an explicit ``legacy``. A bare UUID fails on nodes as the GPU Operator sets them up since 25.10."""

_PREFIXES: Final = {
    InjectionStyle.BARE: "",
    InjectionStyle.CDI_RUNTIME: "runtime.nvidia.com/gpu=",
    InjectionStyle.CDI_DEVICE_PLUGIN: "k8s.device-plugin.nvidia.com/gpu=",
    InjectionStyle.CDI_HOST: "nvidia.com/gpu=",
    InjectionStyle.NRI: "k8s.device-plugin.nvidia.com/gpu=",
}

NRI_ANNOTATION: Final = f"nvidia.cdi.k8s.io/container.{names.ENGINE_CONTAINER}"
"""What the NRI plugin of the GPU Operator reads. Nodes that use it have no RuntimeClass ``nvidia``."""

NO_DEVICES: Final = "void"
"""What the NVIDIA container runtime reads as "leave this container alone", whatever its image says."""

MIN_UTILIZATION: Final = Fraction(1, 10_000)
MAX_UTILIZATION: Final = Fraction(99, 100)


def resolve_style(*, pool: InjectionStyle, node: InjectionStyle | None) -> InjectionStyle:
    """The pool's style where it names one, else what the node's agent found out, else the fallback."""
    for style in (pool, node):
        if style is not None and style is not InjectionStyle.AUTO:
            return style
    return FALLBACK


def runs_with(style: InjectionStyle, *, runtime_class: str | None) -> bool:
    """Whether a pod with this RuntimeClass can get a GPU on a node of this style.

    Only NRI is particular: its nodes have no such class, so a pod that names one is refused. A pod without a class may
    be right on any node, since the NVIDIA runtime may be the node's default.
    """
    return style is not InjectionStyle.NRI or not runtime_class


def claim_annotations(
    *,
    gpus: Sequence[str],
    claim_bytes: int,
    epoch: int,
    style: InjectionStyle,
    share: Share,
    usable_bytes: int,
) -> dict[str, str]:
    """The annotations that carry a claim; see `vrampack.sharing.base.Mechanism`."""
    devices = ",".join(_PREFIXES[style] + gpu for gpu in gpus)
    annotations = {
        names.GPUS: ",".join(gpus),
        names.CLAIM: str(claim_bytes),
        names.EPOCH: str(epoch),
        names.VISIBLE_DEVICES: devices,
        names.UTILIZATION: utilization(claim_bytes=claim_bytes, share=share, usable_bytes=usable_bytes),
        names.KV_CACHE_BYTES: str(share.kv_cache),
        names.MEMORY_LIMIT_MIB: str(-(-claim_bytes // MIB)),
    }
    if style is InjectionStyle.NRI:
        # The plugin hands the devices over, so the variable must not do it a second time.
        annotations |= {names.VISIBLE_DEVICES: NO_DEVICES, NRI_ANNOTATION: devices}
    return annotations


def utilization(*, claim_bytes: int, share: Share, usable_bytes: int) -> str:
    """The engine's own part of the claim as a fraction of the GPU, four digits, rounded down.

    vLLM refuses to start where less than this is free once its context and its communication buffers are there, so
    both are taken off. Never 0, which vLLM refuses, and never above 0.99: some of a GPU is always in use.
    """
    budget = claim_bytes - share.runtime_context - share.communication
    fraction = min(max(Fraction(budget, usable_bytes), MIN_UTILIZATION), MAX_UTILIZATION)
    return f"0.{floor(fraction * 10_000):04d}"
