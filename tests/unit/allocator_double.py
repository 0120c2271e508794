"""A GPU that several engines allocate on, and an engine that sizes its cache by vLLM's rule: a double of both.

The rule (``gpu_worker.init_device``, ``determine_available_memory``): what is free is read once before the weights are
loaded and once at the peak of a trial run, of the whole device, and the difference is taken for the engine's own. So
what a neighbour takes in between is charged to the engine, and what it gives back is credited.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field


class StartFailedError(Exception):
    """The engine refuses to start."""


@dataclass(kw_only=True)
class DeviceDouble:
    """Bytes in use, by engine."""

    total: int
    used: dict[str, int] = field(default_factory=dict)

    @property
    def free(self) -> int:
        return self.total - sum(self.used.values())

    def take(self, who: str, amount: int) -> None:
        """Raises StartFailedError where it is not there."""
        if amount > self.free:
            raise StartFailedError(f"{who}: out of memory, {amount} asked and {self.free} free")
        self.used[who] = self.used.get(who, 0) + amount

    def give_back(self, who: str, amount: int) -> None:
        self.used[who] -= amount


@dataclass(kw_only=True)
class EngineDouble:
    """One engine. ``kv_cache_bytes``: the absolute size that it is told; None: it measures."""

    name: str
    utilization: float
    context: int
    weights: int
    peak: int
    kv_cache_bytes: int | None = None
    kv_cache: int | None = None

    def start(self, device: DeviceDouble) -> Iterator[str]:
        """A start, step by step; other engines may take steps in between.

        Raises StartFailedError as vLLM does: at the guard, or where nothing is left for the cache.
        """
        device.take(self.name, self.context)
        yield "context"
        requested = int(self.utilization * device.total)
        free_at_first = device.free
        if free_at_first < requested:
            raise StartFailedError(f"{self.name}: {free_at_first} free on startup is less than {requested}")
        yield "measured"
        device.take(self.name, self.weights)
        yield "weights"
        device.take(self.name, self.peak)
        yield "peak"
        taken = free_at_first - device.free
        device.give_back(self.name, self.peak)
        yield "profiled"
        size = requested - taken if self.kv_cache_bytes is None else self.kv_cache_bytes
        if size <= 0:
            raise StartFailedError(f"{self.name}: no available memory for the cache blocks ({size})")
        device.take(self.name, size)
        self.kv_cache = size
        yield "ready"
