"""``vrampack explain NAME``: why replicas wait, what would help, and why the others are where they are."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vrampack.planning.explaining import Explanation, IsOn, WaitsFor

Name = Annotated[str, typer.Argument(metavar="NAME", help="A ModelDeployment.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="How to reach the cluster. Without it: as kubectl does.")]
OperatorNamespace = Annotated[str, typer.Option(help="Where the operator and the Leases of the agents are.")]


class Output(StrEnum):
    """What is printed."""

    TEXT = "text"
    JSON = "json"


Form = Annotated[Output, typer.Option("--output", "-o", help="For people, or memory in bytes for scripts.")]


def explain(
    name: Name,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    operator_namespace: OperatorNamespace = "vrampack-system",
    output: Form = Output.TEXT,
) -> None:
    """Explain a ModelDeployment: GPUs by the first thing that rules them out, the closest one, what would make room."""
    from vrampack.cli.livesnapshot import live_snapshot
    from vrampack.planning.explaining import explain as explained
    from vrampack.planning.verdict import Settings

    snapshot, _ = asyncio.run(live_snapshot(kubeconfig, namespace=operator_namespace))
    settings = Settings(hub_token_namespaces=frozenset({namespace}))
    found = explained(snapshot, settings, namespace=namespace, name=name)
    if output is Output.JSON:
        typer.echo(json.dumps(to_json(found), indent=2))
    else:
        for line in lines(found):
            typer.echo(line)


def to_json(found: "Explanation") -> dict[str, object]:
    """Memory in bytes."""
    from vrampack.cli.planview import camel

    told = asdict(found)
    for waits, entry in zip(found.waiting, told["waiting"], strict=True):
        entry["ruled_out"] = {
            reason: {"gpus": count, "meaning": meaning} for reason, (count, meaning) in waits.ruled_out.items()
        }
    answer: dict[str, object] = camel(told)
    return answer


def lines(found: "Explanation") -> Iterator[str]:
    """For people."""
    status = f" ({found.status})" if found.status else ""
    yield f"{found.model}: {found.ready} of {found.replicas} replicas are ready{status}"
    if found.problem:
        yield f"  {found.problem}"
    if found.estimate:
        yield f"  each needs {found.estimate}"
    for waits in found.waiting:
        yield ""
        yield from _waiting(waits)
    for placed in found.placements:
        yield ""
        yield from _placed(placed)


def _waiting(waits: "WaitsFor") -> Iterator[str]:
    from vrampack.units import counted, each_of, human_bytes

    more = f" and {len(waits.pods) - 1} more" if len(waits.pods) > 1 else ""
    yield f"{waits.pods[0]}{more} waits: {waits.reason}"
    if waits.message:
        yield f"  {waits.message}"
    if waits.bytes:
        yield f"  needs {human_bytes(waits.bytes)} on {each_of(waits.gpus, 'GPU')}"
    for reason, (count, meaning) in sorted(waits.ruled_out.items(), key=lambda each: (-each[1][0], each[0])):
        yield f"  {counted(count, 'GPU')} ruled out: {meaning} ({reason})"
    if (near := waits.closest) is not None:
        yield (
            f"  closest: GPU {near.gpu} of {near.node} with {human_bytes(near.free)} free, "
            f"{human_bytes(near.short)} short"
        )
    if waits.moves:
        yield f"  room by moves: {waits.moves}"
    if waits.evictions:
        yield f"  room by eviction: {waits.evictions}"
    yield from (f"  would fit if: {change}" for change in waits.would_fit_if)


def _placed(placed: "IsOn") -> Iterator[str]:
    from vrampack.units import human_bytes

    gpus = ", ".join(map(str, placed.gpus))
    state = "ready" if placed.ready else "not ready"
    yield f"{placed.pod} has {human_bytes(placed.bytes)} on GPU {gpus} of {placed.node}, and is {state}"
    if placed.because:
        yield f"  why there: {placed.because}"
    if placed.beside:
        yield f"  beside {', '.join(placed.beside)}"
