"""What a forward pass over a full batch holds at once: the widths of the tensors that are alive in a layer, per token.

vLLM runs one layer after the other and keeps nothing of the former but the residual, so the widest layer counts. The
tensors are those of vLLM's layer implementations; how long the compiler keeps each is what was checked on measurements.
"""

from typing import Final

from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import FeedForward, LatentAttention, Mixer, PagedAttention, RecurrentState, StateKind
from vrampack.memory.workload import Workload

HIDDEN_COPIES: Final = 3
"""Read: the residual, the layer's normalized input, and its output. Llama-3.1-8B prints 2.07 GiB for a batch of 20,000
tokens and 2.99 for 29,000: with three, and nothing fitted, the estimate is 1.2 and 1.0 % over."""
_CHUNK: Final = 64
"""Tokens for which linear attention keeps one state while it works on a prompt."""
_LATENT_WORKSPACE: Final = 64 * 1024
"""Tokens of the past that latent attention expands at once, at most (``determine_chunked_prefill_workspace_size``)."""

_SPARSE_LENGTHS: Final = 5
"""Sequences of full length that sparse attention gathers at once (``sparse_mla_prefill_workspace_factor``)."""
_SPARSE_LOGITS: Final = 2**28
"""Elements of 16 bit: the 512 MiB that scoring the past may take at once (``VLLM_SPARSE_INDEXER_MAX_LOGITS_MB``)."""


def forward_elements(architecture: Architecture, workload: Workload) -> int:
    """Elements of the computation type alive at the peak of one step, per GPU: with the hidden states and the residual
    that a stage of a pipeline receives."""
    width = HIDDEN_COPIES * architecture.hidden_size + max(
        (
            max(_feed_forward(run.feed_forward, architecture, workload), *(_mixer(one, workload) for one in run.mixers))
            if run.mixers
            else _feed_forward(run.feed_forward, architecture, workload)
        )
        for run in architecture.kinds
    )
    received = 2 * architecture.hidden_size if workload.pipeline > 1 else 0
    return workload.max_batched_tokens * (width + received)


def image_elements(architecture: Architecture, workload: Workload) -> tuple[int, int]:
    """Elements of what the encoder gives for as many images as one step may encode, which the start-up run keeps to its
    end, and of what encoding them takes besides. One step encodes at least the largest image or video."""
    if not architecture.image_tokens or workload.text_only:
        return 0, 0
    images = architecture.video_images if workload.videos else 1
    item = max(1, min(images, workload.context_length // architecture.image_tokens)) * architecture.image_tokens
    budget = workload.encoder_budget or workload.max_batched_tokens
    tokens = max(item, min(budget, workload.concurrency * max(item, workload.context_length)))
    split = -(-architecture.image_split_width // workload.tensor)
    return (
        tokens * architecture.hidden_size * architecture.image_outputs,
        tokens * (architecture.image_width + split),
    )


def latent_workspace_elements(architecture: Architecture, workload: Workload) -> int:
    """What latent attention sets aside to read the past in chunks: compressed for as long as the engine runs, and
    expanded to all heads of a rank while it works. Long prompts need it; the start-up run takes it beside the batch."""
    mixers = [one for run in architecture.kinds for one in run.mixers if isinstance(one, LatentAttention)]
    if not mixers:
        return 0
    tokens = min(max(8 * workload.context_length, 64 * workload.concurrency), _LATENT_WORKSPACE)
    kept = max(one.rank + one.rope_dim for one in mixers)
    # DeepSeek V4, whose layers have a window, reads its cache as it is and expands nothing.
    expanded = max(
        0 if one.window else -(-one.heads // workload.tensor) * (one.nope_dim + one.value_dim) for one in mixers
    )
    lengths = [-(-workload.context_length // max(1, one.compress_ratio)) for one in mixers if one.index_dim]
    indexed = _SPARSE_LENGTHS * max(lengths) * kept + _SPARSE_LOGITS if lengths else 0
    return tokens * (kept + expanded) + indexed


def _feed_forward(part: FeedForward | None, architecture: Architecture, workload: Workload) -> int:
    """Per token: the input projections' output, the activation's, and for experts the outputs to be summed."""
    if part is None:
        return 0
    inputs = 2 if part.gated else 1
    dense = (inputs + 1) * -(-part.width // workload.tensor)
    if not part.experts:
        return dense
    shared = (inputs + 1) * -(-part.shared_width // workload.tensor)
    # Experts that are dealt out are whole on their rank; the buffers are for all tokens of all data ranks.
    width = part.expert_width if workload.expert else -(-part.expert_width // workload.tensor)
    outputs = part.latent or architecture.hidden_size
    experts = part.experts_per_token * (max(inputs * width, outputs) + width) + 2 * part.experts + outputs
    return dense + shared + workload.data * experts


def _mixer(mixer: Mixer, workload: Workload) -> int:
    """Per token, of a rank: what projects in, and what comes out."""
    tensor = workload.tensor
    match mixer:
        case PagedAttention():
            heads, kv_heads = -(-mixer.heads // tensor), max(1, mixer.kv_heads // tensor)
            queries, keys, values = heads * mixer.key_dim, kv_heads * mixer.key_dim, kv_heads * mixer.value_dim
            return 2 * (queries + keys) + values + heads * mixer.value_dim
        case LatentAttention():
            heads = -(-mixer.heads // tensor)
            queries = heads * ((mixer.nope_dim or mixer.rank) + mixer.rope_dim)
            keys_values = heads * (mixer.nope_dim + mixer.rope_dim + mixer.value_dim)
            compressed = mixer.query_rank + mixer.rank + mixer.rope_dim
            return queries + 2 * keys_values + compressed + heads * (mixer.value_dim or mixer.rank)
        case RecurrentState():
            return -(-_state_width(mixer) // tensor)


def _state_width(mixer: RecurrentState) -> int:
    """Per token: the projections, the convolution's output, the states between chunks, and the output."""
    inner = mixer.value_heads * mixer.value_dim
    keys = 2 * mixer.key_heads * mixer.key_dim
    match mixer.kind:
        case StateKind.MAMBA1 | StateKind.SHORT_CONV | StateKind.WKV:
            return 5 * inner + 2 * mixer.key_dim
        case StateKind.MAMBA2:
            states = inner * mixer.key_dim // 128  # one for each of its longer chunks
            return 2 * (inner + keys) + 2 * inner + 2 * states
        case StateKind.GATED_DELTA | StateKind.KIMI_DELTA | StateKind.LIGHTNING:
            states = inner * mixer.key_dim // _CHUNK
            return 2 * (inner + keys) + 4 * inner + states + 2 * mixer.value_heads * _CHUNK
