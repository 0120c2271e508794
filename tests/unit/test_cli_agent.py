"""``vrampack agent`` where it has nothing to do but say why."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from vrampack.cli.agent import agent


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(agent)
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, arguments)
    return result.exit_code, result.output


def test_without_a_node_it_says_what_is_missing() -> None:
    code, output = run()
    assert code == 2
    assert "Give --node NAME, or set NODE_NAME" in output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nodes: [{name: a, product: L5}]", "nodes[0].product: 'L5' is not allowed; it is one of T4, L4"),
        (None, "No such file"),
    ],
)
def test_a_bad_fleet_is_refused_before_anything_is_reached(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "fleet.yaml"
    if text is not None:
        path.write_text(text)
    code, output = run(f"--simulate={path}")
    assert code == 2
    assert says in output
