"""Models in folders: a configuration and weight files whose headers are real and whose weights are zeros."""

import json
import struct
from pathlib import Path
from typing import Any

Json = dict[str, Any]

TINY: Json = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "vocab_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}
"""A Llama of two layers."""


def tiny_tensors(prefix: str = "model.") -> dict[str, list[int]]:
    """The tensors of TINY by name."""
    shapes = {f"{prefix}embed_tokens.weight": [512, 64], f"{prefix}norm.weight": [64], "lm_head.weight": [512, 64]}
    for layer in range(2):
        name = f"{prefix}layers.{layer}"
        shapes |= {
            f"{name}.self_attn.q_proj.weight": [64, 64],
            f"{name}.self_attn.k_proj.weight": [32, 64],
            f"{name}.self_attn.v_proj.weight": [32, 64],
            f"{name}.self_attn.o_proj.weight": [64, 64],
            f"{name}.mlp.gate_proj.weight": [128, 64],
            f"{name}.mlp.up_proj.weight": [128, 64],
            f"{name}.mlp.down_proj.weight": [64, 128],
            f"{name}.input_layernorm.weight": [64],
            f"{name}.post_attention_layernorm.weight": [64],
        }
    return shapes


def safetensors(shapes: dict[str, list[int]], *, dtype: str = "BF16") -> bytes:
    """A whole file, with zeros for weights."""
    header: Json = {}
    end = 0
    for name, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def write_model(folder: Path, *, config: Json | None = None, shards: int = 1) -> Path:
    """TINY, or another configuration over the same weights, in one file or in several with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(TINY if config is None else config))
    shapes = tiny_tensors()
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors(shapes))
        return folder
    names = list(shapes)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {each: shapes[each] for each in names[shard::shards]}
        weight_map |= dict.fromkeys(part, name)
        (folder / name).write_bytes(safetensors(part))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder
