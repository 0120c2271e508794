"""``vrampack run``: the operator."""

import asyncio
import gc
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from vrampack.cli.logs import LogFormat, LogLevel, configure

Kubeconfig = Annotated[
    Path | None, typer.Option(help="How to reach the cluster. Without it: in-cluster credentials, or as kubectl does.")
]
Namespace = Annotated[str, typer.Option(help="Where the operator runs: its Lease and those of the agents are there.")]
Identity = Annotated[
    str, typer.Option(help="Name of this process in the Lease; no two may have the same.", show_default="HOST-PID")
]
LeaseSeconds = Annotated[
    int, typer.Option(help="A leader that has not renewed its Lease for so long is replaced.", min=3, max=300)
]
HubTokenNamespaces = Annotated[
    str, typer.Option(metavar="A,B,…", help="Namespaces in which Secrets with tokens of the model hub are read.")
]
TolerationSeconds = Annotated[
    int, typer.Option(help="How long a model's pod stays bound to a node that is not ready or unreachable.", min=0)
]
ProbesPort = Annotated[int, typer.Option(help="/healthz and /readyz; 0: none.", min=0, max=65535)]
MetricsPort = Annotated[int, typer.Option(help="/metrics; 0: none.", min=0, max=65535)]
ResyncSeconds = Annotated[float, typer.Option(help="A pass is made at least so often, events or not.", min=1)]
RefusalSeconds = Annotated[
    float, typer.Option(help="A placed pod that no scheduler binds for so long is packed elsewhere.", min=1)
]
PatienceSeconds = Annotated[
    int,
    typer.Option(
        help="A replica that has waited for so long goes by its age, and a place is kept for the oldest.", min=1
    ),
]
DeletionInterval = Annotated[
    float, typer.Option(help="Least time between two deletions of pods on one node, seconds.", min=0)
]
ModelCheckSeconds = Annotated[
    float,
    typer.Option(
        help="How often to ask the hub whether a model that is served has changed, less often for many; 0: never.",
        min=0,
    ),
]
ProbeImage = Annotated[
    str,
    typer.Option(help="Image, with a shell, of pods that find out how a node hands out GPUs. Empty: none."),
]
StartPort = Annotated[
    int,
    typer.Option(help="Port at which the nodes' agents say whose turn it is to start; 0: none.", min=0, max=65535),
]
HubEndpoint = Annotated[str | None, typer.Option(envvar="HF_ENDPOINT", help="The model hub, where it is a mirror.")]


def run(
    *,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = "vrampack-system",
    identity: Identity = "",
    lease_seconds: LeaseSeconds = 15,
    hub_token_namespaces: HubTokenNamespaces = "",
    toleration_seconds: TolerationSeconds = 60,
    probes_port: ProbesPort = 8081,
    metrics_port: MetricsPort = 8080,
    log_level: LogLevel = LogLevel.INFO,
    log_format: LogFormat = LogFormat.TEXT,
    resync_seconds: ResyncSeconds = 30,
    refusal_seconds: RefusalSeconds = 30,
    deletion_interval_seconds: DeletionInterval = 60,
    patience_seconds: PatienceSeconds = 600,
    model_check_seconds: ModelCheckSeconds = 30,
    hub_endpoint: HubEndpoint = None,
    probe_image: ProbeImage = "",
    start_port: StartPort = 0,
) -> None:
    """Run the operator until SIGTERM; of several, the holder of the Lease works."""
    configure(level=log_level, form=log_format)
    from vrampack.controller import app

    settings = app.Settings(
        kubeconfig=None if kubeconfig is None else str(kubeconfig),
        namespace=namespace,
        identity=identity or f"{socket.gethostname()}-{os.getpid()}",
        lease_seconds=lease_seconds,
        hub_token_namespaces=frozenset(filter(None, map(str.strip, hub_token_namespaces.split(",")))),
        toleration_seconds=toleration_seconds,
        probes_port=probes_port,
        metrics_port=metrics_port,
        resync_seconds=resync_seconds,
        refusal_seconds=refusal_seconds,
        deletion_interval_seconds=deletion_interval_seconds,
        patience_seconds=patience_seconds,
        hub_endpoint=hub_endpoint or None,
        model_check_seconds=model_check_seconds,
        probe_image=probe_image,
        start_port=start_port,
    )
    _spare_collector()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(app.run(settings))


def _spare_collector() -> None:
    """Modules stay as long as the process does. A collector of cycles that walks over all of them again and again takes
    a tenth of what a plan costs and a quarter of a claim; nearly all that a pass makes goes by its reference counts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.Loop
