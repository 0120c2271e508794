"""Configurations of models that only draft for another one: EAGLE's wrap that of a decoder, Medusa's are heads alone.

EAGLE-3 as its authors publish it is a decoder of one layer by its file, and needs nothing of this.
"""

from collections.abc import Mapping
from typing import Final

from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import FeedForward, LayerRun
from vrampack.models.fields import Fields

MEDUSA: Final = "medusa"
_MOST_HEADS: Final = 64
_WRAPPED: Final = "model"
_SPECULATORS: Final = "transformer_layer_config"
_OUTER: Final = ("torch_dtype", "dtype", "tie_word_embeddings", "quantization_config")


def decoder_of(config: Mapping[str, object]) -> Mapping[str, object]:
    """The configuration of the decoder that a drafting model is; any other configuration as it is.

    vLLM's own EAGLE files have it under ``model``, those of the speculators library under ``transformer_layer_config``.
    What stands outside of it holds for it too where it says nothing itself.
    """
    inner = None
    if config.get("model_type") == "eagle":
        inner = config.get(_WRAPPED)
    elif config.get("speculators_model_type") is not None or config.get(_SPECULATORS) is not None:
        inner = config.get(_SPECULATORS)
    if not isinstance(inner, Mapping):
        return config
    outer = {name: config[name] for name in _OUTER if config.get(name) is not None}
    return outer | dict(inner)


def medusa_of(config: Mapping[str, object], *, dtype: str) -> Architecture:
    """Medusa's heads: each has a few square layers and an output head; every rank has the layers in full.

    A head stands as a layer. Raises InvalidInputError for sizes that are missing or can't be.
    """
    fields = Fields(config)
    heads = fields.size(("num_heads", "medusa_num_heads"), most=_MOST_HEADS)
    hidden = fields.size(("hidden_size",))
    depth = fields.size(("num_hidden_layers", "num_layers", "medusa_num_layers"), most=_MOST_HEADS, default=1)
    return Architecture(
        model_type=MEDUSA,
        layers=heads,
        hidden_size=hidden,
        intermediate_size=0,
        vocab_size=fields.size(("truncated_vocab_size", "vocab_size")),
        attention_heads=0,
        kv_heads=0,
        head_dim=0,
        dtype=dtype,
        class_name="MedusaModel",
        runs=(LayerRun(count=heads, mixers=(), feed_forward=FeedForward(width=depth * hidden, gated=False)),),
    )
