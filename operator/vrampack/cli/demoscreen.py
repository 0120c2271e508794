"""What the demo says: the estimate of a model term by term, why one waits, what to try."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vrampack.cli.fleetmap import render_map
from vrampack.cli.fleetview import FleetView
from vrampack.units import human_bytes, parse_bytes

Object = Mapping[str, Any]

_TERMS: Final = (
    ("weights", "weights", "the checkpoint's tensors as the engine keeps them"),
    ("kvCache", "KV cache", ""),
    ("activations", "activations", "the largest forward pass"),
    ("cudaGraphs", "CUDA graphs", "captured for each batch size"),
    ("communication", "communication", "buffers between the GPUs of a replica"),
    ("runtimeContext", "runtime context", "CUDA itself, outside the engine's own budget"),
    ("allowance", "allowance", "how far graphs and libraries may be off"),
    ("headroom", "headroom", "kept free on top"),
)


class Screen:
    """The models as ``kubectl get mdep`` prints them, and the map: in place on a terminal, as changes elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="visible")
        self._shown = ""
        self._map: RenderableType = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._console.print(self._map, "", sep="\n")

    def show(self, table: str, view: FleetView) -> None:
        """``table``: what kubectl printed."""
        self._map = render_map(view, width=self._console.width)
        if self._console.is_terminal:
            text = Text(_narrowed(table, self._console.width), no_wrap=True, overflow="crop")
            self._live.update(Group(text, self._map, ""), refresh=True)
        elif (without_age := re.sub(r" +\S+ *$", "", table, flags=re.MULTILINE)) != self._shown:
            self._shown = without_age
            self._console.print(table, soft_wrap=True, markup=False)


def _narrowed(table: str, width: int) -> str:
    """Without the column MODEL where the table is wider than the terminal: a name says nearly as much."""
    lines = table.splitlines()
    if max(map(len, lines), default=0) <= width:
        return table
    first, last = lines[0].find("MODEL"), lines[0].find("PRECISION")
    return "\n".join(line[:first] + line[last:] for line in lines) + "\n"


def name_of(model: Object) -> str:
    """``namespace/name``."""
    return f"{model['metadata']['namespace']}/{model['metadata']['name']}"


def is_ready(model: Object) -> bool:
    """Ready as it stands now, not as it stood before the last change of its spec."""
    status = model.get("status", {})
    return status.get("observedGeneration") == model["metadata"]["generation"] and any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions", ())
    )


def has_answer(model: Object) -> bool:
    """Whether it is known why this model, which needs not be ready, is not."""
    status = model.get("status", {})
    return bool(status.get("waiting")) or any(
        condition["type"] == "Stalled" and condition["status"] == "True" for condition in status.get("conditions", ())
    )


def estimate(model: Object) -> RenderableType:
    """The terms of the model's estimate as a sum."""
    figures = model["status"]["estimate"]
    table = Table(
        title=f"{name_of(model)}: memory on each GPU",
        title_justify="left",
        title_style="bold",
        box=None,
        show_header=False,
    )
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("", style="dim")
    for key, label, why in _TERMS:
        table.add_row(label, _amount(figures.get(key, 0)), _kv_cache(model) if key == "kvCache" else why)
    table.add_row(
        "claim", _amount(figures["perGPU"]), "what a replica claims, and what its engine is told", style="bold"
    )
    return table


def _kv_cache(model: Object) -> str:
    serving = model["spec"]["serving"]
    tokens = serving.get("tokensPerSequence", serving["contextLength"])
    per_token = human_bytes(model["status"]["estimate"].get("kvBytesPerToken", 0))
    return f"{per_token} a token x {serving['concurrency']} sequences x {tokens} tokens, in whole blocks"


def _amount(quantity: str | int) -> str:
    return human_bytes(parse_bytes(quantity))


def waiting(model: Object) -> RenderableType:
    """Why the model's replicas have no GPU, with bytes, and what would change that."""
    return Group(Text(f"{name_of(model)} waits", style="bold"), *(Text(f"  {line}") for line in _reasons(model)))


def _reasons(model: Object) -> Iterator[str]:
    status = model.get("status", {})
    for entry in status.get("waiting", ()):
        yield entry.get("message") or entry["reason"]
        if changes := entry.get("wouldFitIf"):
            yield "it would fit with: " + "; or ".join(changes)
    if not status.get("waiting"):
        yield from (condition["message"] for condition in unmet(model))


def unmet(model: Object) -> list[Object]:
    """The conditions that say why the model is not ready."""
    wanted = {"Ready": "False", "Stalled": "True"}
    conditions = model.get("status", {}).get("conditions", ())
    return [condition for condition in conditions if wanted.get(condition["type"]) == condition["status"]]


def not_ready(models: Iterable[Object]) -> Iterator[str]:
    """A line for each model that should be ready and is not."""
    for model in models:
        reasons = "; ".join(f"{condition['reason']}: {condition['message']}" for condition in unmet(model))
        yield f"{name_of(model)} is not Ready: {reasons or 'the operator has not looked at it yet'}"


def what_to_try(*, kubeconfig: Path, tools: Sequence[Path], fleet: Path, metrics_port: int) -> Iterator[str]:
    """The lines that the demo leaves on the screen. ``tools``: folders of commands that are not on the PATH."""
    commands = (
        ("all models", "kubectl get mdep -A -o wide"),
        ("why it waits", "kubectl describe mdep -n research qwen3-32b"),
        ("no room for a second one, and it says so", "kubectl scale mdep -n edge qwen3-8b-fp8 --replicas=2"),
        ("gives its share of the H100 back", "kubectl scale mdep -n chat mistral-7b --replicas=0"),
        ("what every field means", "kubectl explain modeldeployment.spec.serving"),
        ("the fleet, as it changes", "vrampack map --watch"),
        ("delete its `foreign` lines, and qwen3-32b starts", f"$EDITOR {fleet}"),
        ("what Prometheus reads", f"curl http://127.0.0.1:{metrics_port}/metrics"),
    )
    yield "Try it, in another terminal:"
    yield f"  export KUBECONFIG={kubeconfig}"
    if tools:
        yield f"  export PATH={':'.join(map(str, tools))}:$PATH"
    width = max(len(command) for _, command in commands)
    for words, command in commands:
        yield f"  {command:<{width}}  # {words}"
