"""config.json as the engine reads it: fields of each family, what is refused, and strangers' values."""

import contextlib
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.known_models import LLAMA_8B, QWEN3_8B, QWEN3_30B_A3B
from vrampack.api.modelprofile import ArchitectureSpec
from vrampack.errors import InvalidInputError, UnsupportedModelError, VrampackError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import LatentAttention
from vrampack.models.config import architecture_of
from vrampack.models.profile import architecture_spec

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


odd_values = st.sampled_from(
    [2**31 - 1, 2**31, 10**400, -1, 1e308, float("inf"), float("nan"), "\ud800", "L" * 50, "MM*-E", "0,1,\u00b2"]
) | st.sampled_from([["full_attention"] * 5, ["sliding_attention"] * 4096, [0, 1] * 40, [{}] * 80, {"0": {}}, [[]]])
# fmt: off
NAMES = [
    "model_type", "architectures", "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads",
    "head_dim", "vocab_size", "intermediate_size", "layer_types", "sliding_window", "sliding_window_pattern",
    "hybrid_override_pattern", "block_configs", "per_layer_config", "attn_config", "ffn_config",
    "linear_attn_config", "kv_lora_rank", "compress_ratios", "index_n_heads", "text_config", "rope_parameters",
    "rope_scaling", "num_experts", "num_experts_per_tok", "moe_layer_freq", "moe_intermediate_size",
    "quantization_config", "mamba_d_state", "attention_chunk_size", "no_rope_layers", "num_kv_shared_layers",
    "mlp_layer_types", "full_attention_interval",
]
# fmt: on


@pytest.fixture(scope="module")
def published(shared_data: Path) -> list[dict[str, Any]]:
    """Real files to change, one of each family and spelling."""
    files = sorted((shared_data / "model-configs").glob("*.json"))
    return list({tuple(config): config for config in (json.loads(file.read_text()) for file in files)}.values())


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


def test_a_file_of_any_content_is_refused_with_a_field_or_read() -> None:
    anything = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=20), json_values, max_size=12)

    @given(anything)
    def check(config: dict[str, Any]) -> None:
        with contextlib.suppress(VrampackError):
            architecture_of(config, quant_config=config)

    check()


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_published_file_with_changes_is_refused_or_can_be_written_as_a_profile(
    data: st.DataObject, published: list[dict[str, Any]]
) -> None:
    config = dict(data.draw(st.sampled_from(published)))
    part = data.draw(st.sampled_from([config, *(value for value in config.values() if isinstance(value, dict))]))
    changes = data.draw(st.dictionaries(st.sampled_from([*part, *NAMES]), json_values | odd_values, max_size=4))
    changed = (
        config | changes
        if part is config
        else {name: value | changes if value is part else value for name, value in config.items()}
    )
    begin = perf_counter()
    try:
        architecture = architecture_of(changed)
    except VrampackError as refusal:
        message = str(refusal)
    else:
        message = ""
    assert perf_counter() - begin < 5
    assert len(message) < 1000
    if message:
        return
    assert sum(run.count for run in architecture.layer_runs) == architecture.layers
    spec = architecture_spec(architecture).wire()
    assert ArchitectureSpec.model_validate(json.loads(json.dumps(spec))) == architecture_spec(architecture)


