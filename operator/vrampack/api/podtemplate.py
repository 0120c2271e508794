"""The overlay on a replica's pods: any field of a pod, except those that decide which GPU it gets.

CEL sees only what a schema declares, so the fields that are refused are declared here and nothing else is.
"""

from typing import Any, Final

from vrampack.api.common import Rule, rules
from vrampack.api.names import ENGINE_CONTAINER, GATE, GROUP, MANAGED_BY
from vrampack.api.reserved import DEVICE_ANNOTATIONS, ENVIRONMENT, ENVIRONMENT_PREFIX, text_list
from vrampack.api.texts import ANNOTATIONS_ARE_VALID, LABELS_ARE_VALID

Schema = dict[str, Any]

_MAX_CONTAINERS: Final = 16
_MAX_VARIABLES: Final = 128
_NO_DEVICES: Final = Rule(
    rule=f"self.all(k, !{text_list(DEVICE_ANNOTATIONS)}.exists(p, k.startsWith(p)))",
    message="a container would get GPUs that vrampack did not hand out: leave "
    f"{'* and '.join(DEVICE_ANNOTATIONS)}* out",
)


def overlay_schema() -> Schema:
    """The schema of ``spec.podTemplate``, without its description."""
    return {
        "type": "object",
        "properties": {
            "metadata": {
                "type": "object",
                "description": "Labels and annotations of the pods.",
                "properties": {
                    "labels": _names("Labels of the pods.", LABELS_ARE_VALID, max_length=63),
                    "annotations": _names(
                        "Annotations of the pods.", _NO_DEVICES, ANNOTATIONS_ARE_VALID, max_length=16_384
                    ),
                },
            },
            "spec": _pod_spec(),
        },
    }


def _names(description: str, *valid: Rule, max_length: int) -> Schema:
    return {
        "type": "object",
        "description": description,
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": max_length},
    } | rules(
        Rule(
            rule=f"self.all(k, !k.startsWith('{GROUP}/') && k != '{MANAGED_BY}')",
            message=f"vrampack sets {GROUP}/* and {MANAGED_BY} itself: leave them out",
        ),
        *valid,
    )


def _pod_spec() -> Schema:
    return {
        "type": "object",
        "description": "Fields of a pod's spec, merged into vrampack's own as a strategic merge patch does. The "
        f"engine's container is named {ENGINE_CONTAINER}.",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {
            "nodeName": _refused("vrampack chooses the node: use nodeSelector or affinity"),
            "schedulerName": _refused("vrampack chooses the scheduler: leave it out"),
            "runtimeClassName": _refused("the GPUPool has it: set its spec.runtimeClassName"),
            "priorityClassName": _refused("replicas are placed by it too: set spec.priorityClassName"),
            "hostNetwork": {"type": "boolean", "description": "Must be false."}
            | rules(
                Rule(
                    rule="!self", message="replicas share a node, and their ports would collide: leave hostNetwork out"
                )
            ),
            "restartPolicy": {"type": "string", "description": "Must be Always.", "maxLength": 16}
            | rules(Rule(rule="self == 'Always'", message="replicas run until they are stopped: leave it out")),
            "schedulingGates": {
                "type": "array",
                "description": f"Gates of your own, besides {GATE}.",
                "maxItems": 16,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "description": "A gate.",
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string", "description": "Name of the gate.", "maxLength": 316}
                        | rules(Rule(rule=f"self != '{GATE}'", message="vrampack sets this gate itself: leave it out"))
                    },
                },
            },
            "containers": _containers("Containers to change or to add, by name."),
            "initContainers": _containers("Init containers to add, by name."),
        },
    }


def _refused(message: str) -> Schema:
    return {"type": "string", "description": f"Refused: {message}.", "maxLength": 253} | rules(
        Rule(rule="self == ''", message=message)
    )


def _containers(description: str) -> Schema:
    texts: Schema = {
        "type": "array",
        "maxItems": 256,
        "x-kubernetes-list-type": "atomic",
        "items": {"type": "string", "maxLength": 16_384},
    }
    return {
        "type": "array",
        "description": description,
        "maxItems": _MAX_CONTAINERS,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "description": "A container.",
            "x-kubernetes-preserve-unknown-fields": True,
            "required": ["name"],
            "properties": {
                "name": {
                    "type": "string",
                    "description": f"Name of the container; {ENGINE_CONTAINER} is the engine's.",
                    "minLength": 1,
                    "maxLength": 63,
                },
                "command": texts
                | {"description": f"Command. That of {ENGINE_CONTAINER} only where engine.name is custom."},
                "args": texts | {"description": f"Arguments. For {ENGINE_CONTAINER} use spec.engine.args."},
                "env": _environment(),
                "resources": {
                    "type": "object",
                    "description": "CPU, RAM and the like; no GPUs.",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"requests": _amounts("Least amounts."), "limits": _amounts("Largest amounts.")},
                },
                "securityContext": {
                    "type": "object",
                    "description": "Security settings of the container.",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {
                        "privileged": {"type": "boolean", "description": "Must be false."}
                        | rules(
                            Rule(
                                rule="!self",
                                message="a privileged container reaches every GPU of its node: leave privileged out",
                            )
                        )
                    },
                },
            },
        }
        | rules(
            Rule(
                rule=f"self.name != '{ENGINE_CONTAINER}' || !has(self.args)",
                message="these would replace the arguments that vrampack sets: use spec.engine.args",
                field_path=".args",
            )
        ),
    }


def _environment() -> Schema:
    return {
        "type": "array",
        "description": "Environment variables.",
        "maxItems": _MAX_VARIABLES,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "description": "An environment variable.",
            "x-kubernetes-preserve-unknown-fields": True,
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "description": "Name of the variable.", "minLength": 1, "maxLength": 253}
                | rules(
                    Rule(
                        rule=f"!(self in {text_list(ENVIRONMENT)}) && !self.startsWith('{ENVIRONMENT_PREFIX}')",
                        message="vrampack sets this variable itself, since it says which GPU a container sees: "
                        "leave it out",
                    )
                )
            },
        },
    }


def _amounts(description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "maxProperties": 32,
        "additionalProperties": {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
        },
    } | rules(
        Rule(
            rule="self.all(k, !k.startsWith('nvidia.com/'))",
            message="vrampack hands out the GPUs itself, and a GPU requested here would be a second one: leave "
            "nvidia.com/* out",
        )
    )
