"""Which injection style hands out GPUs on a node: a pod asks for one GPU by each style, until it sees just that one.

The styles are tried one after the other, each by a pod of its own, whose end says whether it works. What was tried
stands in these pods, so a restart of the operator goes on where it was; the answer stands in the GPUNode, with the
driver, the container runtime and all else that it holds for. With others of these it is asked again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from vrampack.api import names
from vrampack.api.gpunode import InjectionFound
from vrampack.api.gpupool import InjectionStyle
from vrampack.planning.inventory import Inventory
from vrampack.planning.mechanisms import mechanism_of
from vrampack.planning.snapshot import GPUNodeView, Json, NodeView, PoolView, ProbeView, Snapshot
from vrampack.planning.verdict import Probing
from vrampack.sharing.visible_devices import NRI_ANNOTATION, device_list

UNSUPPORTED: Final = (
    "no style that an annotation can carry works here. Where the runtime takes device lists as volume mounts only, as "
    "Bottlerocket does, or knows no NVIDIA runtime, as on GKE, let it read the environment "
    "(accept-nvidia-visible-devices-envvar-when-unprivileged = true), or share the nodes by MIG with a device plugin, "
    "HAMi, KAI or DRA"
)
ORDER: Final = (
    InjectionStyle.CDI_RUNTIME,
    InjectionStyle.BARE,
    InjectionStyle.CDI_DEVICE_PLUGIN,
    InjectionStyle.CDI_HOST,
    InjectionStyle.NRI,
)
PATIENCE_SECONDS: Final = 120.0
"""A probe that has not ended by then has failed: a container that can't be made may be tried again for ever."""

_CONTAINER: Final = names.ENGINE_CONTAINER
_SCRIPT: Final = (
    "nvidia-smi -L 2>&1 | sed -n 's/.*(UUID: \\('\"$KIND\"'-[^)]*\\)).*/\\1/p' | sort > /tmp/seen; "
    "tr '\\n' ' ' < /tmp/seen > /dev/termination-log; [ \"$(cat /tmp/seen)\" = \"$WANTED\" ]"
)
"""Ends well where just the one device is seen; what is seen is its last message either way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Pods to make and to delete, what was found out, and when to look again."""

    create: tuple[Json, ...] = ()
    delete: tuple[ProbeView, ...] = ()
    found: Mapping[str, InjectionFound] = field(default_factory=dict)
    """By node: what its GPUNode is to say."""
    wake_at: float | None = None


def probes(snapshot: Snapshot, stock: Inventory, settings: Probing | None) -> Probes:
    """The next step on every node. ``settings`` None: nothing is probed, and probes that are there go."""
    if settings is None:
        return Probes(delete=snapshot.probes)
    pools = {pool.name: pool for pool in snapshot.pools}
    nodes = {node.name: node for node in snapshot.nodes}
    by_node: dict[str, list[ProbeView]] = {}
    for probe in snapshot.probes:
        by_node.setdefault(probe.node, []).append(probe)
    create: list[Json] = []
    delete: list[ProbeView] = [
        probe for node, there in by_node.items() if node not in {v.name for v in snapshot.gpu_nodes} for probe in there
    ]
    found: dict[str, InjectionFound] = {}
    due: list[float] = []
    for view in snapshot.gpu_nodes:
        there = by_node.get(view.name, [])
        pool, node = pools[stock.pool_of[view.name]], nodes.get(view.name)
        setup = setup_of(view, node)
        if not _wanted(view, node, pool, setup):
            delete += there
            continue
        current = [probe for probe in there if probe.setup == setup]
        delete += [probe for probe in there if probe.setup != setup]
        gpu = _gpu(view, stock)
        if gpu is None:
            continue
        answer = verdict(current, setup=setup, now=snapshot.now)
        if answer is not None:
            found[view.name] = answer
            delete += current
        elif running := [probe for probe in current if not probe.ended]:
            due += [probe.created + PATIENCE_SECONDS for probe in running]
        else:
            style = next(style for style in ORDER if style not in {probe.style for probe in current})
            create.append(probe_pod(view.name, gpu, style, setup=setup, pool=pool, settings=settings))
    return Probes(
        create=tuple(create),
        delete=tuple(delete),
        found=found,
        wake_at=min((at for at in due if at > snapshot.now), default=None),
    )


