"""What Prometheus reads of one node, under the labels of dcgm-exporter: UUID, gpu, modelName, Hostname, namespace, pod,
container and pod_uid.

dcgm-exporter knows a pod's GPUs by what the kubelet handed out, so it names none for a pod whose GPU is given by an
environment variable. These figures do, and join with its own by UUID.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vrampack.agent.health import Errors
from vrampack.agent.reading import GPUReading, NodeReading

_GPU: Final = ("UUID", "gpu", "modelName", "Hostname")
_POD: Final = (*_GPU, "namespace", "pod", "container", "pod_uid")
_STALE_SECONDS: Final = 60.0


class AgentMetrics(Collector):
    """Shows the last reading. It fails once no pass has ended for a minute: that is what a kubelet's probe asks."""

    def __init__(self, *, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: seconds of a clock that never jumps."""
        self._node = node
        self._clock = clock
        self._lock = threading.Lock()
        self._reading: NodeReading | None = None
        self._xids: dict[tuple[str, int], int] = {}
        self._names: dict[str, tuple[str, int]] = {}
        self._at = clock()

    def passed(self) -> None:
        """A pass has ended, whether or not there was anything to read."""
        self._at = self._clock()

    def show(self, reading: NodeReading, errors: Errors, claims: dict[str, tuple[str, int]]) -> None:
        """``claims``: namespace/name and bytes on each GPU of every pod of vrampack here, by UID."""
        with self._lock:
            self._reading, self._xids, self._names = reading, dict(errors.counted), claims

    def collect(self) -> Iterator[Metric]:
        """Raises RuntimeError where passes have stopped."""
        if (silent := self._clock() - self._at) > _STALE_SECONDS:
            raise RuntimeError(f"no pass has ended for {silent:.0f} s")
        with self._lock:
            reading, xids, claims = self._reading, self._xids, self._names
        if reading is None:
            return
        yield from self._of_gpus(reading, xids)
        yield from self._of_pods(reading, claims)
        silence = GaugeMetricFamily(
            "vrampack_agent_driver_silent", "1 while the GPUs can't be read, with the reason.", labels=("reason",)
        )
        if reading.silence is not None:
            silence.add_metric((reading.silence.reason,), 1)
        yield silence
        yield GaugeMetricFamily(
            "vrampack_agent_stuck_processes",
            "Processes on a GPU that have outlived their pod.",
            value=sum(len(each.pids) for each in reading.stuck),
        )
        yield GaugeMetricFamily(
            "vrampack_agent_gpu_mismatches",
            "Pods whose processes are not on exactly the GPUs that they claim.",
            value=len(reading.mismatches or ()),
        )

    def _of_gpus(self, reading: NodeReading, xids: dict[tuple[str, int], int]) -> Iterator[Metric]:
        figures = {
            name: GaugeMetricFamily(f"vrampack_gpu_memory_{name}_bytes", words, labels=_GPU)
            for name, words in (
                ("usable", "What CUDA calls the total."),
                ("reserved", "Kept by the driver."),
                ("used", "In use by anything."),
                ("foreign", "In use by anything but pods of vrampack."),
            )
        }
        healthy = GaugeMetricFamily("vrampack_gpu_healthy", "0 where a GPU can't be used.", labels=_GPU)
        errors = CounterMetricFamily("vrampack_gpu_xid_errors", "Critical errors of the driver.", labels=(*_GPU, "xid"))
        for gpu in reading.gpus:
            labels = self._gpu(gpu)
            figures["usable"].add_metric(labels, gpu.memory)
            figures["reserved"].add_metric(labels, gpu.reserved)
            figures["used"].add_metric(labels, gpu.used)
            figures["foreign"].add_metric(labels, sum(each.bytes for each in gpu.foreign))
            healthy.add_metric(labels, not gpu.fault and gpu.xid is None)
            for (uuid, number), count in sorted(xids.items()):
                if uuid == gpu.uuid:
                    errors.add_metric((*labels, str(number)), count)
        yield from (*figures.values(), healthy, errors)

    def _of_pods(self, reading: NodeReading, claims: dict[str, tuple[str, int]]) -> Iterator[Metric]:
        used = GaugeMetricFamily("vrampack_pod_gpu_memory_used_bytes", "In use by a pod of vrampack.", labels=_POD)
        peak = GaugeMetricFamily("vrampack_pod_gpu_memory_peak_bytes", "The most that it has used.", labels=_POD)
        claimed = GaugeMetricFamily("vrampack_pod_gpu_memory_claimed_bytes", "What it claims.", labels=_POD)
        for gpu in reading.gpus:
            for use in gpu.processes:
                name, bytes_ = claims.get(use.uid, ("/", 0))
                namespace, _, pod = name.partition("/")
                labels = (*self._gpu(gpu), namespace, pod, use.container, use.uid)
                used.add_metric(labels, use.bytes)
                peak.add_metric(labels, use.peak)
                claimed.add_metric(labels, bytes_)
        yield from (used, peak, claimed)

    def _gpu(self, gpu: GPUReading) -> tuple[str, str, str, str]:
        return gpu.uuid, str(gpu.index), gpu.name or gpu.product, self._node


def serve(metrics: AgentMetrics, *, port: int) -> Callable[[], None]:
    """Serves ``/metrics`` from a thread of its own; gives what ends it. Raises OSError where the port is taken."""
    registry = CollectorRegistry()
    registry.register(metrics)
    server, thread = start_http_server(port, registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
