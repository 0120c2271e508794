"""The picture in docs/estimate.md is what the command prints."""

from pathlib import Path

from typer.testing import CliRunner

from vrampack.cli import main as command_line

PAGE = Path(__file__).parents[2] / "docs" / "estimate.md"


def test_the_example_is_what_the_command_prints(shared_data: Path) -> None:
    """But for the first line and where the weights are known from: there a repository, here its config.json."""
    example = (
        PAGE.read_text().split("$ vrampack estimate hf://meta-llama/Llama-3.1-8B-Instruct", 1)[1].split("```", 1)[0]
    )
    command, drawn = example.replace("\\\n", " ").split("\n", 1)
    config = str(shared_data / "model-configs" / "mlc--llama3_1_8b.json")
    runner = CliRunner(env={"COLUMNS": "110", "NO_COLOR": "1"})
    result = runner.invoke(command_line.app, ["estimate", config, *command.split()])
    assert result.exit_code == 0
    _, *expected = (line.rstrip() for line in drawn.strip().splitlines())
    _, *printed = (line.rstrip() for line in result.stdout.strip().splitlines())
    weights = next(index for index, line in enumerate(expected) if line.startswith(" W "))
    assert printed.pop(weights).split()[:4] == expected.pop(weights).split()[:4]
    assert printed == expected
