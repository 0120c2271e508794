"""Weights against what engines printed at start, one run a row: from the configuration alone, nothing fitted.

The figures come from ``measurements/engine_memory.csv`` of the shared data. vLLM prints the tensors that PyTorch holds;
on AMD's GPUs it prints by how much free memory fell, as SGLang does everywhere, so whole segments count there.
"""

import csv
from pathlib import Path

import pytest

from benchmarks.measurements import Row, UnusableError, read_rows
from benchmarks.memory_terms import weights_bytes
from vrampack.units import GIB, MIB

TOLERANCE = 0.005
LEAST_TOLERANCE = 64 * MIB

EXPLAINED = {
    # MI300X: the figure is what PyTorch took from the GPU, and AITER lays experts out anew: the old ones of the last
    # layer (1.1 GiB a rank) and the copies of the latent projections stay in PyTorch's cache, which nobody empties.
    ("zai-org/GLM-5-FP8", "8"): -0.03,
}
"""Rows out of tolerance, why, and by how much at most."""

UNUSABLE = {
    "gaunernst/gemma-3-12b-it-qat-autoawq": "no configuration",
    "nvidia/NVIDIA-Nemotron-3-Nano-4B-FP8": "no configuration",
    "MiniMax-M2.5-FP8-INT4-AWQ": "that of a checkpoint in fp8",
    "DeepSeek-R1-0528-w4a8-per-channel": "no GPU",
    "Gemma-4-26B-A4B-It IQ4_NL": "GGUF",
}
"""Rows whose configuration is not that of the run, or is none."""


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[Row]:
    table = shared_data / "measurements" / "engine_memory.csv"
    with table.open(newline="") as lines:
        assert sum(1 for row in csv.DictReader(lines) if row["weights_gib"]) >= 36
    return [row for row in read_rows(table, shared_data / "model-configs") if row.cells["weights_gib"]]


def test_weights_are_what_the_engine_printed(rows: list[Row]) -> None:
    errors: dict[tuple[str, str], float] = {}
    usable = [row for row in rows if row.model not in UNUSABLE]
    assert len(usable) >= 30
    for row in usable:
        estimated = weights_bytes(row)
        printed = row.printed("weights_gib").value * GIB
        if abs(estimated - printed) > max(TOLERANCE * printed, LEAST_TOLERANCE):
            errors[row.model, row.cells["tp"]] = (estimated - printed) / printed
    assert errors.keys() == EXPLAINED.keys()
    for key, most in EXPLAINED.items():
        assert most < errors[key] < 0


def test_other_rows_say_why_they_tell_nothing(rows: list[Row]) -> None:
    for row in rows:
        if row.model in UNUSABLE:
            with pytest.raises(UnusableError, match=UNUSABLE[row.model]):
                weights_bytes(row)


def test_most_rows_are_exact_to_a_thousandth(rows: list[Row]) -> None:
    near = [
        row
        for row in rows
        if row.model not in UNUSABLE and abs(weights_bytes(row) / GIB / row.printed("weights_gib").value - 1) <= 0.001
    ]
    assert len(near) >= 18
