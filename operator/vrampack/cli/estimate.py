"""``vrampack estimate``: how much of each GPU a model needs, before there is a cluster to ask."""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

if TYPE_CHECKING:
    from vrampack.cli.estimatesubject import Subject
    from vrampack.models.facts import ModelFacts

DOES_NOT_FIT: Final = 3
BAD_INPUT: Final = 2
DEFAULT_CONTEXT: Final = 8192
DEFAULT_CONCURRENCY: Final = 8

_Answer = TypeVar("_Answer")


class Output(StrEnum):
    """What is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="hf://ORG/NAME, a folder with config.json and *.safetensors, a GGUF file, or a config.json alone.",
        show_default=False,
    ),
]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        "-f",
        help="A manifest with ModelDeployments, instead of MODEL; ModelProfiles and GPUPools beside them count. "
        "- is what comes in. Repeatable.",
        show_default=False,
    ),
]
Gpus = Annotated[
    list[str] | None,
    typer.Option(
        "--gpu",
        "-g",
        help="A GPU product (L40S, or the node label nvidia.com/gpu.product) or the memory of one (24Gi). Repeatable. "
        "Left out: every product that is known.",
        show_default=False,
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        "--context-length",
        "-c",
        help=f"Tokens of the longest sequence. Left out: {DEFAULT_CONTEXT}, or the manifest's.",
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency", "-n", help=f"Sequences resident at once. Left out: {DEFAULT_CONCURRENCY}, or the manifest's."
    ),
]
Expected = Annotated[
    int | None,
    typer.Option("--tokens-per-sequence", help="Expected tokens of a resident sequence. Left out: the context length."),
]
Batched = Annotated[int | None, typer.Option("--max-batched-tokens", help="Tokens of one forward pass.")]
Tensor = Annotated[int | None, typer.Option("--tensor", "-t", help="GPUs that each layer is split over.")]
KVCache = Annotated[str | None, typer.Option("--kv-cache", help="Precision of the KV cache: Auto, bf16, fp16, fp8, …")]
Headroom = Annotated[str | None, typer.Option("--headroom", help="Share that is kept free on top, such as 3%.")]
Engine = Annotated[str | None, typer.Option("--engine", help="vllm, sglang, llamacpp or tgi.")]
EngineVersion = Annotated[str | None, typer.Option("--engine-version", help="Its version, such as 0.33.0.")]
Pipeline = Annotated[int | None, typer.Option("--pipeline", help="Stages that the layers are dealt out to.")]
Data = Annotated[int | None, typer.Option("--data", help="Data parallel ranks, each with a KV cache of its own.")]
Expert = Annotated[
    bool, typer.Option("--expert", help="Experts are dealt out to the GPUs instead of being split over them.")
]
ModelFile = Annotated[
    str, typer.Option("--model-file", help='A GGUF file of a repository that has several, such as "*Q4_K_M.gguf".')
]
NoGraphs = Annotated[bool, typer.Option("--no-cuda-graphs", help="The engine captures no CUDA graphs.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a model on the hub.")]
Endpoint = Annotated[
    str | None, typer.Option("--endpoint", envvar="HF_ENDPOINT", help="Address of the model hub.", show_default=False)
]
WhatIf = Annotated[
    bool, typer.Option("--what-if", help="For each GPU that is too small: the smallest changes that would fit on it.")
]
Form = Annotated[Output, typer.Option("--output", "-o", help="A table with bars, or memory in bytes for scripts.")]


def estimate(
    model: Model = None,
    file: Files = None,
    gpu: Gpus = None,
    context_length: Context = None,
    concurrency: Concurrency = None,
    tokens_per_sequence: Expected = None,
    max_batched_tokens: Batched = None,
    tensor: Tensor = None,
    pipeline: Pipeline = None,
    data: Data = None,
    expert: Expert = False,
    kv_cache: KVCache = None,
    headroom: Headroom = None,
    engine: Engine = None,
    engine_version: EngineVersion = None,
    no_cuda_graphs: NoGraphs = False,
    model_file: ModelFile = "",
    revision: Revision = None,
    endpoint: Endpoint = None,
    what_if: WhatIf = False,
    output: Form = Output.TABLE,
) -> None:
    """Say how much memory a model needs on each GPU, which GPUs have it, and how far it would go on them.

    Nothing is downloaded but configurations and the headers of weight files. An access token is taken from HF_TOKEN.
    Options are laid over every ModelDeployment of a file.

    Exit status: 0 it fits on at least one of the GPUs, 3 on none, 2 the question is wrong or the model is not known,
    1 the model can't be had.
    """
    if (model is None) == (not file):
        raise typer.BadParameter("give either MODEL or a manifest with -f")
    if file and revision is not None:
        raise typer.BadParameter("--revision is for MODEL: a manifest says it in spec.model.revision")
    from vrampack.cli.estimateview import StalledError, cards_of, to_json, view_of
    from vrampack.errors import InvalidInputError, UnsupportedModelError

    options = _spec_of_options(
        {
            "serving": {
                "contextLength": context_length,
                "concurrency": concurrency,
                "tokensPerSequence": tokens_per_sequence,
            },
            "engine": {
                "name": engine,
                "version": engine_version,
                "maxBatchedTokens": max_batched_tokens,
                "cudaGraphs": "Disabled" if no_cuda_graphs else None,
            },
            "parallelism": {"tensor": tensor, "pipeline": pipeline, "data": data, "expert": expert or None},
            "precision": {"kvCache": kv_cache},
            "memory": {"headroom": headroom},
        }
    )
    try:
        cards = cards_of(gpu or ())
        subjects = _subjects(model, file or [], options, model_file=model_file, revision=revision, endpoint=endpoint)
        views = [view_of(subject, cards, what_if=what_if) for subject in subjects]
    except (InvalidInputError, UnsupportedModelError, StalledError) as error:
        typer.echo(f"vrampack: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from error
    if output is Output.TABLE:
        from rich.console import Console

        from vrampack.cli.estimatepicture import render_estimates

        console = Console()
        console.print(render_estimates(views, width=console.width))
    else:
        echo_structured(to_json(views), output)
    if not all(view.fits for view in views):
        raise typer.Exit(DOES_NOT_FIT)


def echo_structured(value: dict[str, Any], output: Output) -> None:
    """JSON or YAML, for scripts."""
    if output is Output.JSON:
        typer.echo(json.dumps(value, indent=2))
        return
    import yaml

    # By way of JSON: YAML has words for tuples and enumerations that nobody reads.
    typer.echo(yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False, allow_unicode=True, width=120), nl=False)


def _spec_of_options(given: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Only what was said: the rest is the manifest's, or the API's default."""
    said = {
        part: {name: value for name, value in values.items() if value is not None} for part, values in given.items()
    }
    return {part: values for part, values in said.items() if values}


