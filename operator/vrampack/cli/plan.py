"""``vrampack plan``: what would become of these manifests, before anybody applies them."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from vrampack.cli.planview import BoundRow, PlanView
    from vrampack.planning.playedkubernetes import Priority
    from vrampack.planning.rehearsal import Rehearsal
    from vrampack.planning.snapshot import Snapshot

DOES_NOT_FIT: Final = 2


class Output(StrEnum):
    """What is printed."""

    PICTURE = "picture"
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    MARKDOWN = "markdown"


Paths = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[FILES|FOLDERS|-]…",
        help="Manifests with ModelDeployments; ModelProfiles, GPUPools and PriorityClasses beside them count, other "
        "kinds are left out. - is what comes in, such as the output of kustomize build or helm template.",
        show_default=False,
    ),
]
FleetFile = Annotated[
    Path | None,
    typer.Option("--fleet", help="A fleet that exists only on paper, instead of a cluster.", show_default=False),
]
Kubeconfig = Annotated[Path | None, typer.Option(help="How to reach the cluster. Without it: as kubectl does.")]
OperatorNamespace = Annotated[str, typer.Option(help="Where the operator and the Leases of the agents are.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Of manifests that name none.")]
Endpoint = Annotated[
    str | None, typer.Option("--endpoint", envvar="HF_ENDPOINT", help="Address of the model hub.", show_default=False)
]
Refine = Annotated[
    float,
    typer.Option(
        "--refine", help="Seconds for a proof of how good the packing is, and for a better one; 0: none.", min=0
    ),
]
Seed = Annotated[int, typer.Option(help="Of the search for a better packing.")]
FleetFor = Annotated[
    bool, typer.Option("--fleet-for", help="The other question: the cheapest set of GPUs that holds these models.")
]
Prices = Annotated[
    Path | None, typer.Option("--prices", help="With --fleet-for: the price list of nodes.", show_default=False)
]
Form = Annotated[
    Output,
    typer.Option("--output", "-o", help="A picture with tables, a table, markdown for a comment, or for scripts."),
]


def plan(
    paths: Paths = None,
    fleet: FleetFile = None,
    kubeconfig: Kubeconfig = None,
    operator_namespace: OperatorNamespace = "vrampack-system",
    namespace: Namespace = "default",
    endpoint: Endpoint = None,
    refine: Refine = 5,
    seed: Seed = 0,
    fleet_for: FleetFor = False,
    prices: Prices = None,
    output: Form = Output.PICTURE,
) -> None:
    """Say what the operator would do with these manifests: placements, what would wait and why, what would move.

    It is the operator's own code that plans, so the answer is what then happens. Nothing is written anywhere.

    Exit status: 0 all of it fits, 2 it does not, 1 the question can't be answered.
    """
    if fleet_for != (prices is not None):
        raise typer.BadParameter("--fleet-for and --prices go together")
    if fleet_for and (fleet is not None or kubeconfig is not None):
        raise typer.BadParameter("--fleet-for asks for a fleet: leave --fleet and --kubeconfig out")
    from vrampack.cli.estimate import read_facts
    from vrampack.cli.plansubject import check_classes, planned, read_manifests
    from vrampack.models.facts import ModelFacts

    def read(source: str, revision: str | None) -> ModelFacts:
        return read_facts(source, revision=revision, endpoint=endpoint)

    manifests = read_manifests(paths or [Path("-")], namespace=namespace)
    if prices is not None:
        from vrampack.cli.fleetfor import answer

        raise typer.Exit(answer(manifests, prices, read=read, seconds=refine, output=output))
    base, classes = _on_paper(fleet) if fleet is not None else _live(kubeconfig, operator_namespace)
    classes = {**classes, **manifests.classes}
    check_classes(manifests, classes)
    snapshot = planned(base, manifests, read=read)
    with _working("planning …"):
        found = _rehearsed(snapshot, manifests_namespaces(snapshot), classes)
    from vrampack.cli.planview import plan_view

    bounds = _bounds(found, seconds=refine, seed=seed)
    view = plan_view(
        base, found, asked=[each.key for each in manifests.models], ignored=manifests.ignored, bounds=bounds
    )
    show(view, output)
    if not view.fits:
        raise typer.Exit(DOES_NOT_FIT)


def show(view: "PlanView", output: Output) -> None:
    """Prints it."""
    from vrampack.cli.estimate import Output as Structured
    from vrampack.cli.estimate import echo_structured
    from vrampack.cli.planview import to_json

    match output:
        case Output.JSON | Output.YAML:
            echo_structured(to_json(view), Structured(output.value))
        case Output.MARKDOWN:
            from vrampack.cli.planmarkdown import to_markdown

            typer.echo(to_markdown(view), nl=False)
        case _:
            from rich.console import Console

            from vrampack.cli.planpicture import render_plan

            console = Console()
            console.print(render_plan(view, width=console.width, picture=output is Output.PICTURE))


def manifests_namespaces(snapshot: "Snapshot") -> frozenset[str]:
    """Where Secrets with hub tokens count as readable: which the operator may read is the chart's business."""
    return frozenset(model.namespace for model in snapshot.models)


def _rehearsed(snapshot: "Snapshot", namespaces: frozenset[str], classes: "dict[str, Priority]") -> "Rehearsal":
    from vrampack.planning.rehearsal import rehearse
    from vrampack.planning.verdict import Settings

    return rehearse(snapshot, Settings(hub_token_namespaces=namespaces), priorities=classes)


def _on_paper(fleet: Path) -> "tuple[Snapshot, dict[str, Priority]]":
    from vrampack.agent.fleet import parse_fleet
    from vrampack.cli.plansubject import SYSTEM_CLASSES, fleet_snapshot
    from vrampack.errors import InvalidInputError

    try:
        text = fleet.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(field="--fleet", value=str(fleet), allowed=f"it can't be read: {error}") from error
    return fleet_snapshot(parse_fleet(text), now=time.time()), dict(SYSTEM_CLASSES)


def _live(kubeconfig: Path | None, namespace: str) -> "tuple[Snapshot, dict[str, Priority]]":
    from vrampack.cli.livesnapshot import live_snapshot
    from vrampack.cli.plansubject import priority_classes

    snapshot, classes = asyncio.run(live_snapshot(kubeconfig, namespace=namespace))
    return snapshot, priority_classes(classes)


def _bounds(found: "Rehearsal", *, seconds: float, seed: int) -> "list[BoundRow]":
    """How good the packing of each pool is. Ctrl-C ends the search, and what is known by then is told."""
    if not seconds:
        return []
    from vrampack.cli.planbound import searches

    rows: list[BoundRow] = []
    with suppress(KeyboardInterrupt), _working("looking for a better packing, Ctrl-C ends it …") as told:
        for number, best in searches(found, seed=seed, until=time.monotonic() + seconds, clock=time.monotonic):
            rows[number:] = [best]
            told.update(f"pool {best.pool}: {best.words}; Ctrl-C ends the search …")
    return rows


@contextmanager
def _working(words: str) -> Iterator[Any]:
    from rich.console import Console

    with Console(stderr=True).status(words) as status:
        yield status
