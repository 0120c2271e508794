"""Configurations and tensors of models that only draft for another one, in the forms that are published."""

from typing import Any

import pytest

from tests.unit.test_checkpoint import tensor
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Split
from vrampack.memory.layers import PagedAttention
from vrampack.models.config import architecture_of
from vrampack.models.weights import weights_of

LAYER: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "num_hidden_layers": 1,
    "max_position_embeddings": 2048,
}
MEDUSA = {"model_type": "medusa", "architectures": ["MedusaModel"], "hidden_size": 4096, "vocab_size": 32000}


@pytest.mark.parametrize(
    "config",
    [
        {**LAYER, "torch_dtype": "bfloat16"},
        {**LAYER, "architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 32000, "torch_dtype": "bfloat16"},
        {"model_type": "eagle", "architectures": ["EAGLEModel"], "model": LAYER, "torch_dtype": "bfloat16"},
        {
            "architectures": ["Eagle3Speculator"],
            "speculators_model_type": "eagle3",
            "transformer_layer_config": LAYER,
            "speculators_config": {"algorithm": "eagle3", "proposal_methods": []},
            "torch_dtype": "bfloat16",
        },
    ],
    ids=["its own file", "EAGLE-3", "wrapped", "speculators"],
)
def test_eagle_is_a_decoder_of_one_layer(config: dict[str, Any]) -> None:
    found = architecture_of(config)
    [run] = found.layer_runs
    assert (found.layers, found.dtype, found.assumptions) == (1, "bfloat16", ())
    assert run.mixers == (PagedAttention(heads=32, kv_heads=8, key_dim=128, value_dim=128),)


@pytest.mark.parametrize("names", [("num_heads", "num_hidden_layers"), ("medusa_num_heads", "medusa_num_layers")])
def test_medusa_is_heads_alone(names: tuple[str, str]) -> None:
    found = architecture_of({**MEDUSA, names[0]: 5, names[1]: 1})
    assert found.layers == 5
    assert all(not run.mixers for run in found.layer_runs)


@pytest.mark.parametrize(
    "config",
    [
        MEDUSA,
        {**MEDUSA, "num_heads": -1},
        {**MEDUSA, "num_heads": 10**9},
        {**MEDUSA, "num_heads": 4, "hidden_size": "wide"},
        {"model_type": "eagle", "model": 7},
        {"speculators_model_type": "eagle3", "transformer_layer_config": []},
        {"speculators_model_type": "eagle3", "transformer_layer_config": {**LAYER, "num_hidden_layers": {}}},
    ],
    ids=str,
)
def test_what_can_t_be_read_is_refused_with_the_field(config: dict[str, Any]) -> None:
    with pytest.raises((InvalidInputError, UnsupportedModelError)):
        architecture_of(config)


def test_what_a_rank_holds_in_full_of_a_draft() -> None:
    """vLLM joins states and vectors by a plain linear layer, and Medusa's layers are plain ones too."""
    tensors = {
        "fc.weight": tensor("BF16", 4096, 12288),
        "midlayer.self_attn.q_proj.weight": tensor("BF16", 4096, 8192),
        "midlayer.mlp.gate_proj.weight": tensor("BF16", 14336, 4096),
        "lm_head.weight": tensor("BF16", 32000, 4096),
        "norm.weight": tensor("BF16", 4096),
    }
    found = weights_of(tensors, architecture=architecture_of({**LAYER, "torch_dtype": "bfloat16"}), precision="bf16")
    assert found.replicated == 2 * (4096 * 12288 + 4096)
    assert found.embedding == 2 * 32000 * 4096
    heads = architecture_of({**MEDUSA, "num_heads": 2, "torch_dtype": "bfloat16"})
    blocks = {f"blocks.{head}.layers.0.weight": tensor("BF16", 4096, 4096) for head in range(2)}
    outputs = {f"lm_heads.{head}.weight": tensor("BF16", 32000, 4096) for head in range(2)}
    medusa = weights_of({**blocks, **outputs}, architecture=heads, precision="bf16")
    assert medusa.replicated == 2 * 2 * 4096 * 4096
    splits = {part.split for run in medusa.layers for each in run.tensors for part in each.parts}
    assert splits == {Split.WHOLE}
