"""A plan in the terminal: the fleet as it would be, and tables of what changes."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vrampack.cli.fleetmap import render_map
from vrampack.cli.planview import PlanView, replicas_by_model
from vrampack.units import counted, human_bytes

_AT_REST = ("AllReplicasReady", "ScaledToZero")
_COLUMNS = (("model", "left"), ("replicas", "right"), ("node", "left"), ("GPUs", "left"), ("each", "right"))
_LINES = 40
"""Rows of a table; more are counted."""


def render_plan(view: PlanView, *, width: int, picture: bool) -> RenderableType:
    """``width``: columns. ``picture``: the fleet is drawn, too."""
    return Group(*_parts(view, width=width, picture=picture))


def _parts(view: PlanView, *, width: int, picture: bool) -> Iterator[RenderableType]:
    if picture and view.fleet.nodes:
        yield render_map(view.fleet, width=width)
        yield Text("")
    if any(row.new for row in view.placements):
        yield from (_placements(view), Text(""))
    for row in view.waiting:
        line = Text(f"waits: {row.replicas} of {row.model}: {row.reason}", style="yellow")
        yield line
        yield Text(f"  {row.message}")
        if row.would_fit_if:
            yield Text(f"  would fit if: {' or '.join(row.would_fit_if)}")
    for leaving in view.leaving[:_LINES]:
        yield Text(
            f"loses its place: {leaving.model} (pod {leaving.pod} on {leaving.node}): {leaving.why} {leaving.message}",
            style="yellow",
        )
    if len(view.leaving) > _LINES:
        yield Text(f"and {len(view.leaving) - _LINES} more lose their place", style="yellow")
    for model in view.models:
        if (
            model.asked
            and model.status not in ("AllReplicasReady", "ScaledToZero")
            and not _explained(model.model, view)
        ):
            yield Text(f"{model.model}: {model.status}: {model.message}", style="yellow")
    yield from _summary(view)


def _explained(model: str, view: PlanView) -> bool:
    return any(row.model == model for row in view.waiting)


def _placements(view: PlanView) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, justify in (
        ("model", "left"),
        ("replicas", "right"),
        ("node", "left"),
        ("GPUs", "left"),
        ("each", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("why", overflow="fold")
    first = {(row.model, row.node, row.gpus): row for row in reversed(view.placements) if row.new}
    counts = replicas_by_model([row for row in view.placements if row.new])
    for number, ((model, node, gpus, _), count) in enumerate(sorted(counts.items())):
        if number == _LINES:
            table.add_row(f"and {len(counts) - _LINES} more", "", "", "", "", "")
            break
        row = first[model, node, gpus]
        table.add_row(
            Text(model),
            str(count),
            node,
            ", ".join(map(str, gpus)),
            human_bytes(row.bytes),
            Text(row.because, style="dim"),
        )
    return table


def _summary(view: PlanView) -> Iterator[RenderableType]:
    saving = view.saving
    yield Text(
        f"{counted(saving.gpus, 'GPU')} of {saving.fleet} in use, {saving.gpus_before} before; one model a GPU would "
        f"take {saving.gpus_without_sharing}: {saving.gpus_without_sharing - saving.gpus} saved"
    )
    for bound in view.bounds:
        yield Text(f"pool {bound.pool}: {bound.words}")
    if view.ignored:
        kinds = ", ".join(f"{count} {kind}" for kind, count in view.ignored.items())
        yield Text(f"left out: {kinds}", style="dim")
    if not view.settled:
        yield Text("the plan did not come to rest: what is shown is how far it came", style="bold red")
    yield Text("it fits" if view.fits else "it does not fit", style="bold green" if view.fits else "bold red")
