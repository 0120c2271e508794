"""From a GGUF file's metadata and tensors to the architecture."""

import re
from collections import Counter
from itertools import groupby
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import FeedForward, LayerRun, Mixer, PagedAttention
from vrampack.models.gguf import GgufHeader
from vrampack.models.ggufattention import head_sizes
from vrampack.models.ggufkeys import GgufKeys
from vrampack.models.gguflayers import layer_counts, layer_mixers
from vrampack.models.ggufstates import STATEFUL
from vrampack.models.ggufwindows import SLIDING

_PLAIN_NAMES: Final = """
apertus arcee arctic baichuan bailingmoe bailingmoe2 bitnet bloom chameleon chatglm codeshell cogvlm command-r dbrx
deci deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 dots1 ernie4_5 ernie4_5-moe exaone falcon gemma glm-dsa
glm4 glm4moe gpt2 gptj gptneox granite granitemoe graniteswitch grok grovemoe hrm_text hunyuan-dense hunyuan-moe
hunyuan_vl hy_v3 hy_v4 internlm2 jais jais2 llama llama-embed maincoder minicpm minicpm3 minimax-m2 minimax-m3
mistral3 mistral4 mpt nanbeige nemotron olmo olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo plm
qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe refact seed_oss smollm3 stablelm starcoder starcoder2
t5 t5encoder talkie xverse
"""
_PLAIN: Final = frozenset(_PLAIN_NAMES.split())
"""Architectures whose layers all have attention over every token."""

_CACHELESS_NAMES: Final = """
bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe neo-bert eurobert modern-bert gemma-embedding dream llada
llada-moe rnd1
"""
_CACHELESS: Final = frozenset(_CACHELESS_NAMES.split())
"""Encoders and diffusion models: llama.cpp makes no cache for them."""

_PARTS: Final = frozenset(("clip", "eagle3", "dflash", "gemma4-assistant", "wavtokenizer-dec", "qwen3tts", "pockettts"))
"""Drafts, projectors and vocoders: parts of a model that are loaded beside one."""

_UNKNOWN_KINDS: Final = (
    "ssm.",
    "kda.",
    "wkv.",
    "shortconv.",
    "ple.",
    "attention.sliding_window",
    "attention.indexer.",
    "attention.compress_ratios",
    "attention.recurrent_layers",
    "attention.shared_kv_layers",
    "full_attention_interval",
    "num_loops",
)
"""Metadata that says that layers keep something of their own kind."""

_EXPERTS: Final = re.compile(r"blk\.(\d+)\.ffn_(?:gate|up|gate_up|down)_exps")
_GATED: Final = re.compile(r"blk\.\d+\.ffn_gate(?:_exps)?\.weight|blk\.\d+\.ffn_gate_up_exps\.weight")


def gguf_architecture(header: GgufHeader, *, file: str) -> Architecture:
    """The architecture of a GGUF file, as llama.cpp reads it.

    The dtype is float16: llama.cpp computes in 32 bits and keeps K and V in 16, whatever the checkpoint was trained in.
    Raises InvalidInputError with the key for values that are missing or impossible, UnsupportedModelError for files
    that hold no language model, or layers of a kind that is not known.
    """
    keys = GgufKeys(header, file=file)
    name = keys.architecture
    assumptions = _assumptions(header, name)
    layers, trunk = layer_counts(keys)
    heads = keys.each("attention.head_count", layers, default=(0,) * layers)
    experts = keys.size("expert_count", default=0)
    expert_width = keys.each("expert_feed_forward_length", layers, default=(0,) * layers)
    width = keys.each("feed_forward_length", layers, default=(0,) * layers)
    mixers = layer_mixers(keys)
    kv_heads = Counter(each.kv_heads for layer in mixers for each in layer if isinstance(each, PagedAttention))
    routed = {int(found[1]) for tensor in header.tensors if (found := _EXPERTS.match(tensor))}
    gated = _is_gated(header)
    forwards = [
        _feed_forward(
            keys,
            width=width[layer % layers],
            expert_width=expert_width[layer % layers] or width[layer % layers],
            experts=experts if layer % layers in routed else 0,
            gated=gated,
        )
        for layer in range(len(mixers))
    ]
    return Architecture(
        model_type=name,
        layers=len(mixers),
        hidden_size=keys.size("embedding_length", least=1),
        intermediate_size=max(width),
        vocab_size=_vocabulary(keys, header),
        attention_heads=max(heads),
        kv_heads=kv_heads.most_common(1)[0][0] if kv_heads else min(1, max(heads)),
        head_dim=head_sizes(keys, heads[0])[0],
        dtype="float16",
        max_context=keys.size("context_length", least=1),
        tied_embeddings="output.weight" not in header.tensors,
        experts=experts,
        experts_per_token=max(keys.each("expert_used_count", layers, default=(0,) * layers)),
        expert_intermediate_size=max((each.expert_width for each in forwards if each), default=0),
        shared_expert_intermediate_size=max((each.shared_width for each in forwards if each), default=0),
        gated_mlp=gated,
        runs=_runs(mixers, forwards),
        predict_layers=layers - trunk,
        pooling=keys.size("pooling_type", default=0) != 0,
        causal=name not in _CACHELESS,
        assumptions=assumptions,
    )


def _assumptions(header: GgufHeader, name: str) -> tuple[str, ...]:
    if name in _PARTS:
        raise UnsupportedModelError(
            unknown=f"general.architecture {name}",
            detail="this file holds a part of a model; name the model's own file",
        )
    if name in _PLAIN or name in _CACHELESS or name in SLIDING or name in STATEFUL:
        return ()
    for key in header.metadata.keys() | header.lengths.keys():
        if key.startswith(tuple(f"{name}.{kind}" for kind in _UNKNOWN_KINDS)):
            raise UnsupportedModelError(
                unknown=key, detail=f"how the layers of {name} use it is not known, so their cache can't be computed"
            )
    return (f"{name} is not known: every layer is taken to have attention over all tokens",)


def _is_gated(header: GgufHeader) -> bool:
    """Whether the feed-forward part has a gate: as a tensor of its own, or as the other half of the one that widens."""
    up, down = (header.tensors.get(f"blk.0.ffn_{name}.weight") for name in ("up", "down"))
    fused = up is not None and down is not None and up.shape[-1:] == (2 * down.shape[0],)
    return fused or any(_GATED.match(tensor) for tensor in header.tensors)


def _vocabulary(keys: GgufKeys, header: GgufHeader) -> int:
    table = header.tensors.get("token_embd.weight")
    if table is not None and len(table.shape) == 2:
        return table.shape[1]
    return keys.size("vocab_size", default=keys.length("tokenizer.ggml.tokens"))


def _feed_forward(keys: GgufKeys, *, width: int, expert_width: int, experts: int, gated: bool) -> FeedForward | None:
    if not experts:
        return FeedForward(width=width, gated=gated) if width else None
    shared = keys.size("expert_shared_feed_forward_length", default=0)
    return FeedForward(
        gated=gated,
        experts=experts,
        experts_per_token=max(keys.each("expert_used_count", layer_counts(keys)[0])),
        expert_width=expert_width,
        shared_width=shared or keys.size("expert_shared_count", default=0) * expert_width,
    )


def _runs(mixers: list[tuple[Mixer, ...]], forwards: list[FeedForward | None]) -> tuple[LayerRun, ...]:
    grouped = groupby(zip(mixers, forwards, strict=True))
    return tuple(LayerRun(count=len(list(same)), mixers=layer[0], feed_forward=layer[1]) for layer, same in grouped)
