"""What each layer of a GGUF file keeps of the past, as llama.cpp reads the metadata.

llama.cpp takes some of it from the file and some for granted per architecture: which layers slide where the file gives
no pattern, which are recurrent, which share a cache. The tables here are those rules (``src/models/*.cpp``).
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention, RecurrentState, Span, StateKind
from vrampack.models.ggufkeys import MAX_LAYERS, GgufKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class _Windows:
    """Which layers slide. ``period`` 0: the file lists them."""

    period: int = 0
    """The last of every so many layers sees all tokens."""
    full_first: bool = False
    """The first of them does instead."""
    optional: bool = False
    """Without a window in the file no layer slides."""
    window: int = 0
    """Where the file names none."""
    fixed: int = 0
    """The engine's own, whatever the file names."""


_WINDOWS: Final = MappingProxyType(
    {
        "afmoe": _Windows(period=4, optional=True),
        "cohere2": _Windows(period=4),
        "cohere2moe": _Windows(period=4, full_first=True),
        "exaone-moe": _Windows(period=4),
        "gemma2": _Windows(period=2, window=4096),
        "gemma3": _Windows(period=6, optional=True),
        "gemma3n": _Windows(period=5),
        "gemma4": _Windows(),
        "gpt-oss": _Windows(period=2),
        "granite_swa": _Windows(),
        "laguna": _Windows(period=4, full_first=True, optional=True),
        "maple": _Windows(),
        "mellum": _Windows(period=4, optional=True),
        "mimo2": _Windows(),
        "muse-glimmer": _Windows(period=4),
        "olmo2": _Windows(period=4, optional=True),
        "plamo3": _Windows(period=8, optional=True),
        "smallthinker": _Windows(period=4, full_first=True, optional=True, fixed=4096),
        "spark2_5": _Windows(),
        "step35": _Windows(),
    }
)
"""Architectures that are not here have no sliding layers, whatever ``attention.sliding_window`` says: Mistral, Phi-3
and Qwen2 keep every token."""

_EXAONE4_SLIDING_LAYERS: Final = 64
"""Of EXAONE 4 only the 32B slides; llama.cpp tells it by its layers."""
_LLAMA4_CHUNK: Final = 8192
_GEMMA3N_OWN_CACHES: Final = 20
_GLM_SHARED_CONTEXT: Final = 1024 * 1024

