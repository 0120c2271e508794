"""Calibration on one measured run of a pair, and the other one's error: made-up runs of one model."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measurements import read_rows
from benchmarks.memory_pairs import pairs
from tests.unit.test_memory_accuracy import COLUMNS, RUN, SMALL

PRINTED = {
    "model": "Qwen/Qwen3-8B",
    "weights_gib": "15.27",
    "activation_peak_gib": "5.63",
    "cuda_graph_gib": "0.71",
    "non_torch_gib": "0.13",
}
AGAIN = {**PRINTED, "activation_peak_gib": "5.66", "cuda_graph_gib": "0.74"}


@pytest.fixture
def paired(tmp_path: Path):  # type: ignore[no-untyped-def]
    """The pairs among rows of the given cells."""

    def build(*rows: dict[str, str]) -> dict[str, Any]:
        (tmp_path / "small.json").write_text(json.dumps(SMALL))
        lines = [",".join(COLUMNS), *(",".join(row.get(column, "") for column in COLUMNS) for row in rows)]
        (tmp_path / "runs.csv").write_text("\n".join(lines) + "\n")
        return pairs(read_rows(tmp_path / "runs.csv", tmp_path))

    return build


def test_two_starts_of_one_command_tell_each_other_within_five_percent(paired) -> None:  # type: ignore[no-untyped-def]
    found = paired({**RUN, **PRINTED}, {**RUN, **AGAIN})
    assert [(one["calibrated_on"], one["row"], one["observed"]) for one in found["pairs"]] == [
        (1, 2, "same"),
        (2, 1, "same"),
    ]
    assert found["rows"] == 2
    assert found["within_5_percent"] == 1
    assert set(found["pairs"][0]["measured"]) >= {"weights", "activations", "cuda_graphs", "runtime_context"}


@pytest.mark.parametrize(
    "other",
    [
        {"version": "0.12.1"},
        {"gpu": "NVIDIA L40S"},
        {"tp": "2"},
        {"kv_cache_dtype": "fp8"},
        {"quantization": "fp8"},
        {"note": "eager"},
        {"model": "Qwen/Qwen3-8B-Base"},
    ],
    ids=str,
)
def test_a_run_of_another_kind_is_no_pair(paired, other: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    found = paired({**RUN, **PRINTED}, {**RUN, **PRINTED, **other})
    assert found["rows"] == 0
    assert found["within_5_percent"] is None
    assert [one["row"] for one in found["unusable"]] == [1, 2]


def test_a_larger_run_replaces_and_a_smaller_one_bounds(paired) -> None:  # type: ignore[no-untyped-def]
    most = {"max_num_seqs": "512", "max_num_batched_tokens": "8192"}
    less = {"max_num_seqs": "256", "max_num_batched_tokens": "8192"}
    found = paired({**RUN, **PRINTED, **most}, {**RUN, **PRINTED, **less, "activation_peak_gib": "2.1"})
    by_row = {one["row"]: one for one in found["pairs"]}
    assert by_row[2]["observed"] == "larger"
    assert "activations" in by_row[2]["measured"]
    assert by_row[2]["error_percent"] > 5, "its own peak was far from what is computed, and the run's is no more"
    assert by_row[1]["observed"] == "smaller"
    assert "activations" not in by_row[1]["measured"]


def test_every_row_is_in_a_pair_or_listed_with_a_reason(paired) -> None:  # type: ignore[no-untyped-def]
    rows = [
        {**RUN, **PRINTED},
        {**RUN, **PRINTED},
        {**RUN, **PRINTED, "engine": "sglang"},
        {**RUN, **PRINTED, "config": ""},
        {**RUN, **PRINTED, "weights_gib": "much"},
        {**RUN, **PRINTED, "engine": "none such"},
        {**RUN, "weights_gib": "15.27"},
        {},
    ]
    found = paired(*rows)
    in_pairs = {one["row"] for one in found["pairs"]} | {one["calibrated_on"] for one in found["pairs"]}
    listed = [one["row"] for one in found["unusable"]]
    assert sorted([*in_pairs, *listed]) == list(range(1, len(rows) + 1))
    assert all(one["reason"] for one in found["unusable"])
