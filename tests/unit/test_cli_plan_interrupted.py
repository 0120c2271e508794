"""Ctrl-C while ``vrampack plan`` refines: a real process, a real terminal, a real signal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.test_cli_plan import model, write

_PATIENCE = 120.0
PRICES = {
    "nodes": [
        {"name": f"{product.lower()}-{gpus}", "product": product, "gpus": gpus, "price": price * gpus * 0.97}
        for product, price in (("L4", 0.71), ("L40S", 1.86), ("H100-80", 6.88), ("A100-80", 3.67), ("H200", 8.11))
        for gpus in (1, 2, 4, 8)
    ]
}


def many(count: int) -> list[dict[str, object]]:
    """Models of so many sizes that nobody proves anything soon."""
    return [model(f"m{number:03}", f"{3000 + 7919 * number % 31000}Mi") for number in range(count)]


def interrupted(*arguments: object, at: str) -> tuple[int, str]:
    """Exit status and output of a run that gets Ctrl-C once its terminal shows ``at``."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "vrampack", "plan", *map(str, arguments), "-o", "json", "--refine", "3600"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, text=True, env=environment) as process:
        os.close(slave)
        try:
            shown = _read_until(master, at)
            assert at in shown, shown[-2000:]
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=_PATIENCE)
        finally:
            if process.poll() is None:
                process.kill()
            os.close(master)
    return process.returncode, out


def _read_until(terminal: int, words: str) -> str:
    shown, until = "", time.monotonic() + _PATIENCE
    while words not in shown and time.monotonic() < until:
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # the process has ended
                break
    return shown


@pytest.mark.parametrize(("nodes", "status"), [(9, 0), (1, 2)], ids=["all of it fits", "not all of it fits"])
def test_the_plan_and_its_bound_so_far_are_told(tmp_path: Path, nodes: int, status: int) -> None:
    products = ("L40S", "H100-80")
    kinds = [{"name": name.lower(), "product": name, "gpus": 8, "count": nodes} for name in products]
    fleet = write(tmp_path / "fleet.txt", {"nodes": kinds})
    code, out = interrupted(write(tmp_path / "m.yaml", *many(60)), f"--fleet={fleet}", at="Ctrl-C ends the search")
    found = json.loads(out)
    assert (code, found["fits"]) == (status, status == 0)
    assert [each["pool"] for each in found["bounds"]] == ["default"]


def test_the_cheapest_set_so_far_is_told(tmp_path: Path) -> None:
    prices = write(tmp_path / "prices.txt", PRICES)
    manifest = write(tmp_path / "m.yaml", *many(60))
    code, out = interrupted(manifest, "--fleet-for", f"--prices={prices}", at="Ctrl-C ends the search")
    found = json.loads(out)
    assert code == 0
    assert found["price"] > found["least"] > 0
    assert len(found["placements"]) == 60
