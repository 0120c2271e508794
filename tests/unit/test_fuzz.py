"""Hostile files, for seconds: what ``benchmarks.fuzz_readers`` tries for minutes. Every input is read or refused by
name; an exception that is no error of ours fails the test."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz_readers
from benchmarks.fuzz_readers import TARGETS, judged, main, mutations
from benchmarks.fuzz_seeds import changed, seeds_of
from vrampack.errors import VrampackError


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_changed_file_is_read_or_refused(target: str, seed: int) -> None:
    judged(TARGETS[target], changed(target, seeds_of(target, None), random.Random(seed)))


@pytest.mark.parametrize("target", TARGETS)
@given(content=st.binary(max_size=512))
def test_any_bytes_are_read_or_refused(target: str, content: bytes) -> None:
    judged(TARGETS[target], content)


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_themselves_are_read(target: str) -> None:
    read = [_is_read(TARGETS[target], content) for content in seeds_of(target, None)]
    assert read.count(True) >= len(read) / 2, "fuzzing begins at files that are read, or it stays at their gate"


def _is_read(target: Callable[[bytes], None], content: bytes) -> bool:
    try:
        target(content)
    except VrampackError:
        return False
    return True


def test_published_files_with_changes_are_read_or_refused(shared_data: Path) -> None:
    seeds, chance = seeds_of("config", shared_data / "model-configs"), random.Random(20)
    for _ in range(300):
        judged(TARGETS["config"], changed("config", seeds, chance))


def test_a_finding_is_told_with_its_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fragile(content: bytes) -> None:
        raise KeyError(content[:4])

    monkeypatch.setitem(fuzz_readers.TARGETS, "gguf", fragile)
    content, trace = next(mutations("gguf", [b"GGUF"], seconds=30, seed=1))
    assert isinstance(content, bytes)
    assert "KeyError" in trace
    assert main(["gguf", "--seconds", "0.02", "--keep", str(tmp_path)]) == 1
    (path, *_) = capsys.readouterr().out.splitlines()
    assert Path(path) in set(tmp_path.glob("gguf-*.finding"))


def test_an_input_that_takes_too_long_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_readers, "SLOW_SECONDS", -1.0)
    with pytest.raises(TimeoutError):
        judged(lambda content: None, b"")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--seeds", str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err
