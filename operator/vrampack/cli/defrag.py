"""``vrampack defrag``: moves that would close GPUs or make room, and on request the moves themselves."""

import asyncio
import json
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from vrampack.api.gpupool import SuggestedMove
    from vrampack.kube.client import Kube
    from vrampack.planning.defragment import Advice

_GROUP: Final = "/apis/vrampack.dev/v1alpha1"
_MANAGER: Final = "vrampack-defrag"
_APPLY: Final = f"kubectl apply --server-side --field-manager={_MANAGER} -f -"
_POLL_SECONDS: Final = 1.0
_STOPPED: Final = 2

Kubeconfig = Annotated[Path | None, typer.Option(help="How to reach the cluster. Without it: as kubectl does.")]
OperatorNamespace = Annotated[str, typer.Option(help="Where the operator and the Leases of the agents are.")]
Pool = Annotated[str | None, typer.Option(help="Only this GPUPool.", show_default=False)]
Apply = Annotated[
    bool, typer.Option("--apply", help="Make the moves, one after another, and stop at the first that fails.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="With --apply: don't ask.")]
Patience = Annotated[float, typer.Option(help="With --apply: seconds until a moved replica must be ready.", min=1)]


class Output(StrEnum):
    """What is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Form = Annotated[Output, typer.Option("--output", "-o", help="A table with the commands, or for scripts.")]


def defrag(
    kubeconfig: Kubeconfig = None,
    operator_namespace: OperatorNamespace = "vrampack-system",
    pool: Pool = None,
    apply: Apply = False,
    yes: Yes = False,
    patience: Patience = 1800,
    output: Form = Output.TABLE,
) -> None:
    """List moves of running replicas, each with what it gains and what it costs, and how well each pool is packed;
    --apply makes the moves.

    A replica is moved by eviction, so disruption budgets hold. The GPUs that it leaves are cordoned meanwhile, so that
    it does not come back to them. A pool whose moves.mode is Evict does all this by itself, and better: there the new
    replica is ready before the old one goes.

    Exit status: 0, or 2 where --apply stopped before the end.
    """
    if apply and output is not Output.TABLE:
        raise typer.BadParameter("--apply makes the moves and tells of each: leave --output out")
    advice = _found(kubeconfig, operator_namespace, pool)
    moves = _moves(advice)
    if output is Output.TABLE:
        _show(advice)
    else:
        from vrampack.cli.estimate import Output as Structured
        from vrampack.cli.estimate import echo_structured

        pools = [{"pool": name, "packing": each.packing} for name, each in advice.items()]
        echo_structured({"moves": [each.wire() for each in moves], "pools": pools}, Structured(output.value))
    if apply and moves:
        if not yes:
            typer.confirm(f"Evict {len(moves)} replicas, one after another?", abort=True)
        for _ in range(len(moves)):
            if not asyncio.run(_apply(kubeconfig, moves[0], patience=patience)):
                raise typer.Exit(_STOPPED)
            moves = _moves(_found(kubeconfig, operator_namespace, pool))  # each is found anew for what is there then
            if not moves:
                return


def _moves(advice: "Mapping[str, Advice]") -> "list[SuggestedMove]":
    return [move for each in advice.values() for move in each.moves]


def _found(kubeconfig: Path | None, operator_namespace: str, pool: str | None) -> "Mapping[str, Advice]":
    from vrampack.cli.livesnapshot import live_snapshot
    from vrampack.errors import InvalidInputError
    from vrampack.planning.defragment import suggestions

    snapshot, _ = asyncio.run(live_snapshot(kubeconfig, namespace=operator_namespace))
    known = [each.name for each in snapshot.pools]
    if pool is not None and pool not in known:
        raise InvalidInputError(field="--pool", value=pool, allowed=f"it is one of {', '.join(known)}")
    return {name: each for name, each in suggestions(snapshot).items() if pool in (None, name)}


def _show(advice: "Mapping[str, Advice]") -> None:
    from rich.console import Console
    from rich.table import Table

    for line in packing_lines(advice):
        typer.echo(line)
    moves = _moves(advice)
    if not moves:
        typer.echo("nothing would be gained by a move")
        return
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("replica", "from", "to", "gain", "cost", "for"):
        table.add_column(name, overflow="fold")
    for each in moves:
        table.add_row(
            f"{each.namespace}/{each.pod}", each.from_node, each.to_node, str(each.gain), str(each.cost), each.because
        )
    console.print(table)
    console.print("\nvrampack defrag --apply makes these moves. By hand, for each of them:", style="dim")
    for line in commands(moves[0]):
        typer.echo(f"  {line}")


def packing_lines(advice: "Mapping[str, Advice]") -> list[str]:
    """How well each pool is packed, and where else that stands."""
    lines = []
    for name, each in advice.items():
        if each.packing:
            lines.append(f"pool {name}: {each.packing}")
            if not each.exists:
                lines.append(f"  create a GPUPool {name}, and its status says so all the time")
    return lines


def commands(move: "SuggestedMove") -> list[str]:
    """How to make a move with kubectl: no new claim on the GPUs that it leaves, an eviction, and the GPUs back."""
    names = {"name": move.pod, "namespace": move.namespace}
    eviction = _compact({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": names})
    path = f"/api/v1/namespaces/{move.namespace}/pods/{move.pod}/eviction"
    return [
        f"echo '{_compact(_cordon(move, cordoned=True))}' | {_APPLY}",
        f"echo '{eviction}' | kubectl create --raw {path} -f -",
        f"kubectl wait --for=condition=Ready mdep --all -n {move.namespace} --timeout=30m",
        f"echo '{_compact(_cordon(move, cordoned=False))}' | {_APPLY}",
    ]


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _cordon(move: "SuggestedMove", *, cordoned: bool) -> dict[str, Any]:
    """A GPUNode with what is to be said of these GPUs; nothing, so that what was said before goes again."""
    gpus = [{"uuid": uuid, "cordoned": True} for uuid in move.from_gpus] if cordoned else []
    return {
        "apiVersion": "vrampack.dev/v1alpha1",
        "kind": "GPUNode",
        "metadata": {"name": move.from_node},
        "spec": {"gpus": gpus} if gpus else {},
    }


async def _apply(kubeconfig: Path | None, move: "SuggestedMove", *, patience: float) -> bool:
    """Whether it was made."""
    from vrampack.errors import ClusterError
    from vrampack.kube.client import Kube

    kube = await Kube.connect(None if kubeconfig is None else str(kubeconfig))
    path = f"{_GROUP}/gpunodes/{move.from_node}"
    try:
        await kube.apply(path, _cordon(move, cordoned=True), field_manager=_MANAGER)
        try:
            where = await _moved(kube, move, patience=patience)
        except ClusterError as error:
            typer.echo(f"{move.namespace}/{move.pod} stays: {error}", err=True)
            return False
        finally:
            await kube.apply(path, _cordon(move, cordoned=False), field_manager=_MANAGER)
        if where is None:
            typer.echo(f"{move.namespace}/{move.pod} left; its model was not ready within {patience:.0f} s", err=True)
            return False
        typer.echo(f"{move.namespace}/{move.pod} moved to {where}")
        return True
    finally:
        await kube.close()


async def _moved(kube: "Kube", move: "SuggestedMove", *, patience: float) -> str | None:
    """Where its successor is, once the model is whole again; None where that takes too long."""
    from vrampack.api.names import MODEL_DEPLOYMENT

    pods = f"/api/v1/namespaces/{move.namespace}/pods"
    before = await kube.get(f"{pods}/{move.pod}")
    model = before["metadata"]["labels"][MODEL_DEPLOYMENT]
    own = {"labelSelector": f"{MODEL_DEPLOYMENT}={model}"}
    present = await kube.list(pods, **own)
    known = {pod["metadata"]["uid"] for pod in present}
    # One that waits for a place may go on waiting.
    wanted = sum(_ready(pod) and not pod["metadata"].get("deletionTimestamp") for pod in present)
    await kube.evict(f"{pods}/{move.pod}", uid=move.uid)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        there = [pod for pod in await kube.list(pods, **own) if not pod["metadata"].get("deletionTimestamp")]
        ready = [pod for pod in there if _ready(pod)]
        new = [pod for pod in ready if pod["metadata"]["uid"] not in known]
        if new and len(ready) >= wanted:
            return str(new[0]["spec"]["nodeName"])
        await asyncio.sleep(_POLL_SECONDS)
    return None


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
