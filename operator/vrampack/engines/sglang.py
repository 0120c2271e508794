"""SGLang, in the words of its own command line.

Its static fraction is one of the memory that is free when it starts, so the same fraction gives different bytes beside
different neighbours. The size of the pool is therefore given in tokens (``--max-total-tokens``), of which SGLang takes
the smaller: the fraction is only chosen large enough that these tokens fit where no more than the claim is free. Where
more is free, it is the tokens that bound. So neither depends on the GPU that a replica gets.

Whatever SGLang would choose by the size of the GPU (chunks, graphs, requests) is always passed.
"""

import json
from dataclasses import dataclass, replace
from typing import Final

from vrampack.engines.arguments import check
from vrampack.engines.base import (
    EngineContainer,
    EngineInput,
    Fragment,
    HubModel,
    cache_of,
    literal,
)
from vrampack.engines.releases import dialect_of
from vrampack.engines.serving import (
    DTYPES,
    hub_cache,
    model_location,
    server,
)
from vrampack.engines.sglang_flags import FLAGS
from vrampack.errors import InvalidInputError
from vrampack.memory.constants import GRAPH_LARGEST_BATCH
from vrampack.memory.sglang import SglangPools, claim, pools_of, printed
from vrampack.memory.sglangdefaults import static_fraction

COMMAND: Final = ("python3", "-m", "sglang.launch_server")
GATE_PORT: Final = 30999
"""Where ``--gated-launch-port`` listens, inside the pod."""

