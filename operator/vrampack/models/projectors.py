"""What joins a tower to its language model, by the ``model_type`` of the whole."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from vrampack.models.fields import Fields
from vrampack.models.visionparts import Encoder, linear

Joiner = Callable[[Fields, Fields, int, int], int]
"""From the model's fields, the tower's, the width of what comes out of it and the language model's hidden size."""

_GENERATION: Final = 71_883_403
"""Janus: the quantizer of images that it draws, counted in transformers."""
_WORDS: Final = 16_384


def joined(root: Fields, tower: Fields, encoder: Encoder, *, hidden_size: int) -> tuple[int, bool]:
    """Elements, and whether the kind is known by name; else two layers are taken, as most have. Raises
    InvalidInputError."""
    if not encoder.width:
        return 0, True
    joiner = PROJECTORS.get(root.text("model_type") or "")
    return (joiner or _two_layers)(root, tower, encoder.width, hidden_size), joiner is not None


def _two_layers(root: Fields, _: Fields, width: int, hidden: int) -> int:
    """Of one layer of the tower, or of several beside each other."""
    bias = root.flag("multimodal_projector_bias", default=True)
    chosen = root.get("vision_feature_layer")
    layers = min(max(len(chosen), 1), 64) if isinstance(chosen, list) else 1
    return linear(layers * width, hidden, bias=bias) + linear(hidden, hidden, bias=bias)


def _with_newline(root: Fields, tower: Fields, width: int, hidden: int) -> int:
    return _two_layers(root, tower, width, hidden) + hidden


def _vipllava(_: Fields, __: Fields, width: int, hidden: int) -> int:
    return 10 * width + linear(5 * width, hidden) + linear(hidden, hidden)


def _matrix(_: Fields, __: Fields, width: int, hidden: int) -> int:
    return width * hidden


def _layer(_: Fields, __: Fields, width: int, hidden: int) -> int:
    return linear(width, hidden)


def _gemma3(_: Fields, __: Fields, width: int, hidden: int) -> int:
    return width * hidden + width


def _gemma3n(_: Fields, tower: Fields, width: int, hidden: int) -> int:
    """A small vocabulary of its own for images, and one for sound."""
    words = tower.size(("vocab_size",), default=128)
    return words * width + 2 * width + width * hidden


def _mistral3(root: Fields, _: Fields, width: int, hidden: int) -> int:
    merged = width * root.size(("spatial_merge_size",), most=64, default=2) ** 2
    bias = root.flag("multimodal_projector_bias", default=False)
    return width + merged * width + linear(width, hidden, bias=bias) + linear(hidden, hidden, bias=bias)


def _normed(_: Fields, __: Fields, width: int, hidden: int) -> int:
    """InternVL: of four neighbours."""
    return 2 * width + linear(width, hidden) + linear(hidden, hidden)


def _idefics3(root: Fields, _: Fields, width: int, hidden: int) -> int:
    return width * root.size(("scale_factor",), most=64, default=2) ** 2 * hidden


def _cohere(root: Fields, _: Fields, width: int, hidden: int) -> int:
    """Neighbours beside each other, through a gate."""
    merged = width * root.size(("downsample_factor",), most=64, default=2) ** 2
    inner = root.size(("alignment_intermediate_size",), default=hidden)
    norm = 2 * merged if root.text("model_type") == "aya_vision" else 0
    return norm + linear(merged, inner) + linear(inner // 2, hidden)


def _aria(root: Fields, _: Fields, width: int, hidden: int) -> int:
    """Queries that attend to the image."""
    sizes = root.get("projector_patch_to_query_dict")
    listed = sizes.values() if isinstance(sizes, Mapping) else ()
    queries = max((size for size in listed if isinstance(size, int)), default=256)
    attention = 3 * width**2 + 3 * linear(width, width) + 2 * linear(width, width)
    return min(max(queries, 1), 65_536) * width + attention + 6 * width + width * hidden + hidden**2


def _minimax(_: Fields, __: Fields, width: int, hidden: int) -> int:
    return linear(width, hidden) + 2 * linear(hidden, hidden) + linear(4 * hidden, hidden)


def _ernie(_: Fields, tower: Fields, width: int, hidden: int) -> int:
    """Neighbours in space, then in time."""
    merged = width * tower.size(("spatial_merge_size",), most=64, default=2) ** 2
    times = tower.size(("temporal_merge_size",), most=64, default=2)
    space = 2 * linear(merged, merged) + 2 * merged
    time = linear(times * merged, merged) + linear(merged, merged) + 2 * merged
    return space + time + linear(merged, hidden) + hidden


def _step3(root: Fields, _: Fields, width: int, hidden: int) -> int:
    return linear(width, hidden, bias=root.flag("projector_bias", default=True))


def _deepseek_vl2(root: Fields, _: Fields, width: int, hidden: int) -> int:
    """Four neighbours through layers, and two vectors that separate rows and views."""
    projector = root.below("projector_config") or root.inside("projector_config", {})
    out = projector.size(("n_embed",), default=hidden)
    merged = width * projector.size(("downsample_ratio",), most=64, default=2) ** 2
    inner = out * projector.size(("mlp_ratio",), most=64, default=1)
    deep = projector.size(("depth",), most=64, default=2)
    return linear(merged, inner) + max(0, deep - 2) * linear(inner, inner) + linear(inner, out) + 2 * out


def _janus(_: Fields, tower: Fields, width: int, hidden: int) -> int:
    """Besides, what draws images."""
    out = tower.size(("projection_dim",), default=hidden)
    drawing = _WORDS * 8 + linear(8, out) + 2 * linear(out, out) + linear(out, _WORDS)
    return linear(width, out) + linear(out, out) + _GENERATION + drawing


def _phi3(_: Fields, __: Fields, width: int, hidden: int) -> int:
    return 8 * width + linear(4 * width, hidden) + linear(hidden, hidden)


def _lfm2(root: Fields, _: Fields, width: int, hidden: int) -> int:
    merged = width * root.size(("downsample_factor",), most=64, default=2) ** 2
    inner = root.size(("projector_hidden_size",), default=2560)
    norm = 2 * merged if root.flag("projector_use_layernorm", default=True) else 0
    return norm + linear(merged, inner) + linear(inner, hidden)


def _paddle(_: Fields, __: Fields, width: int, hidden: int) -> int:
    return 2 * width + linear(4 * width, 4 * width) + linear(4 * width, hidden)


def _voxtral(_: Fields, __: Fields, width: int, hidden: int) -> int:
    return width * hidden + hidden**2


def _molmo2(root: Fields, _: Fields, width: int, hidden: int) -> int:
    """Layers of the tower beside each other, pooled by attention, through a gated feed-forward part."""
    adapter = root.below("adapter_config") or root.inside("adapter_config", {})
    chosen = adapter.get("vision_feature_layer")
    layers = len(chosen) if isinstance(chosen, list) else 2
    inner = adapter.size(("intermediate_size",), default=18944)
    pooled = 3 * linear(min(layers, 64) * width, width) + linear(width, width)
    return pooled + 2 * width * inner + inner * hidden


def _resampler(root: Fields, _: Fields, width: int, hidden: int) -> int:
    """MiniCPM-V: queries that attend to the image."""
    queries = root.size(("query_num",), most=65_536, default=64)
    return queries * hidden + width * hidden + 4 * linear(hidden, hidden) + 6 * hidden + hidden**2


def _idefics2(root: Fields, _: Fields, width: int, hidden: int) -> int:
    """A gated way up, and layers of queries that attend to the image."""
    perceiver = root.below("perceiver_config") or root.inside("perceiver_config", {})
    inner = (root.below("text_config") or root).size(("intermediate_size",), default=14336)
    heads = perceiver.size(("resampler_n_heads",), most=4096, default=16)
    dim = perceiver.size(("resampler_head_dim",), most=65_536, default=96)
    keys = perceiver.size(("num_key_value_heads",), most=4096, default=4)
    attention = 2 * hidden * dim * (heads + keys)
    each = attention + 3 * hidden + 12 * hidden**2
    latents = perceiver.size(("resampler_n_latents",), most=65_536, default=64) * hidden
    depth = perceiver.size(("resampler_depth",), most=1024, default=3)
    return 2 * width * inner + inner * hidden + latents + depth * each + hidden


def _queries(root: Fields, _: Fields, width: int, hidden: int) -> int:
    """Q-Former: BERT's layers over learned queries, of which every so-many-th attends to the tower's vectors."""
    former = root.below("qformer_config") or root.below("projector_config") or root.inside("qformer_config", {})
    inner = former.size(("hidden_size",), default=768)
    wide = former.size(("intermediate_size",), default=4 * inner)
    layers = former.size(("num_hidden_layers",), most=1024, default=12)
    every = former.size(("cross_attention_frequency",), most=1024, default=2)
    seen = former.size(("encoder_hidden_size",), default=width)
    own = 4 * linear(inner, inner) + 2 * inner
    across = 2 * linear(inner, inner) + 2 * linear(seen, inner) + 2 * inner
    feed = linear(inner, wide) + linear(wide, inner) + 2 * inner
    count = root.size(("num_query_tokens",), least=0, most=65_536, default=0)
    if not count:  # Granite's: one for so many frames
        frames = root.size(("window_size",), most=65_536, default=15)
        count = frames // root.size(("downsample_rate",), most=65_536, default=5)
    return layers * (own + feed) + -(-layers // every) * across + 2 * inner + count * inner + linear(inner, hidden)


PROJECTORS: Final[Mapping[str, Joiner]] = MappingProxyType(
    {
        "llava": _two_layers,
        **dict.fromkeys(("llava_next", "llava_next_video", "llava_onevision"), _with_newline),
        "vipllava": _vipllava,
        **dict.fromkeys(("gemma3", "shieldgemma2"), _gemma3),
        "gemma3n": _gemma3n,
        **dict.fromkeys(("gemma4", "gemma4_unified", "llama4", "step3p7"), _matrix),
        **dict.fromkeys(("paligemma", "mllama", "qwen2_audio"), _layer),
        "mistral3": _mistral3,
        **dict.fromkeys(("internvl", "internvl_chat"), _normed),
        **dict.fromkeys(("idefics3", "smolvlm"), _idefics3),
        **dict.fromkeys(("cohere2_vision", "aya_vision"), _cohere),
        "aria": _aria,
        **dict.fromkeys(("minimax_m3_vl", "minimax_m3"), _minimax),
        **dict.fromkeys(("ernie4_5_vl_moe", "ernie4_5_moe_vl"), _ernie),
        "step3_vl": _step3,
        "deepseek_vl_v2": _deepseek_vl2,
        **dict.fromkeys(("multi_modality", "janus"), _janus),
        "phi3_v": _phi3,
        "idefics2": _idefics2,
        **dict.fromkeys(("blip-2", "granite_speech"), _queries),
        **dict.fromkeys(("lfm2_vl", "lfm2-vl"), _lfm2),
        "paddleocr_vl": _paddle,
        "voxtral": _voxtral,
        "molmo2": _molmo2,
        **dict.fromkeys(("minicpmv", "minicpmo"), _resampler),
    }
)
