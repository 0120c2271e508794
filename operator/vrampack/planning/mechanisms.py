"""Where a pool's mechanism works, and which GPUs a pod really has where another scheduler chose them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from vrampack.api.gpupool import Mechanism as MechanismName
from vrampack.planning.snapshot import DeviceView, GPUNodeView, NodeView, PodView, PoolView, Snapshot
from vrampack.sharing.base import Mechanism, NodeFacts
from vrampack.sharing.dra import DEVICE_CLASS
from vrampack.sharing.registry import mechanism

_EXCLUSIVE: Final = ("ExclusiveProcess", "ExclusiveThread", "Prohibited")
_NAMED: Final = 4
"""Nodes that a message names; of the others it gives the number."""


def mechanism_of(pool: PoolView) -> Mechanism:
    """The pool's mechanism."""
    return mechanism(pool.spec.mechanism.value)


def lacks(pool: PoolView, node: NodeView | None, view: GPUNodeView, devices: DeviceView | None) -> str:
    """What the node lacks for the pool's mechanism, in whole words; empty: nothing."""
    return mechanism_of(pool).lacks(_facts(pool, node, view, devices))


def readiness(
    pool: PoolView,
    nodes: Mapping[str, NodeView],
    views: Mapping[str, GPUNodeView],
    devices: DeviceView | None,
) -> tuple[bool, str, str]:
    """Whether the mechanism works on every node of the pool, a word for it, and what is missing.

    ``views``: the GPUNodes of the pool.
    """
    name = pool.spec.mechanism.value
    if (problem := _cluster_lacks(pool, devices)) != "":
        return False, "ClusterLacksIt", f"{name} does not work in this cluster: {problem}"
    missing: dict[str, list[str]] = {}
    for each, view in sorted(views.items()):
        if (found := lacks(pool, nodes.get(each), view, devices)) != "":
            missing.setdefault(found, []).append(each)
    if not missing:
        return True, "Works", f"nothing is missing for {name}"
    words = "; ".join(f"{_names(having)}: {found}" for found, having in sorted(missing.items()))
    lacking = sum(map(len, missing.values()))
    reason = "NodesLackIt" if lacking == len(views) else "SomeNodesLackIt"
    return False, reason, f"{name} does not work on {lacking} of {len(views)} nodes, which take no replica: {words}"


def read_back(snapshot: Snapshot) -> Snapshot:
    """The snapshot with the GPUs that other schedulers chose, as far as their choice is known."""
    seen = {uid: uuids for uid, uuids in _observed(snapshot).items() if uuids}
    chosen = seen | _granted(snapshot.devices)
    pods = tuple(_settled(pod, chosen.get(pod.uid, ())) for pod in snapshot.pods)
    return snapshot if pods == snapshot.pods else replace(snapshot, pods=pods)


def _settled(pod: PodView, chosen: tuple[str, ...]) -> PodView:
    if pod.claim is None or not pod.claim.on_node or len(chosen) != len(pod.claim.gpus):
        return pod
    return replace(pod, claim=replace(pod.claim, gpus=chosen))


def _observed(snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
    """GPUs on which the processes of a pod were seen."""
    if not any(pod.claim is not None and pod.claim.on_node for pod in snapshot.pods):
        return {}
    found: dict[str, list[str]] = {}
    for view in snapshot.gpu_nodes:
        for gpu in view.status.gpus or ():
            for process in gpu.processes or ():
                found.setdefault(process.pod_uid, []).append(gpu.uuid)
    return {uid: tuple(dict.fromkeys(uuids)) for uid, uuids in found.items()}


def _granted(devices: DeviceView | None) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for grant in devices.grants if devices is not None else ():
        found[grant.pod_uid] = (*found.get(grant.pod_uid, ()), grant.uuid)
    return found


def _facts(pool: PoolView, node: NodeView | None, view: GPUNodeView, devices: DeviceView | None) -> NodeFacts:
    gpus = view.status.gpus or ()
    published = devices.published.get(view.name, ()) if devices is not None else ()
    return NodeFacts(
        labels=node.labels if node is not None else {},
        annotations=node.annotations if node is not None else {},
        resources=node.resources if node is not None else frozenset(),
        driver=view.status.driver or "",
        toolkit=view.status.container_toolkit or "",
        slices=any(gpu.mig_devices for gpu in gpus),
        exclusive_mode=any(gpu.compute_mode in _EXCLUSIVE for gpu in gpus),
        devices=frozenset(each.uuid for each in published) if devices is not None else None,
        countable=bool(pool.spec.resource_claim) or all(each.by_memory for each in published),
    )


def _cluster_lacks(pool: PoolView, devices: DeviceView | None) -> str:
    if pool.spec.mechanism is not MechanismName.DRA or devices is None:
        return ""
    if devices.problem:
        return devices.problem
    wanted = pool.spec.device_class or DEVICE_CLASS
    if wanted not in devices.classes:
        return f"there is no DeviceClass {wanted}: install the DRA driver, or name another class in deviceClass"
    return ""


def _names(nodes: list[str]) -> str:
    shown = ", ".join(nodes[:_NAMED])
    return f"{shown} and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else shown