def _subjects(
    model: str | None,
    files: list[Path],
    options: dict[str, Any],
    *,
    model_file: str,
    revision: str | None,
    endpoint: str | None,
) -> "list[Subject]":
    from vrampack.cli.estimatesubject import subject_of_options, subjects_of_files
    from vrampack.engines.releases import RELEASES

    def read(source: str, wanted: str | None, file: str) -> "ModelFacts":
        return read_facts(source, file=file or model_file, revision=wanted, endpoint=endpoint)

    if model is None:
        return subjects_of_files(files, overrides=options, read=read)
    facts = read(model, revision, model_file)
    context = min(DEFAULT_CONTEXT, facts.architecture.max_context or DEFAULT_CONTEXT)
    serving = {"contextLength": context, "concurrency": DEFAULT_CONCURRENCY} | options.get("serving", {})
    engine = options.get("engine", {})
    if facts.weights.precision == "gguf":
        engine = {"name": "llamacpp"} | engine
    name = engine.get("name", "vllm")
    if name in RELEASES:
        engine = {"version": RELEASES[name].newest} | engine
    # An engine that has its GPUs alone is asked for so: nobody named a placement.
    placement = {"sharing": "Exclusive"} if name == "tgi" else {}
    chosen = {"serving": serving, "engine": engine, "placement": placement | options.get("placement", {})}
    return [subject_of_options(model, facts, {**options, **chosen})]


def read_facts(model: str, *, file: str = "", revision: str | None, endpoint: str | None) -> "ModelFacts":
    """A model from wherever it is. Whoever watches is told that it is under way."""
    from vrampack.estimator import read_model

    return while_telling(
        f"reading {model} …", lambda: read_model(model, file=file, revision=revision, endpoint=endpoint or None)
    )


def while_telling(words: str, work: Callable[[], _Answer]) -> _Answer:
    """``work``, with a line on the terminal as long as it lasts; nothing is said into a pipe."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(words):
        return work()
