"""The table of which configurations are read."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.config_coverage import readings

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "vocab_size": 32000,
    "num_attention_heads": 16,
}
FILES: dict[str, object] = {
    "known": LLAMA,
    "mixed": LLAMA | {"model_type": "gemma2", "sliding_window": 512, "head_dim": 64},
    "new": LLAMA | {"model_type": "nova"},
    "recurrent": LLAMA | {"model_type": "nova", "retention_chunk": 64},
    "excerpt": {name: value for name, value in LLAMA.items() if name != "vocab_size"},
    "list": [LLAMA],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_every_file_is_exact_assumed_or_refused_with_the_reason(folder: Path) -> None:
    found = {reading.name: reading for reading in readings([folder])}
    assert {name: reading.result for name, reading in found.items()} == {
        "known": "exact",
        "mixed": "exact",
        "new": "assumed",
        "recurrent": "refused",
        "excerpt": "refused",
        "list": "refused",
    }
    assert found["mixed"].layers == "2 sliding 512, 2 full"
    assert "nova is not known by name" in found["new"].because
    assert found["recurrent"].because.startswith("retention_chunk")
    assert found["excerpt"].because.startswith("config.json:vocab_size")


@pytest.mark.parametrize("output", [[], ["-o", "json"]])
def test_the_command_prints_all_files_and_their_sums(folder: Path, repo_root: Path, output: list[str]) -> None:
    command = [sys.executable, "-m", "benchmarks.config_coverage", "--configs", str(folder), *output]
    printed = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=True).stdout
    if output:
        answer = json.loads(printed)
        assert answer["totals"] == {"exact": 2, "assumed": 1, "refused": 3}
        assert len(answer["files"]) == len(FILES)
    else:
        assert printed.splitlines()[-1] == "6 files: 2 exact, 1 assumed, 3 refused"
