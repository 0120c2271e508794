"""What engines printed when they started: real lines of many versions."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrampack.errors import InvalidInputError
from vrampack.models import enginelogs
from vrampack.models.enginelogs import Start, figures, gib, mib, read_starts, starts_of
from vrampack.models.llamacpplogs import LLAMACPP
from vrampack.models.sglanglogs import SGLANG
from vrampack.models.vllmlogs import VLLM
from vrampack.units import GIB, MIB

DIALECTS = (VLLM, SGLANG, LLAMACPP)


def one(text: str) -> Start:
    [start] = starts_of(text.splitlines(), dialects=DIALECTS)
    return start


def printed(**sizes: str) -> dict[str, int]:
    """The most that these figures, as printed, may stand for."""
    return {term: gib(size) for term, size in sizes.items()}


OLD = """\
INFO 12-13 19:55:25 worker.py:243] Memory profiling results:
INFO 12-13 19:55:25 worker.py:243] duration     3.49 seconds
INFO 12-13 19:55:25 worker.py:243] total_gpu_memory     79.22GiB
INFO 12-13 19:55:25 worker.py:243] the current vLLM instance can use    71.29GiB
INFO 12-13 19:55:25 worker.py:243] model weights take   7.48GiB
INFO 12-13 19:55:25 worker.py:243] non_torch_memory     3.58GiB
INFO 12-13 19:55:25 worker.py:243] PyTorch activation peak memory       1.26GiB
INFO 12-13 19:55:25 worker.py:243] available_kv_cache_memory    58.97GiB
"""
V0 = """\
INFO 04-04 17:57:58 [llm_engine.py:243] Initializing a V0 LLM engine (v0.8.2.dev115+gf5f0c5ff) with config: \
model='Qwen/Qwen2.5-0.5B', speculative_config=None, dtype=torch.bfloat16, max_seq_len=2048, \
tensor_parallel_size=1, pipeline_parallel_size=1, enforce_eager=False, kv_cache_dtype=auto,  device_config=cuda
INFO 04-04 17:57:59 [model_runner.py:1146] Model loading took 0.4678 GB and 114.953146 seconds
INFO 04-04 17:58:00 [worker.py:268] the current vLLM instance can use total_gpu_memory (16.00GiB) x \
gpu_memory_utilization (0.90) = 14.40GiB
INFO 04-04 17:58:00 [worker.py:268] model weights take 0.47GiB; non_torch_memory takes 0.03GiB; PyTorch activation \
peak memory takes 0.50GiB; the rest of the memory reserved for KV Cache is 13.40GiB.
INFO 04-04 17:58:00 [executor_base.py:116] Maximum concurrency for 2048 tokens per request: 95.31x
INFO 04-04 17:58:19 [model_runner.py:1570] Graph capturing finished in 16 secs, took 0.15 GiB
"""
RANKS = """\
(VllmWorkerProcess pid=521) INFO 04-12 08:21:19 [worker.py:267] model weights take 21.21GiB; non_torch_memory takes \
0.20GiB; PyTorch activation peak memory takes 0.37GiB; the rest of the memory reserved for KV Cache is 1.57GiB.
(VllmWorkerProcess pid=507) INFO 04-12 08:21:19 [worker.py:267] model weights take 20.11GiB; non_torch_memory takes \
0.26GiB; PyTorch activation peak memory takes 0.19GiB; the rest of the memory reserved for KV Cache is 1.57GiB.
"""
DEBUG = """\
(EngineCore_DP0 pid=2552931) DEBUG 09-28 21:12:43 [v1/worker/gpu_worker.py:284] Initial free memory: 23.08 GiB; \
Requested memory: 0.80 (util), 18.82 GiB
(EngineCore_DP0 pid=2552931) DEBUG 09-28 21:12:43 [v1/worker/gpu_worker.py:297] Memory profiling takes 14.40 seconds. \
Total non KV cache memory: 10.22GiB; torch peak memory increase: 1.40GiB; non-torch forward increase memory: 0.02GiB; \
weights memory: 8.80GiB.
(EngineCore_DP0 pid=2552931) INFO 09-28 21:12:44 [v1/core/kv_cache_utils.py:864] GPU KV cache size: 62,608 tokens
"""
BREAKDOWN = """\
(APIServer pid=1) INFO 09-21 12:29:00 [api_server.py:1896] vLLM API server version 0.10.2
(APIServer pid=1) INFO 09-21 12:29:00 [utils.py:328] non-default args: {'model_tag': 'meta-llama/Llama-3.1-8B', \
'model': 'meta-llama/Llama-3.1-8B', 'max_model_len': 16000, 'max_num_batched_tokens': 8192, 'max_num_seqs': 256}
(EngineCore_DP0 pid=7) INFO 09-21 12:29:22 [gpu_model_runner.py:2581] Model loading took 14.9889 GiB and 74.2 seconds
(EngineCore_DP0 pid=7) DEBUG 09-21 12:30:01 [gpu_worker.py:391] Free memory on device (78.57/79.18 GiB) on startup. \
Desired GPU memory utilization is (0.9, 71.26 GiB). Actual usage is 14.99 GiB for weight, 4.76 GiB for peak \
activation, 0.13 GiB for non-torch memory, and -0.45 GiB for CUDAGraph memory. Replace gpu_memory_utilization config \
with `--kv-cache-memory=55` (51.2 GiB) to fit into requested memory. Current kv cache memory in use is 51.38 GiB.
"""
TENSOR = "".join(
    f"(Worker_TP{rank} pid={rank}) INFO Free memory on device (264.19/267.69 GiB) on startup. Actual usage is "
    f"205.0{rank} GiB for weight, 3.75 GiB for peak activation, 1.63 GiB for non-torch memory, and 0.14 GiB for "
    "CUDAGraph memory. Current kv cache memory in use is 43.85 GiB.\n"
    for rank in range(4)
)
CONSUMED = """\
(EngineCore pid=367) INFO 08-14 14:07:20 [core.py:109] Initializing a V1 LLM engine (v0.29.0) with config: \
model='Qwen/Qwen3-8B', max_seq_len=8192, tensor_parallel_size=1, data_parallel_size=1, enforce_eager=True, \
kv_cache_dtype=fp8, dtype=torch.bfloat16
(EngineCore pid=367) INFO 08-14 14:07:21 [model_runner.py:295] Model loading took 10.1 GiB memory and 32.9 seconds
(EngineCore pid=367) INFO 08-14 14:07:22 [gpu_worker.py:789] Free memory on device cuda:0 (21.5/22.04 GiB) on startup. \
Desired GPU memory utilization is (0.62, 13.66 GiB). Actual usage is 10.29 GiB for consumed memory (weights + \
non-torch), 0.27 GiB for peak activation, and 0.78 GiB for CUDAGraph memory. Replace gpu_memory_utilization config.
(EngineCore pid=367) INFO 08-14 14:07:23 [gpu_worker.py:621] CUDA graph pool memory: 0.79 GiB (actual), 0.14 GiB \
(estimated), difference: 0.03 GiB (25.0%).
"""

VLLM_LOGS = {
    "0.6.4, one line each": (OLD, printed(weights="7.48", activations="1.26")),
    "V0": (V0, printed(weights="0.47", activations="0.50", cuda_graphs="0.15")),
    "V0, ranks": (RANKS, printed(weights="21.21", activations="0.37")),
    "V1, at debug": (DEBUG, printed(weights="8.80", activations="1.40")),
    "V1, breakdown": (
        BREAKDOWN,
        printed(weights="14.99", activations="4.76") | {"runtime_context": gib("0.74")},
    ),
    "weights and non-torch together": (
        CONSUMED,
        printed(weights="10.1", activations="0.27", cuda_graphs="0.79") | {"runtime_context": gib("0.74")},
    ),
}


@pytest.mark.parametrize("name", VLLM_LOGS)
def test_what_vllm_printed(name: str) -> None:
    text, expected = VLLM_LOGS[name]
    found = figures(one(text))
    assert found == pytest.approx(expected, abs=GIB // 50)
    assert {term: found[term] for term in ("weights", "activations")} == {
        term: expected[term] for term in ("weights", "activations")
    }


def test_of_several_ranks_the_one_that_used_the_most_counts() -> None:
    start = one(TENSOR)
    assert len(start.ranks) == 4
    start.tensor = 4
    found = figures(start)
    assert found["weights"] == gib("205.03")
    assert found["communication"] == gib("1.63")
    assert "runtime_context" not in found, "3.5 GiB before it began are another process's"


def test_how_vllm_ran() -> None:
    start = one(BREAKDOWN)
    assert (start.engine, start.version, start.model) == ("vllm", "0.10.2", "meta-llama/Llama-3.1-8B")
    assert (start.context_length, start.max_sequences, start.max_batched_tokens) == (16000, 256, 8192)
    start = one(CONSUMED)
    assert (start.version, start.model, start.dtype, start.kv_cache) == ("0.29.0", "Qwen/Qwen3-8B", "bfloat16", "fp8")
    assert (start.cuda_graphs, start.tensor, start.data, start.context_length) == (False, 1, 1, 8192)
    start = one(V0)
    assert (start.version, start.context_length, start.cuda_graphs) == ("0.8.2.dev115+gf5f0c5ff", 2048, True)
    assert one(DEBUG).kv_tokens == 62608


def test_the_banner_of_newer_releases() -> None:
    text = "INFO 01-20 [utils.py:261]  █▄█▀ █     █     █     █  version 0.14.0rc1.dev2\n" + DEBUG
    assert one(text).version == "0.14.0rc1.dev2"
    assert one("INFO PyTorch version 2.9.0 available.\n" + DEBUG).version == ""


def test_an_engine_that_was_told_its_kv_cache_says_so() -> None:
    start = one("INFO non-default args: {'kv_cache_memory_bytes': 4294967296}\nModel loading took 7.64 GiB and 3 s")
    assert start.sized
    assert not one(BREAKDOWN).sized


SGLANG_LOG = """\
[2025-10-16 09:06:00] server_args=ServerArgs(model_path='Qwen/Qwen3-235B', tokenizer_path='Qwen/Qwen3-235B', \
dp_size=1, tp_size=8, pp_size=1, chunked_prefill_size=8192, max_running_requests=None, context_length=32768, \
kv_cache_dtype='auto', disable_cuda_graph=False, ep_size=1)
[2025-10-16 09:06:09 TP7] Init torch distributed ends. mem usage=1.77 GB
[2025-10-16 09:06:09 TP6] Init torch distributed ends. mem usage=2.01 GB
[2025-10-16 09:06:10 TP6] Load weight begin. avail mem=137.29 GB
[2025-10-16 09:06:19 TP6] Load weight end. type=Qwen3MoeForCausalLM, dtype=torch.bfloat16, avail mem=82.03 GB, \
mem usage=55.26 GB.
[2025-10-16 09:06:22 TP6] KV Cache is allocated. #tokens: 2795207, K size: 53.31 GB, V size: 53.31 GB
[2025-10-16 09:06:22 TP6] Memory pool end. avail mem=11.87 GB
[2025-11-10 19:59:09 TP1] Capture cuda graph end. Time elapsed: 11.35 s. mem usage=1.04 GB. avail mem=11.22 GB.
[2025-11-10 19:59:19 TP1] Capture piecewise CUDA graph end. Time elapsed: 9.8 s. mem usage=0.50 GB. avail mem=10.72 GB.
[2025-10-16 09:07:00 TP0] max_total_num_tokens=2795207, chunked_prefill_size=8192, max_prefill_tokens=16384, \
max_running_requests=4096, context_len=32768
"""


def test_what_sglang_printed() -> None:
    start = one(SGLANG_LOG)
    graphs = gib("1.04") + gib("0.50")
    assert figures(start) == printed(weights="55.26", communication="2.01") | {"cuda_graphs": graphs}
    assert (start.engine, start.model, start.dtype) == ("sglang", "Qwen/Qwen3-235B", "bfloat16")
    assert (start.tensor, start.max_sequences, start.max_batched_tokens, start.context_length) == (8, 4096, 8192, 32768)
    assert (start.cuda_graphs, start.expert, start.kv_tokens) == (True, False, 2795207)


LLAMACPP_OLD = """\
  Device 0: NVIDIA GeForce RTX 4070 Ti, compute capability 8.9, VMM: yes
