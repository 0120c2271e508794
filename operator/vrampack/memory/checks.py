"""Refusals: what the engine would refuse at start, said before anything is placed, and formats that are not known."""

from operator import attrgetter
from typing import Final

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.constants import DTYPE_BYTES, WEIGHT_BITS
from vrampack.memory.draft import FIELD as _DRAFT
from vrampack.memory.draft import draft_of, draft_workload
from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention, StateKind
from vrampack.memory.llamacppterms import FILE_PRECISION
from vrampack.memory.mixers import mixer_counts
from vrampack.memory.vllm.dtypes import AUTO
from vrampack.memory.vllm.pages import KV_FIELD, KV_PRECISIONS
from vrampack.memory.weights import padded_vocabulary
from vrampack.memory.workload import Workload

_TENSOR = "spec.parallelism.tensor"
_COUNTS: Final = tuple(
    (field, attrgetter(name))
    for field, name in (
        ("spec.serving.contextLength", "context_length"),
        ("spec.serving.concurrency", "concurrency"),
        ("spec.serving.tokensPerSequence", "tokens_per_sequence"),
        ("spec.engine.maxBatchedTokens", "max_batched_tokens"),
        (_TENSOR, "tensor"),
        ("spec.parallelism.pipeline", "pipeline"),
        ("spec.parallelism.data", "data"),
        ("spec.parallelism.decodeContext", "decode_context"),
    )
)


def check(*, architecture: Architecture, weights: Weights, workload: Workload) -> None:
    """Raise InvalidInputError or UnsupportedModelError for what can't be served, or can't be estimated."""
    if workload.engine != "llamacpp":  # which reads its own formats, tensor by tensor
        if weights.precision == FILE_PRECISION:
            raise InvalidInputError(
                field="spec.engine.name",
                value=workload.engine,
                allowed="llamacpp, which alone serves GGUF files; or a source with safetensors weights",
            )
        _check_formats(architecture, weights)
    _check_workload(architecture, workload)
    _check_split(architecture, workload)
    _check_decode_context(architecture, workload)
    _check_draft(architecture, workload)


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
    for field, count in _COUNTS:
        if not isinstance(value := count(workload), int) or value < 1:
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
    if workload.engine == "vllm" and workload.kv_cache_precision not in (AUTO, *KV_PRECISIONS):
        raise InvalidInputError(
            field=KV_FIELD,
            value=workload.kv_cache_precision,
            allowed=f"this engine and version: {', '.join(KV_PRECISIONS)}",
        )
    if workload.speculative_tokens < 0 or (workload.speculation and workload.speculative_tokens < 1):
        raise InvalidInputError(
            field="spec.engine.speculation.tokens",
            value=workload.speculative_tokens,
            allowed="the tokens that are drafted at once, at least 1",
        )
    if workload.speculation == "mtp" and not architecture.predict_layers:
        raise InvalidInputError(
            field="spec.speculation.method",
            value="mtp",
            allowed="this model has no layers that predict further tokens: write ngram, or name a model that drafts",
        )
    if min(workload.lora_adapters, workload.lora_rank) < 0 or (workload.lora_adapters and not workload.lora_rank):
        raise InvalidInputError(
            field="spec.adapters",
            value=f"max {workload.lora_adapters}, maxRank {workload.lora_rank}",
            allowed="adapters of a rank of at least 1, or none",
        )
    if not 0 <= workload.headroom_percent <= 100:
        raise InvalidInputError(
            field="spec.memory.headroom", value=workload.headroom_percent, allowed="a percentage from 0 to 100"
        )


def _check_split(architecture: Architecture, workload: Workload) -> None:
    """vLLM splits heads, widths and vocabulary evenly, and copies KV heads only a whole number of times."""
    tensor = workload.tensor
    if tensor * workload.data == 1:
        return
    parts = {"padded vocabulary": padded_vocabulary(architecture)}
    if not architecture.experts:
        parts["feed-forward width"] = architecture.intermediate_size
    elif not workload.expert:
        # Experts are split over the data ranks too; all else is there once for each of them.
        if architecture.expert_intermediate_size % (tensor * workload.data):
            raise InvalidInputError(
                field=_TENSOR if workload.data == 1 else "spec.parallelism.data",
                value=tensor if workload.data == 1 else workload.data,
                allowed=f"a divisor of the model's {architecture.expert_intermediate_size} expert feed-forward width"
                + ("" if workload.data == 1 else f" together with tensor, {tensor}; or expert: true"),
            )
        parts["shared expert feed-forward width"] = architecture.shared_expert_intermediate_size
    for mixer in mixer_counts(architecture):
        parts.update(_split_parts(mixer))
        _check_kv_heads(mixer, tensor)
    for part, size in parts.items():
        if size % tensor:
            raise InvalidInputError(field=_TENSOR, value=tensor, allowed=f"a divisor of the model's {size} {part}")


def _check_decode_context(architecture: Architecture, workload: Workload) -> None:
    """vLLM deals the tokens out among the ranks that hold copies of one KV head, so there must be as many copies."""
    parts, tensor = workload.decode_context, workload.tensor
    for mixer in mixer_counts(architecture) if parts > 1 else ():
        heads = mixer.kv_heads if isinstance(mixer, PagedAttention) else 1
        if tensor // heads < parts:
            raise InvalidInputError(
                field="spec.parallelism.decodeContext",
                value=parts,
                allowed=f"at most the copies of each of the {heads} KV heads that tensor {tensor} makes, "
                f"{max(1, tensor // heads)}",
            )


def _check_draft(architecture: Architecture, workload: Workload) -> None:
    """The model that drafts is split as the other one is, and knows the same words."""
    draft = draft_of(workload)
    if draft is None:
        return
    _check_formats(draft.architecture, draft.weights)
    if workload.speculation == "draft" and draft.architecture.vocab_size != architecture.vocab_size:
        raise InvalidInputError(
            field=_DRAFT,
            value=f"a vocabulary of {draft.architecture.vocab_size}",
            allowed=f"a model with the vocabulary of the one that it drafts for, {architecture.vocab_size}",
        )
    try:
        _check_split(draft.architecture, draft_workload(workload))
    except InvalidInputError as error:
        raise InvalidInputError(
            field=error.field, value=error.value, allowed=f"{error.allowed}, of the model that drafts"
        ) from error


def _split_parts(mixer: Mixer) -> dict[str, int]:
    """What a layer of this kind has to split, by name."""
    if isinstance(mixer, (PagedAttention, LatentAttention)):
        return {"attention heads": mixer.heads}
    match mixer.kind:
        case StateKind.MAMBA2:
            # One group is copied to every rank; several must split.
            groups = {"state groups": mixer.key_heads} if mixer.key_heads > 1 else {}
            return {"state heads": mixer.value_heads} | groups
        case StateKind.GATED_DELTA | StateKind.KIMI_DELTA:
            return {"state key heads": mixer.key_heads, "state heads": mixer.value_heads}
        case StateKind.LIGHTNING:
            return {"state heads": mixer.value_heads}
    return {"state width": mixer.value_heads * mixer.value_dim}


def _check_kv_heads(mixer: Mixer, tensor: int) -> None:
    if not isinstance(mixer, PagedAttention):
        return
    kv_heads = mixer.kv_heads
    if kv_heads % tensor and tensor % kv_heads:
        raise InvalidInputError(
            field=_TENSOR, value=tensor, allowed=f"a divisor or a multiple of the model's {kv_heads} KV heads"
        )
