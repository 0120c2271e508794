"""``vrampack mig-layout``: how to cut GPUs for what is to be served, as a change to review."""

from pathlib import Path
from typing import Annotated

import typer

from vrampack.cli.estimate import BAD_INPUT, Endpoint, read_facts

Manifests = Annotated[
    list[Path], typer.Argument(metavar="MANIFEST…", help="ModelDeployments, each replica of which gets one slice.")
]
Product = Annotated[str, typer.Option("--gpu", "-g", help="The GPU: A100-40, A100-80, H100-80, H200 or B200.")]
Count = Annotated[int, typer.Option("--gpus", help="GPUs of one node that may be cut.", min=1, max=16)]
Name = Annotated[str, typer.Option(help="Name of the layout, and value of the node label.")]


def mig_layout(
    manifests: Manifests, gpu: Product, gpus: Count = 1, name: Name = "vrampack", endpoint: Endpoint = None
) -> None:
    """Print a layout for NVIDIA's MIG manager that serves the most of these models. Nothing is changed by it.

    Exit status: 0, 1 where a replica finds no slice, 2 where the question is wrong.
    """
    from vrampack.cli.estimatesubject import subjects_of_files
    from vrampack.errors import InvalidInputError, UnsupportedModelError
    from vrampack.planning.verdict import Sized

    try:
        found = subjects_of_files(
            manifests,
            overrides={},
            read=lambda source, revision, file: read_facts(source, file=file, revision=revision, endpoint=endpoint),
        )
        demand: list[tuple[str, int]] = []
        for subject in found:
            sized = subject.sized()
            if not isinstance(sized, Sized):
                raise InvalidInputError(field=subject.name, value=sized.reason, allowed=sized.message)
            demand += [(subject.name, sized.need.bytes)] * subject.spec.replicas
        without = _print(demand, gpu=gpu, gpus=gpus, name=name)
    except (InvalidInputError, UnsupportedModelError) as error:
        typer.echo(f"vrampack: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from error
    if without:
        typer.echo(f"vrampack: without a slice: {', '.join(without)}; give more --gpus", err=True)
        raise typer.Exit(1)


def _print(demand: list[tuple[str, int]], *, gpu: str, gpus: int, name: str) -> list[str]:
    """The configuration with what it is for; returns who finds no slice in it."""
    import yaml

    from vrampack.errors import InvalidInputError
    from vrampack.memory.gpus import GPUS
    from vrampack.sharing.miglayout import CONFIG_LABEL, NAMES, layouts, mig_config, sizes_of
    from vrampack.units import human_bytes

    if gpu not in NAMES:
        raise InvalidInputError(field="--gpu", value=gpu, allowed=f"one of {', '.join(NAMES)}")
    sizes = sizes_of(GPUS[gpu].usable, names=NAMES[gpu])
    found = layouts(sizes, [need for _, need in demand], gpus=gpus)
    for index, layout in enumerate(found):
        served = ", ".join(f"{demand[each][0]} ({human_bytes(demand[each][1])})" for each in layout.serves)
        typer.echo(f"# GPU {index}: {served or 'nobody'}; {human_bytes(layout.stranded)} of the slices in use are left")
    typer.echo("# Review it, add it to the MIG manager's configuration, drain the node, and then:")
    typer.echo(f"#   kubectl label node NODE {CONFIG_LABEL}={name} --overwrite")
    typer.echo(f"# It is in place when the label {CONFIG_LABEL}.state says success.")
    typer.echo(yaml.safe_dump(mig_config(name, found), sort_keys=False).rstrip())
    taken = {index for layout in found for index in layout.serves}
    return [who for index, (who, _) in enumerate(demand) if index not in taken]
