"""The estimate as a library: one import, one call, no cluster."""

import asyncio
import dataclasses
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import vrampack
from tests.unit.ggufbytes import gguf
from tests.unit.known_models import LLAMA_8B, LLAMA_8B_WEIGHTS
from tests.unit.local_models import TINY, write_model
from tests.unit.test_gguf import MINIMAL, TENSORS
from vrampack import estimate
from vrampack.errors import InvalidInputError, ModelSourceError, UnsupportedModelError
from vrampack.estimator import TERMS, ModelEstimate, estimated, gpu_bytes
from vrampack.localcluster.hubcatalogue import catalogue
from vrampack.localcluster.hubdouble import HubDouble
from vrampack.memory.estimate import estimate as claim_of
from vrampack.memory.gpus import GPUS
from vrampack.memory.inverse import Limit
from vrampack.memory.workload import Workload
from vrampack.models.facts import ModelFacts
from vrampack.units import GIB

LOAD = Workload(context_length=8192, concurrency=16, tokens_per_sequence=8192, max_batched_tokens=8192)
FACTS = ModelFacts(
    source="",
    commit="",
    architecture=LLAMA_8B,
    weights=LLAMA_8B_WEIGHTS,
    weights_digest="",
    by_dtype={},
    files=(),
)
LLAMA = estimated(FACTS, LOAD)


@pytest.fixture
async def hub() -> AsyncIterator[HubDouble]:
    async with HubDouble(models=list(catalogue())) as double:
        yield double


class TestOneCall:
    def test_a_folder(self, tmp_path: Path) -> None:
        answer = estimate(write_model(tmp_path), context_length=1024, concurrency=4)
        assert answer.model.weights.total > 0
        assert answer.model.commit == ""
        assert answer.workload.tokens_per_sequence == 1024
        assert answer.workload.kv_cache_precision == "bf16"

    def test_a_configuration_has_the_weights_that_it_implies(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path)
        files = estimate(str(folder), context_length=1024, concurrency=4)
        parsed = estimate(TINY, context_length=1024, concurrency=4)
        path = estimate(folder / "config.json", context_length=1024, concurrency=4)
        assert parsed.model.weights.total == path.model.weights.total == files.model.weights.total
        assert parsed.per_gpu == path.per_gpu == files.per_gpu

    def test_a_gguf_file_alone_or_one_of_a_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "m-Q4_0.gguf"
        path.write_bytes(gguf({**MINIMAL}, {**TENSORS}))
        answer = estimate(path, context_length=128, concurrency=2, engine="llamacpp")
        assert answer.model.weights.precision == "gguf"
        assert sum(answer.terms.values()) == answer.per_gpu
        chosen = estimate(tmp_path, file="m-Q4_0.gguf", context_length=128, concurrency=2, engine="llamacpp")
        assert chosen.estimate == answer.estimate

    def test_an_engine_may_make_fp8_of_the_weights(self) -> None:
        plain, smaller = (
            estimate(TINY, context_length=1024, concurrency=4, weights=asked) for asked in ("bf16", "fp8")
        )
        assert plain.model.weights.converted == 0
        assert smaller.model.weights.converted == plain.model.weights.total
        assert plain.model.weights.total / 2 < smaller.model.weights.total < plain.model.weights.total
        with pytest.raises(InvalidInputError, match="the checkpoint's own, bf16; engines make fp8 of 16 bits"):
            estimate(TINY, context_length=1024, concurrency=4, weights="awq")

    def test_every_word_of_the_load_is_heard(self) -> None:
        plain = estimate(TINY, context_length=1024, concurrency=4)
        words: dict[str, dict[str, Any]] = {
            "tokens_per_sequence": {"tokens_per_sequence": 64},
            "max_batched_tokens": {"max_batched_tokens": 65_536},
            "tensor": {"tensor": 2},
            "pipeline": {"pipeline": 2},
            "kv_cache": {"kv_cache": "fp8"},
            "cuda_graphs": {"cuda_graphs": False},
            "headroom_percent": {"headroom_percent": 50.0},
        }
        for word, given in words.items():
            other = estimate(TINY, context_length=1024, concurrency=4, **given)
            assert (other.terms, other.gpus) != (plain.terms, plain.gpus), word
        with pytest.raises(InvalidInputError, match="engine"):
            estimate(TINY, context_length=1024, concurrency=4, engine="other")
        with pytest.raises(InvalidInputError, match="version"):
            estimate(TINY, context_length=1024, concurrency=4, engine_version="latest")

    async def test_a_model_on_the_hub_even_where_a_loop_runs(self, hub: HubDouble) -> None:
        async def cell_of_a_notebook() -> ModelEstimate:
            return estimate("hf://Qwen/Qwen3-0.6B", context_length=4096, concurrency=8, endpoint=hub.url)

        answer = await asyncio.to_thread(lambda: asyncio.run(cell_of_a_notebook()))
        assert answer.model.commit == hub.commit("Qwen/Qwen3-0.6B")
        assert answer.model.weights.parameters == 596_049_920

    def test_what_can_t_be_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="contextLength"):
            estimate(TINY, context_length=0, concurrency=4)
        with pytest.raises(InvalidInputError, match="kvCache"):
            estimate(TINY, context_length=16, concurrency=4, kv_cache="int3")
        with pytest.raises(UnsupportedModelError, match="model_type"):
            estimate({}, context_length=16, concurrency=4)
        with pytest.raises(ModelSourceError):
            estimate(tmp_path / "absent", context_length=16, concurrency=4)


