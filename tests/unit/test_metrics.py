"""Metrics by their names, as alerts and dashboards use them."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from vrampack.agent.health import Errors
from vrampack.agent.metrics import AgentMetrics
from vrampack.agent.reading import GPUReading, NodeReading
from vrampack.controller.metrics import Memory, Metrics, Pass, Phase, Placement


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_counters_are_there_before_they_count(registry: CollectorRegistry, metrics: Metrics) -> None:
    assert [value(registry, "vrampack_passes_total", result=result) for result in Pass] == [0, 0, 0]
    assert [value(registry, "vrampack_placements_total", result=result) for result in Placement] == [0, 0]
    assert [value(registry, "vrampack_pass_seconds_count", phase=phase) for phase in Phase] == [0, 0, 0]
    assert value(registry, "vrampack_conflicts_total") == value(registry, "vrampack_leader") == 0


def test_a_pass_and_its_placements(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.count_pass(Pass.OK)
    metrics.time_phase(Phase.ACT, 0.2)
    metrics.count_placement(Placement.PLACED, seconds_since_event=0.4)
    metrics.count_placement(Placement.PLACED, seconds_since_event=-0.1)  # clocks differ by a little
    metrics.count_placement(Placement.REFUSED)
    metrics.count_conflict()
    assert value(registry, "vrampack_passes_total", result="ok") == 1
    assert value(registry, "vrampack_pass_seconds_sum", phase="act") == 0.2
    assert value(registry, "vrampack_placements_total", result="placed") == 2
    assert value(registry, "vrampack_placements_total", result="refused") == 1
    assert value(registry, "vrampack_conflicts_total") == 1
    assert value(registry, "vrampack_event_to_placement_seconds_count") == 2
    assert value(registry, "vrampack_event_to_placement_seconds_sum") == 0.4


def test_a_reason_and_a_product_that_vanish_go(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.set_waiting({"NoRoom": 3, "AgentSilent": 1})
    metrics.set_waiting({"NoRoom": 2})
    assert value(registry, "vrampack_waiting_replicas", reason="NoRoom") == 2
    assert value(registry, "vrampack_waiting_replicas", reason="AgentSilent") is None
    metrics.set_changed({"RevisionMoved": 2, "DigestChanged": 1})
    metrics.set_changed({"RevisionMoved": 1})
    assert value(registry, "vrampack_changed_models", reason="RevisionMoved") == 1
    assert value(registry, "vrampack_changed_models", reason="DigestChanged") is None
    metrics.set_gpu_memory({"L4": {Memory.USABLE: 24, Memory.FREE: 24}, "H100": {Memory.USABLE: 80}})
    metrics.set_gpu_memory({"H100": {Memory.USABLE: 81}})
    assert value(registry, "vrampack_gpu_memory_bytes", product="H100", kind="usable") == 81
    assert value(registry, "vrampack_gpu_memory_bytes", product="L4", kind="free") is None


def test_who_leads_no_more_says_nothing_of_the_fleet(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.set_leader(True)
    metrics.set_waiting({"NoRoom": 3})
    metrics.set_changed({"RevisionMoved": 2})
    metrics.set_leader(False)
    assert value(registry, "vrampack_leader") == 0
    assert value(registry, "vrampack_changed_models", reason="RevisionMoved") is None
    assert value(registry, "vrampack_waiting_replicas", reason="NoRoom") is None


def test_labels_are_bounded(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.set_gpu_memory({f"GPU-{number}": {Memory.USABLE: number} for number in range(1000)})
    samples = [
        sample
        for family in registry.collect()
        if family.name == "vrampack_gpu_memory_bytes"
        for sample in family.samples
    ]
    assert len(samples) == 64
    assert sum(sample.value for sample in samples) == sum(range(1000))
    assert value(registry, "vrampack_gpu_memory_bytes", product="GPU-999", kind="usable") == 999


def test_the_chart_uses_names_that_exist(registry: CollectorRegistry, metrics: Metrics, repo_root: Path) -> None:
    metrics.set_waiting({"NoRoom": 1})
    metrics.set_changed({"RevisionMoved": 1})
    metrics.set_gpu_memory({"L4": {Memory.USABLE: 24}})
    agent = AgentMetrics(node="n")
    gpu = GPUReading(uuid="GPU-0", index=0, product="L4", memory=1, reserved=0)
    reading = NodeReading(driver="", cuda="", injection_style=None, gpus=(gpu,), cpu=0, memory=0, pods=0)
    agent.show(reading, Errors(), {})
    registry.register(agent)
    known = {sample.name for family in registry.collect() for sample in family.samples}
    templates = (repo_root / "charts" / "vrampack").rglob("*.yaml")
    used = {
        name
        for template in templates
        for line in template.read_text().splitlines()
        if "expr:" in line
        for name in re.findall(r"\bvrampack_\w+", line)
    }
    assert used
    assert used <= known
