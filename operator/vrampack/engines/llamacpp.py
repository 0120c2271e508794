"""llama.cpp's server, in the words of its own command line.

Its cache is allotted in full at start, by the number of cells (``--ctx-size``), so its size is absolute. What would
follow the memory that happens to be free is switched off: ``--fit`` shrinks whatever is not set to what is free, and
all layers are asked for by a number that no model has. Settings that not every build has a flag for are given by the
variables that go with the flags: a build that does not know one ignores it, where an unknown flag would end it.
"""

from dataclasses import replace
from typing import Final

from vrampack.engines.arguments import check
from vrampack.engines.base import (
    ClaimModel,
    EngineContainer,
    EngineInput,
    Fragment,
    cache_of,
    literal,
)
from vrampack.engines.llamacpp_flags import FLAGS
from vrampack.engines.releases import RELEASES
from vrampack.engines.serving import (
    CACHE,
    DRAIN_SECONDS,
    ENDPOINTS_SECONDS,
    hub_cache,
    model_location,
    server,
    sleep,
)
from vrampack.errors import InvalidInputError
from vrampack.memory.llamacpp import LlamaContext
from vrampack.memory.llamacppbuilds import WINDOWS_OF_THE_STEP, build_of
from vrampack.memory.llamacpppool import claim, context_of, printed

ENTRY: Final = ("/app/llama-server",)
PUBLIC_HUB: Final = "https://huggingface.co"
ALL_LAYERS: Final = 999
VARIABLES: Final = ("LLAMA_ARG_", "GGML_CUDA_")
"""Beginnings of variables that set what flags set too."""


def container(given: EngineInput, /) -> EngineContainer:
    """``llama-server`` of the image.

    Raises InvalidInputError for a build or a precision that it can't serve, for features that it is not told of, and
    for user arguments that vrampack sets or that may change GPU memory.
    """
    if build_of(given.version) < WINDOWS_OF_THE_STEP:
        known = RELEASES["llamacpp"]
        raise InvalidInputError(
            field="spec.engine.version",
            value=given.version,
            allowed=f"write a build of llama.cpp, {known.oldest} or newer, such as {known.newest}",
        )
    _refuse_features(given)
    check(given.args, flags=FLAGS)
    arguments = _arguments(given, _context(given))
    made = server(given, engine="llamacpp", arguments=arguments, environment=_environment(given))
    # The server ends at once when it is told to, so the hook waits for answers that are under way.
    ending = sleep(ENDPOINTS_SECONDS + DRAIN_SECONDS)
    return replace(made, entry=ENTRY, shared_memory=0, pre_stop=ending, owned_variables=VARIABLES)


def _context(given: EngineInput) -> LlamaContext:
    """The context that the estimate counted, with as many cells as a declared claim leaves room for."""
    architecture, workload, budget = cache_of(given)
    if claim(architecture, workload).bytes <= budget.kv_cache:
        return context_of(architecture, workload)
    fitting = printed(architecture, workload, budget.kv_cache).tokens
    if not fitting:  # which it would take for "as many as the model was made for"
        raise InvalidInputError(
            field="spec.memory.perGPU", value=budget.kv_cache, allowed="the cache needs more than this claim leaves it"
        )
    return context_of(architecture, workload, tokens=fitting)


def _arguments(given: EngineInput, context: LlamaContext) -> list[str]:
    """Value by value: this server takes no ``--flag=value``."""
    flags: dict[str, str | int] = {
        "--model" if isinstance(given.model, ClaimModel) else "--model-url": _model(given),
        "--alias": given.served_name,
        "--host": "0.0.0.0",  # noqa: S104  reached by the Service
        "--port": given.port,
        "--ctx-size": context.tokens,
        "--parallel": context.sequences,
        "--batch-size": given.max_batched_tokens,
        "--ubatch-size": context.micro_batch,
        "--cache-type-k": context.key_type,
        "--cache-type-v": context.value_type,
        "--n-gpu-layers": ALL_LAYERS,
        "--split-mode": "layer" if given.pipeline > 1 else "none",
    }
    if given.pipeline > 1:
        # Without it the layers are dealt out by the memory that is free.
        flags["--tensor-split"] = ",".join(["1"] * given.pipeline)
    return [*(str(each) for pair in flags.items() for each in pair), "--metrics"]


def _environment(given: EngineInput) -> tuple[Fragment, ...]:
    context = _context(given)
    variables = [
        *hub_cache(given),
        literal("LLAMA_CACHE", f"{CACHE}/llamacpp"),
        literal("LLAMA_ARG_FIT", "off"),
        literal("LLAMA_ARG_KV_UNIFIED", "true" if context.unified else "false"),
        # Prompts that are kept in RAM are beyond what the pod asks for.
        literal("LLAMA_ARG_CACHE_RAM", "0"),
    ]
    if context.flash_attention:
        variables.append(literal("LLAMA_ARG_FLASH_ATTN", "1"))
    if given.prefix_caching is not None:
        variables.append(literal("LLAMA_ARG_CACHE_PROMPT", str(given.prefix_caching).lower()))
    if not given.cuda_graphs:
        variables.append(literal("GGML_CUDA_DISABLE_GRAPHS", "1"))
    return tuple(variables)


def _model(given: EngineInput) -> str:
    """The file. By its URL a commit can be named, which the flags for repositories do not offer."""
    if not given.file:
        raise InvalidInputError(
            field="spec.model.file", value="", allowed="llama.cpp serves one GGUF file: name it, or a pattern for it"
        )
    where = model_location(given)
    if isinstance(given.model, ClaimModel):
        return f"{where}/{given.file}"
    return f"{given.hub_endpoint or PUBLIC_HUB}/{where}/resolve/{given.model.commit}/{given.file}"


def _refuse_features(given: EngineInput) -> None:
    """What this server could do, and is not told of."""
    refused = (
        ("speculation", given.drafts, None, "leave it out: llama.cpp is not told to draft"),
        ("adapters", given.adapters, None, "leave it out: llama.cpp takes adapters as files only"),
        ("parallelism.expert", given.expert, False, "write false: llama.cpp spreads whole layers"),
        ("parallelism.decodeContext", given.decode_context, 1, "write 1: llama.cpp keeps a cache in one piece"),
        ("precision.weights", given.checkpoint_precision, "gguf", "name a GGUF file: llama.cpp loads nothing else"),
    )
    for field, found, wanted, allowed in refused:
        if found != wanted:
            raise InvalidInputError(field=f"spec.{field}", value=found, allowed=allowed)
