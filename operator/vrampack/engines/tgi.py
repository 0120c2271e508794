"""Text Generation Inference, in the words of its launcher.

Its cache can't be told in bytes: it takes what is free of a fraction of the GPU, and what is free is less by whatever
neighbours use. So its size would follow the neighbours, and it gets GPUs of its own. The fraction is the claim's, which
PyTorch then does not let it exceed, and of that it fills all but the claim's headroom and allowance.
"""

import re
from dataclasses import replace
from typing import Final

from vrampack.engines.arguments import check
from vrampack.engines.base import (
    UTILIZATION,
    Budget,
    EngineContainer,
    EngineInput,
    Fragment,
    HubModel,
    cache_of,
    literal,
)
from vrampack.engines.releases import unspoken
from vrampack.engines.serving import (
    DTYPES,
    hub_cache,
    model_location,
    server,
)
from vrampack.engines.tgi_flags import FLAGS
from vrampack.errors import InvalidInputError
from vrampack.memory.tgi import claim, printed

COMMAND: Final = ("/tgi-entrypoint.sh",)
ALONE: Final = "its cache takes what is free on the whole GPU, so its size would follow its neighbours'"

_MAJOR: Final = 3
_ROUTER_SLACK: Final = 128
"""Requests that may wait in the router beside those that are served: its own default in all."""
_GRAPHS: Final = (1, 2, 4, 8, 16, 32)
"""Batches of captured graphs, as it has them by default."""
_LOADABLE: Final = frozenset({"bf16", "fp16", "fp8", "awq", "gptq"})
_VARIABLES: Final = (
    "ATTENTION",
    "CUDA_GRAPHS",
    "CUDA_MEMORY_FRACTION",
    "DTYPE",
    "KV_CACHE_DTYPE",
    "LORA_ADAPTERS",
    "MAX_",
    "NUM_SHARD",
    "PREFILL_CHUNKING",
    "PREFIX_CACHING",
    "QUANTIZE",
    "SHARDED",
    "SPECULATE",
    "TGI_WIGGLE_ROOM",
    "USE_PREFIX_CACHING",
)
"""Beginnings of variables that set what flags set too, or what sizes the cache."""


def container(given: EngineInput, /) -> EngineContainer:
    """``text-generation-launcher`` by the image's entry point, which finds its libraries first.

    Raises InvalidInputError for a version or a precision that it can't serve, for features that it is not told of, and
    for user arguments that vrampack sets or that may change GPU memory.
    """
    match = re.match(r"v?(\d+)\.(\d+)", given.version)
    if match is None or int(match[1]) < _MAJOR:
        raise unspoken("tgi", version=given.version)
    _refuse_features(given)
    check(given.args, flags=FLAGS)
    _, _, budget = cache_of(given)
    environment = _environment(given, budget)
    made = server(given, engine="tgi", arguments=_arguments(given), environment=environment, fraction_of_all=True)
    return replace(made, command=COMMAND, owned_variables=_VARIABLES, alone=ALONE, fraction_bytes=budget.claim)


def _arguments(given: EngineInput) -> list[str]:
    architecture, workload, budget = cache_of(given)
    tokens = claim(architecture, workload).tokens
    if claim(architecture, workload).bytes > budget.kv_cache:
        tokens = printed(architecture, workload, budget.kv_cache).tokens
    arguments = [f"--model-id={model_location(given)}"]
    if isinstance(given.model, HubModel):
        arguments.append(f"--revision={given.model.commit}")
    arguments += [
        "--hostname=0.0.0.0",
        f"--port={given.port}",
        *_precision(given),
        f"--max-input-tokens={given.context_length - 1}",
        f"--max-total-tokens={given.context_length}",
        f"--max-batch-size={given.concurrency}",
        f"--max-concurrent-requests={given.concurrency + _ROUTER_SLACK}",
        f"--max-batch-prefill-tokens={given.max_batched_tokens}",
        f"--max-batch-total-tokens={tokens}",
        f"--cuda-memory-fraction=$({UTILIZATION})",
        f"--num-shard={given.tensor}",
        f"--cuda-graphs={_graphs(given)}",
    ]
    return arguments


def _precision(given: EngineInput) -> list[str]:
    asked, found = given.weights_precision, given.checkpoint_precision
    if found not in _LOADABLE or (asked != found and not (asked in DTYPES and found in DTYPES)):
        raise InvalidInputError(
            field="spec.precision.weights",
            value=asked,
            allowed=f"the checkpoint holds {found}, and tgi is told to load {', '.join(sorted(_LOADABLE))} as they are",
        )
    arguments = []
    computed = DTYPES.get(asked, given.checkpoint_dtype)
    if asked in ("bf16", "fp16"):
        arguments.append(f"--dtype={computed}")
    if given.kv_cache_precision == "fp8":
        arguments.append("--kv-cache-dtype=fp8_e4m3fn")
    elif DTYPES.get(given.kv_cache_precision) != computed:
        raise InvalidInputError(
            field="spec.precision.kvCache",
            value=given.kv_cache_precision,
            allowed=f"tgi keeps the KV cache of a model that computes in {computed} as that, or as fp8",
        )
    return arguments


def _graphs(given: EngineInput) -> str:
    sizes = [size for size in _GRAPHS if size <= given.concurrency] if given.cuda_graphs else [0]
    return ",".join(map(str, sizes))


def _environment(given: EngineInput, budget: Budget) -> tuple[Fragment, ...]:
    variables = [*hub_cache(given), literal("TGI_WIGGLE_ROOM", _filled(budget))]
    if given.prefix_caching is not None:
        variables.append(literal("PREFIX_CACHING", "1" if given.prefix_caching else "0"))
    return (*variables, literal("USAGE_STATS", "off"))


def _filled(budget: Budget) -> str:
    """The part of its share that it fills, three digits, rounded down."""
    return f"{min(999, (budget.claim - budget.slack) * 1000 // budget.claim) / 1000:.3f}"


def _refuse_features(given: EngineInput) -> None:
    """What this server could do, and is not told of."""
    refused = (
        ("speculation", given.drafts, None, "leave it out: tgi is not told to draft"),
        ("adapters", given.adapters, None, "leave it out: tgi is not told of adapters"),
        ("parallelism.pipeline", given.pipeline, 1, "write 1: tgi splits layers over GPUs; use tensor"),
        ("parallelism.expert", given.expert, False, "write false: tgi splits every expert"),
        ("parallelism.decodeContext", given.decode_context, 1, "write 1: tgi keeps a cache in one piece"),
    )
    for field, found, wanted, allowed in refused:
        if found != wanted:
            raise InvalidInputError(field=f"spec.{field}", value=found, allowed=allowed)
    if given.images_per_prompt is not None:
        raise InvalidInputError(
            field="spec.engine.name", value="tgi", allowed="the memory of images is not known for tgi: use vllm"
        )
