"""From a reading to the agent's part of a GPUNode's status."""

from collections.abc import Iterable, Iterator, Mapping

from vrampack.agent.reading import GPUReading, NodeReading
from vrampack.api.common import Condition, ConditionStatus, Quantity
from vrampack.api.gpunode import (
    ForeignProcess,
    GPUAllocation,
    GPUHealth,
    GPUNodeStatus,
    GPUProcess,
    GPUStatus,
    MIGDevice,
    MIGProfile,
    Mismatch,
    NodeFree,
    NodeSummary,
    RemappedRows,
)
from vrampack.units import MIB, human_bytes, round_up, shortened

_MOST_PROCESSES = 256  # the bounds of the resource
_MOST_FOREIGN = 64
_MOST_PIDS = 64
_MOST_ALLOCATIONS = 64
_MOST_MISMATCHES = 64
_NAME = 256
_MOST_WORDS = 2048
_STATUSES = {True: ConditionStatus.TRUE, False: ConditionStatus.FALSE, None: ConditionStatus.UNKNOWN}
_MOST_PRODUCTS = 256


def status_of(reading: NodeReading, *, conditions: Iterable[Condition], now: str) -> GPUNodeStatus:
    """The agent's part of a GPUNode's status. ``now``: RFC 3339."""
    failed = sum(_failed(gpu) for gpu in reading.gpus)
    return GPUNodeStatus(
        driver=reading.driver or None,
        cuda=reading.cuda or None,
        injection_style=reading.injection_style,
        container_runtime=reading.container_runtime,
        container_toolkit=reading.container_toolkit,
        boot_id=reading.boot_id,
        observed_at=now,
        summary=NodeSummary(
            gpus=len(reading.gpus),
            product=shortened(", ".join(dict.fromkeys(gpu.product for gpu in reading.gpus)), most=_MOST_PRODUCTS),
            memory=human_bytes(sum(gpu.memory for gpu in reading.gpus)),
            used=human_bytes(sum(gpu.used for gpu in reading.gpus)),
            healthy=f"{len(reading.gpus) - failed}/{len(reading.gpus)}",
        ),
        gpus=tuple(_gpu_status(gpu) for gpu in reading.gpus),
        node=NodeFree(cpu=_cores(reading.cpu), memory=Quantity.of(reading.memory), pods=reading.pods),
        mismatches=None
        if reading.mismatches is None
        else tuple(
            Mismatch(namespace=each.namespace, pod=each.pod, uid=each.uid, claimed=each.claimed, seen=each.seen)
            for each in reading.mismatches[:_MOST_MISMATCHES]
        ),
        conditions=tuple(conditions),
    )


def conditions_of(reading: NodeReading, *, before: Mapping[str, Condition], now: str) -> dict[str, Condition]:
    """The agent's conditions by type; each keeps the time of its last change of status."""
    conditions = {}
    for type_, holds, reason, message in _said(reading):
        status = _STATUSES[holds]
        same = type_ in before and before[type_].status is status
        conditions[type_] = Condition(
            type=type_,
            status=status,
            last_transition_time=before[type_].last_transition_time if same else now,
            reason=reason,
            message=shortened(message, most=_MOST_WORDS),
        )
    return conditions


def _said(reading: NodeReading) -> Iterator[tuple[str, bool | None, str, str]]:
    silence, gpus = reading.silence, reading.gpus
    if silence is not None:
        yield "Reporting", False, silence.reason, silence.message
    else:
        yield "Reporting", True, "AgentReporting", "The node's agent reports; whether it is alive says its Lease"
    failed = [
        f"GPU {gpu.index} ({gpu.uuid}) {gpu.fault or f'failed with XID {gpu.xid}'}" for gpu in gpus if _failed(gpu)
    ]
    if silence is not None and not failed:
        yield "Healthy", False, silence.reason, "no GPU of this node can be read now"
    elif failed:
        yield "Healthy", False, "GPUFailed", "; ".join(failed)
    else:
        yield "Healthy", True, "GPUsHealthy", f"{len(gpus)} of {len(gpus)} GPUs work"
    if reading.mismatches is None:
        return  # a simulation has no processes that could be stuck
    if reading.kubelet:
        yield (
            "AllocationsKnown",
            False,
            "KubeletSilent",
            f"what the kubelet has handed out is not known: {reading.kubelet}",
        )
    else:
        yield "AllocationsKnown", True, "KubeletAnswers", "what the kubelet has handed out is known"
    yield _toolkit(reading)
    stuck = [
        f"pod {each.pod} (UID {each.uid}) is gone, and {_processes(each.pids)} of it still holds "
        f"{human_bytes(each.bytes)} on GPU {each.gpu}"
        for each in reading.stuck
    ]
    if stuck:
        yield "Released", False, "ProcessOutlivesPod", "; ".join(stuck)
    else:
        yield "Released", True, "NothingStuck", "no process has outlived its pod on a GPU"
    if reading.unattached:
        message = f"without a limit, since they are beside the MPS server: {'; '.join(reading.unattached)}"
        yield "MPSAttached", False, "ProcessBesideServer", message
    elif reading.unattached is not None:
        yield "MPSAttached", True, "AllAttached", "every process of a pod on a GPU is a client of its MPS server"
    if reading.unlimited:
        message = f"the driver keeps these to no limit: {'; '.join(reading.unlimited)}"
        yield "MemoryLimited", False, "LimitNotSet", message
    elif reading.unlimited is not None:
        yield "MemoryLimited", True, "AllLimited", "the driver keeps every pod on a GPU to its claim"


