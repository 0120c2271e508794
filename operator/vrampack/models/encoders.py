"""What encoding images, or sound, takes, from the configuration of a model's tower.

The tower works on patches, of which several become one token of the language model. How many tokens the largest image
becomes is in the processor's configuration, not in config.json: where images are not of one size, it is the default of
the family that has such a tower.
"""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.models.fields import MAX_SIZE, Fields
from vrampack.models.towerdefaults import tower_fields

_LARGEST_IMAGE: Final = 16_384
"""Tokens: ``max_pixels`` of Qwen2-VL and Qwen2.5-VL (12,845,056 of 28 x 28 a token), ``longest_edge`` of Qwen3-VL
(16,777,216 of 32 x 32). Its kin have less."""
_FRAMES: Final = 7
"""Pairs of frames, each as large as an image, in the longest video that vLLM makes up for Qwen2-VL and Qwen2.5-VL
(``_MAX_FRAMES_PER_VIDEO`` 14). Later towers bound a video by the size of one image."""
_HIDDEN_COPIES: Final = 3
_MOST_MERGED: Final = 4096
_MOST: Final = MappingProxyType(
    {"image_tokens": 2**24, "image_width": MAX_SIZE, "image_split_width": MAX_SIZE, "image_outputs": 1024}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSizes:
    """As the fields of Architecture of the same names."""

    image_tokens: int = 0
    video_images: int = 1
    image_width: int = 0
    image_split_width: int = 0
    image_outputs: int = 1


def image_sizes(root: Fields) -> ImageSizes:
    """Of the vision tower, or of the one for sound where there is no other; of a model without one, or with one that is
    not described, nothing.

    Raises InvalidInputError for values that can't be.
    """
    try:
        found = _read(root)
    except InvalidInputError as error:
        if error.value is not None:
            raise
        return ImageSizes()  # a field that is absent: a tower that is described elsewhere (Gemma 3n)
    for name, most in _MOST.items():
        if getattr(found, name) > most:
            raise root.refusal("vision_config", {}, f"a tower of which {name} is at most {most}")
    return found


def _read(root: Fields) -> ImageSizes:
    root = root.below("thinker_config") or root
    tower = root.below("vision_config")
    if tower is None:
        sound = root.below("audio_config")
        return _of_sound(tower_fields(root, sound, sound=True)) if sound is not None else ImageSizes()
    tower = tower_fields(root, tower, sound=False)
    if any(isinstance(tower.get(name), list) for name in ("hidden_size", "embed_dim", "depth", "depths")):
        return ImageSizes()  # stages of several widths
    if tower.get("depth") is not None:
        return _of_patches(tower)
    if tower.get("vt_hidden_size") is not None:
        return _of_kimi(tower)
    if root.get("vision_soft_tokens_per_image") is not None:
        return _pooled(root, tower)
    if tower.get("image_size") is not None and tower.get("num_hidden_layers") is not None:
        return _of_tiles(root, tower)
    return ImageSizes()


def _of_patches(tower: Fields) -> ImageSizes:
    """Images of any size, neighbouring patches merged (Qwen-VL, GLM-V)."""
    hidden = tower.size(("embed_dim", "hidden_size"))
    width = tower.size(
        ("intermediate_size",), default=hidden * int(tower.number("mlp_ratio", least=1, most=64, default=4))
    )
    edge = _edge(tower, "patch_size", "spatial_patch_size", default=14)
    channels = tower.size(("in_channels", "in_chans"), most=64, default=3)
    patch = channels * edge**2 * tower.size(("temporal_patch_size",), most=64, default=2)
    merged = tower.size(("spatial_merge_size",), most=64, default=2) ** 2
    gated = tower.get("fullatt_block_indexes") is not None
    return ImageSizes(
        image_tokens=_LARGEST_IMAGE,
        video_images=_FRAMES if edge == 14 else 1,
        image_width=merged * (_HIDDEN_COPIES * hidden + patch),
        image_split_width=merged * _split(hidden, width, gated=gated),
        image_outputs=1 + len(tower.numbers("deepstack_visual_indexes") or ()),
    )


def _of_kimi(tower: Fields) -> ImageSizes:
    """Kimi K2.5 and later: as Qwen's, in other words."""
    hidden, width = tower.size(("vt_hidden_size",)), tower.size(("vt_intermediate_size",))
    edge = _edge(tower, "patch_size", default=14)
    merged = min(max(1, math.prod((tower.numbers("merge_kernel_size") or [2, 2])[:2])), _MOST_MERGED)
    return ImageSizes(
        image_tokens=_LARGEST_IMAGE // 4,
        image_width=merged * (_HIDDEN_COPIES * hidden + 3 * edge**2),
        image_split_width=merged * _split(hidden, width, gated=False),
    )


def _pooled(root: Fields, tower: Fields) -> ImageSizes:
    """Gemma 4: a square of patches is pooled into one token."""
    hidden, width = tower.size(("hidden_size",)), tower.size(("intermediate_size",))
    edge = _edge(tower, "patch_size", default=16)
    pooled = tower.size(("pooling_kernel_size",), most=64, default=3) ** 2
    return ImageSizes(
        image_tokens=root.size(("vision_soft_tokens_per_image",), most=2**20),
        image_width=pooled * (_HIDDEN_COPIES * hidden + 3 * edge**2),
        image_split_width=pooled * _split(hidden, width, gated=True),
    )


def _of_sound(tower: Fields) -> ImageSizes:
    """Whisper's encoder (Qwen-Audio, Voxtral): two of its positions are at least one token."""
    if tower.get("max_source_positions") is None:
        return ImageSizes()
    hidden = tower.size(("d_model", "hidden_size"))
    width = tower.size(("encoder_ffn_dim", "intermediate_size"), default=4 * hidden)
    return ImageSizes(
        image_tokens=-(-tower.size(("max_source_positions",), most=2**20) // 2),
        image_width=2 * _HIDDEN_COPIES * hidden,
        image_split_width=2 * _split(hidden, width, gated=False),
    )


def _of_tiles(root: Fields, tower: Fields) -> ImageSizes:
    """Images, or tiles of them, of one size (CLIP, SigLIP, Pixtral at its largest)."""
    hidden = tower.size(("hidden_size",))
    width = tower.size(("intermediate_size",), default=4 * hidden)
    edge = _edge(tower, "patch_size", default=14)
    patches = max(1, _edge(tower, "image_size") // edge) ** 2
    compression = tower.below("img_token_compression_config") or root
    merged = compression.size(("spatial_merge_size",), most=64, default=1) ** 2
    tokens = min(patches, root.size(("mm_tokens_per_image",), default=max(1, patches // merged)))
    each = -(-patches // tokens)
    gated = tower.text("model_type") in ("pixtral", "gemma4_vision")
    return ImageSizes(
        image_tokens=tokens,
        image_width=each * (_HIDDEN_COPIES * hidden + 3 * edge**2),
        image_split_width=each * _split(hidden, width, gated=gated),
    )


def _edge(fields: Fields, *names: str, default: int = 0) -> int:
    """A length in pixels, or the longer one of a height and a width."""
    for name in names:
        if isinstance(fields.get(name), list):
            return max(1, *(fields.numbers(name) or (1,)))
    return fields.size(names, most=65_536, default=default or None)


def _split(hidden: int, width: int, *, gated: bool) -> int:
    """Per patch: the wider of the two halves of a layer, split over the ranks."""
    return max((3 if gated else 2) * width, 4 * hidden)
