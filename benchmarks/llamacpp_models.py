"""Models for the llama.cpp oracle: the metadata that a GGUF file of the real model has, and no weights.

Shapes are those of the models named; where llama.cpp asks for keys that do not shape memory, they hold any value.
Architectures without a model of their own here have a common shape: they are told apart by name alone.
"""

from typing import Final

from benchmarks.llamacpp_attention import dense, sliding
from benchmarks.llamacpp_experts import experts, latent
from benchmarks.llamacpp_metadata import Value, model, moe, slides, window
from benchmarks.llamacpp_newest import newest
from benchmarks.llamacpp_states import hybrids, others, recurrent

_PLAIN: Final = """
apertus arcee baichuan bitnet bloom chameleon chatglm codeshell cogvlm dream ernie4_5 exaone gptneox hunyuan-dense
hunyuan_vl internlm2 jais jais2 llama-embed maincoder minicpm mistral3 mpt nemotron olmo openelm orion paddleocr
pangu-embedded phi2 plamo qwen qwen2vl qwen3vl refact stablelm starcoder talkie xverse
"""
_EXPERTS: Final = """
arctic bailingmoe deepseek ernie4_5-moe granitemoe grok grovemoe hunyuan-moe hy_v3 qwen2moe qwen3vlmoe llada-moe rnd1
"""
_SLIDING: Final = "exaone-moe cohere2moe granite_swa laguna maple mellum muse-glimmer spark2_5"
_MISCELLANEOUS: Final[dict[str, Value]] = {
    "rope.dimension_count": 128,
    "rope.dimension_sections": [16, 24, 24, 0],
    "rope.scaling.original_context_length": 4096,
    "attention.max_alibi_bias": 8.0,
    "attention.clamp_kqv": 8.0,
    "attention.scale": 1.0,
    "logit_scale": 1.0,
    "residual_scale": 1.0,
    "embedding_scale": 1.0,
    "use_parallel_residual": True,
    "interleave_moe_layer_step": 1,
    "expert_group_scale": 1.0,
    "experts_per_group": 1,
    "expert_chunk_feed_forward_length": 512,
    "swiglu_clamp_exp": 7.0,
    "swin_norm": False,
}


def models() -> dict[str, dict[str, Value]]:
    """Metadata by the name of the model, or of the architecture."""
    named = {**dense(), **sliding(), **experts(), **latent(), **hybrids(), **recurrent(), **others(), **newest()}
    return named | {f"({name})": _common(name) for name in f"{_PLAIN} {_EXPERTS} {_SLIDING}".split()}


def _common(name: str) -> dict[str, Value]:
    more = dict(_MISCELLANEOUS)
    if name in _EXPERTS.split() + _SLIDING.split():
        more |= moe(8, 2, 5632, shared=1, dense=1)
    if name in _SLIDING.split():
        more |= window(1024, slides(8, 4))
    metadata = model(name, layers=8, hidden=2048, heads=16, kv=8, width=5632, vocabulary=32000, more=more)
    return metadata | {f"xielu.{key}": 1.0 for key in ("alpha_n", "alpha_p", "beta", "eps")}
