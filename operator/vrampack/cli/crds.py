"""``vrampack crds``: the CustomResourceDefinitions as YAML."""

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

HEADER = "# Generated from operator/vrampack/api by `make crds`; change it there.\n"


def crds(
    output_dir: Annotated[
        Path | None, typer.Option(help="Write one file for each definition into this folder.", file_okay=False)
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            help="Only compare this folder; exit with 1 and a diff if it differs.", exists=True, file_okay=False
        ),
    ] = None,
) -> None:
    """Print the CustomResourceDefinitions, which `kubectl apply --server-side -f -` takes."""
    if output_dir is not None and check is not None:
        raise typer.BadParameter("--output-dir writes and --check only compares: give one of them")
    from vrampack.api.schema import definitions

    files = {f"{name}.yaml": render(definition) for name, definition in definitions()}
    if check is not None:
        difference = compare(check, files)
        typer.echo(difference, nl=False)
        raise typer.Exit(1 if difference else 0)
    if output_dir is None:
        typer.echo("---\n".join(files.values()), nl=False)
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (output_dir / name).write_text(text, encoding="utf-8")


def render(definition: dict[str, Any]) -> str:
    """One definition as the text of its file."""
    return HEADER + yaml.dump(definition, Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True, width=120)


class _WithoutAliases(yaml.SafeDumper):
    """Repeats what occurs twice: an alias is correct YAML, but nobody reads it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def compare(folder: Path, files: dict[str, str]) -> str:
    """A unified diff from the folder's files to these; empty when they are the same and the folder has no others."""
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml"))}
    lines: list[str] = []
    for name in sorted(found.keys() | files.keys()):
        before, after = found.get(name, ""), files.get(name, "")
        lines += difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), str(folder / name), f"generated/{name}"
        )
    return "".join(lines)
