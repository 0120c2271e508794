"""``vrampack agent``: what reports the GPUs of a node, or of a whole fleet that exists only on paper."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from vrampack.cli.logs import LogFormat, LogLevel, configure
from vrampack.errors import InvalidInputError

Simulate = Annotated[
    Path | None,
    typer.Option(
        metavar="FLEET.yaml",
        help="Report the nodes of this file, for nodes without GPUs. An edit of the file takes effect at once.",
    ),
]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="How to reach the cluster. Without it: in-cluster credentials, or as kubectl does.")
]
Namespace = Annotated[str, typer.Option(help="Where the operator runs: the Leases of the agents are there.")]
Poll = Annotated[float, typer.Option(help="Seconds between two looks at the pods and the file.", min=0.1, max=60)]


def agent(
    simulate: Simulate = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = "vrampack-system",
    poll: Poll = 1.0,
) -> None:
    """Report GPUs, and what uses them, to the operator."""
    if simulate is None:
        typer.echo(
            "vrampack agent: reading real GPUs by NVML is not part of this version; "
            "--simulate FLEET.yaml reports a fleet of simulated ones",
            err=True,
        )
        raise typer.Exit(2)
    configure(level=LogLevel.INFO, form=LogFormat.TEXT)
    from vrampack.agent.fleet import FleetFile

    try:
        FleetFile(simulate).read()
    except (InvalidInputError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--simulate") from error
    asyncio.run(_simulate(simulate, kubeconfig=kubeconfig, namespace=namespace, poll=poll))


async def _simulate(fleet: Path, *, kubeconfig: Path | None, namespace: str, poll: float) -> None:
    from vrampack.agent.simulated import SimulationSettings, run_simulated
    from vrampack.kube.client import Kube

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    kube = await Kube.connect(None if kubeconfig is None else str(kubeconfig))
    try:
        await run_simulated(
            kube=kube, fleet_path=fleet, namespace=namespace, settings=SimulationSettings(poll=poll), stop=stop
        )
    finally:
        await kube.close()
