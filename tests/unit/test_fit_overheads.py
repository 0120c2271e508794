"""The fitted constants are those that the script makes of the published measurements."""

import statistics
from pathlib import Path

import pytest

from benchmarks.fit_overheads import graph_samples, main, non_torch_samples
from benchmarks.measurements import Row, read_rows
from vrampack.memory.constants import COMMUNICATION, GRAPH_EXPERTS, GRAPH_PLAIN, GRAPH_PLAIN_FULL, NON_TORCH


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[Row]:
    return read_rows(shared_data / "measurements" / "engine_memory.csv", shared_data / "model-configs")


@pytest.mark.parametrize(
    ("kind", "constant", "least"),
    [("plain, until 0.11", GRAPH_PLAIN, 8), ("plain, since 0.12", GRAPH_PLAIN_FULL, 2)],
)
def test_graphs_of_dense_layers_are_the_median(rows: list[Row], kind: str, constant: int, least: int) -> None:
    values = [sample.bytes_each for sample in graph_samples(rows) if sample.kind == kind]
    assert len(values) >= least
    assert constant == pytest.approx(statistics.median(values), rel=0.05)


def test_graphs_of_experts_are_the_largest_that_was_printed(rows: list[Row]) -> None:
    values = [sample.bytes_each for sample in graph_samples(rows) if sample.kind == "experts"]
    assert len(values) >= 2
    assert constant_over(max(values), GRAPH_EXPERTS) < 0.05


def test_memory_beside_pytorch_is_the_largest_that_was_printed(rows: list[Row]) -> None:
    samples = non_torch_samples(rows)
    for constant, kind in ((NON_TORCH, "one GPU"), (COMMUNICATION, "several GPUs, beyond one")):
        assert abs(constant_over(max(one.bytes_each for one in samples if one.kind == kind), constant)) < 0.05, kind


def constant_over(printed: float, constant: int) -> float:
    return (constant - printed) / printed


def test_the_script_says_how_far_off_each_is_on_other_families(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measurements = shared_data / "measurements" / "engine_memory.csv"
    assert main(["--measurements", str(measurements), "--configs", str(shared_data / "model-configs")]) == 0
    said = capsys.readouterr().out
    assert "graphs, plain, until 0.11: 8 runs of 2 families" in said
    assert "one family alone: no error on another is known" in said
