"""``vrampack map``: the fleet as a picture."""

import asyncio
import contextlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vrampack.cli.fleetview import FleetView
    from vrampack.kube.client import Kube

_GROUP = "/apis/vrampack.dev/v1alpha1"
_PODS = "/api/v1/pods"

Kubeconfig = Annotated[Path | None, typer.Option(help="How to reach the cluster. Without it: as kubectl does.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Stay, and draw it again as it changes, until Ctrl-C.")]
Interval = Annotated[float, typer.Option(help="Seconds between two looks, with --watch.", min=0.2, max=60)]


class Output(StrEnum):
    """What is printed."""

    PICTURE = "picture"
    JSON = "json"


Form = Annotated[Output, typer.Option("--output", "-o", help="A picture, or memory in bytes for scripts.")]


def fleet_map(
    kubeconfig: Kubeconfig = None, output: Form = Output.PICTURE, watch: Watch = False, interval: Interval = 1.0
) -> None:
    """Show each GPU of the cluster: which models hold how much of it, and what is free."""
    if watch and output is Output.JSON:
        raise typer.BadParameter("--watch draws, and -o json prints once: give one of them")
    with contextlib.suppress(KeyboardInterrupt):  # how --watch is meant to end
        asyncio.run(_map(kubeconfig, output=output, watch=watch, interval=interval))


async def _map(kubeconfig: Path | None, *, output: Output, watch: bool, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from vrampack.cli.fleetmap import render_map
    from vrampack.cli.fleetview import to_json
    from vrampack.errors import UnavailableError
    from vrampack.kube.client import Kube

    console = Console()
    kube = await Kube.connect(None if kubeconfig is None else str(kubeconfig))
    try:
        view = await read_fleet(kube)
        if output is Output.JSON:
            typer.echo(to_json(view))
            return
        if not watch:
            console.print(render_map(view, width=console.width))
            return
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                live.update(render_map(view, width=console.width), refresh=True)
                await asyncio.sleep(interval)
                with contextlib.suppress(UnavailableError):  # the last picture stays
                    view = await read_fleet(kube)
    finally:
        await kube.close()


async def read_fleet(kube: "Kube") -> "FleetView":
    """The fleet as the API server has it now. Raises ClusterError."""
    from vrampack.api.names import MODEL_DEPLOYMENT
    from vrampack.cli.fleetview import fleet_view

    gpunodes, pods, models = await asyncio.gather(
        kube.list(f"{_GROUP}/gpunodes"),
        kube.list(_PODS, labelSelector=MODEL_DEPLOYMENT),
        kube.list(f"{_GROUP}/modeldeployments"),
    )
    return fleet_view(gpunodes=gpunodes, pods=pods, modeldeployments=models)
