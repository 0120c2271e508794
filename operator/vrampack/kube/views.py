"""From objects on the wire to the views that a decision reads."""

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from vrampack.api import names
from vrampack.api.gpupool import InjectionStyle
from vrampack.kube import wire
from vrampack.planning.snapshot import ChildView, Claim, NodeView, PodView, ProbeView, ReplicaSetView
from vrampack.units import parse_bytes, parse_millicores

_log = logging.getLogger(__name__)

UNREADABLE: Final = (msgspec.DecodeError, ValueError)
"""What reading an object of any shape may raise."""
_STARTING: Final = ("", "ContainerCreating", "PodInitializing")
"""Why a container waits where nothing is wrong."""
_UNMADE: Final = ("CreateContainerError", "RunContainerError", "CreateContainerConfigError")
"""Why a container that was pulled can't be made: with a device that nobody can resolve, for one."""
_SAID: Final = 200
_SHOWN_ERRORS: Final = 3
_SHOWN_CHARACTERS: Final = 80
_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,18}")


def read_pod(raw: msgspec.Raw) -> tuple[wire.Metadata, PodView]:
    """A pod that can't be read in whole still counts: its claim stands in its metadata, of which all counts that can be
    read. Raises one of UNREADABLE where there is none: that is no pod."""
    try:
        pod = msgspec.json.decode(raw, type=wire.Pod)
        return pod.metadata, pod_view(pod)
    except UNREADABLE as error:
        meta = _legible(msgspec.json.decode(raw, type=_Bare).metadata)
        _log.warning("pod %s/%s: only its claim can be read: %s", meta.namespace, meta.name, error)
        return meta, pod_view(wire.Pod(metadata=meta))


class _Bare(msgspec.Struct, frozen=True):
    """An object of which nothing but its having metadata is known."""

    metadata: dict[str, Any]


def _legible(found: Mapping[str, Any]) -> wire.Metadata:
    """The metadata field by field, and labels and annotations entry by entry. A name or UID that can't be read is as it
    stands there, so that two such pods stay two, and resourceVersion 0 is none that a write could rest on."""
    read: dict[str, Any] = {key: str(found.get(key, "")) for key in ("name", "uid")}
    for field in msgspec.structs.fields(wire.Metadata):
        value = found.get(field.encode_name)
        if isinstance(value, dict):
            value = {key: each for key, each in value.items() if isinstance(each, str)}
        with suppress(msgspec.ValidationError):
            read[field.name] = msgspec.convert(value, field.type)
    version = str(read.get("resource_version", ""))
    return wire.Metadata(**read | {"resource_version": version if _WHOLE_NUMBER.fullmatch(version) else "0"})


def pod_view(pod: wire.Pod) -> PodView:
    """Raises ValueError where a quantity is none."""
    meta, spec, status = pod.metadata, pod.spec, pod.status
    annotations = meta.annotations or {}
    claim = claim_of(annotations)
    gates = tuple(gate.name for gate in spec.scheduling_gates)
    statuses = status.init_container_statuses + status.container_statuses
    return PodView(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        model=meta.labels.get(names.MODEL_DEPLOYMENT, ""),
        owner_uid=meta.owner_uid,
        created=meta.creation_timestamp.timestamp() if meta.creation_timestamp else 0.0,
        phase=status.phase,
        deleting=meta.deletion_timestamp is not None,
        gated=names.GATE in gates,
        gates=gates,
        ready=_holds("Ready", status.conditions),
        started=_started(pod),
        node=spec.node_name,
        refused=_refusal(status.conditions),
        restarts=sum(container.restart_count for container in statuses),
        failure=next(
            (one.state.waiting.reason for one in statuses if one.state.waiting and _failing(one.state.waiting)), ""
        ),
        need=annotations.get(names.NEED, ""),
        claim=claim,
        obscure=() if claim is not None else claimed_gpus(annotations),
        because=annotations.get(names.BECAUSE, ""),
        annotated=meta.annotations is not None,
        priority=spec.priority,
        preempts=spec.preemption_policy != "Never",
        cpu=spec.cpu,
        memory=spec.memory,
        node_selector=spec.node_selector,
        affinity=spec.affinity,
        tolerations=spec.tolerations,
        runtime_class=spec.runtime_class_name,
    )


