"""What is served, and how."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vrampack.memory.draft import Draft

SECOND_MODEL: Final = frozenset({"eagle", "eagle3", "medusa", "draft"})
"""Ways of drafting tokens with a model of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is served, and how: tokens, sequences, ranks."""

    context_length: int
    concurrency: int
    """Sequences of the whole replica. Its data parallel ranks have an equal part each (`of_one_rank`)."""
    tokens_per_sequence: int
    max_batched_tokens: int
    """Of one step of one data parallel rank."""
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False
    """Expert parallelism: experts are dealt out over tensor times data ranks instead of being split over tensor."""
    decode_context: int = 1
    kv_cache_precision: str = "bf16"
    """Resolved: never Auto. bf16, fp16, fp32 or fp8."""
    cuda_graphs: bool = True
    headroom_percent: float = 3.0
    product: str = ""
    """GPU product, by the driver's name with dashes; empty: not known, and what hangs on it is the most of any."""
    engine: str = "vllm"
    """vllm, sglang, llamacpp or tgi."""
    engine_version: str = ""
    """As the engine names its release, 0.33.0; empty: the newest whose rules are known."""
    prefix_caching: bool | None = None
    """None: as the engine does by default."""
    hybrid_cache: bool = True
    """False: layers with a window keep every token (vLLM's ``--disable-hybrid-kv-cache-manager``)."""
    speculative_tokens: int = 0
    speculation: str = ""
    """mtp, eagle, eagle3, medusa, draft or ngram; empty: none."""
    draft: "Draft | None" = None
    """The model that drafts, for eagle, eagle3, medusa and draft."""
    lora_adapters: int = 0
    """Adapters that are on the GPU at once."""
    lora_rank: int = 0
    """The highest rank of one."""
    text_only: bool = False
    """No images and sound are accepted (``--limit-mm-per-prompt`` 0): their towers are not loaded."""
    videos: bool = True
    """Videos are accepted too, as engines do by default."""
    encoder_budget: int = 0
    """Tokens of images and sound that one step may encode; 0: the engine's default for the model."""


def of_one_rank(workload: Workload) -> Workload:
    """The load of one data parallel rank: it has a scheduler and a cache of its own, and the fullest has the rest."""
    if workload.data <= 1:
        return workload
    return replace(workload, concurrency=-(-workload.concurrency // workload.data))
