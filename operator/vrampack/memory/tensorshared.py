"""The tensors of Zamba 2: a few blocks of attention and feed-forward part that many layers share, each with adapters.

A block reads the state beside the token's embedding, so its attention is twice as wide as the model. Names and shapes
are those of ``Zamba2AttentionDecoderLayer`` and ``Zamba2HybridLayer`` in transformers.
"""

from collections.abc import Iterator

from vrampack.memory.architecture import Architecture, Split
from vrampack.memory.layers import LayerRun, PagedAttention, RecurrentState
from vrampack.memory.tensorfacts import TensorFacts
from vrampack.memory.tensors import TensorShape, matrix, vector
from vrampack.memory.tensorstates import recurrent_state


def shared_block(block: int, *, architecture: Architecture, facts: TensorFacts) -> Iterator[TensorShape]:
    """One block, stored once however many layers use it."""
    run = next((run for run in architecture.layer_runs if len(run.mixers) > 1), None)
    attention = None if run is None else _attention(run)
    if run is None or attention is None or run.feed_forward is None:
        return
    hidden, width = architecture.hidden_size, run.feed_forward.width
    name, heads = f"shared.{block}", attention.heads * attention.key_dim
    for each, rows in (("q_proj", heads), ("k_proj", attention.kv_heads * attention.key_dim)):
        yield matrix(f"{name}.{each}", rows, 2 * hidden, fused=f"{name}.qkv_proj")
    yield matrix(f"{name}.v_proj", attention.kv_heads * attention.value_dim, 2 * hidden, fused=f"{name}.qkv_proj")
    yield matrix(f"{name}.o_proj", hidden, attention.heads * attention.value_dim)
    yield matrix(f"{name}.gate_up_proj", 2 * width, hidden)
    yield matrix(f"{name}.down_proj", hidden, width)
    yield vector(f"{name}.norms", 3 * hidden)


def layer_with_shared_block(run: LayerRun, *, hidden: int, facts: TensorFacts) -> Iterator[TensorShape]:
    """What such a layer has of its own: a state, adapters, and the matrix that joins the block to the state."""
    for mixer in run.mixers:
        if isinstance(mixer, RecurrentState):
            yield from recurrent_state(mixer, hidden=hidden, facts=facts)
    yield matrix("linear", hidden, hidden, split=Split.WHOLE)
    yield vector("norms", hidden)
    attention, rank = _attention(run), facts.adapter_rank
    if run.feed_forward is not None:
        yield from _adapter("gate_up_proj_adapter", 2 * run.feed_forward.width, hidden, rank)
    if attention is not None and facts.adapted_attention:
        for name in ("q", "k", "v"):
            yield from _adapter(f"linear_{name}_adapter", attention.heads * attention.key_dim, 2 * hidden, rank)


def _adapter(name: str, rows: int, columns: int, rank: int) -> Iterator[TensorShape]:
    """A matrix of low rank."""
    yield matrix(f"{name}.0", rank, columns)
    yield matrix(f"{name}.1", rows, rank)


def _attention(run: LayerRun) -> PagedAttention | None:
    return next((mixer for mixer in run.mixers if isinstance(mixer, PagedAttention)), None)
