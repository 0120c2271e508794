"""Engines that measure free memory at once mistake each other; one by one, or told absolute sizes, they do not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.allocator_double import DeviceDouble, EngineDouble, StartFailedError
from vrampack.agent.startgate import StartGate, Tenant
from vrampack.units import GIB


def two(*, absolute: bool) -> tuple[DeviceDouble, list[EngineDouble]]:
    """Two engines that fit well beside each other on a 32 GiB card."""
    device = DeviceDouble(total=32 * GIB)
    size = 3 * GIB if absolute else None
    share = {"utilization": 0.3 if absolute else 0.45, "context": GIB // 2, "peak": 2 * GIB, "kv_cache_bytes": size}
    weights = {"first": 8 * GIB, "second": 9 * GIB}
    return device, [EngineDouble(name=name, weights=each, **share) for name, each in weights.items()]


def interleaved(device: DeviceDouble, engines: list[EngineDouble], order: list[int]) -> None:
    """Their starts, a step of one and a step of the other as ``order`` says, then whatever is left."""
    running = [each.start(device) for each in engines]
    for index in [*order, *(index for index in range(len(engines)) for _ in range(8))]:
        next(running[index], None)


def serialized(device: DeviceDouble, engines: list[EngineDouble], order: list[int]) -> None:
    """The same, but each asks the gate before its first step, and tells by its readiness that it is through."""
    gate = StartGate()
    running = [each.start(device) for each in engines]
    tenants = {
        each.name: Tenant(
            uid=each.name, name=each.name, gpus=frozenset({"GPU-1"}), running=True, started=False, since=100.0
        )
        for each in engines
    }
    granted: set[str] = set()
    for tick, index in enumerate([*order, *(index for index in (0, 1, 0, 1) for _ in range(8))]):
        name = engines[index].name
        if name not in granted and gate.ask(name, since=100.0, tenants=tenants, now=100.0 + tick) is not None:
            continue
        granted.add(name)
        if next(running[index], "ready") == "ready":
            tenants[name] = replace(tenants[name], started=True)


ORDERS = st.lists(st.integers(0, 1), max_size=12)


def test_two_engines_that_measure_together_mistake_each_other() -> None:
    """Both read what is free, both load, and each takes the other's weights for its own."""
    alone_device, (alone, _) = two(absolute=False)
    for _ in alone.start(alone_device):
        pass
    device, engines = two(absolute=False)
    with pytest.raises(StartFailedError, match="no available memory for the cache blocks"):
        interleaved(device, engines, [0, 1, 0, 1, 0, 1, 0, 1])
    assert alone.kv_cache is not None
    assert alone.kv_cache > 4 * GIB


@given(order=ORDERS)
def test_one_after_the_other_they_measure_right(order: list[int]) -> None:
    expected = []
    device, engines = two(absolute=False)
    for each in engines:
        for _ in each.start(device):
            pass
        expected.append(each.kv_cache)
    device, engines = two(absolute=False)
    serialized(device, engines, order)
    assert [each.kv_cache for each in engines] == expected


@given(order=ORDERS)
def test_told_absolute_sizes_they_need_no_order(order: list[int]) -> None:
    device, engines = two(absolute=True)
    interleaved(device, engines, order)
    assert [each.kv_cache for each in engines] == [3 * GIB, 3 * GIB]
    assert device.free > 0
