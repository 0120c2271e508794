"""The estimate: one number per GPU, as a sum of named terms."""

from dataclasses import dataclass

from vrampack.memory.architecture import Architecture, Weights


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes per GPU. Every term is a whole number of MiB, and ``per_gpu`` is their exact sum.

    ``kv_cache_bytes`` is what the engine is told (whole blocks), ``kv_cache`` the same rounded up to MiB.
    """

    weights: int
    kv_cache: int
    activations: int
    cuda_graphs: int
    communication: int
    runtime_context: int
    headroom: int
    per_gpu: int
    gpus: int
    kv_cache_bytes: int
    kv_bytes_per_token: int
    kv_blocks: int
    max_concurrency_at_context: str
    """What the engine prints at start: sequences of context_length that the pool holds, two digits."""
    host_memory: int
    shared_memory: int


def estimate(*, architecture: Architecture, weights: Weights, workload: Workload) -> Estimate:
    """Bytes per GPU of one replica served by vLLM."""
    raise NotImplementedError
