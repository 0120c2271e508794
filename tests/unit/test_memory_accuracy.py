"""The accuracy report on made-up measurements: what it counts, what it refuses, and that no row is lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measurements import read_rows
from benchmarks.memory_accuracy import main
from benchmarks.memory_accuracy import report as build_report

COLUMNS = [
    "engine",
    "version",
    "model",
    "config",
    "gpu",
    "gpu_mem_gib",
    "tp",
    "pp",
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "weights_gib",
    "kv_cache_gib",
    "kv_cache_tokens",
    "max_concurrency",
    "activation_peak_gib",
    "cuda_graph_gib",
    "non_torch_gib",
    "source",
    "note",
]
KEYS = {
    "unit",
    "rows",
    "unusable",
    "within_print_rounding",
    "within_0_1_percent",
    "within_1_percent",
    "within_5_percent",
    "median_error_percent",
    "p95_error_percent",
    "worst_over_percent",
    "worst_under_percent",
    "median_error_gib",
    "worst_over_gib",
    "worst_under_gib",
}
TERMS = ["kv_tokens", "weights", "activations", "cuda_graphs", "non_torch", "non_kv", "max_concurrency"]
SMALL = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "num_hidden_layers": 36,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
RUN = {
    "engine": "vllm",
    "version": "0.12.0",
    "config": "small.json",
    "gpu_mem_gib": "79.2",
    "tp": "1",
    "max_model_len": "16000",
}


@pytest.fixture
def report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Runs the command on rows of the given cells."""

    def run(*rows: dict[str, str], peers: bool = False):  # type: ignore[no-untyped-def]
        (tmp_path / "small.json").write_text(json.dumps(SMALL))
        (tmp_path / "broken.json").write_text("{")
        (tmp_path / "list.json").write_text("[]")
        (tmp_path / "odd.json").write_text(json.dumps({"model_type": "never-heard-of"}))
        lines = [",".join(COLUMNS), *(",".join(row.get(column, "") for column in COLUMNS) for row in rows)]
        (tmp_path / "runs.csv").write_text("\n".join(lines) + "\n")
        arguments = ["--measurements", str(tmp_path / "runs.csv"), "--configs", str(tmp_path), "-o", "json"]
        assert main(arguments + ["--peers"] * peers) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_every_term_has_the_keys_that_readers_of_the_report_rely_on(report) -> None:  # type: ignore[no-untyped-def]
    found = report(RUN)
    assert list(found) == TERMS
    for term in TERMS:
        assert found[term].keys() >= KEYS


def test_no_row_is_lost_whatever_is_wrong_with_it(report) -> None:  # type: ignore[no-untyped-def]
    everything = {
        "weights_gib": "15.27",
        "kv_cache_gib": "37.81",
        "kv_cache_tokens": "275328",
        "max_concurrency": "17.2",
        "activation_peak_gib": "5.6",
        "cuda_graph_gib": "0.5",
        "non_torch_gib": "0.1",
    }
    rows = [
        {**RUN, **everything},
        {**RUN, **everything, "config": ""},
        {**RUN, **everything, "config": "absent.json"},
        {**RUN, **everything, "config": "../small.json"},
        {**RUN, **everything, "config": "broken.json"},
        {**RUN, **everything, "config": "list.json"},
        {**RUN, **everything, "config": "odd.json"},
        {**RUN, **everything, "engine": "abacus"},
        {**RUN, **everything, "version": "nightly"},
        {**RUN, **everything, "tp": "two"},
        {**RUN, **everything, "tp": "0"},
        {**RUN, **everything, "kv_cache_dtype": "int3"},
        {**RUN, **everything, "max_num_seqs": "-4"},
        {**RUN, **everything, "gpu_mem_gib": "much"},
        {**RUN, **dict.fromkeys(everything, "unknown")},
        {**RUN, **dict.fromkeys(everything, "NaN")},
        {**RUN, **dict.fromkeys(everything, "1e999")},
        {},
    ]
    found = report(*rows, peers=True)
    for term in TERMS:
        entry = found[term]
        assert entry["rows"] + len(entry["unusable"]) == len(rows), term
        assert all(one["reason"] for one in entry["unusable"])
        assert [one["row"] for one in entry["unusable"]] == sorted({one["row"] for one in entry["unusable"]})
    failed = [one for term in TERMS for one in found[term]["unusable"] if "the estimate failed" in one["reason"]]
    assert failed == []
    assert {"row": 3, "reason": "absent.json: No such file or directory"} in found["kv_tokens"]["unusable"]
    assert {"row": 10, "reason": "tp is 'two', which is no number"} in found["kv_tokens"]["unusable"]


