"""Events of the operator: told once, not in every pass that finds the same."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from vrampack.api import names
from vrampack.errors import ClusterError
from vrampack.kube import paths
from vrampack.kube.client import Kube
from vrampack.planning.actions import Tell

_SILENT_SECONDS: Final = 600.0
_REMEMBERED: Final = 4096
_NOTE_CHARACTERS: Final = 1024  # the API server takes no more
_CLUSTER_NAMESPACE: Final = "default"  # where events on objects of the whole cluster belong
_CONTROLLER: Final = f"{names.GROUP}/operator"


class Recorder:
    """Writes events; the same one again only after ten minutes. ``clock``: seconds of a clock that never jumps."""

    def __init__(self, kube: Kube, *, instance: str, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._instance = instance
        self._clock = clock
        self._told: dict[tuple[str, str, str], float] = {}

    async def tell(self, event: Tell) -> None:
        """Raises ClusterError; then the event counts as not told."""
        key = (event.uid, event.reason, event.message)
        now = self._clock()
        if now - self._told.get(key, float("-inf")) < _SILENT_SECONDS:
            return
        self._remember(key, now)  # before the write: two of one pass may be the same
        namespace = event.namespace or _CLUSTER_NAMESPACE
        try:
            await self._kube.create(paths.collection("Event", namespace=namespace), self._body(event, namespace))
        except ClusterError:
            self._told.pop(key, None)
            raise

    def _remember(self, key: tuple[str, str, str], now: float) -> None:
        self._told.pop(key, None)  # so that the order is that of the times
        self._told[key] = now
        while len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]

    def _body(self, event: Tell, namespace: str) -> dict[str, Any]:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{event.name[:200]}-", "namespace": namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": event.type,
            "reason": event.reason,
            "action": event.reason,
            "note": event.message[:_NOTE_CHARACTERS],
            "regarding": {
                "apiVersion": paths.api_version(event.kind),
                "kind": event.kind,
                "name": event.name,
                "namespace": event.namespace,
                "uid": event.uid,
            },
            "reportingController": _CONTROLLER,
            "reportingInstance": self._instance,
        }
