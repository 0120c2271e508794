"""What the estimate needs to know of a model."""

from dataclasses import dataclass
from enum import StrEnum


class Attention(StrEnum):
    """How a layer keeps its past."""

    FULL = "full_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A decoder-only model with MHA, MQA or GQA. Counts are whole-model counts, sizes are in elements."""

    model_type: str
    layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    dtype: str
    """The checkpoint's computation type as config.json writes it: ``bfloat16``, ``float16``, ``float32``."""
    max_context: int | None = None
    """Longest sequence that the checkpoint allows, tokens; None: it does not say."""
    tied_embeddings: bool = False
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    layer_attention: Attention = Attention.FULL
    gated_mlp: bool = True
    """An up and a gate projection (SwiGLU and its kin); False: one up projection."""
    rotary_positions: int = 0
    """Rows of the engine's cos/sin table; 0: no rotary embedding. It is in memory, never in a weight file."""
    rotary_dim: int = 0
    """Elements of a row of that table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The tensors that the engine loads: their bytes, and how many of them every rank holds in full."""

    total: int
    parameters: int
    precision: str
    """As ``spec.precision.weights`` names it: bf16, fp16, fp32, fp8, …"""
    embedding: int = 0
    """Bytes of the input embedding table and the output head (counted once when tied): padded, then split."""
    replicated: int = 0
    """Bytes that tensor parallelism does not split: norms, routers."""
