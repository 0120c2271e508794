"""What an overlay must leave alone: all by which a pod gets its GPU, and no other.

The API server refuses most of it by rules of the CRD. Here it is refused again, because a cluster may have an older
CRD, and because a rule can't see everything.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from vrampack.api import names
from vrampack.api.reserved import DEVICE_ANNOTATIONS
from vrampack.engines.base import is_reserved
from vrampack.errors import InvalidInputError
from vrampack.planning.overlay import Fragment

FIELD: Final = "spec.podTemplate"

_METADATA: Final = ("labels", "annotations")
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")

_POD_FIELDS: Final = {
    "nodeName": "vrampack chooses the node; narrow it by nodeSelector or affinity",
    "schedulerName": "pods go through the cluster's default scheduler once they have a GPU",
    "hostNetwork": "replicas on one node would fight for the same port",
    "runtimeClassName": "it is the pool's: set runtimeClassName of the GPUPool",
    "priorityClassName": "replicas are placed by it too: set spec.priorityClassName",
}


def check_overlay(overlay: Fragment, *, owns_command: bool, variables: Sequence[str] = ()) -> None:
    """Raises InvalidInputError for the first thing that is vrampack's own.

    ``owns_command``: whether the command of the container ``engine`` is vrampack's. ``variables``: beginnings of its
    variables that are, besides those of every container.
    """
    _no_directive(overlay, FIELD)
    for key, value in overlay.items():
        if key not in ("metadata", "spec") or not isinstance(value, dict):
            raise InvalidInputError(field=f"{FIELD}.{key}", value=value, allowed="write the maps metadata and spec")
    _check_metadata(overlay.get("metadata", {}))
    spec = overlay.get("spec", {})
    _no_directive(spec, f"{FIELD}.spec")
    for field, reason in _POD_FIELDS.items():
        if spec.get(field):
            raise InvalidInputError(field=f"{FIELD}.spec.{field}", value=spec[field], allowed=reason)
    for path, gate in _maps(spec, "schedulingGates", f"{FIELD}.spec"):
        if gate.get("name") == names.GATE:
            raise InvalidInputError(
                field=f"{path}.name", value=names.GATE, allowed="vrampack sets and removes this gate itself"
            )
    _check_resources(spec, f"{FIELD}.spec")
    for kind in _CONTAINERS:
        for path, container in _maps(spec, kind, f"{FIELD}.spec"):
            _check_container(container, path)
            if kind == "containers" and container.get("name") == names.ENGINE_CONTAINER:
                _check_engine(container, path, owns_command=owns_command)
                _check_variables(container, path, variables)


def _check_metadata(metadata: Fragment) -> None:
    for key, value in metadata.items():
        path = f"{FIELD}.metadata.{key}"
        if key not in _METADATA:
            raise InvalidInputError(field=path, value=value, allowed="only labels and annotations of pods can be set")
        if not isinstance(value, dict):
            raise InvalidInputError(field=path, value=value, allowed="this field is a map")
        for name in value:
            if name == names.MANAGED_BY or name.startswith(f"{names.GROUP}/"):
                raise InvalidInputError(field=f"{path}[{name}]", value=value[name], allowed="vrampack sets it itself")
            if key == "annotations" and name.startswith(DEVICE_ANNOTATIONS):
                raise InvalidInputError(
                    field=f"{path}[{name}]", value=value[name], allowed="vrampack hands out the GPUs: leave it out"
                )
            if not isinstance(value[name], str | None):
                raise InvalidInputError(field=f"{path}[{name}]", value=value[name], allowed="write a text, in quotes")


def _check_container(container: Fragment, path: str) -> None:
    for where, variable in _maps(container, "env", path):
        name = variable.get("name")
        if isinstance(name, str) and is_reserved(name):
            raise InvalidInputError(
                field=f"{where}.name", value=name, allowed="vrampack sets it: it says which GPU a container sees"
            )
    _check_resources(container, path)
    context = container.get("securityContext")
    if isinstance(context, dict) and context.get("privileged"):
        raise InvalidInputError(
            field=f"{path}.securityContext.privileged",
            value=context["privileged"],
            allowed="a privileged container sees every GPU of its node",
        )


def _check_engine(container: Fragment, path: str, *, owns_command: bool) -> None:
    _no_directive(container, path)
    for field in ("command", "args") if owns_command else ("args",):
        if field in container:
            raise InvalidInputError(
                field=f"{path}.{field}",
                value=container[field],
                allowed="the engine's command line is made elsewhere: write its arguments in spec.engine.args",
            )


def _check_variables(container: Fragment, path: str, owned: Sequence[str]) -> None:
    for where, variable in _maps(container, "env", path):
        name = variable.get("name")
        if isinstance(name, str) and name.startswith(tuple(owned)):
            raise InvalidInputError(
                field=f"{where}.name",
                value=name,
                allowed="it would change what the engine is told or how its memory is kept: leave it out",
            )


def _check_resources(owner: Fragment, path: str) -> None:
    resources = owner.get("resources")
    if not isinstance(resources, dict):
        return
    for part in ("requests", "limits"):
        amounts = resources.get(part)
        for resource, amount in amounts.items() if isinstance(amounts, dict) else ():
            if resource.startswith("nvidia.com/"):
                raise InvalidInputError(
                    field=f"{path}.resources.{part}[{resource}]",
                    value=amount,
                    allowed="vrampack gives out GPUs itself; a request would take a second one",
                )


def _no_directive(value: Fragment, path: str) -> None:
    if "$patch" in value:
        raise InvalidInputError(
            field=f"{path}.$patch", value=value["$patch"], allowed="it would remove what vrampack sets here"
        )


def _maps(owner: Fragment, key: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The maps in a list, with their paths. Whatever is no list of maps is refused when it is merged."""
    elements = owner.get(key)
    for index, element in enumerate(elements if isinstance(elements, list) else ()):
        if isinstance(element, dict):
            yield f"{path}.{key}[{index}]", element
