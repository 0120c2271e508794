"""config.json of a checkpoint, read as the engine reads it. Pure; nothing in a stranger's file is trusted."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import DTYPE_BYTES
from vrampack.memory.layers import FeedForward, LatentAttention, LayerRun, Mixer, Span
from vrampack.models.attention_layers import Heads, attention_of, heads_of, is_latent, latent_of
from vrampack.models.blocks import Block, blocks_of
from vrampack.models.drafters import MEDUSA, decoder_of, medusa_of
from vrampack.models.encoders import ImageSizes, image_sizes
from vrampack.models.families import Family
from vrampack.models.feedforward import Experts, dense_width, experts_of, feed_forwards, is_per_token_said
from vrampack.models.fields import Fields
from vrampack.models.identity import Identity, identity_of
from vrampack.models.kvdtype import kv_cache_dtype_of
from vrampack.models.layerkinds import Kind, layer_kinds
from vrampack.models.perlayer import layer_fields
from vrampack.models.rotary import MAX_TOKENS, rotary_of
from vrampack.models.state_layers import state_of

MAX_LAYERS: Final = 1024
_LAYERS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_decoder_layers", "num_layers", "decoder_layers")
_DECODER_LAYERS: Final = ("decoder_layers", "num_decoder_layers", *_LAYERS)
"""Of an encoder-decoder, whose num_hidden_layers and num_layers are often the encoder's."""
_HIDDEN: Final = ("hidden_size", "n_embd", "d_model")
_VOCABULARY: Final = ("vocab_size", "padded_vocab_size")
_ENCODER_TOKENS: Final = ("max_source_positions", "max_position_embeddings", "n_positions")
_PREDICTION: Final = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules")


def architecture_of(
    config: Mapping[str, object],
    *,
    stored_dtype: str | None = None,
    quant_config: Mapping[str, object] | None = None,
) -> Architecture:
    """What the estimate needs of a config.json.

    ``stored_dtype`` (``bfloat16``, …) is that of the weight files, which counts where config.json names none;
    ``quant_config`` is ``hf_quant_config.json`` where the repository has one.
    Raises UnsupportedModelError, with the field, for layers whose kind is not known or not said, and InvalidInputError,
    with the field, for values that can't be.
    """
    config = decoder_of(config)
    if config.get("model_type") == MEDUSA:
        fields = Fields(config)
        return medusa_of(config, dtype=_dtype((fields,), stored_dtype))
    identity = identity_of(config)
    text, family = identity.text, identity.family
    layers = _layer_count(text, encoder_decoder=family.encoder_decoder)
    hidden = text.size(_HIDDEN)
    texts = layer_fields(text, layers=layers)
    blocks = blocks_of(text, layers=layers, hidden=hidden)
    kinds = _block_kinds(blocks) if blocks else layer_kinds(text, family, layers=layers)
    heads = _heads(text, family, kinds, blocks, hidden=hidden)
    experts = experts_of(text)
    if blocks:
        parts: list[FeedForward | None] = [_block_mlp(block, family) for block in blocks]
    else:
        parts = feed_forwards(texts, family, kinds, hidden=hidden, experts=experts)
    mixers = []
    for index, (own, kind) in enumerate(zip(texts, kinds, strict=True)):
        own_heads = heads if own is text else _heads(own, family, kinds, None, hidden=hidden)
        own_heads = _heads_of_block(own_heads, blocks, index)
        mixers.append(_mixers(own, family, own_heads, kind, index=index, layers=layers, hidden=hidden))
    runs = _runs(mixers, parts)
    latent = next((mixer for run in runs for mixer in run.mixers if isinstance(mixer, LatentAttention)), None)
    head_dim = latent.rank + latent.rope_dim if latent else (heads.dim if heads else 0)
    rotary = rotary_of(text, family, runs)
    images = image_sizes(identity.root)
    widths = Counter(part.width for part in parts if part and part.width)
    architecture = Architecture(
        model_type=identity.model_type,
        layers=layers,
        hidden_size=hidden,
        intermediate_size=_intermediate(text, family, hidden, experts, widths),
        vocab_size=text.size(_VOCABULARY),
        attention_heads=heads.count if heads else 0,
        kv_heads=heads.kv if heads else 0,
        head_dim=head_dim,
        dtype=_dtype(_typed(identity), stored_dtype),
        max_context=rotary.context,
        tied_embeddings=_tied(identity),
        experts=experts.count,
        experts_per_token=experts.per_token,
        expert_intermediate_size=experts.width if experts.count else 0,
        shared_expert_intermediate_size=experts.shared_width,
        gated_mlp=family.gated,
        rotary_positions=rotary.positions,
        rotary_dim=rotary.dim,
        class_name=identity.class_name,
        kv_cache_dtype=kv_cache_dtype_of(identity.root, text, quant_config),
        encoder_tokens=_encoder_tokens(text, family) if family.encoder_decoder else 0,
        predict_layers=text.size(_PREDICTION, least=0, most=MAX_LAYERS, default=0),
        multimodal=identity.multimodal,
        image_tokens=images.image_tokens,
        video_images=images.video_images,
        image_width=images.image_width,
        image_split_width=images.image_split_width,
        image_outputs=images.image_outputs,
        pooling=identity.pooling,
        causal=family.causal and identity.is_causal(),
        assumptions=identity.assumptions() + _about_experts(text, experts) + _about_towers(identity, images),
    )
    identity.refuse_what_nobody_read()
    return _with_runs(architecture, runs)


