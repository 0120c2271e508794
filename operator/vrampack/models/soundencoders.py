"""Encoders of sound by their ``model_type``: elements as their model classes in transformers have them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vrampack.models.fields import Fields
from vrampack.models.visionencoders import Builder
from vrampack.models.visionparts import Encoder, block, layers_of, linear

_HIDDEN: Final = ("d_model", "hidden_size")
_WIDTH: Final = ("encoder_ffn_dim", "intermediate_size")
_LAYERS: Final = ("encoder_layers", "num_hidden_layers")


def _whisper_layers(fields: Fields) -> tuple[int, int, int]:
    """Hidden size, width, and the elements of stem, layers and last norm. Keys have no bias."""
    hidden, width = fields.size(_HIDDEN), fields.size(_WIDTH)
    bins = fields.size(("num_mel_bins",), most=4096, default=128)
    stem = linear(3 * bins, hidden) + linear(3 * hidden, hidden)
    each = block(hidden, width) - hidden
    return hidden, width, stem + layers_of(fields, *_LAYERS) * each + 2 * hidden


def _whisper(fields: Fields, _: int) -> Encoder:
    hidden, width, elements = _whisper_layers(fields)
    positions = fields.size(("max_source_positions",), most=2**20, default=1500)
    wide = fields.text("model_type") == "voxtral_encoder"  # several positions are laid beside each other
    return Encoder(elements=elements + positions * hidden, width=width if wide else hidden)


def _qwen25_omni(fields: Fields, hidden_size: int) -> Encoder:
    hidden, _, elements = _whisper_layers(fields)
    out = fields.size(("output_dim",), default=hidden_size)
    return Encoder(elements=elements + 2 * out + linear(hidden, out))


def _qwen3_omni(fields: Fields, hidden_size: int) -> Encoder:
    """Three convolutions over time and pitch, each of which halves both."""
    hidden, width = fields.size(_HIDDEN), fields.size(_WIDTH)
    bins = fields.size(("num_mel_bins",), most=4096, default=128)
    channels = fields.size(("downsample_hidden_size",), default=480)
    out = fields.size(("output_dim",), default=hidden_size)
    stem = linear(9, channels) + 2 * linear(9 * channels, channels) + channels * -(-bins // 8) * hidden
    joined = linear(hidden, hidden) + linear(hidden, out)
    return Encoder(elements=stem + layers_of(fields, *_LAYERS) * block(hidden, width) + 2 * hidden + joined)


def _gemma(fields: Fields, _: int) -> Encoder:
    """The conformer of Gemma 3n and 4: two half feed-forward parts around attention and a convolution."""
    new = fields.text("model_type") == "gemma4_audio"
    hidden = fields.size(("hidden_size",))
    heads = fields.size(("num_attention_heads", "conf_num_attention_heads"), most=4096, default=8)
    kernel = fields.size(("conv_kernel_size", "conf_conv_kernel_size"), most=4096, default=5)
    channels = [*(fields.numbers("subsampling_conv_channels" if new else "sscp_conv_channel_size") or ()), 128, 32][:2]
    bins = fields.size(("input_feat_size",), most=4096, default=128)
    first, second = channels
    stem = 9 * first + first + 9 * first * second + second + second * (bins // 4) * hidden
    halves = 2 * (8 * hidden**2 + 2 * hidden)
    attention = 5 * hidden**2 + 2 * hidden + hidden // heads
    convolution = 3 * hidden**2 + kernel * hidden + 2 * hidden
    layers = layers_of(fields, "num_hidden_layers", "conf_num_hidden_layers")
    elements = stem + layers * (halves + attention + convolution + hidden)
    if not new:
        return Encoder(elements=elements, width=hidden)
    out = fields.size(("output_proj_dims",), default=1536)
    return Encoder(elements=elements + linear(hidden, out), width=out)


def _granite(fields: Fields, _: int) -> Encoder:
    """A conformer, which also spells what it hears half-way."""
    hidden = fields.size(("hidden_dim",), default=1024)
    wide = hidden * fields.size(("feedforward_mult",), most=64, default=4)
    heads = fields.size(("num_heads",), most=4096, default=8)
    dim = fields.size(("dim_head",), most=65_536, default=128)
    inner = heads * dim
    expanded = hidden * fields.size(("conv_expansion_factor",), most=64, default=2)
    kernel = fields.size(("conv_kernel_size",), most=4096, default=15)
    positions = 2 * fields.size(("max_pos_emb",), most=65_536, default=512) + 1
    letters = fields.size(("output_dim",), default=42)
    halves = 2 * (2 * hidden + linear(hidden, wide) + linear(wide, hidden))
    attention = 2 * hidden + 3 * hidden * inner + linear(inner, hidden) + positions * dim
    convolution = 2 * hidden + linear(hidden, 2 * expanded) + kernel * expanded + 2 * expanded
    convolution += linear(expanded, hidden) + 2 * hidden
    layers = layers_of(fields, "num_layers")
    stem = linear(fields.size(("input_dim",), default=160), hidden)
    spelling = linear(hidden, letters) + linear(letters, hidden)
    return Encoder(elements=stem + layers * (halves + attention + convolution) + spelling, width=hidden)


def _unified(fields: Fields, _: int) -> Encoder:
    """Gemma 4 12B takes sound as it comes."""
    return Encoder(elements=0, width=fields.size(("audio_embed_dim",), default=640))


SOUND_ENCODERS: Final[Mapping[str, Builder]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("whisper", "qwen2_audio_encoder", "voxtral_encoder", "audioflamingo3_encoder", "glmasr_encoder"), _whisper
        ),
        "gemma4_unified_audio": _unified,
        "granite_speech_encoder": _granite,
        "qwen2_5_omni_audio_encoder": _qwen25_omni,
        **dict.fromkeys(("qwen3_omni_moe_audio_encoder", "qwen3_asr_encoder"), _qwen3_omni),
        **dict.fromkeys(("gemma3n_audio", "gemma4_audio"), _gemma),
    }
)
