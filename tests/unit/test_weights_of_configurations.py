"""The tensors that a configuration implies, against the parameters and file sizes that were published.

Configurations and sizes come from the shared data beside the repository.
"""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from vrampack.errors import UnsupportedModelError
from vrampack.memory.architecture import Architecture, Weights
from vrampack.models.config import architecture_of
from vrampack.models.tensorfacts import likely_dtype, weights_of_config
from vrampack.units import GIB

EXACT = {
    # dense: Llama and its kin, biases, head norms, four norms a layer, tied tables
    "meta-llama--Meta-Llama-3.1-8B_config": 8_030_261_248,
    "meta-llama--Meta-Llama-3.1-70B_config": 70_553_706_496,
    "meta-llama--Meta-Llama-3.1-405B_config": 405_853_388_800,
    "mlc--llama2_13b": 13_015_864_320,
    "mlc--mistral_7b": 7_241_732_096,
    "mlc--tinyllama_1b_chat_v1.0": 1_100_048_384,
    "mlc--smollm2_360m": 361_821_120,
    "Qwen--Qwen3-0.6B_config": 596_049_920,
    "Qwen--Qwen3-8B_config": 8_190_735_360,
    "Qwen--Qwen3-32B_config": 32_762_123_264,
    "ome--qwen2.5_0.5b": 494_032_768,
    "ome--qwen2.5_14b": 14_770_033_664,
    "ome--qwen2.5_72b": 72_706_203_648,
    "mlc--gemma_2b": 2_506_172_416,
    "mlc--gemma2_9b": 9_241_705_984,
    "mlc--gemma2_27b": 27_227_128_320,
    "mlc--gemma3_1b_it": 999_885_952,
    "mlc--phi-3_5": 3_821_079_552,
    "mlc--olmo2_7b": 7_298_617_344,
    "mlc--olmo2_32b": 32_234_279_936,
    "mlc--starcoder2": 7_173_923_840,
    "ome--command_r_35b": 34_980_831_232,
    "mlc--aya-23": 8_028_033_024,
    "ome--stablelm_3b": 2_795_443_200,
    "mlc--stablelm-2-zephyr-1_6b": 1_644_515_328,
    "ome--internlm2_7b": 7_737_708_544,
    "ome--exaone_7.8b": 7_818_448_896,
    "ome--baichuan2_7b": 7_505_973_248,
    "ome--qwen_7b": 7_721_324_544,
    "mlc--gpt2": 124_439_808,
    "mlc--gpt_bigcode": 1_124_886_528,
    # mixtures of experts, with shared experts and biases
    "mistralai--Mixtral-8x7B-v0.1_config": 46_702_792_704,
    "mistralai--Mixtral-8x22B-v0.1_config": 140_620_634_112,
    "Qwen--Qwen3-30B-A3B_config": 30_532_122_624,
    "Qwen--Qwen3-235B-A22B_config": 235_093_634_560,
    "mlc--qwen2moe": 14_315_784_192,
    "ome--phimoe": 41_873_153_344,
    "openai--gpt-oss-20b_config": 20_914_757_184,
    "openai--gpt-oss-120b_config": 116_829_156_672,
    "MiniMaxAI--MiniMax-M2.5_config": 228_689_764_864,
    # layers that differ, some without attention
    "nvidia--Llama-3_3-Nemotron-Super-49B-v1_config": 49_867_145_216,
    # latent attention
    "mlc--deepseek_v2_lite": 15_706_484_224,
    "deepseek-ai--DeepSeek-V3_config": 671_026_419_200,
    "moonshotai--Kimi-K2-Instruct_config": 1_026_408_232_448,
    # pooling models have no output head
    "ome--e5_mistral_7b": 7_110_660_096,
    "ome--skywork_reward_llama": 7_504_924_672,
    # an encoder, and towers
    "rec--openai--whisper-large-v3": 1_543_490_560,
    "ome--qwen2_vl_7b": 8_291_375_616,
    "ome--phi3_v": 4_146_621_440,
    "ome--llava_1.5_7b_hf": 7_063_427_072,
    "Qwen--Qwen3-VL-30B-A3B-Instruct_config": 31_070_754_032,
    "Qwen--Qwen3-VL-8B-Instruct_config": 8_767_123_696,
    "ome--qwen2.5_vl_7b": 8_292_166_656,
    "ome--gemma3": 27_432_406_640,
}
"""Parameters of the published checkpoints."""

NEAR = {
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16_config": 31_577_937_344,
    "google--gemma-4-26B-A4B_config": 25_805_933_872,
    "ome--llama3_2_11b_vision": 10_670_220_835,
    "ome--llama4_scout_17b_16e": 108_641_793_536,
    "ome--chatglm3_6b": 6_243_584_032,
    "mlc--orion": 14_498_253_824,
    "nvidia--Nemotron-H-56B-Base-8K_config": 56_320_000_000,
}
"""The same where a gate of a tower or a norm of a layer without attention is not known: within a 5,000th."""


