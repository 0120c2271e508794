"""The pod template of a ModelDeployment: the engine's container, the gate, the need, and the user's overlay on top.

The template is a pure function of what it is given. So its hash tells a change of spec from no change, and a template
that somebody else has edited from one that was rendered differently.
"""

import hashlib
import json
from dataclasses import replace
from typing import Any, Final

from vrampack.api import names
from vrampack.engines.base import VISIBLE_DEVICES, EngineContainer, is_reserved, literal
from vrampack.engines.startgate import StartGate, command, waiting
from vrampack.errors import InvalidInputError
from vrampack.planning.need import Need
from vrampack.planning.overlay import Fragment, merge
from vrampack.planning.podshape import check_shape
from vrampack.planning.quantity import canonical_quantity
from vrampack.planning.reserved import FIELD, check_overlay
from vrampack.sharing.base import Mutation
from vrampack.sharing.visible_devices import NO_DEVICES
from vrampack.units import MIB, format_bytes, parse_bytes, parse_millicores, round_up

UNREACHABLE_SECONDS: Final = 60
"""How long a replica stays on a node that does not answer. Kubernetes' own five minutes are long for a server."""

_NAME: Final = "app.kubernetes.io/name"
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  a mount point, no temporary file
_AMOUNTS: Final = frozenset({("resources", "requests"), ("resources", "limits"), ("emptyDir", "sizeLimit")})
"""Where a pod has quantities: a field, and the one above it."""
_DEVICES: Final = "gpu"
"""The pod's own name for the GPUs that it claims by DRA."""
_HASH_DIGITS: Final = 8
NO_MUTATION: Final = Mutation()
_DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"


def selector(name: str) -> dict[str, str]:
    """The labels by which a ModelDeployment's pods are found; they never change."""
    return {names.MANAGED_BY: names.MANAGER, names.MODEL_DEPLOYMENT: name}


def pod_template(
    *,
    name: str,
    engine: EngineContainer,
    need: Need,
    overlay: Fragment,
    runtime_class: str | None,
    priority_class: str | None = None,
    unreachable_seconds: int = UNREACHABLE_SECONDS,
    mutation: Mutation = NO_MUTATION,
    gate: StartGate | None = None,
) -> Fragment:
    """The template of the pods of the ModelDeployment ``name``.

    ``overlay``: its ``spec.podTemplate``. ``runtime_class``: the pool's; None or empty sets none. ``mutation``: of the
    pool's mechanism. ``gate``: where engines of one GPU start one after the other, and the agent says whose turn it is.
    Raises InvalidInputError with the field of the ModelDeployment for an overlay that can't be laid on top.
    """
    engine = shared(engine, mutation)
    owned = (*engine.owned_variables, *(variable["name"] for variable in mutation.env))
    check_overlay(overlay, owns_command=engine.owns_command, variables=owned)
    check_shape(overlay, path=FIELD)
    gate = gate if _known_command(engine, overlay) else None
    if gate is not None:
        engine = waiting(engine, gate)
    spec = _spec(engine, runtime_class if mutation.runtime_class else None, priority_class)
    base = {"metadata": _metadata(name, engine, need), "spec": _with(spec, mutation, name)}
    template = merge(base, overlay, path=FIELD)
    metadata, spec = template["metadata"], template["spec"]
    # The overlay may not name what is ours, but it may replace a whole map or list around it.
    metadata["labels"] = metadata.get("labels", {}) | dict(mutation.labels) | selector(name)
    metadata["annotations"] = (
        metadata.get("annotations", {}) | dict(mutation.annotations) | {names.NEED: need.to_json()}
    )
    spec["schedulingGates"] = [
        {"name": names.GATE},
        *(gate for gate in spec.get("schedulingGates", []) if gate["name"] != names.GATE),
    ]
    spec["tolerations"] = _tolerations(spec.get("tolerations", []), unreachable_seconds)
    spec["containers"] = [_own(container, engine, owned) for container in _containers(spec)]
    if gate is not None:
        spec["containers"] = [_gated(container, engine) for container in spec["containers"]]
    if spec.get("initContainers"):
        spec["initContainers"] = [_blind(container) for container in spec["initContainers"]]
    canonical: Fragment = _canonical(template, FIELD)
    return canonical


