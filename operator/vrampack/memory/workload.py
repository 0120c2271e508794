"""What is served, and how."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is served, and how: tokens, sequences, ranks."""

    context_length: int
    concurrency: int
    tokens_per_sequence: int
    max_batched_tokens: int
    tensor: int = 1
    kv_cache_precision: str = "bf16"
    """Resolved: never Auto. bf16, fp16, fp32 or fp8."""
    cuda_graphs: bool = True
    headroom_percent: float = 3.0
