"""Pods that did not get the GPUs that they claim: they go, and a node where that happens twice takes no new ones.

A container runtime that can't read the device list may give a container all GPUs or none, and say nothing. So what
the agent sees of a pod's processes is held against its claim. The count stands in the GPUNode, and it is written there
before the pod is deleted; it begins anew when the node is set up in another way.
"""

from typing import Final

from vrampack.api.gpunode import GPUNodeStatus, InjectionFailures, Mismatch
from vrampack.api.gpupool import GPUPoolSpec, InjectionStyle
from vrampack.sharing.visible_devices import resolve_style

ENOUGH: Final = 2
"""So many pods on one node are not chance."""
_KEPT: Final = 8


def style_of(status: GPUNodeStatus, *, pool: GPUPoolSpec) -> InjectionStyle:
    """The style in force on a node: the pool's, the agent's, that which probes found out, or the fallback."""
    found = status.injection.style if status.injection is not None else None
    return resolve_style(pool=pool.injection_style, node=status.injection_style or found)


def setup_of(status: GPUNodeStatus, *, pool: GPUPoolSpec) -> str:
    """How a node hands out GPUs now."""
    style = style_of(status, pool=pool)
    toolkit = f"toolkit {status.container_toolkit}" if status.container_toolkit else ""
    words = (style.value, f"driver {status.driver or 'unknown'}", status.container_runtime or "", toolkit)
    return ", ".join(filter(None, words))[:256]


def failures(status: GPUNodeStatus, *, pool: GPUPoolSpec) -> InjectionFailures:
    """The pods that did not get their GPUs, with those that the agent reports now."""
    setup, known = setup_of(status, pool=pool), status.injection_failures
    before = known.pods if known is not None and known.setup == setup else ()
    now = [each.uid for each in status.mismatches or ()]
    return InjectionFailures(setup=setup, pods=tuple(dict.fromkeys((*before, *now)))[:_KEPT])


def broken(status: GPUNodeStatus, *, pool: GPUPoolSpec) -> bool:
    """Whether pods do not get their GPUs on this node."""
    return len(failures(status, pool=pool).pods) >= ENOUGH


def words_of(mismatch: Mismatch) -> str:
    """For an event."""
    seen = ", ".join(mismatch.seen) or "no GPU"
    return f"claims {', '.join(mismatch.claimed)}, and its processes are on {seen}"


def condition_words(found: InjectionFailures) -> tuple[bool, str, str]:
    """Whether injection is broken, the reason and the message."""
    count = len(found.pods)
    if count >= ENOUGH:
        message = (
            f"{count} pods did not get the GPUs that they claim, with {found.setup}; the node takes no new replica "
            "until that changes: set spec.injectionStyle of its GPUPool to one that works here; or, once the node is "
            "mended, delete its GPUNode, which the agent makes anew"
        )
        return True, "PodsWithoutTheirGPUs", message
    return False, "PodsHaveTheirGPUs", f"pods get the GPUs that they claim, with {found.setup}"
