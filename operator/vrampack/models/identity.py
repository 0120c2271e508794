"""Which model a config.json describes: its family, its class, and the part of it that writes text."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.models.attention_layers import HEADS
from vrampack.models.classdefaults import CLASS_DEFAULTS
from vrampack.models.families import FAMILIES, Family
from vrampack.models.fields import MAX_SHOWN, Fields

_TEXT_PARTS: Final = ("text_config", "llm_config", "language_config", "thinker_config")
_TOWERS: Final = ("vision_config", "audio_config", "mm_vision_tower", "img_processor", "vision_tower", "visual")
_ENCODERS: Final = (
    *_TOWERS,
    "encoder_config",
    "speech_config",
    "sound_config",
    "vision_encoder",
    "vision_model_id",
    "audio_model_id",
)
"""Every field that may speak of an encoder, be it to say that there is none."""
_RECURRENT: Final = ("rwkv", "mamba", "retnet", "recurrent", "griffin", "lstm", "hyena", "ssm")
_CLASS_SUFFIXES: Final = (
    "forcausallm",
    "forconditionalgeneration",
    "forsequenceclassification",
    "fortokenclassification",
    "forrewardmodel",
    "lmheadmodel",
    "model",
)
_BIDIRECTIONAL: Final = ("LlamaBidirectional", "LlamaNemotronVL", "VoyageQwen3Bidirectional")
_OF_CLASS: Final = {"Mamba2ForCausalLM": "mamba2"}
"""Classes that some files combine with an older ``model_type``."""
_LONGEST_NAME: Final = 64
_KIND_FIELDS: Final = ("layer_types", "layers_block_type", "hybrid_override_pattern", "sliding_window")
_POOLING: Final = ("Model", "ForSequenceClassification", "ForRewardModel", "ForTokenClassification", "ForMaskedLM")
_GENERATING: Final = (
    "LMHeadModel",
    "ChatModel",
    "ChatGLMModel",
    "NVLM_D_Model",
    "Qwen2_5OmniModel",
    "UltravoxModel",
    "MiDashengLMModel",
)
"""Read: classes that vLLM generates text with although they are called models."""

# fmt: off
_MEMORY_WORDS: Final = (
    "window", "chunk", "sparse", "linear", "mamba", "ssm", "conv", "state", "recurr", "rwkv", "lru", "compress",
    "latent", "lora_rank", "cross", "kv_", "layer_types", "block", "pattern", "attn_layer", "attn_type", "delta",
    "retention", "hyena", "index_", "memory", "encoder", "sink_", "channels",
    "loop", "ut_steps", "time_mix", "decay", "lstm", "head_size_divisor",
)
# fmt: on
_EXPERTS: Final = re.compile(r"(^|_)(n|num|number)_(\w+_)?experts?$", re.IGNORECASE)
"""Counts of experts, by whatever name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who it is."""

    root: Fields
    text: Fields
    parts: tuple[Fields, ...]
    """From the root to the text part, both included; one where they are the same."""
    family: Family
    model_type: str
    """Of the text part."""
    class_name: str
    multimodal: bool
    pooling: bool
    known: bool

    def is_causal(self) -> bool:
        """Some decoders were made into encoders: by a word in the file, or by the class that is made of it."""
        if any(self.class_name.startswith(name) for name in _BIDIRECTIONAL):
            return False
        if self.class_name == "Gemma3TextModel" and self.text.get("use_bidirectional_attention") is True:
            return False
        return self.text.get("is_causal") is not False

    def is_silent_about_towers(self) -> bool:
        """A text part is set apart for the sake of encoders beside it: an excerpt may leave those out."""
        if len(self.parts) == 1 or self.class_name.endswith("ForCausalLM"):
            return False
        return not any(part.has(name) for part in self.parts for name in _ENCODERS)

    def assumptions(self) -> tuple[str, ...]:
        """What is taken for granted; none of a family that is known by name."""
        if self.known:
            return ()
        return (f"model_type {self.model_type} is not known by name: its fields are read as other decoders mean them",)

    def refuse_what_nobody_read(self) -> None:
        """In a family that is not known by name: a field that smells of memory and that nobody asked for."""
        for name in () if self.known else self.text.unread():
            experts = _EXPERTS.search(name) is not None and _is_count(self.text.get(name))
            if experts or any(word in name.lower() for word in _MEMORY_WORDS):
                raise UnsupportedModelError(unknown=name[:MAX_SHOWN], detail="what it means to the memory is not known")


def identity_of(config: Mapping[str, object]) -> Identity:
    """Raises UnsupportedModelError for a file that names no family."""
    root = Fields(config)
    parts = text_parts(root)
    text = parts[-1]
    outer = root.text("model_type", most=_LONGEST_NAME)
    model_type = text.text("model_type", most=_LONGEST_NAME)
    if model_type is None:
        model_type = f"{outer}_text" if text is not root and f"{outer}_text" in FAMILIES else outer
    classes = root.texts("architectures") or []
    name = classes[0] if classes else ""
    if not model_type:
        raise _nameless(root, name)
    family = FAMILIES.get(_OF_CLASS.get(name, model_type)) or FAMILIES.get(f"{model_type}_text")
    known = family is not None
    if family is None:  # the engine goes by the class
        own = name if text is root else next(iter(text.texts("architectures") or ()), "")
        family = next(_families_of_class(own), None)
    if family is None and text.names(*HEADS) is None:
        raise UnsupportedModelError(
            unknown=HEADS[0],
            detail=f"model_type {model_type} is not known by name, and how it attends to the past is not said",
        )
    if family is None and any(word in model_type.lower() for word in _RECURRENT):
        raise UnsupportedModelError(
            unknown=f"model_type {model_type}", detail="its name says that it keeps states, but not of which size"
        )
    return Identity(
        root=root,
        text=text,
        parts=parts,
        family=family or Family(latent=True, chunked=True),
        model_type=model_type,
        class_name=name,
        multimodal=any(part.get(tower) for part in parts for tower in _TOWERS),
        pooling=name.endswith(_POOLING) and not name.endswith(_GENERATING),
        known=known,
    )


def _is_count(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, int) and value > 1)


def _nameless(root: Fields, name: str) -> UnsupportedModelError:
    """Excerpts of a file: what they lack most is of which kind each layer is, where that is not the same for all."""
    alike = any(family.uniform and not family.latent for family in _families_of_class(name))
    if name and not alike and not any(root.has(field) for field in _KIND_FIELDS):
        return UnsupportedModelError(
            unknown="layer_types", detail=f"config.json does not say of which kind the layers of this {name} are"
        )
    return UnsupportedModelError(unknown="model_type", detail="config.json does not name the model's family")


def _families_of_class(name: str) -> Iterator[Family]:
    """Those whose ``model_type`` the class is named after."""
    stem = _plain(name)
    for suffix in _CLASS_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return (family for model_type, family in FAMILIES.items() if _plain(model_type).removesuffix("text") == stem)


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def text_parts(root: Fields) -> tuple[Fields, ...]:
    """From the root to the innermost configuration of a model that writes text. Raises InvalidInputError."""
    parts = [root]
    for _ in range(4):
        name = parts[-1].names(*_TEXT_PARTS)
        if name is None:
            break
        parts.append(_nested(parts[-1], name))
    return tuple(parts)


def _nested(outer: Fields, name: str) -> Fields:
    """The part with the defaults of its class; a window may be switched off outside of it."""
    value = outer.get(name)
    if not isinstance(value, Mapping):
        raise outer.refusal(name, value, "an object")
    model_type = outer.inside(name, value).text("model_type") or ""
    defaults = dict(CLASS_DEFAULTS.get(model_type, {}))
    if outer.has("sliding_window"):
        defaults["sliding_window"] = outer.get("sliding_window")
    return outer.inside(name, value, defaults=defaults)
