"""On published start-up logs: after calibration on one run, the other run of the same kind is within 5 %."""

import csv
from collections import defaultdict
from dataclasses import replace
from itertools import permutations
from pathlib import Path

from tests.unit.test_calibration import COMPUTED
from vrampack.memory.calibration import Observation, Setup, calibrated
from vrampack.models.enginelogs import gib

KIND = ("engine", "version", "model", "tp", "pp", "dtype", "quantization", "kv_cache_dtype", "gpu", "gpu_mem_gib")
TERMS = {"weights_gib": "weights", "activation_peak_gib": "activations", "cuda_graph_gib": "cuda_graphs"}
TERMS |= {"non_torch_gib": "runtime_context"}

Row = dict[str, str]


def setup_of(row: Row, other: Row) -> Setup:
    """What a row leaves out is what the other one says."""

    def count(column: str) -> int:
        return int(row[column] or other[column] or 1)

    return Setup(
        engine=row["engine"],
        version=row["version"],
        product=row["gpu"],
        max_sequences=count("max_num_seqs"),
        max_batched_tokens=count("max_num_batched_tokens"),
        context_length=count("max_model_len"),
        kv_cache=row["kv_cache_dtype"],
        tensor=count("tp"),
        pipeline=count("pp"),
    )


def observed(row: Row, other: Row) -> Observation:
    printed = {term: gib(row[column]) for column, term in TERMS.items() if row[column]}
    return Observation(setup=setup_of(row, other), **printed)


def test_the_other_run_of_a_pair_is_within_five_percent(shared_data: Path) -> None:
    by_kind: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    with (shared_data / "measurements" / "engine_memory.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            by_kind[tuple(row[column] for column in KIND)].append(row)
    checked = 0  # few: published runs seldom repeat one another
    for rows in by_kind.values():
        for one, other in permutations(rows, 2):
            known, truth = observed(one, other), observed(other, one)
            shared = [
                term for term in TERMS.values() if getattr(known, term) is not None and getattr(truth, term) is not None
            ]
            if not shared:
                continue
            start = replace(COMPUTED, weights=truth.weights or COMPUTED.weights)
            found = calibrated(start, observations=[known], asked=truth.setup, headroom_percent=0)
            terms = [term for term in shared if term in found.measured]
            expected = sum(getattr(truth, term) for term in terms)
            assert abs(sum(getattr(found, term) for term in terms) - expected) <= 0.05 * expected, (one, other)
            checked += bool(terms)
    assert checked >= 2
