"""A plan as a comment on a pull request."""

from collections.abc import Iterable, Iterator, Sequence

from vrampack.cli.planview import PlanView, replicas_by_model
from vrampack.units import counted, human_bytes

_MOST_ROWS = 60
"""A comment has its limits; what is left out is counted."""


def to_markdown(view: PlanView) -> str:
    """GitHub's and GitLab's dialect."""
    return "\n".join(_lines(view)) + "\n"


def _lines(view: PlanView) -> Iterator[str]:
    yield f"### vrampack plan: {'it fits ✅' if view.fits else 'it does not fit ❌'}"
    yield ""
    saving = view.saving
    yield (
        f"{counted(saving.gpus, 'GPU')} of {saving.fleet} in use (before: {saving.gpus_before}); "
        f"one model a GPU would take {saving.gpus_without_sharing}: "
        f"{saving.gpus_without_sharing - saving.gpus} saved."
    )
    for bound in view.bounds:
        yield f"Pool `{bound.pool}`: {_cell(bound.words)}."
    if waiting := view.waiting:
        yield "\n**Would wait**\n"
        yield from _table(
            ("model", "replicas", "reason", "would fit if"),
            [
                (
                    f"`{row.model}`",
                    str(row.replicas),
                    f"{row.reason}: {row.message}",
                    "<br>".join(row.would_fit_if) or "-",
                )
                for row in waiting
            ],
        )
    if view.leaving:
        yield "\n**Would lose their place**\n"
        yield from _table(
            ("model", "pod", "node", "why"),
            [(f"`{row.model}`", row.pod, row.node, f"{row.why} {row.message}") for row in view.leaving],
        )
    new = replicas_by_model([row for row in view.placements if row.new])
    size = {row.model: row.bytes for row in view.placements}
    if new:
        yield "\n<details><summary>Placements</summary>\n"
        yield from _table(
            ("model", "replicas", "node", "GPUs", "each"),
            [
                (f"`{model}`", str(count), node, ", ".join(map(str, gpus)), human_bytes(size[model]))
                for (model, node, gpus, _), count in sorted(new.items())
            ],
        )
        yield "\n</details>"
    if view.ignored:
        kinds = ", ".join(f"{count} {kind}" for kind, count in view.ignored.items())
        yield f"\nLeft out: {kinds}."


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield _row(heading)
    yield _row(["---"] * len(heading))
    yield from (_row(map(_cell, row)) for row in rows[:_MOST_ROWS])
    if len(rows) > _MOST_ROWS:
        yield f"\nand {len(rows) - _MOST_ROWS} more"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
