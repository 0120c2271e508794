"""The notebook of the documentation runs as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_every_cell_runs(repo_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = _BLOCK.findall((repo_root / "docs" / "library.md").read_text())
    offline = [cell for cell in cells if "hf://" not in cell]
    assert len(offline) == len(cells) - 1
    names: dict[str, Any] = {}
    for cell in offline:
        exec(compile(cell, "docs/library.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "GiB on 1 GPU" in printed
    assert "maximum concurrency 16.00" in printed
    assert "spec.serving.contextLength this model is made for at most 40960 tokens" in printed
    assert "TP 4, KV fp8" in printed