def test_every_published_file_is_read_or_lacks_what_nobody_could_know(shared_data: Path) -> None:
    refused = {}
    assumed = {}
    for folder in ("model-configs", "allocator/configs"):
        for file in sorted((shared_data / folder).glob("*.json")):
            try:
                architecture = architecture_of(json.loads(file.read_text()))
            except UnsupportedModelError as refusal:
                refused[file.stem] = refusal.unknown
            except InvalidInputError as refusal:
                refused[file.stem] = refusal.field.removeprefix("config.json:")
            else:
                if architecture.assumptions:
                    assumed[file.stem] = len(architecture.assumptions)
    assert refused == {
        "mlc--rwkv5_3b": "num_attention_heads",  # a recurrent network that no engine here serves
        "ome--clip_vision_model": "vocab_size",  # a tower without a model
        "rec--google--gemma-4-E4B-it": "text_config.intermediate_size",  # an excerpt
        "rec--zai-org--GLM-Z1-32B-0414": "intermediate_size",  # an excerpt
    }
    # Nothing of the layers: only their towers for images are described elsewhere.
    undescribed = (
        "mlc--phi-3_5-vision",
        "ome--deepseek_vl2_tiny",
        "ome--janus_1.3b",
        "ome--llava_v1.5_7b",
        "ome--phi3_v",
    )
    # Models with encoders of which the file has the text part alone.
    silent = (
        "meta-llama--Llama-4-Maverick-17B-128E-Instruct",
        "meta-llama--Llama-4-Maverick-17B-128E-Instruct_config",
        "meta-llama--Llama-4-Scout-17B-16E-Instruct",
        "meta-llama--Llama-4-Scout-17B-16E-Instruct_config",
        "rec--llava-hf--llava-1.5-7b-hf",
        "rec--llava-hf--llava-v1.6-mistral-7b-hf",
        "rec--llava-hf--llava-v1.6-mistral-7b-hf+sliding_window=null",
        "rec--mistralai--Mistral-Small-3.2-24B-Instruct-2506",
        "rec--mistralai--Mistral-Small-3.2-24B-Instruct-2506+sliding_window=null",
    )
    assert assumed == dict.fromkeys(undescribed + silent, 1)


def test_excerpts_without_layer_kinds_are_refused(shared_data: Path) -> None:
    alike = ("Llama-", "Qwen2.5-", "Qwen3-8B", "granite-", "MiniMax-M2", "Phi-", "phi-", "Mistral-7B", "R1-Distill")
    for file in (shared_data / "catalogue-stubs").glob("*.json"):
        with pytest.raises(UnsupportedModelError) as refusal:
            architecture_of(json.loads(file.read_text()))
        expected = "model_type" if any(word in file.stem for word in alike) else "layer_types"
        assert refusal.value.unknown == expected, file.stem


SAME = {
    "Qwen--Qwen3-Next-80B-A3B-Instruct": "rec--Qwen--Qwen3-Next-80B-A3B-Instruct",
    "XiaomiMiMo--MiMo-7B-RL": "XiaomiMiMo--MiMo-7B-Base_config",
    "deepseek-ai--DeepSeek-V3.2-Exp": "deepseek-ai--DeepSeek-V3.2_config",
    "lmsys--gpt-oss-20b-bf16": "openai--gpt-oss-20b_config",
    "meta-llama--Llama-4-Scout-17B-16E-Instruct": "meta-llama--Llama-4-Scout-17B-16E-Instruct_config",
    "nvidia--Llama-3_3-Nemotron-Super-49B-v1": "nvidia--Llama-3_3-Nemotron-Super-49B-v1_config",
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16_config",
    "stepfun-ai--Step-3.5-Flash": "stepfun-ai--Step-3.7-Flash_config",
}
"""Models whose configuration is at hand, or that of a sibling of the same shape."""


@pytest.mark.parametrize("name", SAME)
def test_the_engines_own_reader_says_the_same(name: str, shared_data: Path) -> None:
    expected = json.loads((shared_data / "expected-architectures" / f"{name}.json").read_text())
    architecture = architecture_of(json.loads((shared_data / "model-configs" / f"{SAME[name]}.json").read_text()))
    latent = any(isinstance(mixer, LatentAttention) for run in architecture.layer_runs for mixer in run.mixers)
    assert expected["total_num_hidden_layers"] == architecture.layers
    assert expected["hidden_size"] == architecture.hidden_size
    assert expected["total_num_attention_heads"] == architecture.attention_heads
    assert expected["total_num_kv_heads"] == architecture.kv_heads
    assert expected["head_size"] == architecture.head_dim
    assert expected["vocab_size"] == architecture.vocab_size
    assert expected["num_experts"] == architecture.experts
    assert expected["is_deepseek_mla"] == latent


