"""llama.cpp's own server, started with the command line that its replica gets, on a tiny model made here.

It runs where a server is: ``VRAMPACK_LLAMA_SERVER``, or ``llama-server`` on the path. Elsewhere it is skipped. One is
built for the CPU in a quarter of an hour from the source package of llama-cpp-python, whose folder vendor/llama.cpp is
the whole of it: ``cmake -S vendor/llama.cpp -B build -DLLAMA_BUILD_UI=OFF -DLLAMA_CURL=OFF && cmake --build build
--target llama-server``.
"""

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.ggufbytes import Raw, gguf
from tests.unit.replicas import QWEN_GGUF
from vrampack.engines.base import Budget, ClaimModel, EngineContainer
from vrampack.engines.llamacpp import container
from vrampack.memory.llamacpppool import claim, context_of, largest_stage
from vrampack.models.ggufcheckpoint import read_gguf
from vrampack.units import MIB

SERVER = os.environ.get("VRAMPACK_LLAMA_SERVER") or shutil.which("llama-server") or ""
pytestmark = pytest.mark.skipif(not SERVER, reason="there is no llama-server here; VRAMPACK_LLAMA_SERVER names one")

_WORDS = [f"<{number}>" for number in range(253)]
_VOCABULARY = ["<unk>", "<s>", "</s>", *_WORDS]
_NORMAL, _CONTROL = 1, 3


def tiny(path: Path) -> None:
    """A llama of two layers whose weights are all zero."""
    width, layers, feed = 128, 2, 256
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "general.alignment": 32,
        "llama.context_length": 2048,
        "llama.block_count": layers,
        "llama.embedding_length": width,
        "llama.feed_forward_length": feed,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": 32,
        "llama.vocab_size": len(_VOCABULARY),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": _VOCABULARY,
        "tokenizer.ggml.scores": [0.0] * len(_VOCABULARY),
        "tokenizer.ggml.token_type": _signed([_CONTROL] * 3 + [_NORMAL] * len(_WORDS)),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    tensors = {
        "token_embd.weight": ("f16", (width, len(_VOCABULARY))),
        "output_norm.weight": ("f32", (width,)),
        "output.weight": ("f16", (width, len(_VOCABULARY))),
    }
    for layer in range(layers):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": ("f32", (width,)),
            f"blk.{layer}.ffn_norm.weight": ("f32", (width,)),
            f"blk.{layer}.attn_q.weight": ("f16", (width, width)),
            f"blk.{layer}.attn_k.weight": ("f16", (width, width // 2)),
            f"blk.{layer}.attn_v.weight": ("f16", (width, width // 2)),
            f"blk.{layer}.attn_output.weight": ("f16", (width, width)),
            f"blk.{layer}.ffn_gate.weight": ("f16", (width, feed)),
            f"blk.{layer}.ffn_up.weight": ("f16", (width, feed)),
            f"blk.{layer}.ffn_down.weight": ("f16", (feed, width)),
        }
    path.write_bytes(gguf(metadata, tensors))


def _signed(numbers: list[int]) -> Raw:
    """An array of int32, which this key must be."""
    return Raw(9, struct.pack(f"<IQ{len(numbers)}i", 5, len(numbers), *numbers))


def replica(folder: Path, *, port: int, precision: str) -> EngineContainer:
    """What a pod of the tiny model would run, with the claim's folder where it is here."""
    tiny(folder / "tiny.gguf")
    facts = read_gguf(folder / "tiny.gguf")
    assert QWEN_GGUF.workload is not None
    workload = replace(
        QWEN_GGUF.workload,
        context_length=1024,
        concurrency=3,
        tokens_per_sequence=512,
        max_batched_tokens=256,
        kv_cache_precision=precision,
    )
    held = claim(facts.architecture, workload).bytes
    given = replace(
        QWEN_GGUF,
        model=ClaimModel(claim="models", path=""),
        file="tiny.gguf",
        served_name="tiny",
        context_length=1024,
        concurrency=3,
        max_batched_tokens=256,
        kv_cache_precision=precision,
        port=port,
        architecture=facts.architecture,
        workload=workload,
        budget=Budget(weights=1, kv_cache=held, working=1, claim=held + 2, slack=0),
    )
    return container(given)


@pytest.fixture(params=["bf16", "fp16", "q8_0"])
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[EngineContainer, int, Path, str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    built = replica(tmp_path, port=port, precision=request.param)
    args = [each.replace("/models", str(tmp_path)) for each in built.args]
    said = {each["name"]: each["value"] for each in built.env if "value" in each}
    log = tmp_path / "server.log"
    with log.open("wb") as out:
        # No network namespace of its own as in a pod: it listens on this machine alone.
        args[args.index("--host") + 1] = "127.0.0.1"
        environment = {"PATH": os.environ["PATH"], **said, "LLAMA_CACHE": str(tmp_path / "cache")}
        process = subprocess.Popen([SERVER, *args, "--verbosity", "4"], stdout=out, stderr=out, env=environment)
    try:
        until = time.monotonic() + 60
        while not answers(port):
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < until, log.read_text(errors="replace")[-3000:]
            time.sleep(0.1)
        yield built, port, log, request.param
    finally:
        process.terminate()
        process.wait(timeout=20)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_it_takes_every_argument_and_allots_what_was_estimated(
    started: tuple[EngineContainer, int, Path, str], tmp_path: Path
) -> None:
    _, port, log, precision = started
    text = log.read_text(errors="replace")
    facts = read_gguf(tmp_path / "tiny.gguf")
    assert QWEN_GGUF.workload is not None
    workload = replace(
        QWEN_GGUF.workload,
        context_length=1024,
        concurrency=3,
        tokens_per_sequence=512,
        max_batched_tokens=256,
        kv_cache_precision=precision,
    )
    context = context_of(facts.architecture, workload)
    held = sum(buffer.bytes for buffer in largest_stage(facts.architecture, workload, context))
    printed = re.search(r"llama_kv_cache: size = +([\d.]+) MiB \( *(\d+) cells", text)
    assert printed is not None, text[-4000:]
    assert abs(float(printed[1]) - held / MIB) <= 0.01
    assert int(printed[2]) == context.cells
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/props", timeout=5) as response:
        props = json.load(response)
    assert props["total_slots"] == 3
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as response:
        assert json.load(response)["data"][0]["id"] == "tiny"


def test_it_answers_while_it_has_metrics(started: tuple[EngineContainer, int, Path, str]) -> None:
    _, port, log, _ = started
    body = json.dumps({"prompt": [1, 5, 6], "n_predict": 2}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/completion", data=body)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            assert json.load(response)["tokens_predicted"] >= 1
    except urllib.error.HTTPError as error:
        pytest.fail(f"{error.read()!r}\n{log.read_text(errors='replace')[-2000:]}")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        assert b"llamacpp:" in response.read()
