"""The tensors of a layer that a configuration implies: attention in all its forms, and the feed-forward part.

Names are those that transformers gives them below ``layers.N``. Sizes are elements of the whole model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vrampack.memory.architecture import Split
from vrampack.memory.layers import FeedForward, LatentAttention, PagedAttention, Span
from vrampack.memory.tensorfacts import QueryKeyNorm, TensorFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorShape:
    """One tensor, or ``copies`` of it that lie in one of the engine's (the experts of a layer)."""

    name: str
    rows: int
    """Outputs; the length of a vector."""
    columns: int = 1
    """Inputs."""
    split: Split = Split.WHOLE
    units: int = 0
    """HEADS: heads; VOCABULARY: rows; EXPERT: experts."""
    copies: int = 1
    quantizable: bool = False
    """A matrix of the kind that quantization methods pack; not tables, routers, convolutions and vectors."""
    dtype: str = ""
    """Where it differs from the computation type: ``float32``."""
    fused: str = ""
    """The engine's tensor that this becomes a part of."""
    width: int = 0
    """EXPERT: the inner width, rows or columns of the matrix."""
    in_files: bool = True
    """False: the engine makes it from another one."""

    @property
    def elements(self) -> int:
        """Of all copies."""
        return self.rows * self.columns * self.copies


def matrix(name: str, rows: int, columns: int, *, split: Split = Split.TENSOR, fused: str = "") -> TensorShape:
    """A linear layer's weight, which may be quantized."""
    return TensorShape(name=name, rows=rows, columns=columns, split=split, quantizable=True, fused=fused)


def vector(name: str, rows: int, *, split: Split = Split.WHOLE, dtype: str = "") -> TensorShape:
    """A norm, a bias or the like."""
    return TensorShape(name=name, rows=rows, split=split, dtype=dtype)


def paged_attention(mixer: PagedAttention, *, hidden: int, facts: TensorFacts) -> Iterator[TensorShape]:
    """MHA, MQA and GQA. Layers that read another's cache have projections all the same."""
    cross = mixer.span is Span.CROSS
    prefix = "encoder_attn" if cross else "self_attn"
    query, key, value = (
        mixer.heads * mixer.key_dim,
        mixer.kv_heads * mixer.key_dim,
        mixer.kv_heads * mixer.value_dim,
    )
    same = facts.value_is_key and mixer.span is Span.FULL
    fused = f"{prefix}.qkv_proj"
    if facts.query_rank:
        yield matrix(f"{prefix}.q_a_proj", facts.query_rank, hidden, split=Split.WHOLE)
        yield vector(f"{prefix}.q_a_layernorm", facts.query_rank)
        yield matrix(f"{prefix}.q_b_proj", query, facts.query_rank)
    else:
        width = query * (2 if facts.output_gate else 1)
        yield matrix(f"{prefix}.q_proj", width, hidden, fused="" if cross else fused)
    for name, rows in (("k_proj", key), ("v_proj", value)):
        yield TensorShape(
            name=f"{prefix}.{name}",
            rows=rows,
            columns=hidden,
            split=Split.HEADS,
            units=mixer.kv_heads,
            quantizable=True,
            fused=fused,
            in_files=not (same and name == "v_proj"),
        )
    output = mixer.heads * mixer.value_dim
    yield matrix(f"{prefix}.o_proj", hidden, output)
    if facts.head_gate:
        yield matrix(f"{prefix}.g_proj", mixer.heads, hidden)
    if facts.query_bias:
        yield vector(f"{prefix}.q_proj.bias", query, split=Split.TENSOR)
        for name, rows in (("k_proj", key), ("v_proj", value)):
            if not (name == "k_proj" and facts.keys_without_bias):
                yield TensorShape(name=f"{prefix}.{name}.bias", rows=rows, split=Split.HEADS, units=mixer.kv_heads)
    if facts.output_bias:
        yield vector(f"{prefix}.o_proj.bias", hidden)
    match facts.query_key_norm:
        case QueryKeyNorm.HEAD:
            yield vector(f"{prefix}.q_norm", mixer.key_dim)
            yield vector(f"{prefix}.k_norm", mixer.key_dim)
        case QueryKeyNorm.WIDTH:
            yield vector(f"{prefix}.q_norm", query)
            yield vector(f"{prefix}.k_norm", key)
        case QueryKeyNorm.NONE:
            pass
    if facts.sinks:
        yield vector(f"{prefix}.sinks", mixer.heads, split=Split.TENSOR)


def latent_attention(mixer: LatentAttention, *, hidden: int, gate: bool = False) -> Iterator[TensorShape]:
    """MLA: the way down is whole on every rank, the way up is split by heads. ``gate``: of one element a head."""
    query = mixer.heads * (mixer.nope_dim + mixer.rope_dim)
    down = "self_attn.fused_qkv_a_proj"
    if mixer.query_rank:
        yield matrix("self_attn.q_a_proj", mixer.query_rank, hidden, split=Split.WHOLE, fused=down)
        yield vector("self_attn.q_a_layernorm", mixer.query_rank)
        yield matrix("self_attn.q_b_proj", query, mixer.query_rank)
    else:
        yield matrix("self_attn.q_proj", query, hidden)
    latent = mixer.rank + mixer.rope_dim
    yield matrix("self_attn.kv_a_proj_with_mqa", latent, hidden, split=Split.WHOLE, fused=down)
    yield vector("self_attn.kv_a_layernorm", mixer.rank)
    yield matrix("self_attn.kv_b_proj", mixer.heads * (mixer.nope_dim + mixer.value_dim), mixer.rank)
    yield matrix("self_attn.o_proj", hidden, mixer.heads * mixer.value_dim)
    if gate:
        yield matrix("self_attn.g_proj", mixer.heads, hidden)
    if mixer.index_dim:
        width = mixer.index_heads * mixer.index_dim
        yield matrix("self_attn.indexer.wq_b", width, mixer.query_rank or hidden, split=Split.WHOLE)
        yield matrix("self_attn.indexer.wk", mixer.index_dim, hidden, split=Split.WHOLE)
        yield vector("self_attn.indexer.k_norm", 2 * mixer.index_dim)
        yield TensorShape(name="self_attn.indexer.weights_proj", rows=mixer.index_heads, columns=hidden)


