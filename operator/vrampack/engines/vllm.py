"""vLLM, in the words of its own command line.

The share is given twice, and both are needed. ``--kv-cache-memory-bytes`` sizes the KV cache absolutely: vLLM then does
no arithmetic on free memory, which neighbours on the same GPU would falsify. ``--gpu-memory-utilization`` is still
checked at start against free memory, whatever else is set; its default of 0.92 would refuse to start on a shared GPU.

Whatever vLLM would choose by the size of the GPU (sequences, batched tokens, graphs) is always passed, so that a
replica needs the same memory on every GPU.
"""

import json
from dataclasses import dataclass, replace
from typing import Final

from vrampack.engines.arguments import check
from vrampack.engines.base import (
    KV_CACHE_BYTES,
    UTILIZATION,
    ClaimModel,
    Drafts,
    EngineContainer,
    EngineInput,
    Fragment,
    HubModel,
    literal,
    startup_seconds,
)
from vrampack.engines.releases import dialect_of
from vrampack.engines.serving import (
    CACHE,
    DRAIN_SECONDS,
    DTYPES,
    MODELS,
    is_offline,
    model_location,
    server,
)
from vrampack.engines.vllm_flags import FLAGS, VARIABLES
from vrampack.errors import InvalidInputError
from vrampack.memory.constants import GRAPH_LARGEST_BATCH