def _about_experts(text: Fields, experts: Experts) -> tuple[str, ...]:
    if not experts.count or is_per_token_said(text):
        return ()
    return (f"config.json does not say how many experts a token uses: {experts.per_token} are taken",)


def _about_towers(identity: Identity, images: ImageSizes) -> tuple[str, ...]:
    if identity.is_silent_about_towers():
        return ("config.json does not speak of the encoders beside its text part: they are not counted by it",)
    if not identity.multimodal or images.image_tokens:
        return ()
    return ("config.json does not describe the tower for images or sound: the peak of encoding is not counted",)


def _layer_count(text: Fields, *, encoder_decoder: bool) -> int:
    """As written, or as long as the list of layers."""
    default = None
    for name in ("layers_block_type", "layer_types"):
        listed = text.texts(name)
        default = default or (len(listed) if listed else None)
    return text.size(_DECODER_LAYERS if encoder_decoder else _LAYERS, most=MAX_LAYERS, default=default)


def _with_runs(architecture: Architecture, runs: tuple[LayerRun, ...]) -> Architecture:
    """Without runs where the scalars say it all."""
    if architecture.layer_runs == runs:
        return architecture
    return replace(architecture, runs=runs)


def _heads(text: Fields, family: Family, kinds: list[Kind], blocks: list[Block] | None, *, hidden: int) -> Heads | None:
    """None for a model without any attention."""
    attention = {Kind.FULL, Kind.SLIDING, Kind.CHUNKED, Kind.STATE_AND_FULL}
    if not attention.intersection(kinds):
        return None
    heads = heads_of(text, family, hidden=hidden)
    if not blocks:
        return heads
    groups = Counter(block.heads_in_group for block in blocks if block.heads_in_group)
    return replace(heads, kv=max(1, heads.count // groups.most_common(1)[0][0]))


def _mixers(
    text: Fields,
    family: Family,
    heads: Heads | None,
    kind: Kind,
    *,
    index: int,
    layers: int,
    hidden: int,
) -> tuple[Mixer, ...]:
    if kind in (Kind.DENSE, Kind.EXPERTS, Kind.NOTHING):
        return ()
    state = (state_of(text, family, hidden=hidden),) if kind in (Kind.STATE, Kind.STATE_AND_FULL) else ()
    if kind is Kind.STATE or heads is None:
        return state
    if is_latent(text, family, kind):
        latent = latent_of(text, index=index)
        return (*state, latent, latent) if family.attends_twice else (*state, latent)
    attention = attention_of(text, family, heads, kind, index=index, layers=layers)
    if family.encoder_decoder:
        return (attention, replace(attention, span=Span.CROSS))
    return (*state, attention)


def _heads_of_block(heads: Heads | None, blocks: list[Block] | None, index: int) -> Heads | None:
    if heads is None or not blocks or not blocks[index].heads_in_group:
        return heads
    return replace(heads, kv=max(1, heads.count // blocks[index].heads_in_group))


def _runs(mixers: list[tuple[Mixer, ...]], parts: list[FeedForward | None]) -> tuple[LayerRun, ...]:
    grouped = groupby(zip(mixers, parts, strict=True))
    return tuple(
        LayerRun(count=sum(1 for _ in alike), mixers=mixer, feed_forward=part) for (mixer, part), alike in grouped
    )


def _block_kinds(blocks: list[Block]) -> list[Kind]:
    return [Kind.FULL if block.heads_in_group else Kind.NOTHING for block in blocks]


def _block_mlp(block: Block, family: Family) -> FeedForward | None:
    return FeedForward(width=block.width, gated=family.gated) if block.width else None


def _intermediate(text: Fields, family: Family, hidden: int, experts: Experts, widths: Counter[int]) -> int:
    if widths:
        return widths.most_common(1)[0][0]
    return dense_width(text, family, hidden=hidden, experts=experts)


def _encoder_tokens(text: Fields, family: Family) -> int:
    return text.size(_ENCODER_TOKENS, most=MAX_TOKENS, default=family.default_context)


def _tied(identity: Identity) -> bool:
    """The word of an outer part counts before that of an inner one."""
    tied = identity.family.tied
    for part in reversed(identity.parts):
        tied = part.flag("tie_word_embeddings", default=tied)
    return tied


def _typed(identity: Identity) -> tuple[Fields | None, ...]:
    """The parts that may name the computation type, in the engine's order; those between root and text come last."""
    outer, *between, _ = (*identity.parts, identity.text) if len(identity.parts) == 1 else identity.parts
    towers = (part.below("vision_config") for part in (outer, *between))
    return (outer, identity.text, *between, *towers)


def _dtype(parts: Iterable[Fields | None], stored: str | None) -> str:
    named = (part.text(name) for part in parts if part for name in ("dtype", "torch_dtype"))
    dtype = next((name for name in named if name and name != "auto"), stored or "float32").removeprefix("torch.")
    if dtype not in DTYPE_BYTES:
        raise UnsupportedModelError(
            unknown=f"dtype {dtype}",
            detail=f"the bytes of its activations are not known; known: {', '.join(DTYPE_BYTES)}",
        )
    return dtype
