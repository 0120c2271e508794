"""Encoders that take images of any size and merge neighbouring patches before the language model sees them: Qwen's and
their kin, GLM's, Kimi's, Ernie's. Elements as their model classes in transformers have them."""

import math

from vrampack.models.fields import Fields
from vrampack.models.visionparts import Encoder, block, layers_of, linear, patch_elements, patches


def qwen(fields: Fields, hidden_size: int) -> Encoder:
    """Patches of two frames, and neighbours merged into one token of the language model."""
    old = fields.get("embed_dim") is not None  # Qwen2-VL calls the model's width hidden_size
    hidden = fields.size(("embed_dim", "hidden_size"))
    width = fields.size(
        ("intermediate_size",), default=hidden * int(fields.number("mlp_ratio", least=1, most=64, default=4))
    )
    out = fields.size(("out_hidden_size",), default=fields.size(("hidden_size",)) if old else hidden_size)
    gated = fields.get("fullatt_block_indexes") is not None  # Qwen2.5-VL
    merged = fields.size(("spatial_merge_size",), most=64, default=2) ** 2 * hidden
    positions = fields.size(("num_position_embeddings",), least=0, default=0)
    frames = fields.size(("temporal_patch_size",), most=64, default=2)
    deep = len(fields.numbers("deepstack_visual_indexes") or ())
    heads = fields.size(("num_heads",), most=4096, default=1)
    keys = fields.size(("num_key_value_heads",), most=4096, default=heads) * hidden // heads
    merging = linear(merged, merged) + linear(merged, out)
    return Encoder(
        elements=layers_of(fields, "depth") * block(hidden, width, gated=gated, norm_bias=not gated, keys=keys)
        + patch_elements(fields, hidden, frames=frames, bias=bool(positions))
        + positions * hidden
        + (1 + deep) * merging
        + hidden * (1 if gated else 2)
        + deep * 2 * merged
    )


def glm(fields: Fields, _: int) -> Encoder:
    """Gated layers, neighbours merged by a convolution and a gated feed-forward part. GLM-OCR has biases and norms of
    queries and keys, and no positions."""
    hidden, out = fields.size(("hidden_size",)), fields.size(("out_hidden_size",))
    wide = fields.size(("intermediate_size",))
    ocr = fields.text("model_type") == "glm_ocr_vision"
    heads = fields.size(("num_heads",), most=4096, default=1)
    width = wide if ocr else out
    inner = out * fields.size(("in_channels",), most=64, default=3) if ocr else wide
    each = block(hidden, width, gated=True, biases=ocr, norm_bias=False) + (2 * (hidden // heads) if ocr else 0)
    frames = fields.size(("temporal_patch_size",), most=64, default=2)
    merge = fields.size(("spatial_merge_size",), most=64, default=2) ** 2
    return Encoder(
        elements=layers_of(fields, "depth") * each
        + patch_elements(fields, hidden, frames=frames)
        + (hidden if ocr else (patches(fields) + 2) * hidden)
        + linear(hidden * merge, out)
        + out**2
        + 2 * out
        + 3 * out * inner
    )


def moon(fields: Fields, hidden_size: int) -> Encoder:
    """MoonViT of Kimi: native resolution, positions of a grid, neighbours merged by a feed-forward part."""
    hidden = fields.size(("vt_hidden_size", "hidden_size"))
    width = fields.size(("vt_intermediate_size", "intermediate_size"))
    heads = fields.size(("qkv_hidden_size",), default=hidden)
    grid = fields.size(("init_pos_emb_height", "pos_emb_height"), most=4096, default=64)
    positions = grid * fields.size(("init_pos_emb_width", "pos_emb_width"), most=4096, default=64) * hidden
    merged = hidden * math.prod((fields.numbers("merge_kernel_size") or [2, 2])[:2])
    each = 4 * hidden * heads + 3 * heads + hidden + linear(hidden, width) + linear(width, hidden) + 4 * hidden
    return Encoder(
        elements=layers_of(fields, "vt_num_hidden_layers", "num_hidden_layers") * each
        + 2 * hidden
        + patch_elements(fields, hidden)
        + positions
        + linear(merged, merged)
        + linear(merged, hidden_size)
        + 2 * hidden
    )


def ernie(fields: Fields, _: int) -> Encoder:
    hidden = fields.size(("hidden_size",))
    width = fields.size(("intermediate_size",), default=4 * hidden)
    stem = patch_elements(fields, hidden, bias=False) + 2 * hidden
    return Encoder(elements=stem + layers_of(fields, "depth") * block(hidden, width), width=hidden)