_UNLOADABLE: Final = frozenset({"gguf", "bitsandbytes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What differs between releases. Read from 0.5.10.post1, 0.5.12, 0.5.15, 0.5.18, 0.5.20 and 0.5.23."""

    since: tuple[int, int, int]
    graphs_by_phase: bool
    """Whether graphs of decoding and of prompts have flags of their own. Before, those of prompts are "piecewise"."""
    text_only: bool
    """Whether ``--language-model-only`` is there."""
    gated: bool
    """Whether ``--gated-launch-port`` is there."""


DIALECTS: Final = (
    Dialect(since=(0, 5, 20), graphs_by_phase=True, text_only=True, gated=True),
    Dialect(since=(0, 5, 18), graphs_by_phase=True, text_only=True, gated=False),
    Dialect(since=(0, 5, 15), graphs_by_phase=True, text_only=False, gated=False),
    Dialect(since=(0, 5, 10), graphs_by_phase=False, text_only=False, gated=False),
)
"""Newest first. A release that is newer than the newest is taken to speak as that one does."""


def container(given: EngineInput, /) -> EngineContainer:
    """``python3 -m sglang.launch_server``.

    Raises InvalidInputError for a version or a precision that it can't serve, and for user arguments that vrampack sets
    or that may change GPU memory.
    """
    dialect = dialect_of("sglang", version=given.version, dialects=DIALECTS)
    check(given.args, flags=FLAGS)
    made = server(given, engine="sglang", arguments=_arguments(given, dialect), environment=_environment(given))
    gate = GATE_PORT if dialect.gated else None
    return replace(made, command=COMMAND, own_gate=gate, owned_variables=("SGLANG_",))


def _arguments(given: EngineInput, dialect: Dialect) -> list[str]:
    arguments = [f"--model-path={model_location(given)}"]
    if isinstance(given.model, HubModel):
        arguments.append(f"--revision={given.model.commit}")
    arguments += [
        f"--served-model-name={given.served_name}",
        "--host=0.0.0.0",
        f"--port={given.port}",
        f"--dtype={DTYPES.get(given.weights_precision, given.checkpoint_dtype)}",
    ]
    if (quantization := _quantization(given)) is not None:
        arguments.append(f"--quantization={quantization}")
    arguments += [
        f"--kv-cache-dtype={_kv_cache_dtype(given, dialect)}",
        f"--context-length={given.context_length}",
        f"--max-running-requests={given.concurrency}",
        f"--chunked-prefill-size={given.max_batched_tokens}",
        f"--max-prefill-tokens={given.max_batched_tokens}",
        f"--tp-size={given.tensor}",
        *_pools(given),
        *_graphs(given, dialect),
    ]
    if given.pipeline > 1:
        arguments.append(f"--pp-size={given.pipeline}")
    if given.expert:
        arguments.append(f"--ep-size={given.tensor}")
    if given.prefix_caching is False:
        arguments.append("--disable-radix-cache")
    return [*arguments, *_extras(given, dialect), "--enable-metrics"]


def _pools(given: EngineInput) -> list[str]:
    """The pools that the estimate counted, or, of a declared claim, the tokens that it leaves room for."""
    architecture, workload, budget = cache_of(given)
    pools = pools_of(architecture, workload)
    tokens = pools.tokens
    if claim(architecture, workload).bytes > budget.kv_cache:
        tokens = printed(architecture, workload, budget.kv_cache).tokens
    held = budget.weights + budget.kv_cache
    fraction = static_fraction(free_before=held + budget.working, weights=budget.weights, pools=budget.kv_cache)
    arguments = [f"--mem-fraction-static={min(fraction, 0.99)}", f"--max-total-tokens={tokens}"]
    return arguments + _beside(pools)


def _beside(pools: SglangPools) -> list[str]:
    """The pools of layers that do not keep every token."""
    arguments = []
    if pools.page > 1:
        arguments.append(f"--page-size={pools.page}")
    if pools.window_tokens:
        arguments.append(f"--swa-full-tokens-ratio={pools.window_ratio}")
    if pools.states:
        arguments.append(f"--max-mamba-cache-size={pools.states}")
    return arguments


def _graphs(given: EngineInput, dialect: Dialect) -> list[str]:
    """Those of decoding, up to the batch that the estimate counts; those of prompts would take memory besides."""
    largest = min(2 * given.concurrency, GRAPH_LARGEST_BATCH, given.max_batched_tokens)
    if dialect.graphs_by_phase:
        decode = (
            f"--cuda-graph-max-bs-decode={largest}" if given.cuda_graphs else "--cuda-graph-backend-decode=disabled"
        )
        return [decode, "--cuda-graph-backend-prefill=disabled"]
    decode = f"--cuda-graph-max-bs={largest}" if given.cuda_graphs else "--disable-cuda-graph"
    return [decode, "--disable-piecewise-cuda-graph"]


def _extras(given: EngineInput, dialect: Dialect) -> list[str]:
    """What is loaded or computed beside the model itself."""
    if given.decode_context > 1:
        raise InvalidInputError(
            field="spec.parallelism.decodeContext", value=given.decode_context, allowed="write 1 for sglang"
        )
    arguments = []
    if given.images_per_prompt:
        limits = {"image": given.images_per_prompt, "video": 0, "audio": 0}
        arguments.append(f"--limit-mm-data-per-request={json.dumps(limits)}")
    elif given.images_per_prompt == 0:
        if not dialect.text_only:
            raise InvalidInputError(
                field="spec.engine.imagesPerPrompt",
                value=0,
                allowed="sglang leaves the encoder out since 0.5.18: write 1 or more, or a newer version",
            )
        arguments.append("--language-model-only")
    if given.drafts is not None:
        arguments += _drafting(given.drafts.method, given.drafts.tokens)
    if given.adapters is not None:
        arguments += [
            "--enable-lora",
            f"--max-loras-per-batch={given.adapters.count}",
            f"--max-lora-rank={given.adapters.rank}",
            "--lora-target-modules=all",
        ]
    return arguments


def _drafting(method: str, tokens: int) -> list[str]:
    if method == "mtp":
        return [
            "--speculative-algorithm=NEXTN",
            f"--speculative-num-steps={tokens}",
            "--speculative-eagle-topk=1",
            f"--speculative-num-draft-tokens={tokens + 1}",
        ]
    return ["--speculative-algorithm=NGRAM", f"--speculative-num-draft-tokens={tokens + 1}"]


def _environment(given: EngineInput) -> tuple[Fragment, ...]:
    # Ranks of one replica have the same claim on GPUs that others share: what is free differs there, and may.
    return (*hub_cache(given), literal("SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK", "false"))


def _quantization(given: EngineInput) -> str | None:
    """None where the checkpoint says it itself, or where plain weights are only cast."""
    asked, found = given.weights_precision, given.checkpoint_precision
    if asked in _UNLOADABLE:
        raise InvalidInputError(
            field="spec.precision.weights", value=asked, allowed="sglang is not told to load such weights"
        )
    if asked == found or (asked in DTYPES and found in DTYPES):
        return None
    if asked == "fp8" and found in ("bf16", "fp16"):
        return "fp8"
    raise InvalidInputError(
        field="spec.precision.weights",
        value=asked,
        allowed=f"the checkpoint holds {found}, and sglang makes no {asked} of it; name {found} or another checkpoint",
    )


def _kv_cache_dtype(given: EngineInput, dialect: Dialect) -> str:
    asked = given.kv_cache_precision
    if asked == "fp8":
        return "fp8_e4m3"
    if asked == "nvfp4" and dialect.text_only:  # of the same release: before, fp4 was another recipe
        return "nvfp4"
    if asked == "bf16":
        return "bf16"
    computed = DTYPES.get(given.weights_precision, given.checkpoint_dtype)
    if DTYPES.get(asked) == computed:
        return "auto"
    raise InvalidInputError(
        field="spec.precision.kvCache",
        value=asked,
        allowed=f"sglang keeps the KV cache of a model that computes in {computed} as that, bf16 or fp8",
    )
