"""The default mechanism: the container runtime shows a container its GPUs, and the engine keeps to its budget.

Which value the runtime understands depends on how the node is set up, so every node has an injection style. There is
none for device lists given as volume mounts: a pod's volumes can't change once it exists.
"""

from typing import Final

from vrampack.api import names
from vrampack.api.gpupool import InjectionStyle
from vrampack.sharing.base import Claimed, Enforcement, Mechanism, Mutation, NodeFacts, Request, claim_annotations

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


def resolve_style(*, pool: InjectionStyle, node: InjectionStyle | None) -> InjectionStyle:
    """The pool's style where it names one, else what was found out on the node, else the fallback."""
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


def device_list(style: InjectionStyle, gpus: tuple[str, ...] | list[str]) -> str:
    """The devices in the words of the style."""
    return ",".join(_PREFIXES[style] + gpu for gpu in gpus)


def pinned(claimed: Claimed, *, usable_bytes: int | None = None) -> dict[str, str]:
    """The annotations of a claim whose GPUs the container runtime hands over."""
    devices = device_list(claimed.style, list(claimed.gpus))
    annotations = claim_annotations(claimed, visible=devices, usable_bytes=usable_bytes)
    if claimed.style is InjectionStyle.NRI:
        # The plugin hands the devices over, so the variable must not do it a second time.
        annotations |= {names.VISIBLE_DEVICES: NO_DEVICES, NRI_ANNOTATION: devices}
    return annotations


def _mutation(request: Request) -> Mutation:
    del request
    return Mutation()


def _lacks(node: NodeFacts) -> str:
    if node.exclusive_mode:
        return "a GPU is in compute mode ExclusiveProcess, which takes one process: run nvidia-smi -c 0 there"
    return ""


MECHANISM: Final = Mechanism(
    name="VisibleDevices",
    enforces=Enforcement.NONE,
    mutation=_mutation,
    annotations=pinned,
    lacks=_lacks,
)
