"""The allocation rule against vLLM's own answers, and the report that says how well it does."""

import csv
import json
from pathlib import Path

import pytest

from benchmarks.allocator_accuracy import compare, main
from vrampack.memory.vllm.dtypes import AUTO
from vrampack.memory.vllm.layout import kv_layout
from vrampack.memory.workload import Workload
from vrampack.models.config import architecture_of

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
ROW = {
    "vllm_version": "0.33.0",
    "family": "Llama",
    "config": "llama.json",
    "tp": "1",
    "kv_dtype": "auto",
    "max_model_len": "4096",
    "max_num_batched_tokens": "2048",
    "available_bytes": str(1000 * 2**21),
    "num_blocks": "1000",
    "kv_tokens_reported": "16000",
    "max_concurrency": "3.90625",
    "min_bytes_for_one_request": str(257 * 2**21),
    "fits": "True",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "llama.json").write_text(json.dumps(LLAMA))
    return tmp_path


def table(folder: Path, *changes: dict[str, str]) -> Path:
    path = folder / "table.csv"
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, fieldnames=list(ROW))
        writer.writeheader()
        writer.writerows(ROW | change for change in changes)
    return path


def test_vllm_answers_the_same(shared_data: Path) -> None:
    found = compare(shared_data / "allocator" / "vllm_allocator.csv", shared_data / "allocator" / "configs")
    rows, exact = (sum(getattr(outcome, name) for outcome in found.values()) for name in ("rows", "exact"))
    assert rows >= 1900
    assert exact / rows >= 0.99, [outcome.differences for outcome in found.values() if outcome.differences]
    assert not any(outcome.unusable for outcome in found.values())


def test_blocks_held_after_a_decode_step_are_exact(shared_data: Path) -> None:
    configs = shared_data / "allocator" / "configs"
    with (shared_data / "allocator" / "vllm_resident_blocks.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) >= 300
    for row in rows:
        architecture = architecture_of(json.loads((configs / f"{row['model']}.json").read_text()))
        length, longest = int(row["request_len"]), int(row["max_model_len"])
        workload = Workload(
            context_length=longest,
            concurrency=int(row["requests"]),
            tokens_per_sequence=length,
            max_batched_tokens=int(row["max_num_batched_tokens"]),
            tensor=int(row["tp"]),
            kv_cache_precision=AUTO if row["kv_dtype"] == "auto" else row["kv_dtype"],
            engine_version=row["vllm_version"],
        )
        layout = kv_layout(architecture, workload)
        held = layout.resident_blocks(length + 1)
        assert held * workload.concurrency == int(row["blocks_after_one_decode_step"]), row
        assert held <= layout.held_blocks(length + 1)
        assert layout.blocks_of_request(length) == int(row["planner_blocks_one_request_of_len"]), row
        assert layout.blocks_of_request(longest) == int(row["planner_blocks_one_request_of_max_model_len"]), row


def test_the_report_counts_what_is_exact_what_differs_and_what_cannot_be_used(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "odd.json").write_text(json.dumps(LLAMA | {"num_hidden_layers": "many"}))
    (folder / "broken.json").write_text("{")
    path = table(
        folder,
        {},
        {"num_blocks": "800"},
        {"family": "Never seen", "config": "odd.json"},
        {"family": "Never seen", "config": "missing.json"},
        {"family": "Never seen", "config": "broken.json"},
        {"family": "Never seen", "tp": ""},
        {"family": "Never seen", "kv_dtype": "int3"},
    )
    assert main(["--table", str(path), "--configs", str(folder), "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["Llama"] == {"rows": 2, "exact": 1, "worst_percent": 25.0, "unusable": []}
    unseen = report["Never seen"]
    assert (unseen["rows"], unseen["exact"]) == (5, 0)
    assert [each["row"] for each in unseen["unusable"]] == [3, 4, 5, 6, 7]
    words = [each["reason"] for each in unseen["unusable"]]
    for word, reason in zip(("num_hidden_layers", "missing.json", "broken.json", "int()", "int3"), words, strict=True):
        assert word in reason


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("num_blocks", "999"),
        ("kv_tokens_reported", "15999"),
        ("min_bytes_for_one_request", "1"),
        ("fits", "False"),
        ("max_concurrency", "3.90626"),
    ],
)
def test_each_figure_counts(folder: Path, column: str, value: str) -> None:
    outcome = compare(table(folder, {column: value}), folder)["Llama"]
    assert (outcome.exact, list(outcome.differences[0])) == (0, ["row", "config", column])


@pytest.mark.parametrize("column", ["num_blocks", "kv_tokens_reported", "max_concurrency", "fits"])
def test_a_row_without_an_answer_is_never_exact(folder: Path, column: str) -> None:
    """Not of a model without a cache either, whose cells are empty."""
    bert = LLAMA | {"architectures": ["BertModel"], "model_type": "bert", "num_key_value_heads": 32}
    (folder / "bert.json").write_text(json.dumps(bert))
    empty = dict.fromkeys(("kv_tokens_reported", "max_concurrency", "min_bytes_for_one_request"), "")
    rows = [ROW, ROW | {"config": "bert.json", "num_blocks": "1"} | empty]
    path = folder / "table.csv"
    for names, exact in ((list(ROW), 2), ([name for name in ROW if name != column], 0)):
        with path.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, fieldnames=names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        outcome = compare(path, folder)["Llama"]
        assert (outcome.rows, outcome.exact, outcome.differences) == (2, exact, [])
        assert [column in each["reason"] for each in outcome.unusable] == [True] * (2 - exact)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fits": ""}, "fits is ''"),
        ({"fits": "maybe"}, "fits is 'maybe', neither True nor False"),
        ({"num_blocks": "1000.5"}, "no whole number"),
        ({"num_blocks": "inf"}, "infinity"),
        ({"num_blocks": "nan"}, "NaN"),
    ],
)
def test_an_answer_that_is_none_has_its_reason(folder: Path, change: dict[str, str], says: str) -> None:
    outcome = compare(table(folder, change), folder)["Llama"]
    assert (outcome.exact, outcome.differences) == (0, [])
    assert says in outcome.unusable[0]["reason"]


@pytest.mark.parametrize("column", ["max_model_len", "available_bytes", "tp"])
def test_sizes_that_nothing_has_are_answered_all_the_same(folder: Path, column: str) -> None:
    outcome = compare(table(folder, {column: "9" * 300}), folder)["Llama"]
    assert outcome.exact == 0
    assert len(outcome.unusable) + len(outcome.differences) == 1


def test_an_empty_cell_differs_from_a_figure(folder: Path) -> None:
    outcome = compare(table(folder, {"max_concurrency": ""}), folder)["Llama"]
    assert (outcome.exact, outcome.worst_percent) == (0, 100.0)
    assert outcome.differences[0]["max_concurrency"] == ["4", ""]


def test_concurrency_is_compared_to_the_digits_of_the_table(folder: Path) -> None:
    assert compare(table(folder, {"max_concurrency": "3.91"}), folder)["Llama"].exact == 1


def test_the_table_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(folder, {}, {"fits": "False"})
    assert main(["--table", str(path), "--configs", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "50.00 % exact" in out
    assert "'fits': [True, False]" in out


def test_a_table_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", str(tmp_path / "none.csv"), "--configs", str(tmp_path)]) == 2
    assert "none.csv" in capsys.readouterr().err
