"""Layers that keep one state for each sequence: state-space models, linear attention, short convolutions."""

from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.layers import RecurrentState, StateKind
from vrampack.models.attention_layers import MAX_HEADS
from vrampack.models.families import Family
from vrampack.models.fields import MAX_WIDTH, Fields

_STATE_SIZE: Final = ("mamba_d_state", "ssm_state_size", "state_size")
_CONV: Final = ("mamba_d_conv", "conv_kernel", "conv_kernel_size", "conv_dimension", "d_conv")
_MAMBA2_HEADS: Final = ("mamba_n_heads", "mamba_num_heads", "n_mamba_heads", "num_heads")
_MAMBA2_HEAD_DIM: Final = ("mamba_d_head", "mamba_head_dim", "mamba_headdim")
_MAMBA2_GROUPS: Final = ("mamba_n_groups", "mamba_ngroups", "n_groups")
_EXPAND: Final = ("mamba_expand", "expand", "expansion_factor")
_DTYPES: Final = ("mamba_ssm_cache_dtype", "mamba_ssm_dtype")


def state_of(text: Fields, family: Family, *, hidden: int) -> RecurrentState:
    """The state of the layers that are neither attention nor feed-forward only.

    Raises UnsupportedModelError where no field says what kind of state it is.
    """
    kind = family.state or _kind(text)
    if kind is None:
        raise UnsupportedModelError(
            unknown="layer_types", detail="some layers keep a state, but no field says how large it is"
        )
    dtype = next((value for name in _DTYPES if (value := text.text(name)) is not None), family.state_dtype)
    dtype = dtype.removeprefix("torch.")
    match kind:
        case StateKind.GATED_DELTA:
            return _gated_delta(text, dtype)
        case StateKind.KIMI_DELTA:
            return _kimi_delta(text, dtype)
        case StateKind.MAMBA1:
            return _mamba1(text, dtype, hidden=hidden)
        case StateKind.MAMBA2:
            return _mamba2(text, dtype, hidden=hidden)
        case StateKind.LIGHTNING:
            return _lightning(text, dtype, hidden=hidden)
        case _:
            return _short_conv(text, dtype, hidden=hidden)


def _kind(text: Fields) -> StateKind | None:
    """By the fields that only one kind has."""
    if text.names("linear_num_value_heads"):
        return StateKind.GATED_DELTA
    if text.names("linear_attn_config", "linear_num_heads"):
        return StateKind.KIMI_DELTA
    if text.names(*_STATE_SIZE):
        return StateKind.MAMBA2 if text.names(*_MAMBA2_HEADS) else StateKind.MAMBA1
    if text.names("conv_L_cache"):
        return StateKind.SHORT_CONV
    return None


def _gated_delta(text: Fields, dtype: str) -> RecurrentState:
    return RecurrentState(
        kind=StateKind.GATED_DELTA,
        conv_kernel=text.size(("linear_conv_kernel_dim",), most=MAX_HEADS),
        key_heads=text.size(("linear_num_key_heads",), most=MAX_HEADS),
        key_dim=text.size(("linear_key_head_dim",), most=MAX_WIDTH),
        value_heads=text.size(("linear_num_value_heads",), most=MAX_HEADS),
        value_dim=text.size(("linear_value_head_dim",), most=MAX_WIDTH),
        state_dtype=dtype,
    )


def _kimi_delta(text: Fields, dtype: str) -> RecurrentState:
    linear = text.below("linear_attn_config") or text
    if linear.names("num_heads", "linear_num_heads") is None:
        raise UnsupportedModelError(unknown="linear_attn_config", detail="the sizes of its states are not said")
    heads = linear.size(("linear_num_heads", "num_heads"), most=MAX_HEADS)
    dim = linear.size(("linear_head_dim", "head_dim"), most=MAX_WIDTH)
    return RecurrentState(
        kind=StateKind.KIMI_DELTA,
        conv_kernel=linear.size(("linear_conv_kernel_dim", "short_conv_kernel_size"), most=MAX_HEADS),
        key_heads=heads,
        key_dim=dim,
        value_heads=heads,
        value_dim=dim,
        state_dtype=dtype,
    )


def _mamba1(text: Fields, dtype: str, *, hidden: int) -> RecurrentState:
    expand = text.size(_EXPAND, most=64, default=2)
    pure = text.names("state_size") is not None
    return RecurrentState(
        kind=StateKind.MAMBA1,
        conv_kernel=text.size(_CONV, most=MAX_HEADS),
        key_dim=text.size(_STATE_SIZE, most=MAX_WIDTH),
        value_heads=1,
        value_dim=text.size(("intermediate_size",), default=expand * hidden) if pure else expand * hidden,
        state_dtype=dtype,
    )


def _mamba2(text: Fields, dtype: str, *, hidden: int) -> RecurrentState:
    width = text.size(("mamba_d_ssm",), default=text.size(_EXPAND, most=64, default=2) * hidden)
    name = text.names(*_MAMBA2_HEAD_DIM)
    if name is None and text.names("state_size"):
        name = text.names("head_dim")
    dim = 0 if name is None or text.get(name) == "auto" else text.size((name,), most=MAX_WIDTH)
    heads = text.size(_MAMBA2_HEADS, most=MAX_HEADS, default=max(1, min(width // dim, MAX_HEADS)) if dim else None)
    return RecurrentState(
        kind=StateKind.MAMBA2,
        conv_kernel=text.size(_CONV, most=MAX_HEADS),
        key_heads=text.size(_MAMBA2_GROUPS, most=MAX_HEADS, default=1),
        key_dim=text.size(_STATE_SIZE, most=MAX_WIDTH),
        value_heads=heads,
        value_dim=dim or max(1, min(width // heads, MAX_WIDTH)),
        state_dtype=dtype,
    )


def _short_conv(text: Fields, dtype: str, *, hidden: int) -> RecurrentState:
    return RecurrentState(
        kind=StateKind.SHORT_CONV,
        conv_kernel=text.size(("conv_L_cache",), most=MAX_HEADS),
        value_heads=1,
        value_dim=text.size(("conv_dim",), default=hidden),
        state_dtype=dtype,
    )


def _lightning(text: Fields, dtype: str, *, hidden: int) -> RecurrentState:
    heads = text.size(("num_attention_heads",), most=MAX_HEADS)
    dim = text.size(("head_dim",), most=MAX_WIDTH, default=max(1, hidden // heads))
    return RecurrentState(
        kind=StateKind.LIGHTNING,
        conv_kernel=0,
        key_heads=heads,
        key_dim=dim,
        value_heads=heads,
        value_dim=dim,
        state_dtype=dtype,
    )