_MAMBA1: Final = frozenset({"mamba", "jamba"})
_MAMBA2: Final = frozenset({"mamba2", "plamo2", "granitehybrid", "nemotron_h", "nemotron_h_moe", "falcon-h1"})
_GATED_DELTA: Final = frozenset({"qwen3next", "qwen35", "qwen35moe", "qwen4exp"})
_KIMI_DELTA: Final = frozenset({"kimi-linear", "kimi-k3", "bailingmoe3", "glm5-next"})
_SHORT_CONV: Final = frozenset({"lfm2", "lfm2moe"})
_WKV: Final = frozenset({"rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_ALL_RECURRENT: Final = frozenset({"mamba", "mamba2"}) | _WKV
_NEMOTRON: Final = frozenset({"nemotron_h", "nemotron_h_moe"})
_INTERVALS: Final = MappingProxyType({**dict.fromkeys(_GATED_DELTA, 4), "minimax-01": 8})
"""Every so many layers one has attention."""

STATEFUL: Final = _MAMBA1 | _MAMBA2 | _GATED_DELTA | _KIMI_DELTA | _SHORT_CONV | _WKV | {"minimax-01"}
"""Architectures with recurrent layers."""

SLIDING: Final = frozenset(_WINDOWS) | {"exaone4", "llama4", "lfm2"}
"""Architectures that may have sliding layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """What all layers' mixers are made from."""

    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    slides: tuple[bool, ...]
    span: Span
    window: int
    owners: int
    """Layers with a cache of their own; those after them share."""
    trunk: int


def layer_counts(keys: GgufKeys) -> tuple[int, int]:
    """All layers in the file, and those of the trunk: without the ones that predict further tokens."""
    layers = keys.size("block_count", least=1, most=MAX_LAYERS)
    predict = keys.size("nextn_predict_layers", default=0, most=layers - 1)
    return layers, layers - predict


def head_sizes(keys: GgufKeys, heads: int) -> tuple[int, int]:
    """Elements of a key and of a value head of a full layer. Only PLaMo 2 has some where its first layer has none."""
    if not heads and keys.architecture != "plamo2":
        return 0, 0
    width = keys.size("embedding_length", least=1) // heads if heads else 0
    return keys.size("attention.key_length", default=width), keys.size("attention.value_length", default=width)


def layer_mixers(keys: GgufKeys) -> list[tuple[Mixer, ...]]:
    """The mixers of every layer that the engine keeps something for, in order.

    Raises InvalidInputError for values that are impossible or missing.
    """
    layers, trunk = layer_counts(keys)
    heads = keys.each("attention.head_count", layers, default=(0,) * layers)
    slides, span, window = _sliding(keys, layers, trunk)
    shape = _Shape(
        heads=heads,
        kv_heads=keys.each("attention.head_count_kv", layers, default=heads),
        slides=slides,
        span=span,
        window=window,
        owners=_owners(keys, layers),
        trunk=trunk,
    )
    name = keys.architecture
    recurrent = _recurrent(keys, shape, layers, trunk)
    state = _state(keys, shape) if any(recurrent) else None
    # llama.cpp gives these layers a cache even where only predictions use them
    kept = layers if name in _KIMI_DELTA | _NEMOTRON | {"minimax-m3"} and name != "glm5-next" else trunk
    widths = keys.each("feed_forward_length", layers, default=(0,) * layers)
    mixers: list[tuple[Mixer, ...]] = []
    for layer in range(kept):
        if name in _NEMOTRON and widths[layer] > 0:
            mixers.append(())
        elif name == "falcon-h1" and state is not None:
            mixers.append((_attention(keys, shape, layer), state))
        elif recurrent[layer] and state is not None:
            mixers.append((state,))
        elif shape.kv_heads[layer] == 0:
            mixers.append(())
        else:
            mixers.append((_attention(keys, shape, layer),))
    for layer in _hashed(keys):
        mixers[layer] += (_hash_state(keys),)
    if name == "nanbeige":
        mixers *= keys.size("num_loops", default=1, least=1, most=MAX_LAYERS // len(mixers))
    if name == "graniteswitch":
        mixers.append(
            (PagedAttention(heads=1, kv_heads=1, key_dim=_key_dim(keys, shape), value_dim=_value(keys, shape)),)
        )
    return mixers


def _key_dim(keys: GgufKeys, shape: _Shape) -> int:
    return head_sizes(keys, shape.heads[0])[0]


def _value(keys: GgufKeys, shape: _Shape) -> int:
    return head_sizes(keys, shape.heads[0])[1]


def _owners(keys: GgufKeys, layers: int) -> int:
    if keys.architecture == "gemma3n":
        return _GEMMA3N_OWN_CACHES
    if keys.architecture == "gemma4":
        return layers - keys.size("attention.shared_kv_layers", default=0, most=layers)
    return layers


def _sliding(keys: GgufKeys, layers: int, trunk: int) -> tuple[tuple[bool, ...], Span, int]:
    none = ((False,) * layers, Span.FULL, 0)
    rule = _WINDOWS.get(keys.architecture)
    span = Span.SLIDING
    if keys.architecture == "llama4":
        if keys.size("attention.sliding_window", default=_LLAMA4_CHUNK) == 0:
            return none
        rule, span = _Windows(period=4, fixed=_LLAMA4_CHUNK, window=_LLAMA4_CHUNK), Span.CHUNKED
    elif keys.architecture == "exaone4" and trunk == _EXAONE4_SLIDING_LAYERS:
        rule = _Windows(period=4, window=4096)
    elif keys.architecture == "lfm2":
        window = keys.size("attention.sliding_window", default=0)
        return ((True,) * trunk + (False,) * (layers - trunk), span, window) if window else none
    if rule is None:
        return none
    default = 0 if rule.optional else rule.window or None
    window = keys.size("attention.sliding_window", default=default)
    if window == 0:
        return none
    pattern = "attention.sliding_window_pattern"
    if keys.is_array(pattern) or not rule.period:
        if not keys.is_array(pattern):
            raise keys.refusal(pattern, None, f"a list of the sliding layers is required for {keys.architecture}")
        slides = tuple(flag != 0 for flag in keys.each_of(pattern, layers))
    else:
        period = keys.size(pattern, default=rule.period)
        full = 0 if rule.full_first else period - 1
        slides = tuple(layer < trunk and (not period or layer % period != full) for layer in range(layers))
    return slides, span, rule.fixed or window


def _recurrent(keys: GgufKeys, shape: _Shape, layers: int, trunk: int) -> tuple[bool, ...]:
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
    return tuple(layer < trunk and shape.kv_heads[layer] == 0 for layer in range(layers))


def _state(keys: GgufKeys, shape: _Shape) -> RecurrentState:
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
    if name in _KIMI_DELTA or name == "minimax-01":
        delta = name in _KIMI_DELTA
        head = keys.size("kda.head_dim", least=1) if delta else _key_dim(keys, shape)
        return RecurrentState(
            kind=StateKind.KIMI_DELTA if delta else StateKind.LIGHTNING,
            conv_kernel=(keys.size("ssm.conv_kernel") or 4) if delta else 1,
            key_heads=shape.heads[0],
            key_dim=head,
            value_heads=shape.heads[0],
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


def _hashed(keys: GgufKeys) -> tuple[int, ...]:
    """Layers that add embeddings of the last few tokens together (Qwen 4)."""
    name = "ple.layers"
    if not keys.is_array(name):
        return ()
    trunk = layer_counts(keys)[1]
    listed = keys.all_of(name)
    if any(layer >= trunk for layer in listed):
        raise keys.refusal(name, max(listed), f"layers below {trunk}")
    return listed


def _hash_state(keys: GgufKeys) -> RecurrentState:
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


def _attention(keys: GgufKeys, shape: _Shape, layer: int) -> PagedAttention | LatentAttention:
    key, value = head_sizes(keys, shape.heads[0])
    if keys.architecture == "deepseek4":
        return _compressed(keys, shape, layer, key)
    if keys.size("attention.key_length_mla", default=0) and keys.size("attention.value_length_mla", default=0):
        return _latent(keys, shape, layer, key)
    sliding = shape.slides[layer]
    index = keys.size("attention.indexer.key_length", default=0)
    if layer < keys.size("leading_dense_block_count", default=0):
        index = 0
    return PagedAttention(
        heads=shape.heads[layer],
        kv_heads=shape.kv_heads[layer],
        key_dim=keys.size("attention.key_length_swa", default=key) if sliding else key,
        value_dim=keys.size("attention.value_length_swa", default=value) if sliding else value,
        span=shape.span if sliding else Span.FULL,
        window=shape.window if sliding else 0,
        shares_cache=layer >= shape.owners,
        index_dim=index,
    )


def _latent(keys: GgufKeys, shape: _Shape, layer: int, key: int) -> LatentAttention:
    rank = keys.size("attention.kv_lora_rank", least=1, most=key)
    if shape.kv_heads[layer] != 1:
        raise keys.refusal(
            "attention.head_count_kv", shape.kv_heads[layer], "latent attention caches one head: convert the file anew"
        )
    index = keys.size("attention.indexer.key_length", default=0)
    if index and not _has_indexer(keys, shape, layer):
        index = 0
    return LatentAttention(
        heads=shape.heads[layer],
        rank=rank,
        rope_dim=key - rank,
        query_rank=keys.size("attention.q_lora_rank", default=0),
        nope_dim=max(0, keys.size("attention.key_length_mla") - (key - rank)),
        value_dim=keys.size("attention.value_length_mla"),
        index_heads=keys.size("attention.indexer.head_count", default=0) if index else 0,
        # the key, its gate and the pooled value
        index_dim=index * 3 if keys.size("attention.indexer.kpool", default=0) else index,
    )


def _has_indexer(keys: GgufKeys, shape: _Shape, layer: int) -> bool:
    """Whether a layer chooses the tokens that it reads by itself, or reads those of a layer before it."""
    types = "attention.indexer.types"
    if layer >= shape.trunk:
        return False
    if keys.architecture == "glm-dsa" and not keys.has(types) and keys.size("context_length") >= _GLM_SHARED_CONTEXT:
        raise keys.refusal(types, None, "GLM 5.2 and later share indexers: which layers have one is required")
    return keys.each(types, shape.trunk, default=(1,) * shape.trunk)[layer] != 0


def _compressed(keys: GgufKeys, shape: _Shape, layer: int, key: int) -> LatentAttention:
    rope = keys.size("rope.dimension_count", default=0, most=key)
    ratio = keys.each_of("attention.compress_ratios", len(shape.heads))[layer]
    indexed = ratio == DEEPSEEK4_INDEXED_RATIO
    return LatentAttention(
        heads=shape.heads[layer],
        rank=key - rope,
        rope_dim=rope,
        query_rank=keys.size("attention.q_lora_rank", default=0),
        index_heads=keys.size("attention.indexer.head_count") if indexed else 0,
        index_dim=keys.size("attention.indexer.key_length") if indexed else 0,
        compress_ratio=ratio,
        window=keys.size("attention.sliding_window", least=1),
    )


DEEPSEEK4_INDEXED_RATIO: Final = 4
"""Layers of DeepSeek V4 that compress four tokens into one have an indexer; those that compress more have none."""
