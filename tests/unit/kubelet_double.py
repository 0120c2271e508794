"""A kubelet's pod resources API by grpcio: another implementation of gRPC than the agent's."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from vrampack.agent.kubeletapi import LISTER, MESSAGES


class KubeletDouble:
    """Serves on a Unix socket. ``pods``: containers with their devices, by namespace/name."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.pods: dict[str, dict[str, Any]] = {}
        self.offers: Mapping[str, Sequence[str]] = {}
        self.error: grpc.StatusCode | None = None
        self.hangs = threading.Event()
        """Set: it answers nobody until it is cleared or stopped."""
        self._server: grpc.Server | None = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(max_workers=1))
        methods = {
            "List": self._handler("ListPodResourcesRequest", self._list),
            "GetAllocatableResources": self._handler("AllocatableResourcesRequest", self._allocatable),
        }
        handler = grpc.method_handlers_generic_handler(LISTER.removeprefix("/"), methods)
        self._server.add_generic_rpc_handlers((handler,))
        self._server.add_insecure_port(f"unix:{self.socket}")
        self._server.start()

    def stop(self) -> None:
        self.hangs.clear()
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self.socket.unlink(missing_ok=True)

    def _handler(self, request: str, answer: Any) -> Any:
        def call(_: Any, context: grpc.ServicerContext) -> Any:
            while self.hangs.is_set() and context.is_active():
                time.sleep(0.01)
            if self.error is not None:
                context.abort(self.error, "as the test wants it")
            return answer()

        return grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=MESSAGES[request].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _list(self) -> Any:
        listed = MESSAGES["ListPodResourcesResponse"]()
        for key, containers in self.pods.items():
            namespace, name = key.split("/")
            pod = listed.pod_resources.add(name=name, namespace=namespace)
            for container, devices in containers.items():
                entry = pod.containers.add(name=container)
                for resource, ids in devices.get("plugin", {}).items():
                    entry.devices.add(resource_name=resource, device_ids=ids)
                for claim, (driver, pool, device) in devices.get("dra", {}).items():
                    dynamic = entry.dynamic_resources.add(claim_name=claim, claim_namespace=namespace)
                    dynamic.claim_resources.add(driver_name=driver, pool_name=pool, device_name=device)
        return listed

    def _allocatable(self) -> Any:
        offered = MESSAGES["AllocatableResourcesResponse"]()
        for resource, ids in self.offers.items():
            offered.devices.add(resource_name=resource, device_ids=ids)
        return offered
