"""The estimate against what vLLM really printed: runs of plain decoders, one row each.

The figures come from ``measurements/engine_memory.csv`` of the shared data, beside the repository; parameters are those
that the models' cards publish. Weights and cache tokens are exact to the printed digits.
"""

import csv
import dataclasses
from pathlib import Path

import pytest

from tests.unit.known_models import LLAMA_8B, QWEN3_8B, QWEN3_30B_A3B, bf16_weights
from vrampack.memory.activations import activation_bytes
from vrampack.memory.architecture import Architecture
from vrampack.memory.overheads import cuda_graph_bytes
from vrampack.memory.vllm.layout import kv_layout
from vrampack.memory.vllm.pool import printed
from vrampack.memory.weights import loaded_bytes
from vrampack.memory.workload import Workload
from vrampack.units import GIB

QWEN3_32B = dataclasses.replace(QWEN3_8B, layers=64, hidden_size=5120, intermediate_size=25600, attention_heads=64)
QWEN3_4B = dataclasses.replace(QWEN3_8B, hidden_size=2560, intermediate_size=9728, tied_embeddings=True)
QWEN3_0_6B = dataclasses.replace(
    QWEN3_8B, layers=28, hidden_size=1024, intermediate_size=3072, attention_heads=16, tied_embeddings=True
)
QWEN25_1_5B = Architecture(
    model_type="qwen2",
    layers=28,
    hidden_size=1536,
    intermediate_size=8960,
    vocab_size=151936,
    attention_heads=12,
    kv_heads=2,
    head_dim=128,
    dtype="bfloat16",
    tied_embeddings=True,
    rotary_positions=32768,
    rotary_dim=128,
)
QWEN25_3B = dataclasses.replace(QWEN25_1_5B, layers=36, hidden_size=2048, intermediate_size=11008, attention_heads=16)
QWEN25_14B = dataclasses.replace(
    QWEN25_1_5B,
    layers=48,
    hidden_size=5120,
    intermediate_size=13824,
    vocab_size=152064,
    attention_heads=40,
    kv_heads=8,
    tied_embeddings=False,
)
R1_DISTILL_14B = dataclasses.replace(QWEN25_14B, rotary_positions=131072)

MODELS: dict[str, tuple[Architecture, int]] = {
    "Qwen/Qwen3-0.6B": (QWEN3_0_6B, 596_049_920),
    "Qwen/Qwen3-4B": (QWEN3_4B, 4_022_468_096),
    "Qwen/Qwen3-4B-Instruct-2507": (dataclasses.replace(QWEN3_4B, rotary_positions=262144), 4_022_468_096),
    "Qwen/Qwen3-32B": (QWEN3_32B, 32_762_123_264),
    "Qwen/Qwen3-30B-A3B": (QWEN3_30B_A3B, 30_532_122_624),
    "Qwen/Qwen2.5-1.5B-Instruct": (QWEN25_1_5B, 1_543_714_304),
    "Qwen2.5-3B fine-tune (qwen25-3b-distill-merged)": (QWEN25_3B, 3_085_938_688),
    "Qwen/Qwen2.5-Coder-14B-Instruct": (QWEN25_14B, 14_770_033_664),
    "DeepSeek-R1-Distill-Qwen-14B": (R1_DISTILL_14B, 14_770_033_664),
    "typhoon-ai/typhoon-s-thaillm-8b-instruct-research-preview": (QWEN3_8B, 8_190_735_360),
    "meta-llama/Llama-3.1-8B-Instruct": (LLAMA_8B, 8_030_261_248),
}


@pytest.fixture(scope="module")
def runs(shared_data: Path) -> list[dict[str, str]]:
    """Runs of vLLM's second engine core with models that the estimate knows."""
    with (shared_data / "measurements" / "engine_memory.csv").open(newline="") as table:
        return [row for row in csv.DictReader(table) if row["engine"] == "vllm" and row["model"] in MODELS]


def served(tensor: int) -> Workload:
    return Workload(
        context_length=1024, concurrency=1, tokens_per_sequence=1024, max_batched_tokens=1024, tensor=tensor
    )


def test_weights_are_what_the_engine_printed(runs: list[dict[str, str]]) -> None:
    checked = 0
    for row in runs:
        if not row["weights_gib"] or row["dtype"] not in ("bfloat16", ""):
            continue
        architecture, parameters = MODELS[row["model"]]
        weights = bf16_weights(architecture, parameters=parameters)
        tensor = int(row["tp"] or 1)
        loaded = loaded_bytes(architecture, weights, served(tensor)) / GIB
        digits = len(row["weights_gib"].split(".")[1])
        # Half a digit of rounding, and 5 MiB for small tensors that share segments; experts have buffers of their own.
        tolerance = 0.5 * 10**-digits + 0.005 * (3 if architecture.experts else 1)
        assert loaded == pytest.approx(float(row["weights_gib"]), abs=tolerance), row["model"]
        checked += 1
    assert checked >= 15


def test_cache_tokens_are_what_the_engine_printed(runs: list[dict[str, str]]) -> None:
    checked = 0
    for row in runs:
        if not (row["kv_cache_gib"] and row["kv_cache_tokens"]):
            continue
        architecture, _ = MODELS[row["model"]]
        precision = "fp8" if row["kv_cache_dtype"] == "fp8" else "bf16"
        context = int(row["max_model_len"] or 4096)
        layout = kv_layout(
            architecture,
            Workload(
                context_length=context,
                concurrency=1,
                tokens_per_sequence=context,
                max_batched_tokens=2048,
                tensor=int(row["tp"] or 1),
                kv_cache_precision=precision,
                engine_version=row["version"],
            ),
        )
        low, high = (int((float(row["kv_cache_gib"]) + rounding) * GIB) for rounding in (-0.005, 0.005))
        least = printed(layout, low - layout.bytes_per_block, context).tokens
        most = printed(layout, high + layout.bytes_per_block, context).tokens
        assert least <= int(row["kv_cache_tokens"]) <= most, row["model"]
        checked += 1
    assert checked >= 13


def test_activation_peaks_of_the_start_up_run_are_what_the_engine_printed(runs: list[dict[str, str]]) -> None:
    """H100 runs with the server's default of 1024 sequences and 8192 tokens."""
    peaks = [row for row in runs if row["activation_peak_gib"] and row["gpu"] == "H100"]
    assert len(peaks) >= 4
    for row in peaks:
        architecture, _ = MODELS[row["model"]]
        workload = Workload(
            context_length=16000,
            concurrency=1024,
            tokens_per_sequence=16000,
            max_batched_tokens=8192,
            tensor=int(row["tp"]),
            engine_version="0.10.0",
        )
        assert activation_bytes(architecture, workload) / GIB == pytest.approx(
            float(row["activation_peak_gib"]), abs=0.01
        ), row["model"]


def test_graphs_of_few_sequences_cost_little(runs: list[dict[str, str]]) -> None:
    row = next(row for row in runs if row["max_num_seqs"] == "2")
    architecture, _ = MODELS[row["model"]]
    workload = Workload(context_length=8192, concurrency=2, tokens_per_sequence=8192, max_batched_tokens=8192)
    graphs = cuda_graph_bytes(architecture, workload)
    assert graphs / GIB == pytest.approx(float(row["cuda_graph_gib"]), abs=0.02)
