"""Architectures and weights of published models, for tests of the pure layers."""

from vrampack.memory.architecture import Architecture, Weights

LLAMA_8B = Architecture(
    model_type="llama",
    class_name="LlamaForCausalLM",
    layers=32,
    hidden_size=4096,
    intermediate_size=14336,
    vocab_size=128256,
    attention_heads=32,
    kv_heads=8,
    head_dim=128,
    dtype="bfloat16",
    max_context=131072,
    rotary_positions=131072,
    rotary_dim=128,
)
LLAMA_70B = Architecture(
    model_type="llama",
    class_name="LlamaForCausalLM",
    layers=80,
    hidden_size=8192,
    intermediate_size=28672,
    vocab_size=128256,
    attention_heads=64,
    kv_heads=8,
    head_dim=128,
    dtype="bfloat16",
    max_context=131072,
    rotary_positions=131072,
    rotary_dim=128,
)
QWEN3_8B = Architecture(
    model_type="qwen3",
    class_name="Qwen3ForCausalLM",
    layers=36,
    hidden_size=4096,
    intermediate_size=12288,
    vocab_size=151936,
    attention_heads=32,
    kv_heads=8,
    head_dim=128,
    dtype="bfloat16",
    max_context=40960,
    rotary_positions=40960,
    rotary_dim=128,
)
QWEN3_30B_A3B = Architecture(
    model_type="qwen3_moe",
    class_name="Qwen3MoeForCausalLM",
    layers=48,
    hidden_size=2048,
    intermediate_size=6144,
    vocab_size=151936,
    attention_heads=32,
    kv_heads=4,
    head_dim=128,
    dtype="bfloat16",
    max_context=40960,
    experts=128,
    experts_per_token=8,
    expert_intermediate_size=768,
    rotary_positions=40960,
    rotary_dim=128,
)


def bf16_weights(architecture: Architecture, *, parameters: int) -> Weights:
    """Weights of a bf16 checkpoint with this many parameters and two norms a layer."""
    tables = 1 if architecture.tied_embeddings else 2
    return Weights(
        total=2 * parameters,
        parameters=parameters,
        precision="bf16",
        embedding=2 * tables * architecture.vocab_size * architecture.hidden_size,
        replicated=2 * (2 * architecture.layers + 1) * architecture.hidden_size,
    )


LLAMA_8B_WEIGHTS = bf16_weights(LLAMA_8B, parameters=8_030_261_248)
LLAMA_70B_WEIGHTS = bf16_weights(LLAMA_70B, parameters=70_553_706_496)
QWEN3_8B_WEIGHTS = bf16_weights(QWEN3_8B, parameters=8_190_735_360)
QWEN3_30B_A3B_WEIGHTS = bf16_weights(QWEN3_30B_A3B, parameters=30_532_122_624)
