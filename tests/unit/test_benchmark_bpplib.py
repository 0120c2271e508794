"""The bin-packing benchmark: its files, its JSON, and that it does not let a wrong answer pass."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.bpplib import Instance, check, first_fit_decreasing, instance, known_bounds, main, measure, solve
from benchmarks.bpplib_drawn import main as drawn


def written(folder: Path, name: str, capacity: int, sizes: list[int]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.txt"
    path.write_text("\n".join(map(str, [len(sizes), capacity, *sizes])) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written(tmp_path / "a" / "Pairs", "p1", 10, [6, 6, 4, 4])
    written(tmp_path / "a" / "Pairs", "p2", 10, [7, 5, 3])
    written(tmp_path / "Triplets", "t1", 12, [5, 4, 3, 6, 3, 3])
    (tmp_path / "bounds.tsv").write_text("p1\t2\t2\np2 1 3\nnonsense\nt1,2,2\n")
    return tmp_path


def test_the_json_has_a_class_for_each_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--instances", str(folder), "--bounds", str(folder / "bounds.tsv"), "--seconds", "5", "-o", "json"]
    assert main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)
    assert list(rows) == ["Pairs", "Triplets"]
    assert {"instances", "optimal", "ffd_optimal", "mean_seconds", "p95_seconds"} <= rows["Pairs"].keys()
    assert (rows["Pairs"]["instances"], rows["Pairs"]["optimal"], rows["Pairs"]["ffd_optimal"]) == (2, 2, 2)
    assert (rows["Triplets"]["instances"], rows["Triplets"]["optimal"], rows["Triplets"]["ffd_optimal"]) == (1, 1, 0)


def test_the_table_names_what_is_not_optimal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bounds.tsv").write_text("p1\t1\t1\n")
    arguments = ["--instances", str(folder / "a"), "--bounds", str(folder / "bounds.tsv")]
    assert main(arguments) == 1
    assert "contradict" in capsys.readouterr().err


def test_bounds_may_be_missing(folder: Path) -> None:
    known = known_bounds(folder / "bounds.tsv")
    assert known == {"p1": (2, 2), "p2": (1, 3), "t1": (2, 2)}
    outcome = measure(instance(folder / "a" / "Pairs" / "p2.txt"), None, seconds=5, seed=0)
    assert outcome.optimum == outcome.bins == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("3\n10\n1\n2\n", "3 sizes announced, 2 found"), ("1\n10\n11\n", "between 0"), ("1\nten\n", "integers")],
)
def test_files_of_another_format_are_refused(
    tmp_path: Path, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.txt").write_text(text)
    (tmp_path / "bounds").write_text("")
    assert main(["--instances", str(tmp_path), "--bounds", str(tmp_path / "bounds")]) == 2
    assert complaint in capsys.readouterr().err


def test_a_wrong_answer_does_not_pass() -> None:
    case = Instance(name="x", kind="X", capacity=10, sizes=(6, 4, 4))
    progress, *_ = solve(case, seconds=5, seed=0)
    check(case, progress.best)
    with pytest.raises(ValueError, match="too full"):
        check(replace(case, capacity=9), progress.best)
    with pytest.raises(ValueError, match="do not hold"):
        check(replace(case, sizes=(6, 4, 4, 4)), progress.best)


def test_first_fit_decreasing_is_the_textbooks() -> None:
    assert first_fit_decreasing([4, 4, 4, 3, 3, 3, 3], 12) == 2
    assert first_fit_decreasing([5, 4, 3, 6, 3, 3], 12) == 3


def test_published_instances_are_solved_to_their_optimum(shared_data: Path) -> None:
    folder = shared_data / "bpplib"
    known = known_bounds(folder / "bounds.tsv")
    paths = sorted(folder.rglob("*.txt"))[::53]
    assert paths
    for path in paths:
        outcome = measure(instance(path), known[path.stem], seconds=20, seed=0)
        assert outcome.bins == outcome.optimum, path.stem


def test_drawn_instances_can_be_read_and_know_their_optimum(tmp_path: Path) -> None:
    drawn(["--output", str(tmp_path), "--seed", "3"])
    known = known_bounds(tmp_path / "bounds.tsv")
    paths = sorted(tmp_path.rglob("*.txt"))
    assert {path.parent.name for path in paths} >= {"Schwerin_1", "Scholl_3", "Cut_1000"}
    for path in paths:
        case = instance(path)
        if case.name in known:
            assert sum(case.sizes) == known[case.name][0] * case.capacity
