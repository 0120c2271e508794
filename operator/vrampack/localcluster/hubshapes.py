"""Names and shapes of the tensors of a checkpoint, from its config.json."""

from collections.abc import Mapping
from typing import Any

TensorShape = tuple[str, tuple[int, ...]]
"""Type, as safetensors names it, and shape."""


def decoder_tensors(
    config: Mapping[str, Any], *, head_in_file: bool | None = None, qk_norm: bool = False, qkv_bias: bool = False
) -> dict[str, TensorShape]:
    """A decoder of the Llama kind: separate projections, a gated feed-forward part, two norms a layer.

    ``head_in_file``: some publishers store an output head although it is tied to the embedding table.
    """
    hidden, width, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    tensors: dict[str, TensorShape] = {"model.embed_tokens.weight": ("BF16", (vocabulary, hidden))}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        tensors[f"{prefix}.input_layernorm.weight"] = ("BF16", (hidden,))
        for name, rows in {"q": heads * head_dim, "k": kv_heads * head_dim, "v": kv_heads * head_dim}.items():
            tensors[f"{prefix}.self_attn.{name}_proj.weight"] = ("BF16", (rows, hidden))
            if qkv_bias:
                tensors[f"{prefix}.self_attn.{name}_proj.bias"] = ("BF16", (rows,))
        if qk_norm:
            tensors[f"{prefix}.self_attn.q_norm.weight"] = ("BF16", (head_dim,))
            tensors[f"{prefix}.self_attn.k_norm.weight"] = ("BF16", (head_dim,))
        tensors[f"{prefix}.self_attn.o_proj.weight"] = ("BF16", (hidden, heads * head_dim))
        tensors[f"{prefix}.post_attention_layernorm.weight"] = ("BF16", (hidden,))
        tensors[f"{prefix}.mlp.gate_proj.weight"] = ("BF16", (width, hidden))
        tensors[f"{prefix}.mlp.up_proj.weight"] = ("BF16", (width, hidden))
        tensors[f"{prefix}.mlp.down_proj.weight"] = ("BF16", (hidden, width))
    tensors["model.norm.weight"] = ("BF16", (hidden,))
    if head_in_file if head_in_file is not None else not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = ("BF16", (vocabulary, hidden))
    return tensors


def fused_tensors(config: Mapping[str, Any]) -> dict[str, TensorShape]:
    """A decoder of the Phi-3 kind: one matrix for query, key and value, one for gate and up."""
    hidden, width, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head_dim = hidden // config["num_attention_heads"]
    rows = (config["num_attention_heads"] + 2 * config["num_key_value_heads"]) * head_dim
    tensors: dict[str, TensorShape] = {"model.embed_tokens.weight": ("BF16", (vocabulary, hidden))}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        tensors[f"{prefix}.input_layernorm.weight"] = ("BF16", (hidden,))
        tensors[f"{prefix}.self_attn.qkv_proj.weight"] = ("BF16", (rows, hidden))
        tensors[f"{prefix}.self_attn.o_proj.weight"] = ("BF16", (hidden, hidden))
        tensors[f"{prefix}.post_attention_layernorm.weight"] = ("BF16", (hidden,))
        tensors[f"{prefix}.mlp.gate_up_proj.weight"] = ("BF16", (2 * width, hidden))
        tensors[f"{prefix}.mlp.down_proj.weight"] = ("BF16", (hidden, width))
    tensors["model.norm.weight"] = ("BF16", (hidden,))
    tensors["lm_head.weight"] = ("BF16", (vocabulary, hidden))
    return tensors


def fp8_tensors(tensors: Mapping[str, TensorShape], *, block: int = 128) -> dict[str, TensorShape]:
    """The projections in eight bits, with a scale for each block of ``block`` rows and columns."""
    converted: dict[str, TensorShape] = {}
    for name, (dtype, shape) in tensors.items():
        if not name.endswith("_proj.weight"):
            converted[name] = (dtype, shape)
            continue
        converted[name] = ("F8_E4M3", shape)
        converted[f"{name}_scale_inv"] = ("BF16", tuple(-(-size // block) for size in shape))
    return converted


def gemma2_tensors(config: Mapping[str, Any]) -> dict[str, TensorShape]:
    """As a Llama, with two norms more a layer and a tied output head."""
    tensors = decoder_tensors(config, head_in_file=False)
    for layer in range(config["num_hidden_layers"]):
        for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = ("BF16", (config["hidden_size"],))
    return tensors


def rwkv5_tensors(config: Mapping[str, Any]) -> dict[str, TensorShape]:
    """A recurrent network: time mixing and channel mixing in each block, no attention."""
    hidden, heads = config["hidden_size"], config["hidden_size"] // config["head_size"]
    inner = int(hidden * 3.5) // 32 * 32
    tensors: dict[str, TensorShape] = {
        "rwkv.embeddings.weight": ("BF16", (config["vocab_size"], hidden)),
        "rwkv.ln_out.weight": ("BF16", (hidden,)),
        "rwkv.ln_out.bias": ("BF16", (hidden,)),
        "head.weight": ("BF16", (config["vocab_size"], hidden)),
    }
    mixes = [f"attention.time_mix_{name}" for name in ("key", "value", "receptance", "gate")]
    mixes += [f"feed_forward.time_mix_{name}" for name in ("key", "receptance")]
    for layer in range(config["num_hidden_layers"]):
        block = f"rwkv.blocks.{layer}."
        for name in mixes:
            tensors[block + name] = ("BF16", (1, 1, hidden))
        for name in ("time_decay", "time_faaaa"):
            tensors[f"{block}attention.{name}"] = ("BF16", (heads, config["head_size"]))
        for name in ("key", "value", "receptance", "gate", "output"):
            tensors[f"{block}attention.{name}.weight"] = ("BF16", (hidden, hidden))
        for name in ("ln1", "ln2", "attention.ln_x"):
            tensors[f"{block}{name}.weight"] = tensors[f"{block}{name}.bias"] = ("BF16", (hidden,))
        tensors[f"{block}feed_forward.key.weight"] = ("BF16", (inner, hidden))
        tensors[f"{block}feed_forward.receptance.weight"] = ("BF16", (hidden, hidden))
        tensors[f"{block}feed_forward.value.weight"] = ("BF16", (hidden, inner))
    return tensors
