"""The demo as a user runs it: all that fits is Ready, and nothing of it is left running."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vrampack.localcluster.assets import Assets
from vrampack.localcluster.standin.driver import compiler

pytestmark = pytest.mark.cluster

COMMAND = [sys.executable, "-m", "vrampack", "demo"]


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((), id="simulated"),
        pytest.param(("--agents",), id="agents", marks=pytest.mark.skipif(compiler() is None, reason="no C compiler")),
    ],
)
def test_exit_means_that_all_that_fits_is_ready(assets: Assets, flags: tuple[str, ...]) -> None:
    done = subprocess.run([*COMMAND, "--exit", *flags], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.rpartition("NAMESPACE")[2]
    for model in ("llama-31-8b", "mistral-7b", "qwen3-4b", "qwen3-8b", "qwen3-8b-fp8", "llama-33-70b"):
        assert re.search(rf" {model} +1/1 .* AllReplicasReady ", last), last
    assert "144 KiB a token x 8 sequences x 4096 tokens" in last
    assert re.search(r"research/qwen3-32b waits\s+needs 73\.88 GiB .*2\.62\s+GiB\s+short", last, re.DOTALL), last


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_however_it_ends_nothing_is_left(assets: Assets, tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Ended in the middle, while all its processes run. Each of them has the demo's folder in its command line."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    demo = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert demo.stdout is not None
    try:
        said = []
        for line in demo.stdout:
            said.append(line)
            if "signed in as the chart's ServiceAccounts" in line:
                break
        assert len(running_with(tmp_path)) >= 7, "".join(said)
        demo.send_signal(number)
        output, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == status, output
    deadline = time.monotonic() + 10
    while left := [*running_with(tmp_path), *tmp_path.glob("vrampack-*")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def running_with(folder: Path) -> list[str]:
    lines = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if str(folder) in line]
