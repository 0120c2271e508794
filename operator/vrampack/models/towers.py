"""Vision and audio encoders: how many elements the configuration of one implies.

The kinds differ in the names of their fields, in gates and in what joins them to the language model. Each is told by
its fields.
"""

import math

from vrampack.models.fields import Fields


def tower_of(fields: Fields, *, hidden_size: int) -> int | None:
    """Elements of the tower that these fields describe, with its projector into a model of ``hidden_size``.

    None: they are not those of a tower that is known. Raises InvalidInputError.
    """
    if fields.get("num_global_layers") is not None:
        return _tiled(fields, hidden_size)
    if fields.get("vt_num_hidden_layers") is not None:
        return _moon(fields, hidden_size)
    if fields.get("depth") is not None:
        return _merged(fields, hidden_size)
    if fields.get("num_hidden_layers") is not None and fields.get("intermediate_size") is not None:
        return _layered(fields, hidden_size)
    return None


def _merged(fields: Fields, hidden_size: int) -> int:
    """Qwen's: patches of two frames, and neighbours merged into one token of the language model."""
    old = fields.get("embed_dim") is not None  # Qwen2-VL calls the model's width hidden_size
    hidden = fields.size(("embed_dim", "hidden_size"))
    width = fields.size(
        ("intermediate_size",), default=hidden * int(fields.number("mlp_ratio", least=1, most=64, default=4))
    )
    out = fields.size(("out_hidden_size",), default=fields.size(("hidden_size",)) if old else hidden_size)
    gated = fields.get("fullatt_block_indexes") is not None  # Qwen2.5-VL
    merge = fields.size(("spatial_merge_size",), most=64, default=2) ** 2
    matrices = 4 * hidden**2 + (3 if gated else 2) * hidden * width
    vectors = (2 if gated else 4) * hidden + 5 * hidden + (2 if gated else 1) * width
    patch = fields.size(("patch_size", "spatial_patch_size"), most=1024, default=14) ** 2
    frames = fields.size(("temporal_patch_size",), most=64, default=2)
    embedding = hidden * fields.size(("in_channels", "in_chans"), most=64, default=3) * patch * frames
    positions = fields.size(("num_position_embeddings",), least=0, default=0) * hidden
    merger = (merge * hidden) ** 2 + merge * hidden * out + merge * hidden + out + 2 * hidden
    mergers = 1 + len(fields.numbers("deepstack_visual_indexes") or ())
    depth = fields.size(("depth",), most=1024)
    return depth * (matrices + vectors) + embedding + positions + mergers * merger


def _moon(fields: Fields, hidden_size: int) -> int:
    """MoonViT of Kimi: native resolution, positions of a grid, neighbours merged by a feed-forward part."""
    hidden = fields.size(("vt_hidden_size",))
    width = fields.size(("vt_intermediate_size",))
    heads = fields.size(("qkv_hidden_size",), default=hidden)
    layers = fields.size(("vt_num_hidden_layers",), most=1024)
    patch = 3 * hidden * fields.size(("patch_size",), most=1024, default=14) ** 2 + hidden
    grid = fields.size(("init_pos_emb_height",), most=4096, default=64)
    positions = grid * fields.size(("init_pos_emb_width",), most=4096, default=64) * hidden
    kernel = fields.numbers("merge_kernel_size") or [2, 2]
    merged = hidden * math.prod(kernel[:2])
    each = 4 * hidden * heads + 2 * hidden * width + 3 * heads + hidden + width + hidden + 4 * hidden
    return layers * each + 2 * hidden + patch + positions + merged**2 + merged * hidden_size + merged + hidden_size


def _tiled(fields: Fields, hidden_size: int) -> int:
    """Llama 3.2 Vision: local and global layers over tiles of an image, with positions for each tile and aspect."""
    hidden = fields.size(("hidden_size",))
    width = fields.size(("intermediate_size",))
    layers = fields.size(("num_hidden_layers",), most=1024) + fields.size(("num_global_layers",), most=1024)
    tiles = fields.size(("max_num_tiles",), most=64, default=4)
    ratios = fields.get("supported_aspect_ratios")
    aspects = 1 + (len(ratios) if isinstance(ratios, list) else 8)
    patch = fields.size(("patch_size",), most=1024, default=14)
    patches = (fields.size(("image_size",), most=65_536, default=560) // patch) ** 2 + 1
    positions = patches * hidden + aspects * tiles * (patches + 2) * hidden
    out = fields.size(("vision_output_dim",), default=hidden) * hidden_size + hidden_size
    channels = fields.size(("num_channels",), most=64, default=3)
    return (
        layers * (4 * hidden**2 + 2 * hidden * width + 5 * hidden + width)
        + positions
        + out
        + hidden * channels * patch**2
    )


def _layered(fields: Fields, hidden_size: int) -> int:
    """SigLIP, CLIP, Pixtral, Gemma 4 and their kin."""
    hidden = fields.size(("hidden_size",))
    width = fields.size(("intermediate_size",))
    kind = fields.text("model_type") or ""
    gated = kind in ("pixtral", "gemma4_vision")
    layers = fields.size(("num_hidden_layers",), most=1024)
    matrices = 4 * hidden**2 + (3 if gated else 2) * hidden * width
    vectors = 4 * hidden if gated else 9 * hidden + width
    patch = fields.size(("patch_size",), most=1024, default=14)
    channels = fields.size(("num_channels",), most=64, default=3)
    image = fields.size(("image_size",), least=0, most=65_536, default=0)
    positions = 0
    if kind == "gemma4_vision":
        positions = 2 * fields.size(("position_embedding_size",), least=0, default=0) * hidden
    elif not gated:
        positions = (image // patch) ** 2 * hidden
    projector = hidden * hidden_size
    if kind not in ("siglip_vision_model", "gemma4_vision"):
        projector += hidden_size**2  # two layers instead of one
    return layers * (matrices + vectors) + hidden * channels * patch**2 + positions + projector