def template_hash(template: Fragment) -> str:
    """Sixteen hex digits; equal for equal templates, whatever the order of their keys."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _metadata(name: str, engine: EngineContainer, need: Need) -> Fragment:
    return {
        "labels": {_NAME: engine.engine} | selector(name),
        "annotations": {names.NEED: need.to_json(), _DEFAULT_CONTAINER: names.ENGINE_CONTAINER},
    }


def _spec(engine: EngineContainer, runtime_class: str | None, priority_class: str | None) -> Fragment:
    spec: Fragment = {
        "schedulingGates": [{"name": names.GATE}],
        "automountServiceAccountToken": False,  # a model needs nothing of the API server
        "enableServiceLinks": False,  # a Service named vllm would set VLLM_PORT, which vLLM takes for its own
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": engine.grace_seconds,
        "containers": [_container(engine)],
    }
    volumes = list(engine.volumes)
    if engine.shared_memory:
        size = format_bytes(round_up(engine.shared_memory, MIB))
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}})
    if volumes:
        spec["volumes"] = volumes
    if runtime_class:
        spec["runtimeClassName"] = runtime_class
    if priority_class:
        spec["priorityClassName"] = priority_class
    return spec


def requested(template: Fragment) -> tuple[int, int]:
    """CPU in thousandths of a core, and RAM in bytes, that a pod of this template asks for."""
    requests = [each.get("resources", {}).get("requests", {}) for each in template["spec"]["containers"]]
    return (
        sum(parse_millicores(each.get("cpu", 0)) for each in requests),
        sum(parse_bytes(each.get("memory", 0)) for each in requests),
    )


def _container(engine: EngineContainer) -> Fragment:
    container: Fragment = {
        "name": names.ENGINE_CONTAINER,
        "image": engine.image,
        "env": list(engine.env),
        "ports": [{"name": "http", "containerPort": engine.port, "protocol": "TCP"}],
        # Requests only: what a node has, must be known to the scheduler; a limit would end an engine that reads ahead.
        "resources": {
            "requests": {"cpu": f"{engine.cpu}m", "memory": format_bytes(round_up(engine.memory, MIB))},
        },
        # No runAsNonRoot: the public images of the engines run as root.
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    mounts = list(engine.mounts)
    if engine.shared_memory:
        mounts.append({"name": "shm", "mountPath": _SHARED_MEMORY})
    optional = {
        "command": list(engine.command),
        "args": list(engine.args),
        "volumeMounts": mounts,
        "startupProbe": engine.probes.startup,
        "readinessProbe": engine.probes.readiness,
        "livenessProbe": engine.probes.liveness,
        "lifecycle": {"preStop": engine.pre_stop} if engine.pre_stop else None,
    }
    return container | {key: value for key, value in optional.items() if value}


def _containers(spec: Fragment) -> list[Fragment]:
    containers: list[Fragment] = spec.get("containers", [])
    if not any(container["name"] == names.ENGINE_CONTAINER for container in containers):
        raise InvalidInputError(
            field=f"{FIELD}.spec.containers",
            value=[container["name"] for container in containers],
            allowed=f"the container {names.ENGINE_CONTAINER} must stay",
        )
    return containers


def shared(engine: EngineContainer, mutation: Mutation) -> EngineContainer:
    """The engine's container with what the mechanism adds to it and takes away."""
    kept = tuple(variable for variable in engine.env if variable["name"] not in mutation.without)
    share = sum(is_reserved(variable["name"]) for variable in kept)  # which stand first, so that others can name them
    shm = 0 if any(mount["mountPath"] == _SHARED_MEMORY for mount in mutation.mounts) else engine.shared_memory
    return replace(
        engine,
        env=(*kept[:share], *mutation.env, *kept[share:]),
        volumes=(*engine.volumes, *mutation.volumes),
        mounts=(*engine.mounts, *mutation.mounts),
        shared_memory=shm,
    )


