"""The messages of the kubelet's pod resources API, version 1: as much of them as the agent reads.

They are declared here and not generated, so that nothing has to be compiled; protobuf skips what is not declared. The
numbers are those of k8s.io/kubelet/pkg/apis/podresources/v1/api.proto.
"""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

LISTER: Final = "/v1.PodResourcesLister"

_FIELDS: Final[Mapping[str, tuple[tuple[str, int, str], ...]]] = {
    "ListPodResourcesRequest": (),
    "AllocatableResourcesRequest": (),
    "ListPodResourcesResponse": (("pod_resources", 1, "PodResources"),),
    "AllocatableResourcesResponse": (("devices", 1, "ContainerDevices"),),
    "PodResources": (("name", 1, ""), ("namespace", 2, ""), ("containers", 3, "ContainerResources")),
    "ContainerResources": (
        ("name", 1, ""),
        ("devices", 2, "ContainerDevices"),
        ("dynamic_resources", 5, "DynamicResource"),
    ),
    "ContainerDevices": (("resource_name", 1, ""), ("device_ids", 2, "*")),
    "DynamicResource": (("claim_name", 2, ""), ("claim_namespace", 3, ""), ("claim_resources", 4, "ClaimResource")),
    "ClaimResource": (("driver_name", 2, ""), ("pool_name", 3, ""), ("device_name", 4, "")),
}
"""Name, number and type of each field: a message, of which there may be any number; "" one text; "*" any number."""


def _messages() -> Mapping[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="podresources.proto", package="v1", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for label, number, type_ in fields:
            message.field.add(
                name=label,
                number=number,
                label=field.LABEL_REPEATED if type_ else field.LABEL_OPTIONAL,
                type=field.TYPE_MESSAGE if type_ in _FIELDS else field.TYPE_STRING,
                type_name=f".v1.{type_}" if type_ in _FIELDS else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1.{name}")) for name in _FIELDS}


MESSAGES: Final = _messages()
"""Classes by the name of the message."""
