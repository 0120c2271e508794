"""``vrampack calibrate``: what an engine really used, so that the next estimate is measured."""

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrampack.cli.estimate import BAD_INPUT, Endpoint, Output, echo_structured, read_facts

if TYPE_CHECKING:
    from vrampack.api.modelprofile import Measurement
    from vrampack.cli.calibration import Known
    from vrampack.cli.estimatesubject import Subject
    from vrampack.memory.calibration import Observation
    from vrampack.models.enginelogs import Start

Logs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[LOGFILE]…",
        help="Start-up logs of vLLM, SGLang or llama.cpp; one may hold several starts. -: from stdin.",
    ),
]
Command = Annotated[
    Path | None,
    typer.Option(
        "--command", metavar="MANIFEST", help="Print the start to run for this ModelDeployment, and nothing else."
    ),
]
File = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="The ModelDeployment that was run: it says what the logs leave out."),
]
Profile = Annotated[
    str,
    typer.Option(help="Name of the ModelProfile. Left out: that of the manifest's model.", show_default=False),
]
Product = Annotated[str, typer.Option("--gpu-product", help="As in the node label nvidia.com/gpu.product.")]
Version = Annotated[str, typer.Option("--engine-version", help="Where neither log nor manifest says it.")]
Sequences = Annotated[int | None, typer.Option("--max-sequences", help="The engine's limit of sequences.", min=1)]
Batched = Annotated[int | None, typer.Option("--max-batched-tokens", help="Of one forward pass.", min=1)]
Context = Annotated[int | None, typer.Option("--context-length", help="Of one sequence.", min=1)]
KVCache = Annotated[str, typer.Option("--kv-cache", help="Precision of the KV cache: bf16, fp8, …")]
Apply = Annotated[bool, typer.Option("--apply", help="Write them into the cluster's ModelProfile, beside its others.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="How to reach the cluster. Without it: as kubectl does.")]
Form = Annotated[Output, typer.Option("--output", "-o", help="yaml or json.")]


def calibrate(
    logs: Logs = None,
    command: Command = None,
    file: File = None,
    profile: Profile = "",
    gpu_product: Product = "",
    engine_version: Version = "",
    max_sequences: Sequences = None,
    max_batched_tokens: Batched = None,
    context_length: Context = None,
    kv_cache: KVCache = "",
    apply: Apply = False,
    kubeconfig: Kubeconfig = None,
    endpoint: Endpoint = None,
    output: Form = Output.YAML,
) -> None:
    """Turn start-up logs into measurements of a ModelProfile, or print the start that writes such a log.

    What is printed goes to `kubectl apply --server-side --subresource=status --force-conflicts -f -`, which replaces
    all measurements of the profile; --apply keeps the others. Exit status: 0, 2 where the question is wrong, 1 where
    the cluster refuses.
    """
    from vrampack.cli.estimateview import StalledError
    from vrampack.errors import InvalidInputError, UnsupportedModelError

    if bool(logs) == (command is not None):
        raise typer.BadParameter("give either LOGFILEs, or --command with the manifest of what is to be run")
    if output is Output.TABLE:
        raise typer.BadParameter("measurements are printed as yaml or json")
    from vrampack.cli.calibration import Known
    from vrampack.planning.measurements import MAX_MEASUREMENTS

    known = Known(
        version=engine_version,
        product=gpu_product,
        max_sequences=max_sequences,
        max_batched_tokens=max_batched_tokens,
        context_length=context_length,
        kv_cache=kv_cache,
    )
    try:
        if command is not None:
            _print_command(command, endpoint)
            return
        subject = _subject(file, endpoint) if file is not None else None
        found = _measurements(logs or [], known, subject)
        if len(found) > MAX_MEASUREMENTS:
            allowed = f"at most {MAX_MEASUREMENTS} ways to run an engine: a ModelProfile holds no more"
            raise InvalidInputError(field="LOGFILE", value=len(found), allowed=allowed)
        name = profile or (subject.profile.name if subject is not None and subject.profile is not None else "")
        if not name:
            raise InvalidInputError(field="--profile", value=None, allowed="name the ModelProfile, or give --file")
    except (InvalidInputError, UnsupportedModelError, StalledError) as error:
        typer.echo(f"vrampack: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from error
    if apply:
        asyncio.run(_apply(name, found, kubeconfig))
        return
    from vrampack.cli.calibration import patch

    echo_structured(patch(name, found), output)


def _print_command(manifest: Path, endpoint: str | None) -> None:
    from vrampack.cli.calibration import command

    start = command(_subject(manifest, endpoint))
    typer.echo("# On an idle GPU of the product that it is to be served on. Stop it when it answers; then:")
    typer.echo(f"#   vrampack calibrate start.log -f {manifest} --gpu-product PRODUCT --apply")
    typer.echo(start)


def _subject(manifest: Path, endpoint: str | None) -> "Subject":
    from vrampack.cli.estimatesubject import subjects_of_files
    from vrampack.errors import InvalidInputError

    found = subjects_of_files(
        [manifest],
        overrides={},
        read=lambda source, revision, one: read_facts(source, file=one, revision=revision, endpoint=endpoint),
    )
    if len(found) != 1:
        raise InvalidInputError(
            field="--file", value=str(manifest), allowed="one ModelDeployment: the one that was run"
        )
    return found[0]


def _measurements(logs: list[Path], known: "Known", subject: "Subject | None") -> "list[Measurement]":
    from vrampack.cli.calibration import observation, observations, recorded
    from vrampack.models.enginelogs import read_starts, read_stream
    from vrampack.models.llamacpplogs import LLAMACPP
    from vrampack.models.sglanglogs import SGLANG
    from vrampack.models.vllmlogs import VLLM

    dialects = (VLLM, SGLANG, LLAMACPP)
    starts: list[Start] = []
    for path in logs:
        if str(path) == "-":
            starts += read_stream(sys.stdin.buffer, name="stdin", dialects=dialects)
        else:
            starts += read_starts(path, dialects=dialects)
    starts = _usable(starts)
    found = observations(observation(start, known=known, subject=subject) for start in starts)
    for each in found:
        _say(each)
    now = time.time()
    return [recorded(each, at=now) for each in found]


def _usable(starts: "list[Start]") -> "list[Start]":
    """Those with a figure that counts. What does not count is said with its reason, never taken for nothing.

    Raises InvalidInputError where there is none.
    """
    from vrampack.errors import InvalidInputError
    from vrampack.models.enginelogs import figures

    reasons = dict.fromkeys(
        f"{term.replace('_', ' ')}: {why}" for start in starts for term, why in start.unusable.items()
    )
    found = [start for start in starts if figures(start)]
    if not found:
        words = "; ".join(reasons) or "what was in use before the engine began says nothing of it"
        raise InvalidInputError(field="LOGFILE", value=None, allowed=f"no figure in it can be used ({words})")
    for reason in reasons:
        typer.echo(f"vrampack: left out: {reason}", err=True)
    return found


def _say(found: "Observation") -> None:
    """What was not printed, or does not count, stays computed: whoever calibrates should know."""
    from vrampack.planning.measurements import TERMS
    from vrampack.units import counted

    absent = [term.replace("_", " ") for term in TERMS if getattr(found, term) is None]
    words = f"{found.setup.engine} {found.setup.version} on {found.setup.product}: {counted(found.samples, 'start')}"
    typer.echo(f"vrampack: {words}" + (f"; not measured: {', '.join(absent)}" if absent else ""), err=True)


async def _apply(name: str, found: "list[Measurement]", kubeconfig: Path | None) -> None:
    from vrampack.api.modelprofile import ModelProfileStatus
    from vrampack.api.names import API_VERSION
    from vrampack.cli.calibration import joined, patch
    from vrampack.kube.client import Kube

    path = f"/apis/{API_VERSION}/modelprofiles/{name}"
    kube = await Kube.connect(None if kubeconfig is None else str(kubeconfig))
    try:
        there = await kube.get(path)
        before = ModelProfileStatus.model_validate(there.get("status") or {}).measurements
        body = patch(name, joined(before, found))
        body["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]  # somebody else may measure too
        await kube.apply(f"{path}/status", body, field_manager="vrampack-calibrate")
    finally:
        await kube.close()
    typer.echo(f"modelprofile/{name}: {len(body['status']['measurements'])} measurements")
