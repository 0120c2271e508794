"""The benchmark of mixed fleets: what it draws, and what it reports."""

import json
import random
from pathlib import Path

import pytest

from benchmarks.fleet import checkpoints, fleet, main, replicas
from vrampack.units import GIB

HEADER = (
    "model,safetensors_gib,num_hidden_layers,hidden_size,num_attention_heads,"
    "num_key_value_heads,head_dim,kv_lora_rank,qk_rope_head_dim,architecture,source\n"
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "sizes.csv"
    path.write_text(
        HEADER
        + "org/small,7.5,32,4096,32,8,,,,X,here\n"
        + "org/large,140,80,8192,64,8,128,,,X,here\n"
        + "org/latent,60,61,7168,128,128,,512,64,X,here\n"
        + "org/giant,9000,61,7168,128,128,,512,64,X,here\n"
    )
    return path


def test_a_checkpoint_has_its_weights_and_the_cache_of_a_token(table: Path) -> None:
    small, large, latent, _ = checkpoints(table)
    assert (small.weights, small.token) == (int(7.5 * GIB), 2 * 32 * 2 * 8 * 128)
    assert large.token == 2 * 80 * 2 * 8 * 128
    assert latent.token == 2 * 61 * (512 + 64)


def test_large_models_get_several_gpus_and_what_is_too_large_is_left_out(table: Path) -> None:
    items = replicas(checkpoints(table), count=300, draw=random.Random(1))
    gpus = {item.group.split("/")[2].split("-")[0]: item.gpus for item in items}
    assert gpus == {"small": 1, "large": 2, "latent": 1}
    assert all(item.memory <= 80 * GIB for item in items)


def test_the_fleet_has_the_load_that_was_asked_for(table: Path) -> None:
    items = replicas(checkpoints(table), count=1000, draw=random.Random(1))
    hosts = fleet(items, load=0.7)
    room = sum(device.capacity for host in hosts for device in host.devices)
    assert sum(item.gpus * item.memory for item in items) / room == pytest.approx(0.7, abs=0.03)
    assert {len(host.devices) for host in hosts} == {8}


def test_the_json_has_the_gap_of_each_plan(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--checkpoints", str(table), "--replicas", "60", "--loads", "0.5", "--draws", "1", "--seconds", "1"]
    assert main([*arguments, "-o", "json"]) == 0
    row = json.loads(capsys.readouterr().out)["0.5"]
    assert row["all_placed"] == 1
    assert 0 <= row["vrampack_gap_percent"] <= row["first_gap_percent"]
    assert row["vrampack_unplaced"] == row["bound_unplaced"] == 0


def test_a_file_without_the_columns_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.csv"
    path.write_text("model,size\na,1\n")
    assert main(["--checkpoints", str(path)]) == 2
    assert "a column is missing" in capsys.readouterr().err


def test_the_published_sizes_come_within_a_quarter_of_a_percent_of_the_bound(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = shared_data / "safetensors_sizes.csv"
    arguments = ["--checkpoints", str(table), "--replicas", "400", "--loads", "0.6", "--draws", "1", "--seconds", "15"]
    assert main([*arguments, "-o", "json"]) == 0
    row = json.loads(capsys.readouterr().out)["0.6"]
    assert row["vrampack_gap_percent"] <= 0.25