ROUNDED = {
    "ome--deepseek_vl2_tiny": 3.37e9,
    "ome--janus_1.3b": 2.09e9,
    "ome--minicpm3_4b": 4.07e9,
    "ome--phi3small": 7.39e9,
    "deepseek-ai--DeepSeek-V4-Flash_config": 284.3e9,
}
"""Parameters as the model's card rounds them."""


def config_of(shared_data: Path, name: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((shared_data / "model-configs" / f"{name}.json").read_text())
    return parsed


def read(config: dict[str, Any]) -> tuple[Architecture, Weights]:
    architecture = architecture_of(config, stored_dtype="bfloat16")
    return architecture, weights_of_config(config, architecture=architecture)


@pytest.mark.parametrize(("name", "parameters"), EXACT.items())
def test_parameters_are_exact(shared_data: Path, name: str, parameters: int) -> None:
    config = config_of(shared_data, name)
    config.pop("quantization_config", None)
    architecture, weights = read(config)
    assert weights.parameters == parameters
    assert weights.total == parameters * (4 if architecture.dtype == "float32" else 2)


@pytest.mark.parametrize(("name", "parameters"), NEAR.items())
def test_parameters_are_near(shared_data: Path, name: str, parameters: int) -> None:
    config = config_of(shared_data, name)
    _, weights = read(config)
    assert weights.parameters == pytest.approx(parameters, rel=1 / 5000)


@pytest.mark.parametrize(("name", "parameters"), ROUNDED.items())
def test_parameters_are_those_of_the_card(shared_data: Path, name: str, parameters: float) -> None:
    _, weights = read(config_of(shared_data, name))
    assert weights.parameters == pytest.approx(parameters, rel=0.002)


FILES = {
    "meta-llama/Llama-3.1-8B-Instruct": ("meta-llama--Meta-Llama-3.1-8B_config", 0),
    "meta-llama/Llama-3.3-70B-Instruct": ("meta-llama--Meta-Llama-3.1-70B_config", 0),
    "Qwen/Qwen2.5-Coder-7B-Instruct": ("ome--qwen2.5_7b", 0),
    "Qwen/Qwen2.5-Coder-32B-Instruct": ("ome--qwen2.5_32b", 0),
    "microsoft/Phi-3.5-mini-instruct": ("mlc--phi-3_5", 0),
    "google/gemma-3-27b-it": ("ome--gemma3", 0),
    "google/gemma-4-26B-A4B-it": ("google--gemma-4-26B-A4B_config", 0),
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ("nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16_config", 0),
    "moonshotai/Kimi-K2.5": ("moonshotai--Kimi-K2.5_config", 0),
    # the files hold a layer that predicts a further token as well, with tables of its own in DeepSeek V3
    "Qwen/Qwen3.6-27B": ("Qwen--Qwen3.5-27B_config", 0),
    "zai-org/GLM-5.2-FP8": ("zai-org--GLM-5.2-FP8_config", 0),
    "deepseek-ai/DeepSeek-V4-Pro": ("deepseek-ai--DeepSeek-V4-Pro_config", 0),
    "deepseek-ai/DeepSeek-R1-0528": ("deepseek-ai--DeepSeek-R1_config", 2 * 2 * 129280 * 7168),
}


@pytest.mark.parametrize(("model", "name", "tables"), [(model, *rest) for model, rest in FILES.items()])
def test_bytes_are_those_of_the_files(shared_data: Path, model: str, name: str, tables: int) -> None:
    with (shared_data / "safetensors_sizes.csv").open(newline="") as table:
        sizes = {row["model"]: float(row["safetensors_gib"]) for row in csv.DictReader(table)}
    _, weights = read(config_of(shared_data, name))
    assert (weights.total + weights.predict + tables) / GIB == pytest.approx(sizes[model], rel=0.0007, abs=0.01)


def test_prediction_layers_that_the_files_lack_are_no_part_of_the_total(shared_data: Path) -> None:
    _, weights = read(config_of(shared_data, "MiniMaxAI--MiniMax-M2.7_config"))
    assert weights.predict > 0
    assert weights.total / GIB == pytest.approx(214.34, rel=0.001)


PLAIN = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 256,
    "max_position_embeddings": 128,
}


@pytest.mark.parametrize("field", ["vision_config", "audio_config", "img_processor"])
def test_a_tower_that_is_not_known_is_refused_by_its_field(field: str) -> None:
    architecture = architecture_of(PLAIN | {"torch_dtype": "bfloat16"})
    with pytest.raises(UnsupportedModelError) as refusal:
        weights_of_config(PLAIN | {field: {"stages": [1, 2, 3]}}, architecture=architecture)
    assert refusal.value.unknown == field


def test_what_a_quantized_checkpoint_does_not_quantize_is_in_sixteen_bits() -> None:
    assert likely_dtype(PLAIN) is None
    assert likely_dtype(PLAIN | {"quantization_config": {"quant_method": "mxfp4"}}) == "bfloat16"
    assert likely_dtype(PLAIN, quant_config={"quantization": {"quant_algo": "NVFP4"}}) == "bfloat16"