PUBLISHED = {
    "tiiuae--falcon-7b": FALCON | {"vocab_size": 65024},
    "tiiuae--falcon-40b": FALCON
    | {"num_hidden_layers": 60, "hidden_size": 8192, "num_attention_heads": 128, "num_kv_heads": 8}
    | {"new_decoder_architecture": True},
    "mosaicml--mpt-7b": {"model_type": "mpt", "n_layers": 32, "d_model": 4096, "n_heads": 32, "max_seq_len": 2048}
    | {"vocab_size": 50432, "attn_config": {"attn_type": "multihead_attention"}},
    "databricks--dbrx-instruct": {"model_type": "dbrx", "n_layers": 40, "d_model": 6144, "n_heads": 48}
    | {"vocab_size": 100352, "max_seq_len": 32768, "attn_config": {"kv_n_heads": 8}}
    | {"ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4}},
    "state-spaces--mamba-130m-hf": {"model_type": "mamba", "num_hidden_layers": 24, "hidden_size": 768}
    | {"vocab_size": 50280, "state_size": 16, "conv_kernel": 4, "intermediate_size": 1536},
    "mistralai--Mamba-Codestral-7B-v0.1": {"model_type": "mamba", "architectures": ["Mamba2ForCausalLM"]}
    | {"num_hidden_layers": 64, "hidden_size": 4096, "vocab_size": 32768, "state_size": 128, "conv_kernel": 4}
    | {"num_heads": 128, "head_dim": 64, "n_groups": 8},
    "Zyphra--Zamba2-7B-instruct": {"model_type": "zamba2", "num_hidden_layers": 81, "hidden_size": 3584}
    | {"num_attention_heads": 32, "num_key_value_heads": 32, "attention_head_dim": 224, "intermediate_size": 14336}
    | {"vocab_size": 32000, "n_mamba_heads": 112, "mamba_headdim": 64, "mamba_d_state": 64, "mamba_ngroups": 2}
    | {"mamba_d_conv": 4, "hybrid_layer_ids": [6, 11, 17]},
    "meituan-longcat--LongCat-Flash-Chat": {"model_type": "longcat_flash", "num_layers": 28, "hidden_size": 6144}
    | {"num_attention_heads": 64, "vocab_size": 131072, "kv_lora_rank": 512, "q_lora_rank": 1536, "v_head_dim": 128}
    | {"qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "ffn_hidden_size": 12288, "expert_ffn_hidden_size": 2048}
    | {"n_routed_experts": 512, "moe_topk": 12},
    "zai-org--GLM-4.5": {"model_type": "glm4_moe", "num_hidden_layers": 92, "hidden_size": 5120, "head_dim": 128}
    | {"num_attention_heads": 96, "num_key_value_heads": 8, "intermediate_size": 12288, "vocab_size": 151552}
    | {"n_routed_experts": 160, "num_experts_per_tok": 8, "moe_intermediate_size": 1536, "n_shared_experts": 1}
    | {"first_k_dense_replace": 3},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_engines_own_reader_says_the_same_of_other_families(name: str, shared_data: Path) -> None:
    expected = json.loads((shared_data / "expected-architectures" / f"{name}.json").read_text())
    architecture = architecture_of(PUBLISHED[name])
    assert expected["total_num_hidden_layers"] == architecture.layers
    assert expected["hidden_size"] == architecture.hidden_size
    assert expected["total_num_attention_heads"] == architecture.attention_heads
    assert expected["total_num_kv_heads"] == architecture.kv_heads
    assert expected["head_size"] == architecture.head_dim
    assert expected["vocab_size"] == architecture.vocab_size


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("LlamaForCausalLM", False),
        ("GPT2LMHeadModel", False),
        ("QWenLMHeadModel", False),
        ("ChatGLMModel", False),
        ("InternVLChatModel", False),
        ("MistralModel", True),
        ("LlamaForSequenceClassification", True),
    ],
)
def test_classes_that_generate_text_and_classes_that_pool(name: str, pooling: bool) -> None:
    assert architecture_of(LLAMA | {"architectures": [name]}).pooling is pooling
