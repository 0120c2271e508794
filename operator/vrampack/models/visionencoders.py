"""Encoders of images by their ``model_type``: elements as their model classes in transformers have them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from vrampack.models.fields import MAX_WIDTH, Fields
from vrampack.models.mergingencoders import ernie, glm, moon, qwen
from vrampack.models.visionparts import Encoder, block, layers_of, linear, patch_elements, patches

Builder = Callable[[Fields, int], Encoder]
"""From the tower's fields and the language model's hidden size."""


def _sizes(fields: Fields) -> tuple[int, int, int]:
    """Hidden size, feed-forward width, layers."""
    hidden = fields.size(("hidden_size",))
    ratio = fields.number("mlp_ratio", least=0, most=64, default=4)
    width = fields.size(("intermediate_size",), default=max(1, int(hidden * ratio)))
    return hidden, width, layers_of(fields)


def _clip(fields: Fields, _: int) -> Encoder:
    hidden, width, layers = _sizes(fields)
    stem = hidden + patch_elements(fields, hidden, bias=False) + (patches(fields) + 1) * hidden + 4 * hidden
    return Encoder(elements=stem + layers * block(hidden, width), width=hidden)


def _siglip(fields: Fields, _: int) -> Encoder:
    """With a head that pools, unless it is switched off."""
    hidden, width, layers = _sizes(fields)
    positions = fields.size(("num_patches",), least=0, default=patches(fields))
    head = fields.flag("vision_use_head", default=True)
    return _plain(fields, hidden, width, layers, positions=positions, head=head)


def _headless(fields: Fields, _: int) -> Encoder:
    hidden, width, layers = _sizes(fields)
    return _plain(fields, hidden, width, layers, positions=patches(fields), head=False)


def _plain(fields: Fields, hidden: int, width: int, layers: int, *, positions: int, head: bool) -> Encoder:
    elements = patch_elements(fields, hidden) + positions * hidden + layers * block(hidden, width) + 2 * hidden
    if head:
        pooling = 4 * linear(hidden, hidden) + linear(hidden, width) + linear(width, hidden)
        elements += hidden + pooling + 2 * hidden
    return Encoder(elements=elements, width=hidden)


def _blip2(fields: Fields, _: int) -> Encoder:
    hidden, width, layers = _sizes(fields)
    stem = hidden + patch_elements(fields, hidden) + (patches(fields) + 1) * hidden + 2 * hidden
    return Encoder(elements=stem + layers * block(hidden, width), width=hidden)


def _pixtral(fields: Fields, _: int) -> Encoder:
    hidden, width, layers = _sizes(fields)
    each = block(hidden, width, gated=True, biases=False, norm_bias=False)
    return Encoder(elements=patch_elements(fields, hidden, bias=False) + hidden + layers * each, width=hidden)


def _llama4(fields: Fields, _: int) -> Encoder:
    hidden, width, layers = _sizes(fields)
    inner = fields.size(("projector_input_dim",), default=4096)
    out = fields.size(("projector_output_dim",), default=4096)
    ratio = fields.number("pixel_shuffle_ratio", least=0.01, most=1, default=0.5)
    shuffled = round(hidden / ratio**2)  # what the adapter is made for
    stem = hidden + patch_elements(fields, hidden, bias=False) + (patches(fields) + 1) * hidden + 4 * hidden
    adapter = (shuffled if shuffled == width else width) * inner + inner * out
    vision_out = fields.size(("vision_output_dim",), default=out)
    return Encoder(elements=stem + layers * block(hidden, width) + adapter, width=vision_out)


def _mllama(fields: Fields, _: int) -> Encoder:
    """Local and global layers over tiles of an image, with positions for each tile and aspect."""
    hidden, width, layers = _sizes(fields)
    wide = layers_of(fields, "num_global_layers")
    tiles = fields.size(("max_num_tiles",), most=64, default=4)
    ratios = fields.get("supported_aspect_ratios")
    aspects = 1 + (len(ratios) if isinstance(ratios, list) else 8)
    seen = patches(fields) + 1
    positions = seen * hidden + aspects * tiles * (seen + 2) * hidden + 3
    each = 4 * hidden**2 + linear(hidden, width) + linear(width, hidden) + 4 * hidden
    stem = hidden + patch_elements(fields, hidden, bias=False) + 4 * hidden
    out = fields.size(("vision_output_dim",), default=hidden)
    return Encoder(elements=(layers + wide) * each + 2 * wide + positions + stem, width=out)


def _gemma4(fields: Fields, _: int) -> Encoder:
    hidden, width, layers = _sizes(fields)
    heads = fields.size(("num_attention_heads",), most=4096, default=1)
    dim = fields.size(("head_dim",), most=MAX_WIDTH, default=max(1, hidden // heads))
    each = block(hidden, width, gated=True, biases=False, norm_bias=False, norms=4) + 2 * dim
    table = 2 * fields.size(("position_embedding_size",), least=0, default=0) * hidden
    scale = 2 * hidden if fields.flag("standardize", default=False) else 0
    elements = patch_elements(fields, hidden, bias=False) + table + scale + layers * each
    return Encoder(elements=elements, width=hidden)


def _unified(fields: Fields, _: int) -> Encoder:
    """Gemma 4 12B has no layers of its own for images: squares of patches become vectors, with positions and norms."""
    width = fields.size(("mm_embed_dim",), default=3840)
    side = fields.size(("patch_size",), most=1024, default=16)
    square = 3 * (side * fields.size(("pooling_kernel_size",), most=64, default=3)) ** 2
    positions = 2 * fields.size(("mm_posemb_size",), least=0, default=1120) * width
    return Encoder(elements=positions + 2 * square + linear(square, width) + 4 * width, width=width)


def _internvl(fields: Fields, _: int) -> Encoder:
    """InternViT, as the first files (``intern_vit_6b``) and as transformers describe it: scales for each part."""
    hidden, width, layers = _sizes(fields)
    first = fields.text("model_type") == "intern_vit_6b"
    flag = "qkv_bias" if first else "attention_bias"
    biases = 0 if fields.flag(flag, default=False) else 3 * hidden
    norms = 2 * hidden if fields.flag("qk_normalization" if first else "use_qk_norm", default=False) else 0
    simple = fields.text("norm_type") == "rms_norm"
    each = block(hidden, width) - biases + norms + 2 * hidden - (2 * hidden if simple else 0)
    elements = hidden + patch_elements(fields, hidden) + (patches(fields) + 1) * hidden + layers * each
    return Encoder(elements=elements, width=4 * hidden)


def _molmo2(fields: Fields, _: int) -> Encoder:
    hidden, width, layers = _sizes(fields)
    positions = fields.size(("num_position_embeddings",), least=0, default=patches(fields))
    elements = patch_elements(fields, hidden) + positions * hidden + layers * block(hidden, width)
    return Encoder(elements=elements, width=hidden)


def _minimax(fields: Fields, _: int) -> Encoder:
    hidden, width, layers = _sizes(fields)
    frames = fields.size(("temporal_patch_size",), most=64, default=2)
    stem = patch_elements(fields, hidden, frames=frames, bias=False) + 2 * hidden
    return Encoder(elements=stem + layers * block(hidden, width), width=hidden)


def _step3(fields: Fields, _: int) -> Encoder:
    hidden, width, layers = _sizes(fields)
    stem = hidden + patch_elements(fields, hidden) + (patches(fields) + 1) * hidden
    out = fields.size(("output_hidden_size",), default=hidden)
    merging = linear(4 * hidden, out) + linear(9 * out, 2 * out)
    return Encoder(elements=stem + layers * block(hidden, width) + merging, width=2 * out)


def _step3p5(fields: Fields, _: int) -> Encoder:
    """Scales for each part, and two convolutions that merge neighbours."""
    hidden, width, layers = _sizes(fields)
    layers = layers_of(fields, "num_hidden_layers", "layers")
    stem = patch_elements(fields, hidden, bias=False) + patches(fields) * hidden + 2 * hidden
    merging = linear(9 * hidden, 2 * hidden) + linear(18 * hidden, 4 * hidden)
    return Encoder(elements=stem + layers * (block(hidden, width) + 2 * hidden) + merging, width=4 * hidden)


def _ovis2(fields: Fields, hidden_size: int) -> Encoder:
    """An image becomes a mixture of words of a vocabulary of its own."""
    hidden, width, layers = _sizes(fields)
    biases = fields.flag("qkv_bias", default=False)
    each = block(hidden, width, gated=True, biases=biases, norm_bias=False)
    words = fields.size(("vocab_size",), default=16384)
    head = words - fields.size(("num_visual_indicator_tokens",), least=0, most=words, default=5)
    stride = fields.size(("hidden_stride",), most=64, default=1) ** 2
    stem = patch_elements(fields, hidden) + patches(fields) * hidden + 2 * hidden
    return Encoder(elements=stem + layers * each + head * (stride * hidden + 2) + words * hidden_size)


def _mobilenet(_: Fields, __: int) -> Encoder:
    """MobileNetV5 of Gemma 3n, whose stages no configuration describes: counted in timm."""
    return Encoder(elements=294_126_912, width=2048)


def likely_encoder(fields: Fields, hidden_size: int) -> tuple[Encoder | None, bool]:
    """An encoder that names no kind, by the fields that only one kind has; else a plain transformer of its width and
    depth, which is not known by name. None: it does not say those. Raises InvalidInputError."""
    if fields.get("num_global_layers") is not None:
        return _mllama(fields, hidden_size), True
    if fields.get("vt_num_hidden_layers") is not None:
        return moon(fields, hidden_size), True
    if fields.get("output_hidden_size") is not None:
        return _step3(fields, hidden_size), True
    if fields.get("depth") is not None:
        return qwen(fields, hidden_size), True
    if fields.get("num_hidden_layers") is not None:
        return _clip(fields, hidden_size), False
    if fields.get("width") is not None and fields.get("layers") is not None:
        hidden, width = fields.size(("width",)), int(fields.number("mlp_ratio", least=0, most=64, default=4))
        return _plain(fields, hidden, width * hidden, layers_of(fields, "layers"), positions=0, head=False), False
    return None, False


VISION_ENCODERS: Final[Mapping[str, Builder]] = MappingProxyType(
    {
        "clip_vision_model": _clip,
        **dict.fromkeys(("siglip_vision_model", "siglip2_vision_model"), _siglip),
        **dict.fromkeys(
            (
                "idefics2_vision",
                "idefics3_vision",
                "smolvlm_vision",
                "minicpmv",
                "paddleocr_vl_vision",
                "janus_vision_model",
                "video_llama_3_vision",
            ),
            _headless,
        ),
        "blip_2_vision_model": _blip2,
        "pixtral": _pixtral,
        **dict.fromkeys(
            (
                "qwen2_vl",
                "qwen2_vl_vision",
                "qwen2_5_vl",
                "qwen2_5_vl_vision",
                "qwen2_5_omni_vision_encoder",
                "qwen3_vl",
                "qwen3_vl_vision",
                "qwen3_vl_moe",
                "qwen3_vl_moe_vision",
                "qwen3_5",
                "qwen3_5_vision",
                "qwen3_5_moe",
                "qwen3_5_moe_vision",
                "qwen3_omni_moe_vision_encoder",
                "exaone4_5_vision",
            ),
            qwen,
        ),
        **dict.fromkeys(("glm4v", "glm4v_vision", "glm4v_moe", "glm4v_moe_vision", "glm_ocr_vision"), glm),
        "llama4_vision_model": _llama4,
        "mllama_vision_model": _mllama,
        "gemma4_vision": _gemma4,
        "gemma4_unified_vision": _unified,
        "gemma3n_vision": _mobilenet,
        **dict.fromkeys(("internvl_vision", "intern_vit_6b"), _internvl),
        "molmo2": _molmo2,
        **dict.fromkeys(("kimi_k25_vision", "kimi_k25", "moonvit"), moon),
        **dict.fromkeys(("minimax_m3_vl_vision", "minimax_m3_vl"), _minimax),
        "ernie4_5_vl_moe_vision": ernie,
        "step3_vision_encoder": _step3,
        **dict.fromkeys(("step3p5_vision", "perception_encoder"), _step3p5),
        "ovis2_vision": _ovis2,
    }
)
