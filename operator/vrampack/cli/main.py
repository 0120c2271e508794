"""The command ``vrampack``."""

import sys
from typing import Annotated, Final

import typer

from vrampack import __version__
from vrampack.cli.agent import agent
from vrampack.cli.calibrate import calibrate
from vrampack.cli.crds import crds
from vrampack.cli.defrag import defrag
from vrampack.cli.demo import demo
from vrampack.cli.estimate import estimate
from vrampack.cli.explain import explain
from vrampack.cli.localcluster import app as cluster
from vrampack.cli.map import fleet_map
from vrampack.cli.miglayout import mig_layout
from vrampack.cli.plan import plan
from vrampack.cli.profile import profile
from vrampack.cli.run import run
from vrampack.errors import VrampackError

_RECURSION: Final = 50_000
"""The API server takes objects of 10,000 levels, a few frames of ours each. Every reader, the frameworks' own as well,
must get to the end of one that a user wrote into an overlay, or that object alone would stop all that lists it."""

app = typer.Typer(
    name="vrampack",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback in a pod's log is for tools as well
)
app.command("run")(run)
app.command("agent")(agent)
app.command("demo")(demo)
app.command("map")(fleet_map)
app.command("estimate")(estimate)
app.command("plan")(plan)
app.command("explain")(explain)
app.command("defrag")(defrag)
app.command("profile")(profile)
app.command("calibrate")(calibrate)
app.command("mig-layout")(mig_layout)
app.command("crds")(crds)
app.add_typer(cluster)


@app.command("version")
def print_version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_version()
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
]


@app.callback()
def root(*, version: Version = False) -> None:
    """Packs language models onto fractions of GPUs, byte by byte."""


def main() -> None:
    """Runs the command line. What vrampack refuses on purpose is one line on stderr and exit status 1."""
    sys.setrecursionlimit(_RECURSION)
    try:
        app()
    except VrampackError as error:
        typer.echo(f"vrampack: {error}", err=True)
        sys.exit(1)
