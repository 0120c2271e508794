"""``vrampack profile``: a ModelProfile to apply, for models that the operator can't read itself."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vrampack.cli.estimate import (
    BAD_INPUT,
    Endpoint,
    ModelFile,
    Output,
    Revision,
    echo_structured,
    read_facts,
    while_telling,
)

if TYPE_CHECKING:
    from vrampack.models.facts import ModelFacts

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

Model = Annotated[
    str, typer.Argument(help="A folder with config.json and *.safetensors, a GGUF file, or hf://ORG/NAME.")
]
Source = Annotated[
    str | None,
    typer.Option(
        help="Where the engine will load a folder's files from: pvc://CLAIM/PATH, or hf://ORG/NAME with "
        "--revision COMMIT for files that were downloaded from there.",
        show_default=False,
    ),
]
Form = Annotated[Output, typer.Option("--output", "-o", help="yaml or json, for kubectl apply -f -.")]


def profile(
    model: Model,
    source: Source = None,
    revision: Revision = None,
    model_file: ModelFile = "",
    endpoint: Endpoint = None,
    output: Form = Output.YAML,
) -> None:
    """Print the ModelProfile of a model: what the estimate needs to know, and a digest over the weight files.

    Of a folder all weight files are read once, for the digest. Exit status: 0, 2 where the question is wrong or the
    model is not known, 1 where its files can't be had.
    """
    from vrampack.api.source import SourceKind, parse_source
    from vrampack.errors import InvalidInputError, UnsupportedModelError
    from vrampack.estimator import check_path
    from vrampack.models.profile import profile_manifest

    if output is Output.TABLE:
        raise typer.BadParameter("a ModelProfile is printed as yaml or json")
    try:
        if model.startswith("hf://"):
            if source is not None:
                raise typer.BadParameter("--source is for a folder: a model on the hub is its own source")
            facts = read_facts(model, file=model_file, revision=revision, endpoint=endpoint)
        else:
            check_path(model)
            if source is None:
                raise typer.BadParameter(
                    "say with --source where the engine will load these files from, such as pvc://CLAIM/PATH"
                )
            kind = parse_source(source).kind
            if kind is SourceKind.PROFILE:
                raise typer.BadParameter("--source: a ModelProfile is no place for files; write pvc://CLAIM/PATH")
            if (kind is SourceKind.HUB) != (revision is not None and _COMMIT.fullmatch(revision) is not None):
                raise typer.BadParameter("--revision: write the full commit with --source hf://…, and nothing else")
            facts = replace(_read_folder(Path(model) / model_file, source), commit=revision or "")
        manifest = profile_manifest(facts)
        if facts.weights.precision == "gguf":
            manifest["spec"]["file"] = facts.files[0].name
    except (InvalidInputError, UnsupportedModelError) as error:
        typer.echo(f"vrampack: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from error
    for assumption in facts.architecture.assumptions:
        typer.echo(f"vrampack: assumed: {assumption}", err=True)
    echo_structured(manifest, output)


def _read_folder(folder: Path, source: str) -> "ModelFacts":
    """With the digest, and a bar for it: it takes as long as the disk takes to read all weights."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from vrampack.models.ggufcheckpoint import read_gguf
    from vrampack.models.local import read_folder

    if folder.suffix == ".gguf":
        return while_telling(f"reading {folder} …", lambda: read_gguf(folder, source=source, digest=True))
    columns = (TextColumn("digest"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("digest", total=_weights(folder))
        return read_folder(folder, source=source, digest=True, hashed=lambda amount: progress.advance(task, amount))


def _weights(folder: Path) -> int | None:
    """Bytes of the weight files, as far as a bar has to know them; what is wrong with them is told by the reader."""
    try:
        return sum(path.stat().st_size for path in folder.glob("*.safetensors")) or None
    except OSError:
        return None
