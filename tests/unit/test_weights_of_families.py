"""Parameters that configurations imply, family by family, against those of the published checkpoints.

The configurations are the facts of the published ones that shapes depend on, written out here.
"""

from typing import Any

import pytest

from vrampack.models.config import architecture_of
from vrampack.models.tensorfacts import weights_of_config


def parameters(config: dict[str, Any]) -> int:
    architecture = architecture_of(config, stored_dtype="bfloat16")
    return weights_of_config(config, architecture=architecture).parameters


ZAMBA2 = {
    "Zyphra/Zamba2-1.2B": (2048, 38, 1, 1, 128, True, [5, 11, 17, 23, 29, 35], 1_215_064_704),
    "Zyphra/Zamba2-2.7B": (2560, 54, 2, 1, 64, False, [6, 12, 18, 24, 30, 36, 42, 47, 51], 2_662_214_560),
    "Zyphra/Zamba2-7B-Instruct": (3584, 81, 2, 2, 64, False, [6, 11, *range(17, 78, 6)], 7_356_749_648),
}
"""Hidden size, layers, shared blocks, groups, state size, adapters of the attention, layers with a block."""


@pytest.mark.parametrize("name", ZAMBA2)
@pytest.mark.parametrize("words", [("adapter_rank", "adapter"), ("lora_rank", "lora")])
def test_blocks_that_layers_share_are_stored_once(name: str, words: tuple[str, str]) -> None:
    hidden, layers, blocks, groups, state, adapted, shared, published = ZAMBA2[name]
    rank, adapter = words
    config = {
        "model_type": "zamba2",
        "architectures": ["Zamba2ForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "hybrid_layer_ids": shared,
        "num_mem_blocks": blocks,
        "intermediate_size": 4 * hidden,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "attention_head_dim": hidden // 16,
        "mamba_d_state": state,
        "mamba_d_conv": 4,
        "mamba_ngroups": groups,
        "mamba_headdim": 64,
        "n_mamba_heads": hidden // 32,
        "max_position_embeddings": 4096,
        "vocab_size": 32000,
        rank: 128,
        f"use_shared_attention_{adapter}": adapted,
    }
    assert parameters(config) == published
