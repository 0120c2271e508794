"""The CustomResourceDefinitions, made from the models.

Kubernetes takes *structural* schemas: every reference written out, no null beside a type, no titles. What an API server
must not assume is left out too: it fills in defaults of spec, but a status holds only what somebody wrote.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vrampack.api.common import ApiModel, rules
from vrampack.api.names import GROUP, VERSION
from vrampack.api.resources import RESOURCES, Column, Resource
from vrampack.api.texts import DEPLOYMENT_NAME

Schema = dict[str, Any]

_CARRIED: Final = (
    "type",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
)
_RULES: Final = "x-kubernetes-validations"


def definition(resource: Resource) -> Schema:
    """The CustomResourceDefinition of this resource, as a manifest."""
    subresources: Schema = {"status": {}}
    if resource.scaled:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": subresources,
        "additionalPrinterColumns": [_column(column) for column in resource.columns],
        "schema": {"openAPIV3Schema": _object_schema(resource)},
    }
    if resource.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in resource.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.name},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [resource.short],
                "categories": ["vrampack"],
            },
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [version],
        },
    }


def definitions() -> Iterator[tuple[str, Schema]]:
    """All four, each with its name."""
    for resource in RESOURCES:
        yield resource.name, definition(resource)


def _column(column: Column) -> Schema:
    entry = {"name": column.name, "type": column.type, "jsonPath": column.path, "description": column.description}
    return entry | {"priority": 1} if column.wide else entry


def _object_schema(resource: Resource) -> Schema:
    spec = _structural(resource.spec, writes_itself=False)
    status = _structural(resource.status, writes_itself=True)
    status["default"] = {"observedGeneration": -1}
    metadata: Schema = {"type": "object"}
    if resource.name_rule is not None:
        metadata["properties"] = {"name": {"type": "string", "maxLength": DEPLOYMENT_NAME.max_length}}
    schema: Schema = {
        "type": "object",
        "description": resource.description,
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{resource.kind}."},
            "metadata": metadata,
            "spec": spec,
            "status": status,
        },
    }
    if "required" in spec:
        schema["required"] = ["spec"]
    elif defaults := _field_defaults(spec):
        spec["default"] = defaults
    return schema | rules(resource.name_rule) if resource.name_rule is not None else schema


def _structural(model: type[ApiModel], *, writes_itself: bool) -> Schema:
    """The structural schema of a model. ``writes_itself``: without defaults and rules, since nobody else writes it.

    Rules on a status would cost time at every write of ours, and more than an API server allows for its long lists.
    """
    generated = model.model_json_schema(by_alias=True)
    converter = _Converter(definitions=generated.get("$defs", {}), plain=writes_itself)
    return converter.convert(generated)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Converter:
    """From the JSON schema that pydantic writes to a structural one."""

    definitions: Mapping[str, Schema]
    plain: bool

    def convert(self, given: Schema) -> Schema:
        given = self._resolved(given)
        schema: Schema = {key: given[key] for key in _CARRIED if key in given}
        if "description" in given:
            schema["description"] = " ".join(inspect.cleandoc(given["description"]).split())
        if given.get("x-kubernetes-int-or-string"):
            schema["anyOf"] = given["anyOf"]
        if "properties" in given:
            schema["properties"] = {name: self.convert(value) for name, value in given["properties"].items()}
        if "items" in given:
            schema["items"] = self.convert(given["items"])
            schema.setdefault("x-kubernetes-list-type", "atomic")
        if isinstance(given.get("additionalProperties"), dict):
            schema["additionalProperties"] = self.convert(given["additionalProperties"])
        if schema.get("type") == "integer":
            schema["format"] = "int32" if given.get("maximum", 2**63) < 2**31 else "int64"
        if not self.plain:
            if _RULES in given:
                schema[_RULES] = given[_RULES]
            if (default := _default(given, schema)) is not None:
                schema["default"] = default
            if "description" in schema:
                schema["description"] += _limits(schema)
        return schema

    def _resolved(self, given: Schema) -> Schema:
        """With references written out and null taken away; what stands beside a reference goes before it."""
        if "$ref" in given:
            target = self.definitions[given["$ref"].removeprefix("#/$defs/")]
            beside = {key: value for key, value in given.items() if key != "$ref"}
            return self._resolved(target | beside)
        choices = [choice for choice in given.get("anyOf", ()) if choice != {"type": "null"}]
        if len(choices) == 1:
            beside = {key: value for key, value in given.items() if key != "anyOf"}
            return self._resolved(self._resolved(choices[0]) | beside)
        return given


def _limits(schema: Schema) -> str:
    """What ``kubectl explain`` would leave out: the bounds of a number, and the default."""
    words = ""
    if "minimum" in schema and "maximum" in schema:
        words += f" {schema['minimum']} to {schema['maximum']}."
    if "default" in schema and schema.get("type") != "object":
        words += f" Default: {json.dumps(schema['default']) if schema.get('type') == 'boolean' else schema['default']}."
    return words


def _default(given: Schema, schema: Schema) -> Any:
    """The default that the API server fills in; None: none. An empty one says nothing that absence does not.

    An object's is written in full, because the API server evaluates the object's rules on it before it fills in fields.
    """
    default = given.get("default")
    if default is None or schema.get("type") != "object":
        return default if default not in ([], "") else None
    return _field_defaults(schema) or None


def _field_defaults(schema: Schema) -> Schema:
    return {name: field["default"] for name, field in schema.get("properties", {}).items() if "default" in field}
