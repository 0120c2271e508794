"""``vrampack demo``: real models on a simulated fleet, in a real Kubernetes on this machine."""

import asyncio
import contextlib
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrampack.localcluster import check_installed

if TYPE_CHECKING:
    from rich.console import Console

    from vrampack.cli.demoworld import World

_POLL_SECONDS = 0.5
_MODELS = "/apis/vrampack.dev/v1alpha1/modeldeployments"
_LABEL = ("demo", "fits")
_SHOWN = "chat/qwen3-8b"  # whose estimate is shown term by term

Exit = Annotated[bool, typer.Option("--exit", help="End when all is ready that should be; status 1 unless it is.")]
Patience = Annotated[
    float, typer.Option(help="With --exit: seconds from the first manifest until all is ready.", min=1)
]
Agents = Annotated[
    bool,
    typer.Option(
        "--agents",
        help="A real agent for each node over a stand-in of NVIDIA's driver, instead of a simulated one for all. Needs "
        "a C compiler.",
    ),
]


def demo(exit_: Exit = False, patience: Patience = 120, agents: Agents = False) -> None:
    """Pack real models onto a simulated fleet, in a real Kubernetes on this machine: no GPU, no Docker."""
    check_installed()
    with contextlib.suppress(KeyboardInterrupt):
        raise typer.Exit(asyncio.run(_demo(patience if exit_ else None, agents=agents)))
    raise typer.Exit(130 if exit_ else 0)  # Ctrl-C ends a demo that stays up, and proves nothing with --exit


async def _demo(patience: float | None, *, agents: bool) -> int:
    """The exit status. ``patience`` None: stays up until Ctrl-C."""
    from rich.console import Console

    from vrampack.cli import demoscreen
    from vrampack.cli.demoworld import demo_world
    from vrampack.localcluster import bundle
    from vrampack.localcluster.assets import ensure_assets
    from vrampack.localcluster.process import tail
    from vrampack.localcluster.progress import progress_on

    console = Console(highlight=False)
    assets = ensure_assets(progress=progress_on(console))
    began = time.monotonic()

    def say(what: str) -> None:
        console.print(f"[green]✓[/] {time.monotonic() - began:4.1f} s  {what}", soft_wrap=True)

    async with demo_world(assets, agents=agents, say=say) as world:
        await world.cluster.kubectl("apply", "-f", str(bundle.examples()))
        say(f"kubectl apply -f {bundle.examples()}\n")
        models = await world.unless_dead(_settle(world, console, patience))
        wanted, others = _sorted(models)
        if left := [model for model in wanted if not demoscreen.is_ready(model)]:
            console.print(*demoscreen.not_ready(left), sep="\n", markup=False, soft_wrap=True)
            console.print(f"\nThe end of the operator's log:\n{tail(world.operator_log)}", markup=False, soft_wrap=True)
            return 1
        say("all that fits is Ready")
        for model in (model for model in models if demoscreen.name_of(model) == _SHOWN):
            console.print("", demoscreen.estimate(model), sep="\n")
        for model in (model for model in others if not demoscreen.is_ready(model)):
            console.print("", demoscreen.waiting(model), sep="\n")
        if patience is None:
            lines = demoscreen.what_to_try(
                kubeconfig=world.cluster.kubeconfig,
                tools=_off_path(assets.kubectl, Path(sys.executable).with_name("vrampack")),
                fleet=world.fleet,
                metrics_port=world.metrics_port,
            )
            console.print("", *lines, "", sep="\n", soft_wrap=True, markup=False)
            console.print("Ctrl-C ends it all.")
            await world.unless_dead(asyncio.Event().wait())
        return 0


def _off_path(*tools: Path) -> list[Path]:
    """The folders of the commands that a shell would not find, each once."""
    return list(dict.fromkeys(tool.parent for tool in tools if shutil.which(tool.name) is None))


async def _settle(world: "World", console: "Console", patience: float | None) -> list[dict[str, Any]]:
    """Shows the models as they change, until each is ready or says why not, or until ``patience`` is over."""
    from vrampack.cli import demoscreen
    from vrampack.cli.map import read_fleet

    deadline = time.monotonic() + (patience or float("inf"))
    with demoscreen.Screen(console) as screen:
        while True:
            models = await world.kube.list(_MODELS)
            table = await world.cluster.kubectl("get", "mdep", "-A")
            screen.show(table.stdout, await read_fleet(world.kube))
            wanted, others = _sorted(models)
            settled = all(map(demoscreen.is_ready, wanted)) and all(map(demoscreen.has_answer, others))
            if settled or time.monotonic() > deadline:
                return models
            await asyncio.sleep(_POLL_SECONDS)


def _sorted(models: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Those that should be ready, and the others."""
    key, value = _LABEL
    wanted = [model for model in models if model["metadata"].get("labels", {}).get(key) == value]
    return wanted, [model for model in models if model not in wanted]
