"""config.json as the engine reads it: fields of each family, what is refused, and strangers' values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.known_models import LLAMA_8B, QWEN3_8B, QWEN3_30B_A3B
from vrampack.errors import InvalidInputError, UnsupportedModelError, VrampackError
from vrampack.memory.architecture import Architecture
from vrampack.models.config import architecture_of

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "vocab_size": 151936,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "sliding_window": None,
    "use_sliding_window": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
QWEN3_MOE = QWEN3 | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_hidden_layers": 48,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_key_value_heads": 4,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}
FALCON = {
    "architectures": ["FalconForCausalLM"],
    "model_type": "falcon",
    "num_hidden_layers": 32,
    "hidden_size": 4544,
    "num_attention_heads": 71,
    "vocab_size": 65024,
    "multi_query": True,
    "new_decoder_architecture": False,
    "alibi": False,
    "torch_dtype": "bfloat16",
}
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_layer": 12,
    "n_embd": 768,
    "n_head": 12,
    "n_inner": None,
    "n_positions": 1024,
    "vocab_size": 50257,
}


def read(base: dict[str, Any], **changes: Any) -> Architecture:
    """The configuration with changes; ``...`` takes a field away."""
    return architecture_of({name: value for name, value in (base | changes).items() if value is not ...})


@pytest.mark.parametrize(("config", "expected"), [(LLAMA, LLAMA_8B), (QWEN3, QWEN3_8B), (QWEN3_MOE, QWEN3_30B_A3B)])
def test_published_configuration(config: dict[str, Any], expected: Architecture) -> None:
    assert architecture_of(config) == expected


@pytest.mark.parametrize(
    ("base", "changes", "kv_heads", "head_dim"),
    [
        (LLAMA, {"num_key_value_heads": None}, 32, 128),
        (LLAMA, {"num_key_value_heads": ...}, 32, 128),
        (LLAMA, {"head_dim": 64}, 8, 64),
        (FALCON, {}, 1, 64),
        (FALCON, {"multi_query": False}, 71, 64),
        (
            FALCON,
            {"new_decoder_architecture": True, "num_attention_heads": 64, "hidden_size": 4096, "num_kv_heads": 8},
            8,
            64,
        ),
        (GPT2, {}, 12, 64),
    ],
)
def test_key_and_value_heads(base: dict[str, Any], changes: dict[str, Any], kv_heads: int, head_dim: int) -> None:
    architecture = read(base, **changes)
    assert (architecture.kv_heads, architecture.head_dim) == (kv_heads, head_dim)


@pytest.mark.parametrize(
    ("rope", "max_context", "rotary_positions"),
    [
        (None, 131072, 131072),
        ({"rope_type": "llama3", "factor": 8.0}, 131072, 131072),
        ({"type": "linear", "factor": 2.0}, 262144, 262144),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072, 131072),
        ({"type": "longrope", "original_max_position_embeddings": 4096}, 131072, 135168),
    ],
)
def test_context_and_rotary_table_follow_the_scaling(
    rope: dict[str, Any] | None, max_context: int, rotary_positions: int
) -> None:
    architecture = read(LLAMA, rope_scaling=rope)
    assert (architecture.max_context, architecture.rotary_positions) == (max_context, rotary_positions)


def test_learned_positions_need_no_rotary_table() -> None:
    architecture = read(GPT2)
    assert (architecture.rotary_positions, architecture.max_context, architecture.intermediate_size) == (0, 1024, 3072)
    assert architecture.tied_embeddings


@pytest.mark.parametrize(
    ("names", "stored", "dtype"),
    [
        ({"torch_dtype": "float16"}, "bfloat16", "float16"),
        ({"torch_dtype": ..., "dtype": "torch.bfloat16"}, None, "bfloat16"),
        ({"torch_dtype": ...}, "bfloat16", "bfloat16"),
        ({"torch_dtype": ...}, None, "float32"),
    ],
)
def test_computation_type(names: dict[str, Any], stored: str | None, dtype: str) -> None:
    config = {name: value for name, value in (LLAMA | names).items() if value is not ...}
    assert architecture_of(config, stored_dtype=stored).dtype == dtype


MISTRAL = LLAMA | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "rope_scaling": None}


@pytest.mark.parametrize(
    ("base", "changes", "unknown"),
    [
        (LLAMA, {"model_type": ...}, "model_type"),
        (LLAMA, {"torch_dtype": "float8_e4m3fn"}, "dtype float8_e4m3fn"),
        (LLAMA, {"rope_scaling": {"rope_type": "new"}}, "rope_type new"),
        (LLAMA, {"layer_types": ["full_attention", "retention"] * 16}, "layer_types retention"),
        (LLAMA, {"layer_types": ["full_attention", "sliding_attention"] * 16}, "sliding_window"),
        (LLAMA, {"layer_types": ["full_attention", "linear_attention"] * 16}, "layer_types"),
        (LLAMA, {"model_type": "nova", "retention_chunk": 64}, "retention_chunk"),
    ],
)
def test_refused_with_what_is_unknown(base: dict[str, Any], changes: dict[str, Any], unknown: str) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        read(base, **changes)
    assert refusal.value.unknown == unknown


def test_windows_that_are_switched_off_are_none() -> None:
    assert read(QWEN3, sliding_window=131072).layers == 36
    assert read(MISTRAL, sliding_window=None).runs == ()


@pytest.mark.parametrize(
    ("base", "changes", "field"),
    [
        (LLAMA, {"num_hidden_layers": 0}, "num_hidden_layers"),
        (LLAMA, {"num_hidden_layers": -32}, "num_hidden_layers"),
        (LLAMA, {"num_hidden_layers": True}, "num_hidden_layers"),
        (LLAMA, {"num_hidden_layers": 32.0}, "num_hidden_layers"),
        (LLAMA, {"num_hidden_layers": "32"}, "num_hidden_layers"),
        (LLAMA, {"num_hidden_layers": [32] * 100_000}, "num_hidden_layers"),
        (LLAMA, {"num_hidden_layers": 10**5000}, "num_hidden_layers"),
        (LLAMA, {"vocab_size": ...}, "vocab_size"),
        (LLAMA, {"hidden_size": 2**40}, "hidden_size"),
        (LLAMA, {"num_attention_heads": 33}, "num_key_value_heads"),
        (LLAMA, {"num_key_value_heads": 5}, "num_key_value_heads"),
        (LLAMA, {"rope_scaling": "llama3"}, "rope_scaling"),
        (LLAMA, {"rope_scaling": {"type": "linear", "factor": 1e300}}, "rope_scaling.factor"),
        (LLAMA, {"rope_scaling": {"type": "linear", "factor": float("nan")}}, "rope_scaling.factor"),
        (LLAMA, {"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        (LLAMA, {"architectures": "LlamaForCausalLM"}, "architectures"),
        (LLAMA, {"layer_types": {"0": "full_attention"}}, "layer_types"),
        (LLAMA, {"model_type": ["llama"]}, "model_type"),
        (LLAMA, {"torch_dtype": {"name": "bfloat16"}}, "torch_dtype"),
        (QWEN3_MOE, {"num_experts_per_tok": 256}, "num_experts_per_tok"),
    ],
)
def test_impossible_values_are_refused_with_their_field(
    base: dict[str, Any], changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        read(base, **changes)
    assert refusal.value.field == f"config.json:{field}"
    assert len(str(refusal.value)) < 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=6,
)


@given(st.sampled_from([LLAMA, QWEN3, QWEN3_MOE, FALCON, GPT2]), st.data())
def test_any_value_gives_an_architecture_or_a_typed_refusal(base: dict[str, Any], data: st.DataObject) -> None:
    names = [*base, "head_dim", "sliding_window", "rope_parameters", "layer_types", "alibi", "attn_config", "dtype"]
    changes = data.draw(st.dictionaries(st.sampled_from(names), json_values, max_size=4))
    try:
        architecture = read(base, **changes)
    except VrampackError:
        return
    assert architecture.layers >= 1
    assert architecture.attention_heads % architecture.kv_heads == 0
