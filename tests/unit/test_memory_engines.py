"""Models of config.json files under engines other than vLLM."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.test_memory_llamacpp import APART, SHARED
from tests.unit.test_memory_llamacpp import architecture_of as of_gguf
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory import llamacpppool, sglang, tgi
from vrampack.memory.architecture import Architecture
from vrampack.memory.enginepools import PoolClaim, PrintedPool
from vrampack.memory.llamacpp import cache_buffers
from vrampack.memory.workload import Workload
from vrampack.models.config import architecture_of

Rule = tuple[Callable[[Architecture, Workload], PoolClaim], Callable[[Architecture, Workload, int], PrintedPool]]
RULES: dict[str, Rule] = {
    "llamacpp": (llamacpppool.claim, llamacpppool.printed),
    "sglang": (sglang.claim, sglang.printed),
    "tgi": (tgi.claim, tgi.printed),
}


def of_config(path: Path) -> Architecture:
    return architecture_of(json.loads(path.read_text()))


@pytest.mark.parametrize("engine", RULES)
def test_every_model_has_a_claim_or_is_refused_by_name(engine: str, shared_data: Path) -> None:
    """And what the engine would print of these bytes is no less than what was asked for."""
    claim, printed = RULES[engine]
    seen = Counter[str]()
    for path in sorted((shared_data / "model-configs").glob("*.json")):
        try:
            architecture = of_config(path)
            context = min(8192, architecture.max_context or 8192)
            workload = Workload(
                context_length=context,
                concurrency=4,
                tokens_per_sequence=context // 4,
                max_batched_tokens=512,
                kv_cache_precision="fp16",
                engine=engine,
            )
            pool = claim(architecture, workload)
        except (InvalidInputError, UnsupportedModelError):
            seen["refused"] += 1
            continue
        seen["claimed"] += 1
        assert pool.bytes > 0 or not architecture.causal, path.name
        if pool.bytes > pool.state_bytes:
            assert printed(architecture, workload, pool.bytes).tokens >= pool.tokens - 64, path.name
    assert seen["claimed"] > 5 * seen["refused"] > 0 or seen["refused"] == 0


SAME = {
    "Qwen--Qwen3-235B-A22B_config.json": "Qwen3-235B-A22B",
    "deepseek-ai--DeepSeek-V3_config.json": "DeepSeek-V3",
    "google--gemma-4-26B-A4B_config.json": "Gemma-4-26B-A4B",
    "mlc--llama3_1_8b.json": "Llama-3.1-8B",
    "Qwen--Qwen3-30B-A3B_config.json": "Qwen3-30B-A3B",
    "Qwen--Qwen3.5-35B-A3B_config.json": "Qwen3.5-35B-A3B",
    "rec--Qwen--Qwen3-Next-80B-A3B-Instruct.json": "Qwen3-Next-80B-A3B",
    "openai--gpt-oss-20b_config.json": "gpt-oss-20b",
    "meta-llama--Llama-4-Scout-17B-16E-Instruct_config.json": "Llama-4-Scout",
    "deepseek-ai--DeepSeek-V3.2_config.json": "DeepSeek-V3.2",
}


@pytest.mark.parametrize("config", SAME)
def test_config_json_and_gguf_of_a_model_have_the_same_cache(config: str, shared_data: Path) -> None:
    architecture = of_config(shared_data / "model-configs" / config)
    for context in (SHARED, APART):
        assert cache_buffers(architecture, context) == cache_buffers(of_gguf(SAME[config]), context)
