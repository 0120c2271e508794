"""The shapes that the fields of an overlay must have.

The API server keeps whatever stands in ``spec.podTemplate.spec``, of any shape, since no schema of ours could follow
Kubernetes' own. So the fields that vrampack lays together or reads are told here, and each is found wrong where it
stands, before anything is made of it. What is not told is passed on: the API server judges it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from vrampack.errors import InvalidInputError

_DIRECTIVES: Final = "$"
_DEEPEST: Final = 64
"""Levels of maps and lists. A pod has fewer than twenty; what has hundreds is made to exhaust whoever reads it."""


@dataclass(frozen=True, slots=True)
class _Value:
    types: tuple[type, ...]
    allowed: str


@dataclass(frozen=True, slots=True)
class _List:
    of: "Shape"


@dataclass(frozen=True, slots=True)
class _Map:
    """``fields``: by name; others may have any shape. ``of``: the shape of all, where the names are the user's."""

    fields: Mapping[str, "Shape"]
    of: "Shape | None" = None


Shape: TypeAlias = _Value | _List | _Map


def _map(**fields: Shape) -> _Map:
    return _Map(fields)


_TEXT: Final = _Value((str,), "write a text, in quotes")
_NUMBER: Final = _Value((int,), "write a whole number")
_AMOUNT: Final = _Value((str, int, float), "write a quantity: a number with an optional suffix, such as 500m or 2Gi")
_NAMED: Final = _map(name=_TEXT)

_RESOURCES: Final = _map(requests=_Map({}, _AMOUNT), limits=_Map({}, _AMOUNT), claims=_List(_NAMED))

_CONTAINER: Final = _map(
    name=_TEXT,
    image=_TEXT,
    command=_List(_TEXT),
    args=_List(_TEXT),
    env=_List(_map(name=_TEXT, value=_TEXT, valueFrom=_map())),
    envFrom=_List(_map()),
    ports=_List(_map(containerPort=_NUMBER, name=_TEXT)),
    resources=_RESOURCES,
    volumeMounts=_List(_map(mountPath=_TEXT, name=_TEXT)),
    volumeDevices=_List(_map(devicePath=_TEXT, name=_TEXT)),
    securityContext=_map(),
    startupProbe=_map(),
    readinessProbe=_map(),
    livenessProbe=_map(),
    lifecycle=_map(),
    restartPolicy=_TEXT,
)

_REQUIREMENTS: Final = _List(_map(key=_TEXT, operator=_TEXT, values=_List(_TEXT)))
_NODE_TERM: Final = _map(matchExpressions=_REQUIREMENTS, matchFields=_REQUIREMENTS)
_NODE_AFFINITY: Final = _map(
    requiredDuringSchedulingIgnoredDuringExecution=_map(nodeSelectorTerms=_List(_NODE_TERM)),
    preferredDuringSchedulingIgnoredDuringExecution=_List(_map(preference=_NODE_TERM)),
)

TEMPLATE: Final = _map(
    metadata=_map(labels=_Map({}, _TEXT), annotations=_Map({}, _TEXT)),
    spec=_map(
        containers=_List(_CONTAINER),
        initContainers=_List(_CONTAINER),
        ephemeralContainers=_List(_CONTAINER),
        volumes=_List(_map(name=_TEXT, emptyDir=_map(sizeLimit=_AMOUNT))),
        nodeSelector=_Map({}, _TEXT),
        affinity=_map(nodeAffinity=_NODE_AFFINITY, podAffinity=_map(), podAntiAffinity=_map()),
        tolerations=_List(_map(key=_TEXT, operator=_TEXT, value=_TEXT, effect=_TEXT, tolerationSeconds=_NUMBER)),
        topologySpreadConstraints=_List(_map(topologyKey=_TEXT)),
        schedulingGates=_List(_NAMED),
        imagePullSecrets=_List(_NAMED),
        resourceClaims=_List(_NAMED),
        hostAliases=_List(_map(ip=_TEXT)),
        resources=_RESOURCES,
        overhead=_Map({}, _AMOUNT),
        securityContext=_map(),
    ),
)
"""Of k8s.io/api/core/v1 (1.36)."""


def check_shape(value: Any, *, path: str, shape: Shape = TEMPLATE) -> None:
    """Raises InvalidInputError with the path of the first field whose shape is another one.

    ``null`` is right for every field, since it removes it, and so are directives: they are no fields.
    """
    _check(value, shape, path, depth=0)


def _check(value: Any, shape: Shape | None, path: str, *, depth: int) -> None:
    if depth > _DEEPEST:
        raise InvalidInputError(field=path, value="…", allowed=f"write at most {_DEEPEST} levels of maps and lists")
    if value is None:
        return
    match shape:
        case _Value(types=types, allowed=allowed):
            if isinstance(value, bool) or not isinstance(value, types):
                raise InvalidInputError(field=path, value=value, allowed=allowed)
        case _Map() if not isinstance(value, dict):
            raise InvalidInputError(field=path, value=value, allowed="this field is a map")
        case _List() if not isinstance(value, list):
            raise InvalidInputError(field=path, value=value, allowed="this field is a list")
    if isinstance(value, dict):
        for key, each in value.items():
            if not key.startswith(_DIRECTIVES):
                below = (shape.of or shape.fields.get(key)) if isinstance(shape, _Map) else None
                _check(each, below, f"{path}.{key}", depth=depth + 1)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            if each is None and isinstance(shape, _List):
                raise InvalidInputError(field=f"{path}[{index}]", value=each, allowed="leave the element out")
            _check(each, shape.of if isinstance(shape, _List) else None, f"{path}[{index}]", depth=depth + 1)