def test_tokens_within_the_rounding_of_the_printed_bytes_and_a_block_are_exact(report) -> None:  # type: ignore[no-untyped-def]
    # 36 layers of 8 heads of 128: 147456 bytes a token; 37.81 GiB ± 0.005 hold 275280 to 275353 tokens.
    pool = {**RUN, "kv_cache_gib": "37.81"}
    inside = report({**pool, "kv_cache_tokens": "275328"})["kv_tokens"]
    assert (inside["rows"], inside["within_print_rounding"], inside["within_0_1_percent"]) == (1, 1.0, 1.0)
    outside = report({**pool, "kv_cache_tokens": "275500"})["kv_tokens"]
    assert (outside["within_print_rounding"], outside["within_0_1_percent"]) == (0.0, 1.0)
    far = report({**pool, "kv_cache_tokens": "300000"})["kv_tokens"]
    assert far["worst_under_percent"] == pytest.approx(8.2, abs=0.1)
    assert far["worst_over_percent"] == 0
    assert (far["within_1_percent"], far["worst_under_gib"]) == (0.0, None)


def test_an_encoder_in_a_pipeline_keeps_nothing(report, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(SMALL, "model_type", "qwen2")
    monkeypatch.setitem(SMALL, "is_causal", False)
    found = report({**RUN, "pp": "4", "kv_cache_gib": "37.81", "kv_cache_tokens": "275328"})
    assert found["kv_tokens"]["unusable"] == [{"row": 1, "reason": "the model keeps nothing between steps"}]


def test_an_excerpt_of_a_configuration_is_enough_for_the_cache_alone(report, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delitem(SMALL, "intermediate_size")
    found = report({**RUN, "kv_cache_gib": "37.81", "kv_cache_tokens": "275328", "cuda_graph_gib": "0.5"})
    assert found["kv_tokens"]["within_print_rounding"] == 1
    assert "intermediate_size" in found["cuda_graphs"]["unusable"][0]["reason"]


def test_memory_that_was_given_back_counts_as_none(report) -> None:  # type: ignore[no-untyped-def]
    graphs = report({**RUN, "cuda_graph_gib": "-0.97"})["cuda_graphs"]
    assert graphs["worst_under_gib"] == 0
    assert graphs["worst_over_percent"] is None
    assert 0 < graphs["worst_over_gib"] < 2


def test_a_peak_that_refutes_the_default_of_the_sequences_is_not_compared(report) -> None:  # type: ignore[no-untyped-def]
    # 1024 sequences of 151936 words: 0.87 GiB of logits alone.
    found = report({**RUN, "activation_peak_gib": "0.8"}, {**RUN, "activation_peak_gib": "0.8", "max_num_seqs": "64"})
    assert found["activations"]["rows"] == 1
    assert "max_num_seqs is not in the row" in found["activations"]["unusable"][0]["reason"]


def test_a_peak_may_stand_in_the_note_with_the_weights_in_it(report) -> None:  # type: ignore[no-untyped-def]
    noted = {**RUN, "version": "", "gpu_mem_gib": "24", "weights_gib": "15.27", "max_model_len": "20000"}
    found = report({**noted, "note": "V0 of 2024; 17.19 peak torch"})
    assert found["activations"]["rows"] == 1
    # 20000 tokens: 2 bytes x (3 x 4096 + 3 x 12288), and the workspace.
    assert found["activations"]["worst_under_gib"] == pytest.approx(17.19 - 15.27 - 1.866, abs=0.001)


def test_a_few_rows_have_no_percentile(report) -> None:  # type: ignore[no-untyped-def]
    rows = [{**RUN, "cuda_graph_gib": "0.5"}] * 19
    assert report(*rows)["cuda_graphs"]["p95_error_percent"] is None
    assert report(*rows, rows[0])["cuda_graphs"]["p95_error_percent"] is not None


def test_peers_are_shown_on_the_rows_that_the_estimate_uses(report) -> None:  # type: ignore[no-untyped-def]
    pool = {**RUN, "kv_cache_gib": "37.81", "kv_cache_tokens": "275328"}
    entry = report(pool, {**pool, "config": ""}, peers=True)["kv_tokens"]
    assert entry["peers"]["uniform"]["rows"] == entry["rows"] == 1
    assert "peers" not in report(pool)["kv_tokens"]


def test_a_file_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--measurements", str(tmp_path / "no.csv"), "--configs", str(tmp_path)]) == 2
    assert "no.csv can't be read" in capsys.readouterr().err
    assert main(["--measurements", str(tmp_path / "no.csv"), "--configs", str(tmp_path / "none")]) == 2


def test_the_table_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs.csv").write_text("engine,weights_gib\nvllm,3\n")
    assert main(["--measurements", str(tmp_path / "runs.csv"), "--configs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "weights: 1 unusable: no configuration of the model is at hand (rows 1)" in shown


def test_the_table_of_the_docs_has_a_line_for_each_term(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs.csv").write_text("engine,weights_gib\nvllm,3\n")
    arguments = ["--measurements", str(tmp_path / "runs.csv"), "--configs", str(tmp_path), "-o", "markdown"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip(" *") for line in lines[2:]] == TERMS
    assert {line.count("|") for line in lines} == {9}


# ---- the published measurements ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(shared_data: Path) -> dict[str, Any]:
    """The report on the measurements beside the repository."""
    rows = read_rows(shared_data / "measurements" / "engine_memory.csv", shared_data / "model-configs")
    return build_report(rows, peers=True)


@pytest.mark.parametrize(
    ("term", "least_rows", "bounds"),
    [
        ("kv_tokens", 30, {"worst_over_percent": 1, "worst_under_percent": 1}),
        ("activations", 10, {"median_error_percent": 15, "worst_over_percent": 15, "worst_under_percent": 15}),
        ("cuda_graphs", 18, {"worst_under_gib": 0.3}),
        ("non_torch", 6, {"worst_under_gib": 0.3}),
        ("non_kv", 18, {"median_error_percent": 10, "worst_over_percent": 30, "worst_under_percent": 2}),
        ("max_concurrency", 1, {"worst_over_percent": 0.5, "worst_under_percent": 0.5}),
    ],
)
def test_published_runs_are_within_what_is_promised(
    published: dict[str, Any], term: str, least_rows: int, bounds: dict[str, float]
) -> None:
    found = published[term]
    assert found["rows"] >= least_rows
    for figure, bound in bounds.items():
        assert found[figure] <= bound, figure


def test_most_published_pools_are_exact(published: dict[str, Any]) -> None:
    assert published["kv_tokens"]["engines"]["vllm"]["within_print_rounding"] >= 0.97
    assert published["kv_tokens"]["engines"]["ik_llama.cpp"]["within_print_rounding"] == 1


@pytest.mark.parametrize("term", ["kv_tokens", "weights", "activations", "non_kv", "max_concurrency"])
def test_no_peer_is_nearer_in_the_median(published: dict[str, Any], term: str) -> None:
    found = published[term]
    for name, peer in found["peers"].items():
        assert peer["median_error_percent"] >= found["median_error_percent"], name


def test_no_published_row_breaks_the_estimate(published: dict[str, Any]) -> None:
    reasons = [one["reason"] for entry in published.values() for one in entry["unusable"]]
    assert [reason for reason in reasons if "failed" in reason] == []


@pytest.mark.parametrize("engine", ["sglang", "tgi", "llama.cpp"])
def test_what_is_not_modelled_of_an_engine_is_said_and_its_cache_is_used(report, engine: str) -> None:  # type: ignore[no-untyped-def]
    printed = {"kv_cache_gib": "4.5", "kv_cache_tokens": "32768", "weights_gib": "15", "cuda_graph_gib": "1"}
    found = report({**RUN, **printed, "engine": engine, "version": "", "max_model_len": "32768"})
    assert found["kv_tokens"]["rows"] == 1
    assert found["kv_tokens"]["within_1_percent"] == 1
    assert f"of {engine} is not modelled" in found["non_kv"]["unusable"][0]["reason"]


def test_a_cell_that_no_table_can_hold_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs.csv").write_text("engine,model\nvllm," + "x" * 200_000 + "\n")
    assert main(["--measurements", str(tmp_path / "runs.csv"), "--configs", str(tmp_path)]) == 2
    assert "runs.csv can't be read: field larger" in capsys.readouterr().err