def probe_view(pod: wire.Pod) -> ProbeView:
    """Raises ValueError for a pod that is no probe of ours."""
    meta, status = pod.metadata, pod.status
    annotations = meta.annotations or {}
    state = next((each.state for each in status.container_statuses), wire.ContainerState())
    refused = state.waiting is not None and state.waiting.reason in _UNMADE
    said = ""
    if state.terminated is not None:
        said = state.terminated.message or state.terminated.reason
    elif state.waiting is not None:
        said = f"{state.waiting.reason} {state.waiting.message}"
    failed = status.phase == "Failed" or refused
    if failed and state.terminated is not None:
        said = f"saw {state.terminated.message.strip() or 'no GPU'}"
    return ProbeView(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        node=annotations.get(names.PROBE_NODE, ""),
        setup=annotations.get(names.PROBE_SETUP, ""),
        style=InjectionStyle(annotations.get(names.PROBE_STYLE, "")),
        created=meta.creation_timestamp.timestamp() if meta.creation_timestamp else 0.0,
        succeeded=status.phase == "Succeeded",
        failed=failed,
        message=said.strip()[:_SAID],
    )


def claimed_gpus(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """UUIDs of the GPUs that a pod claims, whether or not the rest of its claim can be read."""
    return tuple(uuid for uuid in annotations.get(names.GPUS, "").split(",") if uuid)


def claim_of(annotations: Mapping[str, str]) -> Claim | None:
    """The claim of a pod; None where there is none that can be read."""
    gpus = claimed_gpus(annotations)
    claimed, epoch = annotations.get(names.CLAIM, ""), annotations.get(names.EPOCH, "")
    if not gpus or not _WHOLE_NUMBER.fullmatch(claimed) or not _WHOLE_NUMBER.fullmatch(epoch):
        return None
    on_node = annotations.get(names.SCOPE, "") == names.NODE_SCOPE
    return Claim(gpus=gpus, bytes=int(claimed), epoch=int(epoch), on_node=on_node)


def replica_set_view(replica_set: wire.ReplicaSet) -> ReplicaSetView:
    meta = replica_set.metadata
    return ReplicaSetView(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        owner_uid=meta.owner_uid,
        replicas=replica_set.spec.replicas,
        requests=frozenset(
            each.resource_claim_template_name for each in replica_set.spec.template.spec.resource_claims
        ),
    )


def node_view(node: wire.Node) -> NodeView:
    """Raises ValueError where a quantity is none."""
    allocatable = node.status.allocatable
    return NodeView(
        name=node.metadata.name,
        labels=node.metadata.labels,
        ready=_holds("Ready", node.status.conditions),
        unschedulable=node.spec.unschedulable,
        taints=node.spec.taints,
        cpu=parse_millicores(allocatable.get("cpu", "0")),
        memory=parse_bytes(allocatable.get("memory", "0")),
        pods=parse_bytes(allocatable.get("pods", "0")),
        annotations=node.metadata.annotations or {},
        resources=frozenset(allocatable),
    )


def child_view(kind: str, meta: wire.Metadata, found: dict[str, Any]) -> ChildView:
    """``found``: the object, which loses its managedFields here: they are half of it and nobody reads them."""
    found["metadata"].pop("managedFields", None)
    return ChildView(
        kind=kind,
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        owner_uid=meta.owner_uid,
        deleting=meta.deletion_timestamp is not None,
        object=found,
    )


def problem_of(error: ValidationError, *, root: str = "spec") -> str:
    """The first errors as people read them: ``spec.serving.concurrency: Field required``."""
    return "; ".join(_problem(one, root) for one in error.errors(include_url=False)[:_SHOWN_ERRORS])


def _problem(error: Mapping[str, Any], root: str) -> str:
    path = root + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":  # its input is the object around the field
        return f"{path}: {message}"
    value = repr(error["input"])
    shown = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
    return f"{path}: {message}, got {shown}"


def _refusal(conditions: tuple[wire.Condition, ...]) -> str:
    """The scheduler's message; empty where it does not refuse the pod."""
    return next(
        (
            condition.message or condition.reason
            for condition in conditions
            if condition.type == "PodScheduled" and condition.status == "False" and condition.reason == "Unschedulable"
        ),
        "",
    )


def _started(pod: wire.Pod) -> bool:
    """Whether the engine's startup probe has passed. Without one a container counts as started as soon as it runs,
    which says nothing: such an engine is known to have started by its readiness alone."""
    probed = any(each.name == names.ENGINE_CONTAINER and each.startup_probe is not None for each in pod.spec.containers)
    return probed and any(
        each.name == names.ENGINE_CONTAINER and each.started for each in pod.status.container_statuses
    )


def _failing(waiting: wire.Waiting) -> bool:
    return waiting.reason not in _STARTING


def _holds(type_: str, conditions: tuple[wire.Condition, ...]) -> bool:
    return any(condition.type == type_ and condition.status == "True" for condition in conditions)
