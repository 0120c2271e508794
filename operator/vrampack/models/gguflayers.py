"""What each layer of a GGUF file keeps of the past, as llama.cpp reads the metadata.

llama.cpp takes some of it from the file and some for granted per architecture: which layers slide where the file gives
no pattern (`ggufwindows`), which are recurrent (`ggufstates`), which share a cache.
"""

from typing import Final

from vrampack.memory.layers import Mixer, PagedAttention
from vrampack.models.ggufattention import Shape, attention_of, head_sizes
from vrampack.models.ggufkeys import MAX_LAYERS, GgufKeys
from vrampack.models.ggufstates import KIMI_DELTA, NEMOTRON, hash_state, recurrent_layers, state_of
from vrampack.models.ggufwindows import sliding_layers

_GEMMA3N_OWN_CACHES: Final = 20


def layer_counts(keys: GgufKeys) -> tuple[int, int]:
    """All layers in the file, and those of the trunk: without the ones that predict further tokens."""
    layers = keys.size("block_count", least=1, most=MAX_LAYERS)
    predict = keys.size("nextn_predict_layers", default=0, most=layers - 1)
    return layers, layers - predict


def layer_mixers(keys: GgufKeys) -> list[tuple[Mixer, ...]]:
    """The mixers of every layer that the engine keeps something for, in order.

    Raises InvalidInputError for values that are impossible or missing.
    """
    layers, trunk = layer_counts(keys)
    heads = keys.each("attention.head_count", layers, default=(0,) * layers)
    slides, span, window = sliding_layers(keys, layers, trunk)
    shape = Shape(
        heads=heads,
        kv_heads=keys.each("attention.head_count_kv", layers, default=heads),
        slides=slides,
        span=span,
        window=window,
        owners=_owners(keys, layers),
        trunk=trunk,
    )
    name = keys.architecture
    recurrent = recurrent_layers(keys, shape.kv_heads, layers, trunk)
    state = state_of(keys, heads=shape.heads[0]) if any(recurrent) else None
    # llama.cpp gives these layers a cache even where only predictions use them
    kept = layers if name in KIMI_DELTA | NEMOTRON | {"minimax-m3"} and name != "glm5-next" else trunk
    widths = keys.each("feed_forward_length", layers, default=(0,) * layers)
    mixers: list[tuple[Mixer, ...]] = []
    for layer in range(kept):
        if name in NEMOTRON and widths[layer] > 0:
            mixers.append(())
        elif name == "falcon-h1" and state is not None:
            mixers.append((attention_of(keys, shape, layer), state))
        elif recurrent[layer] and state is not None:
            mixers.append((state,))
        elif shape.kv_heads[layer] == 0:
            mixers.append(())
        else:
            mixers.append((attention_of(keys, shape, layer),))
    for layer in _hashed(keys):
        mixers[layer] += (hash_state(keys),)
    if name == "nanbeige":
        mixers *= keys.size("num_loops", default=1, least=1, most=MAX_LAYERS // len(mixers))
    if name == "graniteswitch":
        key, value = head_sizes(keys, shape.heads[0])
        mixers.append((PagedAttention(heads=1, kv_heads=1, key_dim=key, value_dim=value),))
    return mixers


def _owners(keys: GgufKeys, layers: int) -> int:
    if keys.architecture == "gemma3n":
        return _GEMMA3N_OWN_CACHES
    if keys.architecture == "gemma4":
        return layers - keys.size("attention.shared_kv_layers", default=0, most=layers)
    return layers


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
