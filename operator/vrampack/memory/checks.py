"""Refusals: what the engine would refuse at start, said before anything is placed, and formats that are not known."""

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.constants import DTYPE_BYTES, KV_ELEMENT_BYTES, WEIGHT_BITS
from vrampack.memory.weights import padded_vocabulary
from vrampack.memory.workload import Workload

_TENSOR = "spec.parallelism.tensor"


def check(*, architecture: Architecture, weights: Weights, workload: Workload) -> None:
    """Raise InvalidInputError or UnsupportedModelError for what can't be served, or can't be estimated."""
    _check_formats(architecture, weights)
    _check_workload(architecture, workload)
    _check_split(architecture, workload.tensor)


def _check_formats(architecture: Architecture, weights: Weights) -> None:
    if architecture.dtype not in DTYPE_BYTES:
        raise UnsupportedModelError(
            unknown=f"dtype {architecture.dtype}",
            detail=f"the bytes of its activations are not known; known: {', '.join(DTYPE_BYTES)}",
        )
    if weights.precision not in WEIGHT_BITS:
        raise UnsupportedModelError(
            unknown=f"precision {weights.precision}",
            detail=f"the layout of its weights is not known; known: {', '.join(WEIGHT_BITS)}",
        )


def _check_workload(architecture: Architecture, workload: Workload) -> None:
    counts = {
        "spec.serving.contextLength": workload.context_length,
        "spec.serving.concurrency": workload.concurrency,
        "spec.serving.tokensPerSequence": workload.tokens_per_sequence,
        "spec.engine.maxBatchedTokens": workload.max_batched_tokens,
        _TENSOR: workload.tensor,
    }
    for field, value in counts.items():
        if value < 1:
            raise InvalidInputError(field=field, value=value, allowed="a whole number of at least 1")
    if architecture.max_context is not None and workload.context_length > architecture.max_context:
        raise InvalidInputError(
            field="spec.serving.contextLength",
            value=workload.context_length,
            allowed=f"this model is made for at most {architecture.max_context} tokens",
        )
    if workload.tokens_per_sequence > workload.context_length:
        raise InvalidInputError(
            field="spec.serving.tokensPerSequence",
            value=workload.tokens_per_sequence,
            allowed=f"no sequence is longer than contextLength, {workload.context_length} tokens",
        )
    if workload.max_batched_tokens < workload.concurrency:
        raise InvalidInputError(
            field="spec.engine.maxBatchedTokens",
            value=workload.max_batched_tokens,
            allowed=f"the engine needs at least one token for each of the {workload.concurrency} sequences",
        )
    if workload.kv_cache_precision not in KV_ELEMENT_BYTES:
        raise InvalidInputError(
            field="spec.precision.kvCache",
            value=workload.kv_cache_precision,
            allowed=f"this engine and version: {', '.join(KV_ELEMENT_BYTES)}",
        )
    if not 0 <= workload.headroom_percent <= 100:
        raise InvalidInputError(
            field="spec.memory.headroom", value=workload.headroom_percent, allowed="a percentage from 0 to 100"
        )


def _check_split(architecture: Architecture, tensor: int) -> None:
    """vLLM splits heads, widths and vocabulary evenly, and copies KV heads only a whole number of times."""
    if tensor == 1:
        return
    parts = {
        "attention heads": architecture.attention_heads,
        "feed-forward width": 0 if architecture.experts else architecture.intermediate_size,
        "expert feed-forward width": architecture.expert_intermediate_size,
        "shared expert feed-forward width": architecture.shared_expert_intermediate_size,
        "padded vocabulary": padded_vocabulary(architecture),
    }
    for part, size in parts.items():
        if size % tensor:
            raise InvalidInputError(field=_TENSOR, value=tensor, allowed=f"a divisor of the model's {size} {part}")
    kv_heads = architecture.kv_heads
    if kv_heads % tensor and tensor % kv_heads:
        raise InvalidInputError(
            field=_TENSOR, value=tensor, allowed=f"a divisor or a multiple of the model's {kv_heads} KV heads"
        )