llama_model_loader: loaded meta data with 26 key-value pairs and 322 tensors from c4ai.gguf (version GGUF V3 (latest))
llama_model_loader: - kv   1:                               general.name str              = c4ai-command-r-v01
llm_load_tensors:        CPU buffer size =  1640.62 MiB
llm_load_tensors:      CUDA0 buffer size =  5434.38 MiB
llm_load_tensors:      CUDA1 buffer size = 13989.53 MiB
llama_new_context_with_model: n_ctx      = 4096
llama_new_context_with_model: n_batch    = 2048
llama_new_context_with_model: n_ubatch   = 512
llama_kv_cache_init:      CUDA0 KV buffer size =  1536.00 MiB
llama_new_context_with_model: KV self size  = 5120.00 MiB, K (f16): 2560.00 MiB, V (f16): 2560.00 MiB
llama_new_context_with_model:  CUDA_Host  output buffer size =     1.95 MiB
llama_new_context_with_model:      CUDA0 compute buffer size =   672.01 MiB
"""
LLAMACPP_NEW = """\
build: 6123 (79c1160b) with cc (Ubuntu 13.3.0) 13.3.0 for x86_64-linux-gnu
\x1b[32mI \x1b[0mllama_model_loader: loaded meta data with 40 key-value pairs
load_tensors:   CPU_Mapped model buffer size =   333.84 MiB
load_tensors:        CUDA0 model buffer size = 15623.10 MiB
llama_context: n_seq_max     = 4
llama_context: n_ctx         = 32768
llama_context: n_ctx_seq     = 8192
llama_context: n_ubatch      = 512
llama_kv_cache:      CUDA0 KV buffer size =   182.75 MiB
llama_kv_cache: size =  182.75 MiB (  4352 cells,  43 layers,  4/4 seqs), K (q8_0):   91.38 MiB, V (q8_0):   91.38 MiB
\x1b[34m1.14.608.918\x1b[0m llama_memory_recurrent:      CUDA0 RS buffer size =   251.25 MiB
llama_context:      CUDA0 compute buffer size =   304.75 MiB
llama_context:  CUDA_Host compute buffer size =    24.01 MiB
"""


def test_what_llama_cpp_printed() -> None:
    start = one(LLAMACPP_OLD)
    assert figures(start) == {"weights": mib("13989.53"), "activations": mib("672.01")}
    assert (start.product, start.model) == ("NVIDIA GeForce RTX 4070 Ti", "c4ai-command-r-v01")
    assert (start.context_length, start.max_batched_tokens, start.kv_cache) == (4096, 512, "f16")
    start = one(LLAMACPP_NEW)
    assert figures(start) == {"weights": mib("15623.10"), "activations": mib("304.75")}
    assert (start.version, start.max_sequences, start.context_length, start.kv_cache) == ("b6123", 4, 8192, "q8_0")


def test_each_start_of_a_log_counts() -> None:
    starts = starts_of((BREAKDOWN + BREAKDOWN.replace("4.76", "5.76")).splitlines(), dialects=DIALECTS)
    assert [start.most("activations") for start in starts] == [gib("4.76"), gib("5.76")]
    starts = starts_of((LLAMACPP_NEW + LLAMACPP_NEW.partition("\n")[2]).splitlines(), dialects=DIALECTS)
    assert [(start.version, start.most("weights")) for start in starts] == [("b6123", mib("15623.10"))] * 2


@pytest.mark.parametrize(
    ("text", "size"), [("14.99", 14.995), ("3.1", 3.105), ("3", 3.005), ("67.7229", 67.72295), ("-0.45", 0), ("0.0", 0)]
)
def test_a_printed_figure_stands_for_the_most_that_it_may_be(text: str, size: float) -> None:
    assert gib(text) == pytest.approx(size * GIB, abs=1)
    assert mib(text) == pytest.approx(size * MIB, abs=1)


# Figures that can't be.


def test_a_figure_below_zero_is_no_measure() -> None:
    start = one(BREAKDOWN)
    assert start.unusable.keys() == {"cuda_graphs"}
    assert start.unusable["cuda_graphs"].startswith("-0.45 was printed")
    assert "cuda_graphs" not in figures(start)
    again = one(BREAKDOWN + "(EngineCore_DP0 pid=7) CUDA graph pool memory: 0.79 GiB (actual)\n")
    assert figures(again)["cuda_graphs"] == gib("0.79"), "another line says it"


@pytest.mark.parametrize(
    ("log", "old", "new", "term"),
    [
        (BREAKDOWN, "4.76", "-4.76", "activations"),
        (V0, "non_torch_memory takes 0.03", "non_torch_memory takes -0.03", "non_torch"),
        (SGLANG_LOG, "mem usage=1.04", "mem usage=-1.04", "cuda_graphs"),
        (SGLANG_LOG, "mem usage=0.50", "mem usage=-0.50", "cuda_graphs"),
        (LLAMACPP_NEW, "=   304.75", "=  -304.75", "activations"),
        (BREAKDOWN, "78.57/79.18", "80.57/79.18", "context"),
    ],
)
def test_of_every_engine(log: str, old: str, new: str, term: str) -> None:
    assert old in log
    start = one(log.replace(old, new))
    assert term in start.unusable
    lost = {"non_torch": "runtime_context", "context": "runtime_context"}.get(term, term)
    assert lost not in figures(start)


def test_weights_that_are_more_than_what_they_are_a_part_of() -> None:
    assert "runtime_context" not in figures(one(CONSUMED.replace("10.29 GiB for consumed", "9.29 GiB for consumed")))


# Hostile logs.


@given(st.text(max_size=2000))
def test_any_text_is_read_without_an_error(text: str) -> None:
    starts_of([text, BREAKDOWN + text, text + "GiB"], dialects=DIALECTS)


@given(
    st.lists(st.sampled_from((BREAKDOWN + SGLANG_LOG + LLAMACPP_NEW).splitlines()), max_size=30), st.text(max_size=9)
)
def test_lines_in_any_order_with_anything_between_are_read(lines: list[str], between: str) -> None:
    for start in starts_of([line.replace("=", f"={between}") for line in lines], dialects=DIALECTS):
        assert all(value >= 0 for value in figures(start).values())


@pytest.mark.parametrize(
    "line",
    [
        "a" * 60_000 + " GiB",
        "Model loading took " + "9" * 60_000 + " GiB",
        "Load weight end. " * 4000 + "mem usage=",
        "buffer size" + " " * 60_000 + "= 1 MiB",
        "x: " * 20_000 + "buffer size",
        "non-default args: " + "'model': " * 7000,
        "█" * 20_000 + " version ",
        "Device 0: " * 6000,
    ],
)
def test_a_long_line_costs_little(line: str) -> None:
    began = time.process_time()
    starts_of([line], dialects=DIALECTS)
    assert time.process_time() - began < 1


def test_a_log_without_figures_is_no_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for content in (b"", b"\x00\xff" * 1000, b"INFO vLLM API server version 0.33.0\n"):
        log.write_bytes(content)
        with pytest.raises(InvalidInputError, match="vrampack calibrate --command"):
            read_starts(log, dialects=DIALECTS)
    with pytest.raises(InvalidInputError, match="No such file"):
        read_starts(tmp_path / "absent", dialects=DIALECTS)
    log.write_text(BREAKDOWN)
    [start] = read_starts(log, dialects=DIALECTS)
    assert start == one(BREAKDOWN)


def test_a_log_is_read_up_to_a_size_and_with_a_number_of_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (3 * enginelogs.MAX_LINE) + b"\n" + BREAKDOWN.encode())
    assert len(read_starts(log, dialects=DIALECTS)) == 1
    monkeypatch.setattr(enginelogs, "MAX_LOG_BYTES", 1024)
    with pytest.raises(InvalidInputError, match="cut out the start"):
        read_starts(log, dialects=DIALECTS)
    with pytest.raises(InvalidInputError, match="starts in one log"):
        starts_of(["vLLM API server version 1", "Model loading took 1 GiB and"] * 1002, dialects=DIALECTS)


def test_ranks_are_bounded() -> None:
    lines = (f"(Worker_TP{rank} pid=1) Model loading took 1.00 GiB and 1 s" for rank in range(2000))
    [start] = starts_of(lines, dialects=DIALECTS)
    assert len(start.ranks) == enginelogs.MAX_RANKS
