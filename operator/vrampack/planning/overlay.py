"""``spec.podTemplate``, laid over a pod template as Kubernetes lays a strategic merge patch over an object.

Maps are merged key by key, and ``null`` removes a key. Of lists, those with a merge key are merged element by element
(new elements come last); all others are replaced whole. ``$patch: delete`` removes an element or empties a map;
``$patch: replace`` takes the overlay's map, or, as an element of its own, the overlay's list. Where Kubernetes would
silently do something else (another type, an element without its merge key, an unknown directive), it is refused.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from vrampack.errors import InvalidInputError

Fragment: TypeAlias = dict[str, Any]

MERGE_KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "containers": "name",
        "env": "name",
        "ephemeralContainers": "name",
        "hostAliases": "ip",
        "imagePullSecrets": "name",
        "initContainers": "name",
        "ports": "containerPort",
        "resourceClaims": "name",
        "schedulingGates": "name",
        "topologySpreadConstraints": "topologyKey",
        "volumeDevices": "devicePath",
        "volumeMounts": "mountPath",
        "volumes": "name",
    }
)
"""Lists of a pod that are merged, each with the field that tells its elements apart: the ``patchMergeKey`` tags of
k8s.io/api/core/v1 (1.36). Every other list is replaced, tolerations among them."""

UNIONS: Final = frozenset({"volumes", "resourceClaims"})
"""Lists whose elements are one of several kinds (``retainKeys``): of an element, only keys that the overlay names stay.
Else a volume that the overlay makes a claim would stay an emptyDir as well, which no API server takes."""

_DIRECTIVE: Final = "$patch"


def merge(base: Fragment, overlay: Fragment, *, path: str) -> Fragment:
    """The overlay on top of ``base``, which is left as it is.

    Raises InvalidInputError with the path, below ``path``, of what can't be merged.
    """
    match _directive(overlay, path):
        case "delete":
            return {}
        case "replace":
            return merge({}, _without_directive(overlay), path=path)
        case _:
            merged = dict(base)
    for key, value in overlay.items():
        where = f"{path}.{key}"
        if key.startswith("$"):
            raise InvalidInputError(
                field=where, value=value, allowed=f"the only directive is {_DIRECTIVE}, with delete or replace"
            )
        if value is None:
            merged.pop(key, None)
            continue
        _same_type(merged.get(key), value, where)
        if isinstance(value, dict):
            if key in merged or _directive(value, where) != "delete":
                merged[key] = merge(merged.get(key, {}), value, path=where)
        elif isinstance(value, list) and key in MERGE_KEYS:
            merged[key] = _merge_list(merged.get(key, []), value, name=key, path=where)
        else:
            merged[key] = _plain(value, where)
    return merged


def _merge_list(base: list[Fragment], overlay: list[Any], *, name: str, path: str) -> list[Fragment]:
    key = MERGE_KEYS[name]
    elements = list(_elements(overlay, key=key, path=path))
    replaces = any(directive == "replace" for _, _, directive in elements)
    merged: dict[Any, Fragment] = {} if replaces else {element[key]: element for element in base}
    for where, element, directive in elements:
        if directive == "delete":
            merged.pop(element[key], None)
        elif directive is None:
            before = merged.get(element[key], {})
            if name in UNIONS:
                before = {field: value for field, value in before.items() if field in element}
            merged[element[key]] = merge(before, element, path=where)
    return list(merged.values())


def _elements(overlay: list[Any], *, key: str, path: str) -> Iterable[tuple[str, Fragment, str | None]]:
    """Each element with its path and its directive, checked."""
    for index, element in enumerate(overlay):
        where = f"{path}[{index}]"
        if not isinstance(element, dict):
            raise InvalidInputError(field=where, value=element, allowed=f"write a map with the key {key}")
        directive = _directive(element, where)
        if directive == "replace":
            if len(element) > 1:
                raise InvalidInputError(
                    field=f"{where}.{_DIRECTIVE}",
                    value=directive,
                    allowed=f"it replaces the whole list: write '- {_DIRECTIVE}: replace' as an element of its own",
                )
        elif not isinstance(element.get(key), str | int):
            raise InvalidInputError(
                field=f"{where}.{key}", value=element.get(key), allowed="each element of this list needs it"
            )
        yield where, element, directive


def _directive(value: Fragment, path: str) -> str | None:
    directive = value.get(_DIRECTIVE)
    if _DIRECTIVE in value and directive not in ("delete", "replace"):
        raise InvalidInputError(field=f"{path}.{_DIRECTIVE}", value=directive, allowed="write delete or replace")
    return directive


def _without_directive(value: Fragment) -> Fragment:
    return {key: each for key, each in value.items() if key != _DIRECTIVE}


def _same_type(before: Any, value: Any, path: str) -> None:
    if before is None:
        return
    for kind, word in ((dict, "a map"), (list, "a list")):
        if isinstance(before, kind) != isinstance(value, kind):
            wanted = word if isinstance(before, kind) else "a plain value"
            raise InvalidInputError(field=path, value=value, allowed=f"this field is {wanted}")


def _plain(value: Any, path: str) -> Any:
    """A value that is taken whole; only what ``null`` removes is left out."""
    if isinstance(value, dict):
        return merge({}, value, path=path)
    if isinstance(value, list):
        return [_plain(each, f"{path}[{index}]") for index, each in enumerate(value)]
    return value