ENTRY: Final = ("vllm", "serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What differs between releases. Read from the source of 0.12.0, 0.20.0, 0.27.0 and 0.33.0."""

    since: tuple[int, int]
    online_fp8: str
    """``--quantization`` that makes fp8 of a 16-bit checkpoint while it loads."""
    plain_kv_dtype: bool
    """Whether ``--kv-cache-dtype`` takes ``bfloat16`` and ``float16`` for every model. Where it does not, ``auto`` is
    the same, but for checkpoints that ask for an fp8 cache themselves."""
    drains: bool
    """Whether ``--shutdown-timeout`` is there."""
    without: frozenset[str] = frozenset()
    """Precisions of weights that it can't load."""
    draft_models: bool = True
    """Whether its second engine core drafts with a whole model."""


DIALECTS: Final = (
    Dialect(
        since=(0, 33),
        online_fp8="fp8_per_tensor",
        plain_kv_dtype=True,
        drains=True,
        without=frozenset({"bitsandbytes", "gguf"}),
    ),
    Dialect(since=(0, 20), online_fp8="fp8_per_tensor", plain_kv_dtype=True, drains=True, without=frozenset({"gguf"})),
    Dialect(
        since=(0, 12),
        online_fp8="fp8",
        plain_kv_dtype=False,
        drains=False,
        without=frozenset({"gguf"}),
        draft_models=False,
    ),
)
"""Newest first. A release that is newer than the newest is taken to speak as that one does."""


def container(given: EngineInput, /) -> EngineContainer:
    """``vllm serve`` by the image's own entry point.

    Raises InvalidInputError for a version or a precision that it can't serve, and for user arguments that vrampack sets
    or that may change GPU memory.
    """
    dialect = dialect_of("vllm", version=given.version, dialects=DIALECTS)
    check(given.args, flags=FLAGS)
    _check_drafts(given, dialect)
    made = server(given, engine="vllm", arguments=_arguments(given, dialect), environment=_environment(given))
    return replace(made, entry=ENTRY, owned_variables=VARIABLES)


def _arguments(given: EngineInput, dialect: Dialect) -> list[str]:
    dtype = _dtype(given)
    # The model goes by its flag: an image whose entry point is the older API server would silently ignore it as a
    # positional argument and serve vLLM's default model.
    arguments = [f"--model={model_location(given)}"]
    if isinstance(given.model, HubModel):
        arguments.append(f"--revision={given.model.commit}")
    arguments += [
        f"--served-model-name={given.served_name}",
        "--host=0.0.0.0",
        f"--port={given.port}",
        f"--dtype={dtype}",
    ]
    if (quantization := _quantization(given, dialect)) is not None:
        arguments.append(f"--quantization={quantization}")
    arguments += [
        f"--kv-cache-dtype={_kv_cache_dtype(given, dialect, dtype)}",
        f"--max-model-len={given.context_length}",
        f"--max-num-seqs={_sequences(given)}",
        f"--max-num-batched-tokens={given.max_batched_tokens}",
        *_parallelism(given),
        f"--gpu-memory-utilization=$({UTILIZATION})",
        f"--kv-cache-memory-bytes=$({KV_CACHE_BYTES})",
    ]
    if given.cuda_graphs:
        # vLLM's own rule, but for newer GPUs, where its limit is higher: the same graphs on every GPU.
        largest = min(2 * _sequences(given), GRAPH_LARGEST_BATCH, given.max_batched_tokens)
        arguments.append(f"--max-cudagraph-capture-size={largest}")
    else:
        arguments.append("--enforce-eager")
    if given.prefix_caching is not None:
        arguments.append("--enable-prefix-caching" if given.prefix_caching else "--no-enable-prefix-caching")
    arguments += _extras(given)
    if dialect.drains:
        arguments.append(f"--shutdown-timeout={DRAIN_SECONDS}")
    return arguments


def _parallelism(given: EngineInput) -> list[str]:
    """How the replica is split. Its GPUs are on one node, so its ranks are processes of one container."""
    arguments = [f"--tensor-parallel-size={given.tensor}"]
    if given.pipeline > 1:
        arguments.append(f"--pipeline-parallel-size={given.pipeline}")
    if given.data > 1:
        arguments.append(f"--data-parallel-size={given.data}")
    if given.expert:
        arguments.append("--enable-expert-parallel")
    if given.decode_context > 1:
        arguments.append(f"--decode-context-parallel-size={given.decode_context}")
    return arguments


def _extras(given: EngineInput) -> list[str]:
    """What is loaded or computed beside the model itself."""
    arguments = []
    if given.images_per_prompt is not None:
        # Room for images is taken at start whether one comes or not; for sound and video there is no field.
        limits = {"image": given.images_per_prompt, "video": 0, "audio": 0}
        arguments.append(f"--limit-mm-per-prompt={json.dumps(limits)}")
    if given.drafts is not None:
        arguments.append(f"--speculative-config={json.dumps(_speculation(given, given.drafts))}")
    if given.adapters is not None:
        arguments += [
            "--enable-lora",
            f"--max-loras={given.adapters.count}",
            f"--max-lora-rank={given.adapters.rank}",
        ]
    return arguments


def _check_drafts(given: EngineInput, dialect: Dialect) -> None:
    if given.drafts is not None and given.drafts.method == "draft" and not dialect.draft_models:
        raise InvalidInputError(
            field="spec.speculation.method",
            value="draft",
            allowed=f"vllm {given.version} drafts with heads alone: write eagle, eagle3, medusa, mtp or ngram, or a "
            "release of 0.20 or newer",
        )


def _sequences(given: EngineInput) -> int:
    """Of one data parallel rank: its scheduler knows only its own."""
    return -(-given.concurrency // given.data)


def _speculation(given: EngineInput, drafts: Drafts) -> dict[str, str | int]:
    """The model that drafts is split as the other one is. Raises InvalidInputError for one that can't be mounted."""
    wanted: dict[str, str | int] = {
        "method": "draft_model" if drafts.method == "draft" else drafts.method,
        "num_speculative_tokens": drafts.tokens,
    }
    if drafts.model is None:
        return wanted
    if isinstance(drafts.model, HubModel):
        wanted |= {"model": drafts.model.repository, "revision": drafts.model.commit}
    elif isinstance(given.model, ClaimModel) and given.model.claim == drafts.model.claim:
        wanted["model"] = f"{MODELS}/{drafts.model.path.strip('/')}"
    else:
        raise InvalidInputError(
            field="spec.speculation.draftModel",
            value=f"pvc://{drafts.model.claim}/{drafts.model.path}",
            allowed="put it into the claim of the model itself, or on the hub: one volume of models is mounted",
        )
    return wanted | {"draft_tensor_parallel_size": given.tensor}


def _environment(given: EngineInput) -> tuple[Fragment, ...]:
    variables = [
        literal("HF_HOME", f"{CACHE}/huggingface"),
        literal("VLLM_CACHE_ROOT", f"{CACHE}/vllm"),
        # vLLM's own limit of 600 s for loading would end a slow first download long before the startup probe does.
        literal("VLLM_ENGINE_READY_TIMEOUT_S", str(startup_seconds(given.weight_bytes))),
        literal("VLLM_NO_USAGE_STATS", "1"),
    ]
    if is_offline(given):
        variables.append(literal("HF_HUB_OFFLINE", "1"))
    return tuple(variables)


def _dtype(given: EngineInput) -> str:
    """The computation type: what the contract says of plain weights; quantized ones keep the checkpoint's."""
    return DTYPES.get(given.weights_precision, given.checkpoint_dtype)


def _quantization(given: EngineInput, dialect: Dialect) -> str | None:
    """None where the checkpoint says it itself, or where plain weights are only cast."""
    asked, found = given.weights_precision, given.checkpoint_precision
    if asked in dialect.without:
        raise InvalidInputError(
            field="spec.precision.weights", value=asked, allowed=f"vllm {given.version} can't load such weights"
        )
    if asked == found or (asked in DTYPES and found in DTYPES):
        return None
    if asked == "fp8" and found in ("bf16", "fp16"):
        return dialect.online_fp8
    raise InvalidInputError(
        field="spec.precision.weights",
        value=asked,
        allowed=f"the checkpoint holds {found}, and vllm makes no {asked} of it; name {found} or another checkpoint",
    )


def _kv_cache_dtype(given: EngineInput, dialect: Dialect, dtype: str) -> str:
    asked = given.kv_cache_precision
    if asked == "fp8":
        return "fp8"
    if DTYPES.get(asked) != dtype:
        own = {written: name for name, written in DTYPES.items()}.get(dtype, dtype)
        raise InvalidInputError(
            field="spec.precision.kvCache",
            value=asked,
            allowed=f"vllm keeps the KV cache of a model that computes in {dtype} as {own} or fp8",
        )
    return dtype if dialect.plain_kv_dtype and asked != "fp32" else "auto"