def device_template_name(name: str, request: Fragment) -> str:
    """Of the ResourceClaimTemplate: its spec can't change, so another request is another object."""
    return f"{name}-{template_hash(request)[:_HASH_DIGITS]}"


def _with(spec: Fragment, mutation: Mutation, name: str) -> Fragment:
    """The pod's spec with what belongs to the mechanism and to no container alone."""
    if mutation.scheduler:
        spec["schedulerName"] = mutation.scheduler
    (container,) = spec["containers"]
    if mutation.limits:
        container["resources"]["limits"] = dict(mutation.limits)
    claim: Fragment | None = None
    if mutation.device_request is not None:
        claim = {"resourceClaimTemplateName": device_template_name(name, mutation.device_request)}
    elif mutation.resource_claim:
        claim = {"resourceClaimName": mutation.resource_claim}
    if claim is not None:
        spec["resourceClaims"] = [{"name": _DEVICES} | claim]
        container["resources"]["claims"] = [{"name": _DEVICES}]
    return spec


def _own(container: Fragment, engine: EngineContainer, owned: tuple[str, ...]) -> Fragment:
    if container["name"] != names.ENGINE_CONTAINER:
        return _blind(container)
    ours = [each for each in engine.env if is_reserved(each["name"]) or each["name"] in owned]
    named = {each["name"] for each in ours}
    return container | {"env": ours + [each for each in _unreserved(container) if each["name"] not in named]}


def _known_command(engine: EngineContainer, overlay: Fragment) -> bool:
    """Whether it is known what the engine's container runs: nothing can stand before an image's own entry point."""
    given = (overlay.get("spec") or {}).get("containers") or []
    written = any(each.get("name") == names.ENGINE_CONTAINER and each.get("command") for each in given)
    return bool(engine.command or engine.entry or written)


def _gated(container: Fragment, engine: EngineContainer) -> Fragment:
    if container["name"] != names.ENGINE_CONTAINER:
        return container
    known = container.get("command") or list(engine.entry)
    return container | {"command": command(known, own_gate=engine.own_gate)}


def _blind(container: Fragment) -> Fragment:
    """A container of the user's that sees no GPU, even if its image asks for all, as CUDA's base images do."""
    return container | {"env": [literal(VISIBLE_DEVICES, NO_DEVICES), *_unreserved(container)]}


def _unreserved(container: Fragment) -> list[Fragment]:
    return [variable for variable in container.get("env", []) if not is_reserved(variable["name"])]


def _tolerations(given: list[Fragment], unreachable_seconds: int) -> list[Fragment]:
    """The user's, and after them ours for every taint that the user says nothing about."""
    away = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": unreachable_seconds}
    ours: list[Fragment] = [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/not-ready"} | away,
        {"key": "node.kubernetes.io/unreachable"} | away,
    ]
    return given + [each for each in ours if not any(_speaks_of(toleration, each) for toleration in given)]


def _speaks_of(toleration: Fragment, ours: Fragment) -> bool:
    """A toleration without a key means every taint, one without an effect every effect."""
    return toleration.get("key") in (None, "", ours["key"]) and toleration.get("effect") in (None, "", ours["effect"])


def _canonical(value: Any, path: str, *, parent: str = "", amounts: bool = False) -> Any:
    """The value with keys in order and amounts as the API server writes them: ``cpu: 1000m`` and ``cpu: 1`` are one."""
    if isinstance(value, dict):
        return {
            key: _canonical(each, f"{path}.{key}", parent=key, amounts=amounts or (parent, key) in _AMOUNTS)
            for key, each in sorted(value.items())
        }
    if isinstance(value, list):
        return [_canonical(each, f"{path}[{index}]") for index, each in enumerate(value)]
    if not amounts:
        return value
    try:
        amount = canonical_quantity(value)
    except ValueError:
        raise InvalidInputError(
            field=path, value=value, allowed="write a quantity: a number with an optional suffix, such as 500m or 2Gi"
        ) from None
    if amount.startswith("-"):
        raise InvalidInputError(field=path, value=value, allowed="write an amount that is not negative")
    return amount
