"""Files that fuzzing begins with, and changes to them at random: of the values of JSON, or of bytes."""

import json
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from vrampack.models.safetensors import PREFIX_BYTES

_ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 2**31 - 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308),
    *("", "auto", "full_attention", "sliding_attention", "fp8", "\x00", "é" * 200, "9" * 5000),
    *([], {}, [[]], [{}], [0] * 5000, ["x"] * 5000, {"": None}, {"text_config": {}}),
)
CONFIG: Final[dict[str, Any]] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}
"""A small model of one kind of layers."""


def seeds_of(target: str, folder: Path | None) -> list[bytes]:
    """Those of our own, and the files of a folder."""
    ending = {"config": "*.json", "gguf": "*.gguf", "safetensors": "*.safetensors"}[target]
    found = [path.read_bytes()[: 2**20] for path in sorted(folder.glob(ending))] if folder is not None else []
    return [*_OWN[target](), *found]


def _own_config() -> list[bytes]:
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    latent = {"kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16}
    state = {"linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_num_value_heads": 4}
    state |= {"linear_value_head_dim": 16, "linear_conv_kernel_dim": 4, "full_attention_interval": 2}
    quantized = {"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": {}}}}
    variants: list[dict[str, Any]] = [
        {},
        {"model_type": "gemma3_text", "sliding_window": 512, "sliding_window_pattern": 2},
        {"model_type": "deepseek_v3", **latent, **experts, "n_routed_experts": 8},
        {"model_type": "qwen3_next", **state, **experts},
        {"model_type": "nemotron_h", "hybrid_override_pattern": "M*", "mamba_num_heads": 4, "ssm_state_size": 16},
        {"quantization_config": quantized},
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "dynamic": {"-:.*attn.*": {}}, "lm_head": True}},
        {"quantization_config": {"quant_method": "auto-round", "bits": 4, "extra_config": {".*mlp.*": {"bits": 8}}}},
        {"model_type": "llava", "text_config": CONFIG, "vision_config": {"model_type": "pixtral"}},
        {"thinker_config": {"text_config": CONFIG, "audio_config": {"model_type": "qwen3_omni_moe_audio_encoder"}}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}},
        {"text_config": CONFIG, "vision_config": {"hidden_size": 32, "image_size": 224, "patch_size": 14}},
    ]
    return [json.dumps({**CONFIG, **each}).encode() for each in variants]


def _own_safetensors() -> list[bytes]:
    tensors = {
        "__metadata__": {"format": "pt"},
        "model.embed_tokens.weight": {"dtype": "BF16", "shape": [1000, 64], "data_offsets": [0, 128000]},
        "model.layers.0.self_attn.q_proj.weight": {
            "dtype": "BF16",
            "shape": [64, 64],
            "data_offsets": [128000, 136192],
        },
        "model.layers.1.mlp.up_proj.weight": {"dtype": "F32", "shape": [128, 64], "data_offsets": [136192, 168960]},
    }
    header = json.dumps(tensors).encode()
    return [struct.pack("<Q", len(header)) + header]


def _own_gguf() -> list[bytes]:
    pairs: dict[str, str | int] = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.embedding_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.feed_forward_length": 128,
        "llama.context_length": 2048,
        "llama.vocab_size": 1000,
    }
    body = b"".join(_text(key) + _typed(value) for key, value in pairs.items())
    tensors = {"token_embd.weight": (64, 1000), "blk.0.attn_q.weight": (64, 64), "output.weight": (64, 1000)}
    table, offset = b"", 0
    for name, shape in tensors.items():
        table += _text(name) + struct.pack("<I", 2) + struct.pack("<QQ", *shape) + struct.pack("<IQ", 1, offset)
        offset += shape[0] * shape[1] * 2
    return [b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + body + table]


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _typed(value: str | int) -> bytes:
    return struct.pack("<I", 8) + _text(value) if isinstance(value, str) else struct.pack("<II", 4, value)


_OWN: Final[dict[str, Callable[[], list[bytes]]]] = {
    "config": _own_config,
    "safetensors": _own_safetensors,
    "gguf": _own_gguf,
}


def changed(target: str, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """A seed with a few changes: of its values where it holds JSON, of its bytes else, sometimes of both."""
    content = chance.choice(seeds)
    if target != "gguf" and chance.random() < 0.8:
        start = PREFIX_BYTES if target == "safetensors" else 0
        try:
            value = json.loads(content[start:])
        except (ValueError, RecursionError):
            value = None
        for _ in range(chance.randint(1, 4)):
            value = _with_another_value(value, chance)
        content = json.dumps(value).encode()
        if start:
            content = struct.pack("<Q", len(content)) + content
        if chance.random() < 0.9:
            return content
    return _with_other_bytes(content, chance)


def _with_another_value(value: Any, chance: random.Random) -> Any:
    """One place somewhere inside is another value, is gone, or is there under another name."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        changed = dict(value)
        if chance.random() < 0.1:
            del changed[key]
        elif chance.random() < 0.1:
            changed[chance.choice(list(value))] = value[key]
        else:
            changed[key] = _with_another_value(value[key], chance)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        return [*value[:place], _with_another_value(value[place], chance), *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.5:
        return chance.choice((value - 1, value + 1, -value, value * 2, value // 2, value * 10**6))
    return chance.choice(_ODD)


def _with_other_bytes(content: bytes, chance: random.Random) -> bytes:
    made = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(made) + 1)
        match chance.randrange(4):
            case 0:
                del made[place:]
            case 1:
                made[place : place + 1] = bytes([chance.randrange(256)])
            case 2:
                made[place:place] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 16)))
            case _:
                width = chance.choice((4, 8))
                number = chance.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)) % 2 ** (8 * width)
                made[place : place + width] = number.to_bytes(width, "little")
    return bytes(made)
