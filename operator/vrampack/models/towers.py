"""Vision and audio encoders beside a language model: how many elements the configuration of each implies.

What a tower is built like is told by its ``model_type``, or by its fields where it names none; what joins it to the
language model is told by the ``model_type`` of the whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.models.fields import Fields
from vrampack.models.projectors import joined
from vrampack.models.soundencoders import SOUND_ENCODERS
from vrampack.models.towerdefaults import tower_fields
from vrampack.models.visionencoders import VISION_ENCODERS, likely_encoder
from vrampack.models.visionparts import Encoder

_IMAGES: Final = ("vision_config", "img_processor", "visual")
_TOWERS: Final = (*_IMAGES, "audio_config", "encoder_config", "speech_config", "sound_config")
_NAMED_TOWERS: Final = ("mm_vision_tower", "vision_tower", "vision_encoder", "vision_model_id", "audio_model_id")
_UNDESCRIBED: Final = ("molmo", "chameleon", "emu3")
"""Models with a tower of which only their code knows, or in parts that are not known."""
_CLIP_LARGE: Final = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "patch_size": 14,
}
_KNOWN_MODELS: Final[Mapping[str, Mapping[str, object]]] = {
    "clip-vit-large-patch14-336": _CLIP_LARGE | {"image_size": 336},
    "clip-vit-large-patch14": _CLIP_LARGE | {"image_size": 224},
    "siglip_so400m_patch14_384": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "patch_size": 14,
        "image_size": 384,
    },
    "siglip_large_patch16_384": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "patch_size": 16,
        "image_size": 384,
    },
}
"""Encoders that configurations name instead of describing them."""


_PHI4: Final = ("phi4mm", "phi4_multimodal")
_PHI4_ELEMENTS: Final = 907_982_272
"""Both encoders of Phi-4-multimodal, of which there is one size: counted in transformers. Its first files do not
describe them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Towers:
    """All of a model's."""

    elements: int = 0
    unknown: tuple[str, ...] = ()
    """Fields that describe towers whose shapes are not known; their elements are missing."""
    likely: tuple[str, ...] = ()
    """Fields of towers of a kind that is not known by name, counted as plain transformers of their width and depth."""


def towers_of(config: Mapping[str, object], *, hidden_size: int) -> Towers:
    """Elements of the towers and of what joins them to a language model of ``hidden_size``.

    Raises InvalidInputError for values that can't be.
    """
    root = Fields(config)
    root = root.below("thinker_config") or root
    if root.text("model_type") in _PHI4:
        return Towers(elements=_PHI4_ELEMENTS)
    elements = 0
    unknown: list[str] = []
    likely: list[str] = []
    for name, tower in _described(root):
        found, known = _encoder(root, tower, hidden_size=hidden_size, sound=name not in _IMAGES)
        if found is None:
            unknown.append(name)
            continue
        between, known_too = joined(root, tower, found, hidden_size=hidden_size)
        elements += found.elements + between
        if not (known and known_too):
            likely.append(name)
    return Towers(elements=elements, unknown=tuple(unknown), likely=tuple(likely))


def _described(root: Fields) -> list[tuple[str, Fields]]:
    found = [(name, root.inside(name, value)) for name in _TOWERS if isinstance(value := root.get(name), Mapping)]
    if found:
        return [(name, _named(tower) or tower) for name, tower in found]
    for name in _NAMED_TOWERS:  # the first LLaVA; an encoder of another name lacks its sizes
        value = root.get(name)
        if isinstance(value, str):
            return [(name, root.inside(name, _KNOWN_MODELS.get(value.rpartition("/")[2], {"model_type": "named"})))]
    if root.text("model_type") in _UNDESCRIBED:
        return [("vision_config", root.inside("vision_config", {"model_type": "undescribed"}))]
    return []


def _named(tower: Fields) -> Fields | None:
    """A model that is known by name in the place of its sizes (DeepSeek-VL2, Janus, Phi-3-vision)."""
    inner = tower.below("params") or tower
    name = inner.get("model_name")
    model = _KNOWN_MODELS.get(name.rpartition("/")[2]) if isinstance(name, str) else None
    return None if model is None else tower.inside("model_name", model)


def _encoder(root: Fields, tower: Fields, *, hidden_size: int, sound: bool) -> tuple[Encoder | None, bool]:
    """The encoder, and whether its kind is known by name."""
    tower = tower_fields(root, tower, sound=sound)
    kind = tower.text("model_type") or ""
    encoder = VISION_ENCODERS.get(kind) or SOUND_ENCODERS.get(kind)
    if encoder is not None:
        return encoder(tower, hidden_size), True
    try:
        return likely_encoder(tower, hidden_size)
    except InvalidInputError as error:
        if error.value is not None:
            raise
        return None, False  # it lacks a size
