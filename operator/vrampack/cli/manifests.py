"""Manifests as people and tools write them: files, folders, what comes in."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from vrampack.api.names import GROUP, VERSION
from vrampack.api.resources import RESOURCES
from vrampack.api.schema import definition
from vrampack.cli.metadata import check_metadata
from vrampack.errors import InvalidInputError

Json = dict[str, Any]

_MAX_BYTES: Final = 16 * 1024**2
_DEEPEST: Final = 200
"""Levels of maps and lists; an object of Kubernetes has fewer than thirty."""
_SHOWN: Final = 80
_ENDINGS: Final = (".yaml", ".yml", ".json")

_Spec = TypeVar("_Spec", bound=BaseModel)


def files_in(path: Path) -> Iterator[Path]:
    """The path itself, or all manifests below it in the order of their names. Raises InvalidInputError for none."""
    if str(path) == "-" or not path.is_dir():
        yield path
        return
    found = sorted(each for each in path.rglob("*") if each.suffix in _ENDINGS and each.is_file())
    if not found:
        raise InvalidInputError(
            field="manifest", value=str(path), allowed=f"there is no file that ends in {', '.join(_ENDINGS)} below it"
        )
    yield from found


def objects_of(path: Path) -> Iterator[Json]:
    """The objects in a file, or in what comes in where the path is ``-``. Raises InvalidInputError."""
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InvalidInputError(field="manifest", value=str(path), allowed=f"it can't be read: {why}") from error
    if len(content) > _MAX_BYTES:
        raise InvalidInputError(field="manifest", value=str(path), allowed=f"it is larger than {_MAX_BYTES} bytes")
    try:
        _check_depth(content, path)
        documents = list(yaml.load_all(content, Loader=yaml.CSafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise InvalidInputError(field="manifest", value=str(path), allowed=f"write YAML: {why[:300]}") from error
    for document in documents:
        for each in document.get("items") or () if _is_list(document) else (document,):
            if isinstance(each, dict):
                yield each


def _check_depth(content: bytes, path: Path) -> None:
    """The reader's own recursion is in C, where nothing ends it but the end of the stack."""
    depth = 0
    for event in yaml.parse(content, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise InvalidInputError(field="manifest", value=str(path), allowed=f"no more than {_DEEPEST} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _is_list(document: object) -> bool:
    """What ``kubectl get -o yaml`` prints of several objects."""
    return isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list)


def name_of(found: Json) -> str:
    """Raises InvalidInputError where it has none."""
    metadata = mapping(found.get("metadata"), f"{found['kind']}.metadata")
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidInputError(field=f"{found['kind']}.metadata.name", value=name, allowed="every object has a name")
    return name


def mapping(value: object, field: str) -> Json:
    """Raises InvalidInputError for what is no map."""
    if not isinstance(value, dict):
        raise InvalidInputError(field=field, value=shown(value), allowed="write an object")
    return value


def parsed(model: type[_Spec], raw: Json, *, field: str) -> _Spec:
    """Raises InvalidInputError with the path of the first field that is wrong."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInputError(
            field=".".join(str(part) for part in (field, *first["loc"])),
            value=None if first["type"] == "missing" else shown(first["input"]),
            allowed=first["msg"].removeprefix("Value error, "),
        ) from error


def check_object(found: Json) -> None:
    """Raises InvalidInputError for an object of ours in another version, for what an API server refuses of names,
    namespaces and labels, and for fields that don't exist: kubectl refuses them, and an API server drops them."""
    name_of(found)
    if found["apiVersion"] != f"{GROUP}/{VERSION}":
        field = f"{found['kind']} {name_of(found)}: apiVersion"
        raise InvalidInputError(field=field, value=found["apiVersion"], allowed=f"write {GROUP}/{VERSION}")
    (resource,) = (each for each in RESOURCES if each.kind == found["kind"])
    check_metadata(found, resource)
    (version,) = definition(resource)["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    _check_fields(schema, found.get("spec"), field=f"{name_of(found)}: spec")


def _check_fields(schema: Mapping[str, Any], value: object, *, field: str) -> None:
    """``schema`` is a structural one. What is wrong with a field that exists is not looked at."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, list) and "items" in schema:
        _check_twice(schema, value, field=field)
        for number, each in enumerate(value):
            _check_fields(schema["items"], each, field=f"{field}.{number}")
    if not isinstance(value, dict):
        return
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name, each in value.items():
        if name in known:
            _check_fields(known[name], each, field=f"{field}.{name}")
        elif isinstance(others, dict):
            _check_fields(others, each, field=f"{field}.{name}")
        elif known:
            allowed = f"there is no such field; there are {', '.join(sorted(known))}"
            raise InvalidInputError(field=f"{field}.{name}", value=shown(each), allowed=allowed)


def _check_twice(schema: Mapping[str, Any], value: Sequence[object], *, field: str) -> None:
    """Of a list that is a set or a map, an API server takes each entry, or key, once."""
    if schema.get("x-kubernetes-list-type") not in ("set", "map"):
        return
    keys = schema.get("x-kubernetes-list-map-keys")
    seen: list[object] = []
    for number, each in enumerate(value):
        entry = [each.get(key) for key in keys] if keys and isinstance(each, dict) else each
        if entry in seen:
            raise InvalidInputError(
                field=f"{field}.{number}", value=shown(each), allowed="it is there already: leave one"
            )
        seen.append(entry)


def shown(value: object) -> object:
    """As it is, or the beginning of it in words."""
    text = repr(value)
    return value if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
