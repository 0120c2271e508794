"""What encoding images takes: from the fields of a vision tower to the bytes of the start-up run."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.known_models import QWEN3_8B
from vrampack.errors import InvalidInputError
from vrampack.memory.activations import activation_bytes
from vrampack.memory.forward import image_elements
from vrampack.memory.workload import Workload
from vrampack.models.encoders import ImageSizes, image_sizes
from vrampack.models.fields import Fields

QWEN3 = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "deepstack_visual_indexes": [8, 16, 24],
}
QWEN2 = {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4, "patch_size": 14}
SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "image_size": 896,
    "patch_size": 14,
    "num_hidden_layers": 27,
}


def sizes(vision: object, **root: Any) -> ImageSizes:
    return image_sizes(Fields({"vision_config": vision, **root}))


def load(**changes: Any) -> Workload:
    usual = {"context_length": 8192, "concurrency": 16, "tokens_per_sequence": 8192, "max_batched_tokens": 8192}
    return Workload(**(usual | changes))


def test_patches_merge_into_tokens() -> None:
    found = sizes(QWEN3)
    assert (found.image_tokens, found.video_images) == (16384, 1)
    assert found.image_width == 4 * (3 * 1152 + 3 * 16 * 16 * 2)  # four patches of two frames to a token
    assert found.image_split_width == 4 * 2 * 4304
    assert found.image_outputs == 4  # the last layer, and three on the way


def test_an_older_tower_takes_seven_images_for_a_long_video() -> None:
    found = sizes(QWEN2)
    assert found.video_images == 7
    assert found.image_split_width == 4 * 2 * 4 * 1280


@pytest.mark.parametrize(
    ("root", "tokens", "patches"),
    [
        ({"mm_tokens_per_image": 256}, 256, 16),  # Gemma 3 pools 4096 patches
        ({}, 4096, 1),
        ({"spatial_merge_size": 2}, 1024, 4),
    ],
)
def test_images_of_one_size(root: dict[str, Any], tokens: int, patches: int) -> None:
    found = sizes(SIGLIP, **root)
    assert found.image_tokens == tokens
    assert found.image_split_width == patches * 2 * 4304


def test_sound_where_there_are_no_images() -> None:
    whisper = {"d_model": 1280, "encoder_ffn_dim": 5120, "max_source_positions": 1500}
    found = image_sizes(Fields({"audio_config": whisper}))
    assert (found.image_tokens, found.image_split_width) == (750, 2 * 2 * 5120)
    assert image_sizes(Fields({"audio_config": whisper, "vision_config": QWEN3})) == sizes(QWEN3)
    assert image_sizes(Fields({"thinker_config": {"audio_config": whisper}})) == found


def test_gemma_4_pools_a_square_and_kimi_has_words_of_its_own() -> None:
    gemma = SIGLIP | {"patch_size": 16, "pooling_kernel_size": 3}
    assert sizes(gemma, vision_soft_tokens_per_image=280).image_tokens == 280
    assert sizes(gemma, vision_soft_tokens_per_image=280).image_split_width == 9 * 3 * 4304
    kimi = {"vt_hidden_size": 1152, "vt_intermediate_size": 4304, "patch_size": 14, "merge_kernel_size": [2, 2]}
    assert sizes(kimi).image_width == 4 * (3 * 1152 + 3 * 14 * 14)


def test_heights_and_widths_and_towers_of_several_widths() -> None:
    assert sizes(SIGLIP | {"image_size": [896, 448], "patch_size": [14, 14]}) == sizes(SIGLIP)
    assert sizes(SIGLIP | {"hidden_size": [96, 192, 384]}) == ImageSizes()


def test_what_is_not_described_is_nothing() -> None:
    assert image_sizes(Fields({})) == sizes({"model_type": "a tower of another kind"}) == ImageSizes()


def test_values_that_can_not_be_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="vision_config"):
        sizes(QWEN3 | {"hidden_size": -1})
    with pytest.raises(InvalidInputError, match="vision_config"):
        sizes("a text")


NUMBERS = st.integers(-2, 2**32) | st.sampled_from([None, True, "7", 0.5, [], [2, 2], [0, -1], [2**31 - 1] * 3])
OTHERS = ("vt_hidden_size", "vt_intermediate_size", "merge_kernel_size", "d_model", "encoder_ffn_dim")
NAMES = (*QWEN3, *QWEN2, *SIGLIP, *OTHERS, "max_source_positions", "pooling_kernel_size")
TOWERS = st.dictionaries(st.sampled_from(NAMES), NUMBERS)


@given(vision=TOWERS | st.none(), audio=TOWERS | st.none(), pooled=NUMBERS)
def test_whatever_a_stranger_writes_is_read_or_refused(vision: Any, audio: Any, pooled: Any) -> None:
    root = {"vision_config": vision, "audio_config": audio, "vision_soft_tokens_per_image": pooled}
    try:
        found = image_sizes(Fields(root))
    except InvalidInputError:
        return
    assert 0 <= found.image_tokens <= 2**24
    assert min(found.image_width, found.image_split_width) >= 0
    assert max(found.image_width, found.image_split_width) < 2**31
    assert found.video_images >= 1
    assert 1 <= found.image_outputs <= 1024


# ---- in the start-up run -----------------------------------------------------------------------------------------

IMAGES = dataclasses.replace(
    QWEN3_8B, multimodal=True, **{each: getattr(sizes(QWEN3), each) for each in ImageSizes.__slots__}
)


def test_one_step_encodes_at_least_the_largest_image() -> None:
    kept, working = image_elements(IMAGES, load())
    assert kept == 16384 * 4096 * 4
    assert working == 16384 * (IMAGES.image_width + IMAGES.image_split_width)
    assert image_elements(IMAGES, load(max_batched_tokens=32768))[0] == 2 * kept


def test_a_longer_context_allows_a_longer_video() -> None:
    video = dataclasses.replace(IMAGES, video_images=7)
    tokens = [
        image_elements(video, load(context_length=context))[0] // (4096 * 4) for context in (8192, 32768, 2**17, 2**20)
    ]
    assert tokens == [16384, 32768, 7 * 16384, 7 * 16384]
    assert image_elements(video, load(context_length=2**17, videos=False)) == image_elements(IMAGES, load())


def test_ranks_share_the_tower_but_not_what_it_gives() -> None:
    (one, work), (kept, split) = (image_elements(IMAGES, load(tensor=tensor)) for tensor in (1, 2))
    assert one == kept
    assert work - split == 16384 * IMAGES.image_split_width // 2


def test_text_alone_encodes_nothing() -> None:
    assert image_elements(IMAGES, load(text_only=True)) == (0, 0)
    assert activation_bytes(IMAGES, load(text_only=True)) == activation_bytes(QWEN3_8B, load())
    assert activation_bytes(IMAGES, load()) > activation_bytes(QWEN3_8B, load()) + 2**30


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"model_type": "llava", "vision_config": {"model_type": "pixtral"}}, 4096),
        ({"model_type": "llava", "vision_config": {"model_type": "pixtral", "image_size": 512}}, 1024),
        ({"model_type": "qwen3_vl", "vision_config": {"model_type": "qwen3_vl"}}, 16384),
        ({"model_type": "qwen2_audio", "audio_config": {"model_type": "qwen2_audio_encoder"}}, 750),
        ({"model_type": "gemma4", "vision_config": {"model_type": "gemma4_vision"}}, 0),
    ],
)
def test_fields_that_a_file_leaves_out_are_those_of_the_class(config: dict[str, object], tokens: int) -> None:
    assert image_sizes(Fields(config)).image_tokens == tokens
