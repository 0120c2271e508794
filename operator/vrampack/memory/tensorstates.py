"""The tensors of layers without paged attention: state-space models, linear attention, short convolutions.

The engine splits all of them by heads or by inner width over the tensor ranks, except what is said to be whole.
"""

from collections.abc import Iterator

from vrampack.errors import UnsupportedModelError
from vrampack.memory.architecture import Split
from vrampack.memory.layers import RecurrentState, StateKind
from vrampack.memory.tensorfacts import TensorFacts
from vrampack.memory.tensors import TensorShape, matrix, vector

_TENSOR = Split.TENSOR


def recurrent_state(mixer: RecurrentState, *, hidden: int, facts: TensorFacts) -> Iterator[TensorShape]:
    """By kind. Raises UnsupportedModelError for RWKV, whose shapes are not written out."""
    match mixer.kind:
        case StateKind.MAMBA1:
            yield from _mamba1(mixer, hidden=hidden, facts=facts)
        case StateKind.MAMBA2:
            yield from _mamba2(mixer, hidden=hidden)
        case StateKind.GATED_DELTA:
            yield from _gated_delta(mixer, hidden=hidden)
        case StateKind.KIMI_DELTA:
            yield from _kimi_delta(mixer, hidden=hidden, facts=facts)
        case StateKind.LIGHTNING:
            yield from _lightning(mixer, hidden=hidden)
        case StateKind.SHORT_CONV:
            inner = mixer.value_heads * mixer.value_dim
            yield matrix("conv.in_proj", 3 * inner, hidden)
            yield _convolution("conv.conv", inner, mixer.conv_kernel)
            yield matrix("conv.out_proj", hidden, inner)
        case StateKind.WKV:
            raise UnsupportedModelError(unknown="RWKV layers", detail="their tensors are known from files alone")


def _convolution(name: str, rows: int, kernel: int) -> TensorShape:
    return TensorShape(name=name, rows=rows, columns=kernel, split=_TENSOR)


def _mamba1(mixer: RecurrentState, *, hidden: int, facts: TensorFacts) -> Iterator[TensorShape]:
    inner, state = mixer.value_heads * mixer.value_dim, mixer.key_dim
    rank = facts.time_step_rank or -(-hidden // 16)
    yield matrix("mamba.in_proj", 2 * inner, hidden)
    yield _convolution("mamba.conv1d", inner, mixer.conv_kernel)
    yield vector("mamba.conv1d.bias", inner, split=_TENSOR)
    yield matrix("mamba.x_proj", rank + 2 * state, inner)
    yield matrix("mamba.dt_proj", inner, rank)
    yield vector("mamba.dt_proj.bias", inner, split=_TENSOR)
    yield TensorShape(name="mamba.A_log", rows=inner, columns=state, split=_TENSOR, dtype="float32")
    yield vector("mamba.D", inner, split=_TENSOR)
    if facts.state_norms:
        yield vector("mamba.dt_layernorm", rank + 2 * state)
    yield matrix("mamba.out_proj", hidden, inner)


def _mamba2(mixer: RecurrentState, *, hidden: int) -> Iterator[TensorShape]:
    inner, groups = mixer.value_heads * mixer.value_dim, 2 * mixer.key_heads * mixer.key_dim
    yield matrix("mixer.in_proj", 2 * inner + groups + mixer.value_heads, hidden)
    yield _convolution("mixer.conv1d", inner + groups, mixer.conv_kernel)
    yield vector("mixer.conv1d.bias", inner + groups, split=_TENSOR)
    yield vector("mixer.A_log", mixer.value_heads, split=_TENSOR, dtype="float32")
    for name in ("D", "dt_bias"):
        yield vector(f"mixer.{name}", mixer.value_heads, split=_TENSOR)
    yield vector("mixer.norm", inner, split=_TENSOR)
    yield matrix("mixer.out_proj", hidden, inner)


def _gated_delta(mixer: RecurrentState, *, hidden: int) -> Iterator[TensorShape]:
    keys, values = mixer.key_heads * mixer.key_dim, mixer.value_heads * mixer.value_dim
    yield matrix("linear_attn.in_proj_qkvz", 2 * keys + 2 * values, hidden)
    yield matrix("linear_attn.in_proj_ba", 2 * mixer.value_heads, hidden)
    yield _convolution("linear_attn.conv1d", 2 * keys + values, mixer.conv_kernel)
    yield vector("linear_attn.A_log", mixer.value_heads, split=_TENSOR, dtype="float32")
    yield vector("linear_attn.dt_bias", mixer.value_heads, split=_TENSOR)
    yield vector("linear_attn.norm", mixer.value_dim)
    yield matrix("linear_attn.out_proj", hidden, values)


def _kimi_delta(mixer: RecurrentState, *, hidden: int, facts: TensorFacts) -> Iterator[TensorShape]:
    keys, values = mixer.key_heads * mixer.key_dim, mixer.value_heads * mixer.value_dim
    for name, rows in (("q", keys), ("k", keys), ("v", values)):
        yield matrix(f"self_attn.{name}_proj", rows, hidden, fused="self_attn.qkv_proj")
        yield _convolution(f"self_attn.{name}_conv1d", rows, mixer.conv_kernel)
    for name in ("f", "g"):
        if facts.direct_gates:
            yield matrix(f"self_attn.{name}_proj", values, hidden)
            continue
        yield matrix(f"self_attn.{name}_a_proj", mixer.value_dim, hidden, split=Split.WHOLE)
        yield matrix(f"self_attn.{name}_b_proj", values, mixer.value_dim)
    yield vector("self_attn.dt_bias", values, split=_TENSOR)
    yield vector("self_attn.A_log", mixer.value_heads, split=_TENSOR, dtype="float32")
    yield matrix("self_attn.b_proj", mixer.value_heads, hidden)
    yield vector("self_attn.o_norm", mixer.value_dim)
    yield matrix("self_attn.o_proj", hidden, values)


def _lightning(mixer: RecurrentState, *, hidden: int) -> Iterator[TensorShape]:
    values = mixer.value_heads * mixer.value_dim
    yield matrix("self_attn.qkv_proj", 3 * values, hidden)
    yield matrix("self_attn.output_gate", values, hidden)
    yield vector("self_attn.norm", values, split=_TENSOR)
    yield matrix("self_attn.out_proj", hidden, values)
