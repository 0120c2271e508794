"""Names, namespaces and labels of manifests, checked as an API server checks those of any object."""

import re
from collections.abc import Mapping
from typing import Any, Final

from vrampack.api.resources import Resource
from vrampack.api.texts import DEPLOYMENT_NAME
from vrampack.errors import InvalidInputError

_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_SUBDOMAIN: Final = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_WORD: Final = r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)"
_NAME_BYTES: Final = 253
_ANNOTATION_BYTES: Final = 256 * 1024
_FIELDS: Final = frozenset(
    {
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
_OBJECT: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


def check_metadata(found: Mapping[str, Any], resource: Resource | None) -> None:
    """Raises InvalidInputError with the path of the first field that an API server refuses. ``found`` has a name;
    ``resource``: the kind, where it is one of ours."""
    kind, metadata = found["kind"], found["metadata"]
    name = metadata["name"]
    if resource is not None:
        _known(found, _OBJECT, f"{kind} {name}")
    _known(metadata, _FIELDS, f"{kind} {name}: metadata")
    check_name(name, field=f"{kind}.metadata.name", resource=resource)
    if (namespace := metadata.get("namespace")) is not None:
        check_namespace(namespace, field=f"{kind} {name}: metadata.namespace")
    for part in ("labels", "annotations"):
        _check_pairs(metadata.get(part), field=f"{kind} {name}: metadata.{part}", label=part == "labels")


def check_name(name: str, *, field: str, resource: Resource | None = None) -> None:
    """Raises InvalidInputError for what no object may be called, or none of the kind."""
    if len(name) > _NAME_BYTES or re.fullmatch(_SUBDOMAIN, name) is None:
        allowed = f"write lower case letters, digits, '-' and '.', at most {_NAME_BYTES}, beginning and ending with "
        raise InvalidInputError(field=field, value=name, allowed=allowed + "a letter or digit")
    rule = None if resource is None else resource.name_rule
    if rule is not None and re.fullmatch(DEPLOYMENT_NAME.pattern, name) is None:
        raise InvalidInputError(field=field, value=name, allowed=rule.message)


def check_namespace(namespace: object, *, field: str) -> None:
    """Raises InvalidInputError for what is no namespace's name."""
    if not isinstance(namespace, str) or (namespace and re.fullmatch(_LABEL, namespace) is None):
        allowed = "write lower case letters, digits and '-', at most 63, beginning and ending with a letter or digit"
        raise InvalidInputError(field=field, value=namespace, allowed=allowed)


def _known(found: Mapping[str, Any], fields: frozenset[str], where: str) -> None:
    for name in found:
        if name not in fields:
            allowed = f"there is no such field; there are {', '.join(sorted(fields))}"
            raise InvalidInputError(field=f"{where}: {name}", value=name, allowed=allowed)


def _check_pairs(pairs: object, *, field: str, label: bool) -> None:
    if pairs is None:
        return
    if not isinstance(pairs, dict):
        raise InvalidInputError(field=field, value=pairs, allowed="write an object")
    for key, value in pairs.items():
        if not isinstance(key, str) or not _qualified(key):
            allowed = (
                "write a name of at most 63 letters, digits, '-', '_' and '.', with a domain and '/' before it or not"
            )
            raise InvalidInputError(field=field, value=key, allowed=allowed)
        if not isinstance(value, str):
            allowed = "it is a text: write it in quotes"
            raise InvalidInputError(field=f"{field}.{key}", value=value, allowed=allowed)
        if label and re.fullmatch(f"{_WORD}?", value) is None:
            allowed = "write at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
            raise InvalidInputError(field=f"{field}.{key}", value=value, allowed=allowed)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in pairs.items())
    if size > _ANNOTATION_BYTES:
        raise InvalidInputError(field=field, value=size, allowed=f"{_ANNOTATION_BYTES} bytes in all at most")


def _qualified(key: str) -> bool:
    domain, slash, word = key.rpartition("/")
    good = not slash or (len(domain) <= _NAME_BYTES and re.fullmatch(_SUBDOMAIN, domain) is not None)
    return good and re.fullmatch(_WORD, word) is not None