def compressed_attention(mixer: LatentAttention, *, hidden: int, facts: TensorFacts) -> Iterator[TensorShape]:
    """DeepSeek V4: one vector serves as key and value, the way out is of low rank in groups, and entries are pooled."""
    width = mixer.rank + mixer.rope_dim
    yield matrix("self_attn.wq_a", mixer.query_rank, hidden, split=Split.WHOLE)
    yield matrix("self_attn.wq_b", mixer.heads * width, mixer.query_rank)
    yield matrix("self_attn.wkv", width, hidden, split=Split.WHOLE)
    yield vector("self_attn.norms", mixer.query_rank + width)
    yield matrix("self_attn.wo_a", facts.output_groups * facts.output_rank, mixer.heads * width // facts.output_groups)
    yield matrix("self_attn.wo_b", hidden, facts.output_groups * facts.output_rank)
    yield vector("self_attn.attn_sink", mixer.heads, dtype="float32")
    if mixer.compress_ratio:
        yield from _compressor("self_attn.compressor", width, hidden=hidden, ratio=mixer.compress_ratio)
    if mixer.index_heads and mixer.index_dim:
        rows = mixer.index_heads * mixer.index_dim
        yield matrix("self_attn.indexer.wq_b", rows, mixer.query_rank, split=Split.WHOLE)
        yield TensorShape(name="self_attn.indexer.weights_proj", rows=mixer.index_heads, columns=hidden)
        name = "self_attn.indexer.compressor"
        yield from _compressor(name, mixer.index_dim, hidden=hidden, ratio=mixer.compress_ratio)


def _compressor(name: str, width: int, *, hidden: int, ratio: int) -> Iterator[TensorShape]:
    """Pools ``ratio`` tokens into one entry; where they are few, neighbouring windows overlap and double its width."""
    rows = width * (2 if ratio == _OVERLAPPING else 1)
    for part in ("wkv", "wgate"):
        yield TensorShape(name=f"{name}.{part}", rows=rows, columns=hidden)
    yield TensorShape(name=f"{name}.ape", rows=ratio, columns=rows, dtype="float32")
    yield vector(f"{name}.norm", width)


_OVERLAPPING: Final = 4


def feed_forward(part: FeedForward, *, hidden: int, facts: TensorFacts) -> Iterator[TensorShape]:
    """The dense part, routed experts with their router, and shared experts, as far as there are any."""
    yield from _dense("mlp", part.width, hidden=hidden, gated=part.gated, bias=facts.feed_forward_bias)
    if not part.experts:
        return
    inside = part.latent or hidden
    prefix = "experts" if part.width else "mlp.experts"  # beside a dense part they are no part of it (Gemma 4)
    yield TensorShape(name="mlp.gate", rows=part.experts + facts.idle_experts, columns=hidden)
    if facts.router_bias:
        yield vector("mlp.gate.bias", part.experts)
    if facts.shared_expert_gate and part.shared_width:
        yield TensorShape(name="mlp.shared_expert_gate", rows=1, columns=hidden)
    if part.latent:
        yield matrix("mlp.fc1_latent_proj", part.latent, hidden, split=Split.WHOLE)
        yield matrix("mlp.fc2_latent_proj", hidden, part.latent, split=Split.WHOLE)
    ways = (("gate_proj", "up_proj") if part.gated else ("up_proj",)) if part.expert_width else ()
    for name in ways:
        yield _expert(f"{prefix}.{name}", part.expert_width, inside, part=part, fused="w13")
    yield _expert(f"{prefix}.down_proj", inside, part.expert_width, part=part, fused="w2")
    if facts.expert_bias:
        rows = len(ways) * part.expert_width + inside
        yield TensorShape(
            name="mlp.experts.bias", rows=rows, copies=part.experts, split=Split.EXPERT, units=part.experts
        )
    yield from _dense(
        "mlp.shared_experts", part.shared_width, hidden=hidden, gated=part.gated, bias=False, split=Split.SHARED
    )


def _expert(name: str, rows: int, columns: int, *, part: FeedForward, fused: str) -> TensorShape:
    return TensorShape(
        name=name,
        rows=rows,
        columns=columns,
        split=Split.EXPERT,
        units=part.experts,
        copies=part.experts,
        quantizable=True,
        fused=fused,
        width=part.expert_width,
    )


def _dense(
    prefix: str, width: int, *, hidden: int, gated: bool, bias: bool, split: Split = Split.TENSOR
) -> Iterator[TensorShape]:
    if not width:
        return
    for name in ("gate_proj", "up_proj") if gated else ("up_proj",):
        yield matrix(f"{prefix}.{name}", width, hidden, split=split, fused=f"{prefix}.gate_up_proj")
        if bias:
            yield vector(f"{prefix}.{name}.bias", width, split=Split.TENSOR)
    yield matrix(f"{prefix}.down_proj", hidden, width, split=split)
    if bias:
        yield vector(f"{prefix}.down_proj.bias", hidden)
