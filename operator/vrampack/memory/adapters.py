"""LoRA adapters: vLLM makes room at start for as many as may be on the GPU at once, all of the highest rank, in every
linear layer and in the tables, whatever an adapter changes.

Source: ``create_lora_weights`` of the layers under ``vllm/lora/layers``, 0.33.0. Input factors are not split over the
ranks where the layer's outputs are, and the other way round.
"""

from collections.abc import Iterator

from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import FeedForward, LatentAttention, Mixer, PagedAttention, RecurrentState
from vrampack.memory.vllm.dtypes import served_dtype
from vrampack.memory.vllm.pages import dtype_bytes
from vrampack.memory.workload import Workload

Linear = tuple[int, int]
"""Elements that a rank has of one linear layer's factors for each unit of an adapter's rank: inputs and outputs."""


def adapter_bytes(architecture: Architecture, workload: Workload) -> int:
    """Bytes per GPU of the rank with the most layers. 0 without adapters."""
    if not workload.lora_adapters:
        return 0
    hidden = architecture.hidden_size
    per_layer = {
        run: sum(map(sum, _of_layer(run.mixers, run.feed_forward, hidden=hidden, workload=workload)))
        for run in architecture.kinds
    }
    layers = sum(run.count * each for run, each in per_layer.items())
    if workload.pipeline > 1:
        layers = -(-architecture.layers // workload.pipeline) * max(per_layer.values())
    # The table of the embedding and that of the output head; vLLM does not split either over the ranks.
    tables = 2 * (hidden + architecture.vocab_size)
    # What the adapters of a step add is summed in 32 bit, for three slices of the widest layer.
    buffers = 3 * workload.max_batched_tokens * workload.lora_rank * 4
    element = dtype_bytes(served_dtype(architecture, workload))
    return workload.lora_adapters * workload.lora_rank * (layers + tables) * element + buffers


def _of_layer(
    mixers: tuple[Mixer, ...], part: FeedForward | None, *, hidden: int, workload: Workload
) -> Iterator[Linear]:
    for mixer in mixers:
        yield from _of_mixer(mixer, hidden=hidden, tensor=workload.tensor)
    if part is not None:
        yield from _of_feed_forward(part, hidden=hidden, workload=workload)


def _of_mixer(mixer: Mixer, *, hidden: int, tensor: int) -> Iterator[Linear]:
    match mixer:
        case PagedAttention():
            heads, kv_heads = -(-mixer.heads // tensor), max(1, mixer.kv_heads // tensor)
            yield 3 * hidden, heads * mixer.key_dim + kv_heads * (mixer.key_dim + mixer.value_dim)
            yield heads * mixer.value_dim, hidden
        case LatentAttention():
            heads = -(-mixer.heads // tensor)
            queries = heads * (mixer.nope_dim + mixer.rope_dim)
            yield 2 * hidden, mixer.query_rank + mixer.rank + mixer.rope_dim
            yield mixer.query_rank or hidden, queries
            yield mixer.rank, heads * (mixer.nope_dim + mixer.value_dim)
            yield heads * mixer.value_dim, hidden
        case RecurrentState():
            inner = mixer.value_heads * mixer.value_dim
            keys = 2 * mixer.key_heads * mixer.key_dim
            yield 4 * hidden, -(-(2 * inner + keys + 2 * mixer.value_heads) // tensor)
            yield -(-inner // tensor), hidden


def _of_feed_forward(part: FeedForward, *, hidden: int, workload: Workload) -> Iterator[Linear]:
    slices = 2 if part.gated else 1
    for width in (part.width, part.shared_width):
        if width:
            local = -(-width // workload.tensor)
            yield slices * hidden, slices * local
            yield local, hidden
    if part.experts:
        experts, width = part.experts, -(-part.expert_width // workload.tensor)
        if workload.expert:
            experts, width = -(-part.experts // (workload.tensor * workload.data)), part.expert_width
        space = part.latent or hidden
        yield experts * slices * space, experts * slices * width
        yield experts * width, experts * space
        yield hidden, part.experts  # the router