def setup_of(view: GPUNodeView, node: NodeView | None) -> str:
    """What an answer holds for: driver, container runtime and toolkit, the boot (a toolkit of the host may have changed
    with it), and what the admin calls the node's software."""
    stack = node.labels.get(names.NODE_STACK, "") if node is not None else ""
    status = view.status
    words = (
        f"driver {status.driver or 'unknown'}",
        status.container_runtime or "",
        f"toolkit {status.container_toolkit}" if status.container_toolkit else "",
        f"boot {status.boot_id[:8]}" if status.boot_id else "",
        stack,
    )
    return ", ".join(filter(None, words))[:256]


def unknown(view: GPUNodeView, node: NodeView | None, pool: PoolView) -> bool:
    """Whether it is not known how GPUs are handed out there, so that no replica goes there."""
    return _wanted(view, node, pool, setup_of(view, node)) or _unsupported(view, pool)


def verdict(probes: Iterable[ProbeView], *, setup: str, now: float) -> InjectionFound | None:
    """What these probes of one node say; None while there are styles to try."""
    said = []
    for probe in sorted(probes, key=lambda each: ORDER.index(each.style)):
        if probe.succeeded:
            return InjectionFound(style=probe.style, setup=setup, message=f"a probe saw its GPU by {probe.style.value}")
        if probe.failed or now - probe.created >= PATIENCE_SECONDS:
            said.append(f"{probe.style.value}: {probe.message or 'the container did not start'}")
    if len(said) < len(ORDER):
        return None
    return InjectionFound(style=None, setup=setup, message=f"{UNSUPPORTED}. {'; '.join(said)}"[:1024])


def probe_pod(node: str, gpu: str, style: InjectionStyle, *, setup: str, pool: PoolView, settings: Probing) -> Json:
    """A pod on this node that ends well where it sees just this GPU. It makes no CUDA context."""
    nri = style is InjectionStyle.NRI
    devices = device_list(style, [gpu])
    name = f"vrampack-probe-{hashlib.sha256(f'{node}/{setup}'.encode()).hexdigest()[:10]}-{style.value.lower()}"
    annotations = {names.PROBE_NODE: node, names.PROBE_SETUP: setup, names.PROBE_STYLE: style.value}
    environment = {
        "NVIDIA_VISIBLE_DEVICES": "void" if nri else devices,
        "NVIDIA_DRIVER_CAPABILITIES": "utility",
        "KIND": gpu.partition("-")[0],
        "WANTED": gpu,
    }
    only = {"key": "metadata.name", "operator": "In", "values": [node]}
    spec: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "activeDeadlineSeconds": int(PATIENCE_SECONDS),
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [only]}]}
            }
        },
        "containers": [
            {
                "name": _CONTAINER,
                "image": settings.image,
                "command": ["/bin/sh", "-c", _SCRIPT],
                "env": [{"name": key, "value": value} for key, value in environment.items()],
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                "securityContext": {"allowPrivilegeEscalation": False},
            }
        ],
    }
    if pool.spec.runtime_class_name and not nri:
        spec["runtimeClassName"] = pool.spec.runtime_class_name
    if nri:
        annotations[NRI_ANNOTATION] = devices
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            # Not the label of what is managed: that is on pods that hold a claim.
            "labels": {"app.kubernetes.io/name": "vrampack-probe", names.PROBE: "injection"},
            "annotations": annotations,
        },
        "spec": spec,
    }


def _wanted(view: GPUNodeView, node: NodeView | None, pool: PoolView, setup: str) -> bool:
    if not mechanism_of(pool).by_runtime:
        return False
    asked = pool.spec.injection_style is InjectionStyle.AUTO and view.status.injection_style is None
    ready = node is not None and node.ready and view.agent_alive
    known = view.status.injection is not None and view.status.injection.setup == setup
    return asked and ready and not known


def _unsupported(view: GPUNodeView, pool: PoolView) -> bool:
    found = view.status.injection
    asked = pool.spec.injection_style is InjectionStyle.AUTO and view.status.injection_style is None
    return asked and found is not None and found.style is None


def _gpu(view: GPUNodeView, stock: Inventory) -> str | None:
    """One that can be used; the first, so that all probes of a node ask for the same."""
    usable = [gpu.uuid for gpu in stock.gpus.values() if gpu.node == view.name and gpu.closed is None]
    return min(usable, default=None)
