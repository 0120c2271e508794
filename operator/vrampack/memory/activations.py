"""Activations: the peak of the engine's start-up run, which sizes its budget."""

import math

from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import (
    DTYPE_BYTES,
    EXPERT_MLP_COPIES,
    FORWARD_HIDDEN_COPIES,
    FORWARD_MLP_COPIES,
    SAMPLER_COPIES,
)

_LOGIT_BYTES = DTYPE_BYTES["float32"]


def activation_bytes(architecture: Architecture, *, tensor: int, max_sequences: int, max_batched_tokens: int) -> int:
    """Peak bytes per GPU of the larger of the two steps of the start-up run."""
    return max(
        _sampler_bytes(architecture, max_sequences=max_sequences, max_batched_tokens=max_batched_tokens),
        _forward_bytes(architecture, tensor=tensor, max_batched_tokens=max_batched_tokens),
    )


def _sampler_bytes(architecture: Architecture, *, max_sequences: int, max_batched_tokens: int) -> int:
    """Sampling one token for every sequence. Every rank holds all the logits, whatever the tensor parallelism."""
    logits = min(max_sequences, max_batched_tokens) * architecture.vocab_size * _LOGIT_BYTES
    hidden_states = max_batched_tokens * architecture.hidden_size * DTYPE_BYTES[architecture.dtype]
    return math.ceil(SAMPLER_COPIES * logits) + hidden_states


def _forward_bytes(architecture: Architecture, *, tensor: int, max_batched_tokens: int) -> int:
    """A forward pass over a full batch, in a layer's feed-forward part. Hidden states are not split over the ranks."""
    mlp = FORWARD_MLP_COPIES * architecture.intermediate_size / tensor
    if architecture.experts:
        expert = architecture.hidden_size + EXPERT_MLP_COPIES * architecture.expert_intermediate_size / tensor
        shared = FORWARD_MLP_COPIES * architecture.shared_expert_intermediate_size / tensor
        mlp = max(mlp, architecture.experts_per_token * expert + shared)
    width = FORWARD_HIDDEN_COPIES * architecture.hidden_size + mlp
    return math.ceil(max_batched_tokens * width * DTYPE_BYTES[architecture.dtype])
