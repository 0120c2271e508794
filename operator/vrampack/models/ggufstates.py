"""Recurrent layers of a GGUF file: which ones they are, and what their states hold, as llama.cpp reads the metadata."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from vrampack.memory.layers import RecurrentState, StateKind
from vrampack.models.ggufattention import head_sizes
from vrampack.models.ggufkeys import GgufKeys

_MAMBA1: Final = frozenset({"mamba", "jamba"})
_MAMBA2: Final = frozenset({"mamba2", "plamo2", "granitehybrid", "nemotron_h", "nemotron_h_moe", "falcon-h1"})
_GATED_DELTA: Final = frozenset({"qwen3next", "qwen35", "qwen35moe", "qwen4exp"})
KIMI_DELTA: Final = frozenset({"kimi-linear", "kimi-k3", "bailingmoe3", "glm5-next"})
_SHORT_CONV: Final = frozenset({"lfm2", "lfm2moe"})
_WKV: Final = frozenset({"rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_ALL_RECURRENT: Final = frozenset({"mamba", "mamba2"}) | _WKV
NEMOTRON: Final = frozenset({"nemotron_h", "nemotron_h_moe"})
_INTERVALS: Final = MappingProxyType({**dict.fromkeys(_GATED_DELTA, 4), "minimax-01": 8})
"""Every so many layers one has attention."""

STATEFUL: Final = _MAMBA1 | _MAMBA2 | _GATED_DELTA | KIMI_DELTA | _SHORT_CONV | _WKV | {"minimax-01"}
"""Architectures with recurrent layers."""


def recurrent_layers(keys: GgufKeys, kv_heads: Sequence[int], layers: int, trunk: int) -> tuple[bool, ...]:
    """For each layer whether it keeps a state."""
    name = keys.architecture
    if name not in STATEFUL:
        return (False,) * layers
    if name in _ALL_RECURRENT or name == "falcon-h1":
        return (True,) * layers
    if name in _INTERVALS:
        if keys.has("attention.recurrent_layers"):
            return tuple(flag != 0 for flag in keys.each("attention.recurrent_layers", layers))
        interval = keys.size("full_attention_interval", default=_INTERVALS[name], least=1)
        return tuple(layer < trunk and (layer + 1) % interval != 0 for layer in range(layers))
    return tuple(layer < trunk and kv_heads[layer] == 0 for layer in range(layers))


def state_of(keys: GgufKeys, *, heads: int) -> RecurrentState:
    """Of the layers that have one. ``heads``: of the first layer. Raises InvalidInputError for what is missing."""
    name = keys.architecture
    if name in _WKV:
        head = keys.size("wkv.head_size", least=1)
        return _split(
            StateKind.WKV,
            conv_kernel=keys.size("token_shift_count", default=2) + 1,
            key_heads=0,
            key_dim=head,
            inner=keys.size("embedding_length", least=1),
            heads=keys.size("embedding_length", least=1) // head,
        )
    if name in _SHORT_CONV:
        kernel = keys.size("shortconv.l_cache", least=1)
        width = keys.size("embedding_length", least=1)
        return RecurrentState(kind=StateKind.SHORT_CONV, conv_kernel=kernel, value_heads=1, value_dim=width)
    if name in KIMI_DELTA or name == "minimax-01":
        delta = name in KIMI_DELTA
        head = keys.size("kda.head_dim", least=1) if delta else head_sizes(keys, heads)[0]
        return RecurrentState(
            kind=StateKind.KIMI_DELTA if delta else StateKind.LIGHTNING,
            conv_kernel=(keys.size("ssm.conv_kernel") or 4) if delta else 1,
            key_heads=heads,
            key_dim=head,
            value_heads=heads,
            value_dim=head,
        )
    kind = StateKind.MAMBA1 if name in _MAMBA1 else StateKind.MAMBA2
    return _split(
        StateKind.GATED_DELTA if name in _GATED_DELTA else kind,
        conv_kernel=keys.size("ssm.conv_kernel", least=1),
        key_heads=0 if kind is StateKind.MAMBA1 else keys.size("ssm.group_count"),
        key_dim=keys.size("ssm.state_size", least=1),
        inner=keys.size("ssm.inner_size", least=1),
        heads=1 if kind is StateKind.MAMBA1 else keys.size("ssm.time_step_rank", least=1),
    )


def hash_state(keys: GgufKeys) -> RecurrentState:
    """Of layers that add embeddings of the last few tokens together (Qwen 4)."""
    streams = keys.size("hyper_connection.count", least=1, most=64)
    width = keys.size("ple.ngram_size", least=1, most=64) * streams * keys.size("embedding_length", least=1)
    return RecurrentState(
        kind=StateKind.SHORT_CONV, conv_kernel=keys.size("ple.conv_kernel", least=1), value_heads=1, value_dim=width
    )


def _split(
    kind: StateKind, *, conv_kernel: int, key_heads: int, key_dim: int, inner: int, heads: int
) -> RecurrentState:
    """The inner width by heads, or as one head where it is no multiple."""
    whole = heads if heads and inner % heads == 0 else 1
    return RecurrentState(
        kind=kind,
        conv_kernel=conv_kernel,
        key_heads=key_heads,
        key_dim=key_dim,
        value_heads=whole,
        value_dim=inner // whole,
    )
