"""The benchmarks of the first plan run on any size and any file of their format, and check what they measure."""

import json
from pathlib import Path

import pytest

from benchmarks import filling, pack_portfolio, pack_scale
from vrampack.packing.portfolio import Member


def test_scale_measures_each_size_and_load(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["--replicas", "120", "240", "--classes", "30", "--runs", "1", "--check", "-o", "json"]
    monkeypatch.setattr("sys.argv", ["pack_scale", *sizes])
    pack_scale.main()
    rows = json.loads(capsys.readouterr().out)
    assert [(row["replicas"], row["gpus"], row["load"]) for row in rows] == [
        (120, 100, 0.6),
        (240, 200, 0.6),
        (120, 100, 1.0),
        (240, 200, 1.0),
    ]
    for row in rows:
        assert row["placed"] + row["unplaced"] == row["replicas"]
        for name in ("arrays_seconds", "objects_seconds", "one_more_seconds"):
            assert 0 < row[name]["best"] <= row[name]["median"]
        assert row["peak_mib"] > 0


def test_scale_asks_for_everything_that_it_says() -> None:
    question = pack_scale.case(count=2000, classes=400, load=0.6)
    classes = {item.group: item for item in question.items}
    shares = [
        sum(bool(item.refused) for item in classes.values()),
        sum(item.spread.value == "Require" for item in classes.values()),
        sum(bool(item.avoid) for item in classes.values()),
        sum(item.gpus > 1 for item in classes.values()),
        sum(item.priority > 0 for item in classes.values()),
    ]
    assert all(0.15 < share / len(classes) < 0.25 for share in shares)
    asked = sum(item.gpus * item.memory for item in question.items)
    there = sum(device.capacity for host in question.hosts for device in host.devices)
    assert 0.5 < asked / there <= 0.6


def test_portfolio_takes_the_best_of_its_members() -> None:
    weights = [size << 30 for size in (4, 7, 15, 16, 28, 38, 65, 90, 140, 250)]
    row = pack_portfolio.measure(weights, load=1.0, limited=True, seeds=1)
    unplaced = row["unplaced"]
    assert isinstance(unplaced, dict)
    assert set(unplaced) == {*map(str, Member), "Portfolio"}
    best = min((unplaced[member]["replicas"], unplaced[member]["gib"]) for member in Member)
    assert (unplaced["Portfolio"]["replicas"], unplaced["Portfolio"]["gib"]) == best


def test_portfolio_reads_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sizes.csv"
    file.write_text("model,safetensors_gib\na,14.2\nb,60\nc,\nd,900\n")
    monkeypatch.setattr(
        "sys.argv", ["pack_portfolio", "--checkpoints", str(file), "--load", "0.1", "--seeds", "1", "-o", "json"]
    )
    pack_portfolio.main()
    rows = json.loads(capsys.readouterr().out)
    assert [(row["models"], row["load"]) for row in rows] == [("any", 0.1), ("products", 0.1)]
    assert all(row["replicas"] > 10 for row in rows)


def test_filling_is_the_same_for_the_same_seed_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "_ARRIVALS", 160)
    monkeypatch.setattr(filling, "_BEFORE", 20)
    for policy in ("first-fit", "tightest", "fewest-fragments", "and-opens"):
        found = filling.run(seed=3, load=0.6, policy=policy)
        assert found == filling.run(seed=3, load=0.6, policy=policy)
        assert found.refused_bytes == found.refused_replicas == 0
        assert 1 < found.opened < 2
    assert filling.run(seed=3, load=0.6, policy="first-fit") != filling.run(seed=4, load=0.6, policy="first-fit")
