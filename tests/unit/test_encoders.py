"""What encoding images takes: from the fields of a vision tower to the bytes of the start-up run."""

import dataclasses
from typing import Any

import pytest

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


def test_what_is_not_described_is_nothing() -> None:
    assert image_sizes(Fields({})) == sizes({"model_type": "a tower of another kind"}) == ImageSizes()


def test_values_that_can_not_be_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="vision_config"):
        sizes(QWEN3 | {"hidden_size": -1})
    with pytest.raises(InvalidInputError, match="vision_config"):
        sizes("a text")


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