class TestAnswer:
    def test_the_terms_are_those_of_the_estimate_and_sum_to_the_claim(self) -> None:
        assert sum(LLAMA.terms.values()) == LLAMA.per_gpu
        assert LLAMA.terms.keys() == set(TERMS) >= {"weights", "kv_cache", "activations", "headroom"}
        assert LLAMA.estimate == claim_of(architecture=LLAMA_8B, weights=LLAMA_8B_WEIGHTS, workload=LOAD)
        assert LLAMA.gpus == 1

    def test_it_is_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            LLAMA.model = LLAMA.model  # type: ignore[misc]

    def test_it_says_what_fits_and_how_far_it_goes(self) -> None:
        assert LLAMA.fits("L40S")
        assert LLAMA.fits("NVIDIA-L40S")
        assert not LLAMA.fits("L4")
        assert LLAMA.fits(LLAMA.per_gpu)
        assert not LLAMA.fits(LLAMA.per_gpu - 1)
        assert LLAMA.largest_concurrency(LLAMA.per_gpu).value == 16
        more = LLAMA.largest_concurrency("L40S")
        assert more.value > 16
        assert more.limit is Limit.MEMORY
        assert LLAMA.changed(concurrency=more.value).fits("L40S")
        assert not LLAMA.changed(concurrency=more.value + 1).fits("L40S")
        longer = LLAMA.longest_context("L40S").value
        assert LLAMA.changed(context_length=longer).fits("L40S")
        assert not LLAMA.changed(context_length=longer + 1).fits("L40S")

    def test_a_change_keeps_the_rest(self) -> None:
        changed = LLAMA.changed(context_length=4096)
        assert changed.workload.tokens_per_sequence == 4096
        assert changed.model is LLAMA.model
        assert LLAMA.changed(tokens_per_sequence=100).changed(context_length=4096).workload.tokens_per_sequence == 100


class TestGPU:
    def test_by_name_quantity_or_bytes(self) -> None:
        assert gpu_bytes("h200") == GPUS["H200"].usable
        assert gpu_bytes("24Gi") == 24 * GIB
        assert gpu_bytes(7 * GIB) == 7 * GIB

    @pytest.mark.parametrize("nothing", [0, -1, 24, "0", "-5Gi", "24", True, None, "", "Gi", "1e-3"])
    def test_what_is_no_gpu(self, nothing: Any) -> None:
        with pytest.raises(InvalidInputError, match="at least 1Mi"):
            gpu_bytes(nothing)

    def test_a_name_that_is_not_known(self) -> None:
        with pytest.raises(InvalidInputError, match="write one of T4, L4"):
            gpu_bytes("H100")


def test_it_needs_neither_kubernetes_nor_a_hub_s_client() -> None:
    script = (
        "import json, sys; from vrampack import estimate\n"
        f"config = json.loads({json.dumps(json.dumps(TINY))})\n"
        "estimate(config, context_length=64, concurrency=1)\n"
        "print(sorted({'kopf', 'kubernetes', 'aiohttp', 'pydantic', 'huggingface_hub', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_itself_loads_nothing() -> None:
    script = "import sys, vrampack; print([name for name in sys.modules if name.startswith('vrampack')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['vrampack']"
    assert vrampack.ModelEstimate is ModelEstimate
    with pytest.raises(AttributeError):
        vrampack.other  # type: ignore[attr-defined]  # noqa: B018
