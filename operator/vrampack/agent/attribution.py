"""Who holds the memory of a GPU: pods of vrampack, which have a claim for it, and everything else, which has none."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vrampack.agent.devices import Device, Process
from vrampack.agent.health import Verdict
from vrampack.agent.pods import Pod
from vrampack.agent.processes import UNKNOWN, Owner
from vrampack.agent.reading import Allocation, ForeignUse, GPUReading, PodUse
from vrampack.units import MIB

UNATTRIBUTED: Final = "unattributed"
"""Bytes that no process accounts for."""
NAMELESS: Final = "unknown"
"""A process that is not in view."""
_BOOKKEEPING: Final = 64 * MIB
"""What a driver may count as used beyond its processes; an idle GPU shows a few MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Who is on a node. ``owners``: of processes. ``pods``: those that the API server has, by UID.

    ``ours``: UIDs of pods of vrampack, of those as well that are gone from there and whose processes may still be here.
    """

    owners: Mapping[int, Owner]
    pods: Mapping[str, Pod]
    ours: Mapping[str, str]
    """Namespace and name, by UID."""


def gpu_reading(
    device: Device,
    *,
    people: People,
    verdict: Verdict,
    offered: bool | None,
    allocations: tuple[Allocation, ...] | None,
) -> GPUReading:
    """What the agent says of one GPU."""
    identity, traits = device.identity, device.traits
    processes, foreign = _uses(device, people)
    return GPUReading(
        uuid=identity.uuid,
        index=identity.index,
        product=identity.product,
        name=identity.name,
        memory=device.memory.usable,
        reserved=device.memory.reserved,
        in_use=device.memory.used,
        processes=processes,
        foreign=foreign,
        fault=verdict.fault,
        xid=verdict.xid,
        offered=offered,
        allocations=allocations,
        mig=traits.mig is not None and traits.mig.current,
        mig_devices=traits.mig.devices if traits.mig is not None and traits.mig.current else None,
        mig_profiles=traits.mig.profiles if traits.mig is not None and traits.mig.current else None,
        nvlink=identity.nvlink,
        p2p=identity.p2p,
        numa=identity.numa,
        compute_mode=traits.compute_mode,
        ecc=traits.ecc,
        ecc_uncorrected=traits.ecc_uncorrected,
        rows=traits.rows,
    )


def _uses(device: Device, people: People) -> tuple[tuple[PodUse, ...], tuple[ForeignUse, ...]]:
    """By pod where it is one of vrampack's, by process and pod where it is not.

    Bytes that the driver counts and no process accounts for go to the one pod whose processes it can't measure, where
    there is just one, and are foreign otherwise.
    """
    ours: dict[str, list[Process]] = defaultdict(list)
    others: list[tuple[Process, Owner]] = []
    for process in device.processes:
        owner = people.owners.get(process.pid, UNKNOWN)
        if owner.pod_uid in people.ours:
            ours[owner.pod_uid].append(process)
        else:
            others.append((process, owner))
    rest = max(0, device.memory.used - sum(process.bytes or 0 for process in device.processes))
    unmeasured = {uid for uid, found in ours.items() if any(process.bytes is None for process in found)}
    unmeasured |= {f"pid {process.pid}" for process, _ in others if process.bytes is None}
    uses = []
    for uid, found in sorted(ours.items()):
        inferred = unmeasured == {uid}
        held = sum(process.bytes or 0 for process in found) + (rest if inferred else 0)
        uses.append(
            PodUse(
                uid=uid,
                bytes=held,
                inferred=inferred,
                pids=tuple(sorted(process.pid for process in found)),
                container=_container(people.pods.get(uid), people.owners.get(found[0].pid, UNKNOWN)),
            )
        )
    foreign = [_foreign(process, owner, people) for process, owner in others]
    if rest > _BOOKKEEPING and not (len(unmeasured) == 1 and unmeasured <= ours.keys()):
        foreign.append(ForeignUse(name=UNATTRIBUTED, bytes=rest))
    return tuple(uses), tuple(sorted(foreign, key=lambda use: (use.name, use.pid or 0)))


def _container(pod: Pod | None, owner: Owner) -> str:
    """The container's name, where the pod's status has its id."""
    if pod is None or not owner.container_id:
        return ""
    statuses = pod.status.container_statuses
    return next((each.name for each in statuses if each.container_id.endswith(owner.container_id)), "")


def _foreign(process: Process, owner: Owner, people: People) -> ForeignUse:
    pod = people.pods.get(owner.pod_uid)
    if pod is not None:
        name = f"{pod.metadata.namespace}/{pod.metadata.name}"
    elif owner.pod_uid:
        name = f"pod {owner.pod_uid}"  # a static one has another UID at the API server
    else:
        name = owner.name or NAMELESS
    return ForeignUse(name=name, bytes=process.bytes or 0, pod_uid=owner.pod_uid or None, pid=process.pid)
