"""``vrampack cluster``: a real Kubernetes control plane on this machine, without containers."""

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

import typer

from vrampack.localcluster import check_installed

app = typer.Typer(name="cluster", help="A real Kubernetes control plane on this machine.", no_args_is_help=True)

Nodes = Annotated[int, typer.Option(help="How many simulated nodes to begin with.", min=0, max=1000)]
Folder = Annotated[
    Path | None, typer.Option(help="Keeps data, logs and credentials. Without it they go with the cluster.")
]


@app.command()
def build() -> None:
    """Build etcd, Kubernetes, kwok and helm, once, into the user's cache folder."""
    check_installed()
    from rich.console import Console

    from vrampack.localcluster.assets import ensure_assets
    from vrampack.localcluster.progress import progress_on

    assets = ensure_assets(progress=progress_on(Console(stderr=True)))
    for field in assets.__slots__:
        typer.echo(getattr(assets, field))


@app.command()
def up(nodes: Nodes = 3, folder: Folder = None) -> None:
    """Start a cluster, print its KUBECONFIG line, and stay until Ctrl-C."""
    check_installed()
    with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
        asyncio.run(_up(nodes=nodes, folder=folder))


async def _up(*, nodes: int, folder: Path | None) -> None:
    from rich.console import Console

    from vrampack.localcluster.assets import ensure_assets
    from vrampack.localcluster.cluster import LocalCluster
    from vrampack.localcluster.nodes import NodeSpec
    from vrampack.localcluster.progress import progress_on

    assets = ensure_assets(progress=progress_on(Console(stderr=True)))
    specs = [NodeSpec(name=f"node-{number}") for number in range(1, nodes + 1)]
    async with LocalCluster(assets, folder, nodes=specs) as cluster:
        typer.echo(f"export KUBECONFIG={cluster.kubeconfig}")
        typer.echo("Ctrl-C stops the cluster.", err=True)
        await cluster.supervise()