def _toolkit(reading: NodeReading) -> tuple[str, bool | None, str, str]:
    if reading.container_toolkit is not None:
        return "ToolkitKnown", True, "PodOfOperator", f"the NVIDIA container toolkit is {reading.container_toolkit}"
    message = (
        "no pod of the GPU Operator on this node brings the NVIDIA container toolkit, and what the host has installed "
        "no unprivileged pod can ask: how GPUs are handed out is found out anew with another driver, container runtime "
        "or boot, or another value of the node's label vrampack.dev/node-stack"
    )
    return "ToolkitKnown", None, "PartOfHost", message


def _processes(pids: tuple[int, ...]) -> str:
    return f"process {pids[0]}" if len(pids) == 1 else f"processes {', '.join(map(str, pids))}"


def _failed(gpu: GPUReading) -> bool:
    return bool(gpu.fault) or gpu.xid is not None


def _gpu_status(gpu: GPUReading) -> GPUStatus:
    return GPUStatus(
        uuid=gpu.uuid,
        index=gpu.index,
        product=gpu.product,
        total=Quantity.of(gpu.memory + gpu.reserved),
        memory=Quantity.of(gpu.memory),
        reserved_by_driver=Quantity.of(gpu.reserved),
        used=_mebibytes(gpu.used),
        processes=tuple(
            GPUProcess(
                pod_uid=each.uid,
                bytes=_mebibytes(each.bytes),
                peak=_mebibytes(each.peak) if each.peak else None,
                pod=each.pod or None,
                claim=Quantity.of(each.claim) if each.claim else None,
                weights=Quantity.of(each.weights) if each.weights else None,
                graphs=Quantity.of(each.graphs) if each.graphs else None,
                pids=each.pids[:_MOST_PIDS] or None,
            )
            for each in gpu.processes[:_MOST_PROCESSES]
        ),
        foreign=_foreign(gpu),
        offered=gpu.offered,
        allocations=_allocations(gpu),
        mig=gpu.mig,
        mig_devices=None
        if gpu.mig_devices is None
        else tuple(
            MIGDevice(uuid=each.uuid, profile=each.profile, memory=Quantity.of(each.memory.usable))
            for each in gpu.mig_devices
        ),
        mig_profiles=None
        if gpu.mig_profiles is None
        else tuple(
            MIGProfile(
                name=each.name,
                memory=Quantity.of(each.memory),
                most=each.most,
                placements=tuple(f"{start}:{size}" for start, size in each.placements),
            )
            for each in gpu.mig_profiles
        ),
        nvlink=gpu.nvlink,
        p2p=gpu.p2p,
        numa_node=gpu.numa,
        compute_mode=gpu.compute_mode,
        ecc=gpu.ecc,
        ecc_uncorrected=gpu.ecc_uncorrected,
        remapped_rows=None
        if gpu.rows is None
        else RemappedRows(
            corrected=gpu.rows.corrected,
            uncorrected=gpu.rows.uncorrected,
            pending=gpu.rows.pending,
            failed=gpu.rows.failed,
        ),
        health=GPUHealth.UNHEALTHY if _failed(gpu) else GPUHealth.HEALTHY,
        xid=gpu.xid,
    )


def _foreign(gpu: GPUReading) -> tuple[ForeignProcess, ...]:
    """The largest; what does not fit into the list is its last entry, so that no byte is lost."""
    found = sorted(gpu.foreign, key=lambda each: (-each.bytes, each.name, each.pid or 0))
    kept, rest = found, found[_MOST_FOREIGN:]
    if rest:
        rest = found[_MOST_FOREIGN - 1 :]
        kept = found[: _MOST_FOREIGN - 1]
    entries = [
        ForeignProcess(name=each.name[:_NAME], pod_uid=each.pod_uid, bytes=_mebibytes(each.bytes), pid=each.pid)
        for each in kept
    ]
    if rest:
        total = sum(each.bytes for each in rest)
        entries.append(ForeignProcess(name=f"{len(rest)} others", bytes=_mebibytes(total)))
    return tuple(entries)


def _allocations(gpu: GPUReading) -> tuple[GPUAllocation, ...] | None:
    if gpu.allocations is None:
        return None
    return tuple(
        GPUAllocation(
            namespace=each.namespace,
            pod=each.pod,
            container=each.container,
            resource=each.resource,
            device=each.device,
            reservation=each.reservation,
        )
        for each in gpu.allocations[:_MOST_ALLOCATIONS]
    )


def _mebibytes(size: int) -> Quantity:
    """What is in use, rounded up: for people to read, and never too little."""
    return Quantity.of(round_up(size, MIB))


def _cores(millicores: int) -> Quantity:
    return Quantity(f"{millicores}m" if millicores % 1000 else millicores // 1000)
